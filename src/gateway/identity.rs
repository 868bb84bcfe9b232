//! Identity headers: claims of the verified token, and what the client certificate says, told to the API.

use std::borrow::Cow;

use http::header::{HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;

use super::scribe::Scribe;
use crate::catalogue::Reason;
use crate::certificate::{CertificateFact, ClientCertificate};
use crate::rejection::Rejection;
use crate::token::{Claims, scalar_text};

/// A header and what it tells.
#[derive(Clone, Debug)]
pub struct IdentityHeader {
    /// The header's name.
    pub header: HeaderName,
    /// Where its value comes from.
    pub source: IdentitySource,
}

/// Where an identity header's value comes from.
#[derive(Clone, Debug)]
pub enum IdentitySource {
    /// The claim at this path, one name a level.
    Claim(Box<[Box<str>]>),
    /// A part of the client certificate.
    Certificate(CertificateFact),
}

/// Non-ASCII is percent-encoded as UTF-8, and so is `%`, so that decoding gives back exactly the claim.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

impl IdentityHeader {
    /// The header's value: arrays joined by spaces, what is absent no header. A value that no header can carry
    /// refuses the request, since the API must not decide without it.
    pub(super) fn value(
        &self,
        scribe: &mut Scribe,
        claims: Option<&Claims>,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Option<HeaderValue>, Rejection> {
        match &self.source {
            IdentitySource::Claim(path) => match claims.and_then(|claims| claims.at(path)) {
                None | Some(Value::Null) => Ok(None),
                Some(value) => self.render(scribe, value, || format!("claim {}", path.join("."))).map(Some),
            },
            IdentitySource::Certificate(fact) => {
                let texts = certificate.map(|certificate| certificate.texts(*fact)).unwrap_or_default();
                let value = match <[String; 1]>::try_from(texts) {
                    Ok([text]) => Value::from(text),
                    Err(texts) if texts.is_empty() => return Ok(None),
                    Err(texts) => Value::from(texts),
                };
                self.render(scribe, &value, || format!("{} of the certificate", fact.name())).map(Some)
            }
        }
    }

    fn render(
        &self,
        scribe: &mut Scribe,
        value: &Value,
        what: impl Fn() -> String,
    ) -> Result<HeaderValue, Rejection> {
        let refused = || {
            Rejection::new(Reason::ClaimInvalid)
                .hint("What the token or certificate says of its bearer cannot be passed on to the API.")
                .log(format!("{} cannot be the value of header {}", what(), self.header))
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
        scribe.write([text.as_bytes()]).map_err(|_| refused())
    }
}

/// The text as ASCII; `None` for what would break a header apart or vanish at its ends.
fn plain(text: &str) -> Option<Cow<'_, str>> {
    if text.trim() != text {
        return None;
    }
    // Nearly every claim; to the end without a way out in between, for vector instructions.
    if text.bytes().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'$' | b'&'..=b'~')) {
        return Some(Cow::Borrowed(text));
    }
    (!text.chars().any(char::is_control)).then(|| Cow::Owned(utf8_percent_encode(text, ENCODED).to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{IdentityHeader, IdentitySource, Scribe};
    use crate::token::Claims;

    fn told(claim: &Value) -> Result<Option<String>, ()> {
        let header = IdentityHeader {
            header: "x-auth".parse().unwrap(),
            source: IdentitySource::Claim(Box::new(["realm".into(), "value".into()])),
        };
        let Value::Object(members) = json!({ "realm": { "value": claim } }) else { unreachable!() };
        let value = header.value(&mut Scribe::new(), Some(&Claims::new(members)), None).map_err(|_| ())?;
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
