//! Identity headers: claims of the verified token, told to the API.

use std::borrow::Cow;

use http::header::{HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;

use crate::catalogue::Reason;
use crate::rejection::Rejection;
use crate::token::{Claims, scalar_text};

/// A header and the claim that it tells.
#[derive(Clone, Debug)]
pub struct IdentityHeader {
    /// The header's name.
    pub header: HeaderName,
    /// Where the claim is, one name a level.
    pub claim: Box<[Box<str>]>,
}

/// Non-ASCII is percent-encoded as UTF-8, and so is `%`, so that decoding gives back exactly the claim.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

impl IdentityHeader {
    /// The header's value: arrays joined by spaces, an absent claim no header. A value that no header can carry
    /// refuses the request, since the API must not decide without it.
    pub fn value(&self, claims: &Claims) -> Result<Option<HeaderValue>, Rejection> {
        match claims.at(&self.claim) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => self.render(value).map(Some),
        }
    }

    fn render(&self, value: &Value) -> Result<HeaderValue, Rejection> {
        let refused = || {
            Rejection::new(Reason::ClaimInvalid)
                .hint("A claim of the token cannot be passed on to the API.")
                .log(format!("claim {} cannot be the value of header {}", self.claim.join("."), self.header))
        };
        let text = match value {
            Value::String(text) => plain(text).ok_or_else(refused)?,
            Value::Array(items) => {
                // A space within an item is encoded, lest one value pass for two.
                let text = |item| Some(plain(&scalar_text(item)?)?.replace(' ', "%20"));
                let texts: Option<Vec<String>> = items.iter().map(text).collect();
                texts.ok_or_else(refused)?.join(" ").into()
            }
            other => scalar_text(other).ok_or_else(refused)?.into(),
        };
        HeaderValue::from_str(&text).map_err(|_| refused())
    }
}

/// The text as ASCII; `None` for what would break a header apart or vanish at its ends.
fn plain(text: &str) -> Option<Cow<'_, str>> {
    if text.trim() != text {
        return None;
    }
    // Nearly every claim; to the end without a way out in between, for vector instructions.
    if text.bytes().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~') & (byte != b'%')) {
        return Some(Cow::Borrowed(text));
    }
    (!text.chars().any(char::is_control)).then(|| Cow::Owned(utf8_percent_encode(text, ENCODED).to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::IdentityHeader;
    use crate::token::Claims;

    fn told(claim: &Value) -> Result<Option<String>, ()> {
        let header = IdentityHeader {
            header: "x-auth".parse().unwrap(),
            claim: Box::new(["realm".into(), "value".into()]),
        };
        let Value::Object(members) = json!({ "realm": { "value": claim } }) else { unreachable!() };
        let value = header.value(&Claims::new(members)).map_err(|_| ())?;
        Ok(value.map(|value| value.to_str().unwrap().to_owned()))
    }

    #[test]
    fn values_are_told_exactly_or_the_request_is_refused() {
        for (claim, expected) in [
            (json!("alice"), Some("alice")),
            (json!(["a", "b"]), Some("a b")),
            (json!([1, true]), Some("1 true")),
            (json!(["user admin", "b"]), Some("user%20admin b")),
            (json!(7), Some("7")),
            (json!(""), Some("")),
            (json!("J\u{fc}rgen"), Some("J%C3%BCrgen")),
            (json!("100%"), Some("100%25")),
            (json!(null), None),
        ] {
            assert_eq!(told(&claim), Ok(expected.map(str::to_owned)), "{claim}");
        }
        for claim in
            [json!("a\nb"), json!("a\u{0}"), json!({"a": 1}), json!([["a"]]), json!(" a"), json!(["a\r"])]
        {
            assert_eq!(told(&claim), Err(()), "{claim}");
        }
    }
}
