//! A status list as it is published (draft-ietf-oauth-status-list-21 sections 4.2 and 5.1), read strictly.

use std::io::Read as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::read::ZlibDecoder;
use serde_json::{Map, Value};

use crate::clock::UnixSeconds;
use crate::feeds::signed::SignatureError;
use crate::revocation::StatusList;
use crate::token::Claims;

/// Why a list is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum DocumentError {
    #[error(transparent)]
    Signature(#[from] SignatureError),
    #[error("it is another list: its sub is not the URI that tokens name")]
    OtherList,
    #[error("it is by another issuer (iss)")]
    OtherIssuer,
    #[error("its claim {0} is missing or of the wrong type")]
    Claim(&'static str),
    #[error("it has expired (exp)")]
    Expired,
    #[error("it is of the future (iat)")]
    Future,
    #[error("it is older (iat) than the one that is in force")]
    Older,
    #[error("its list (lst) is not DEFLATE data in the ZLIB format, in base64url")]
    Compression,
    #[error("its list is larger than {0} bytes inflated")]
    TooLarge(u64),
}

/// What is expected of a list besides its signature.
#[derive(Clone, Debug)]
pub(super) struct Expected<'a> {
    pub uri: &'a str,
    /// Who must have made it, if it says who; `None`: whoever holds the keys.
    pub issuer: Option<&'a str>,
    pub max_size: u64,
    pub now: UnixSeconds,
    /// One that is over still tells what was revoked: for a copy that was in force already.
    pub may_be_over: bool,
}

/// A list and how long it lasts.
#[derive(Debug)]
pub(super) struct Document {
    pub list: StatusList,
    pub ttl: Option<Duration>,
    pub issued_at: UnixSeconds,
    pub expires: Option<UnixSeconds>,
}

/// How far clocks may differ.
const LEEWAY: Duration = Duration::from_secs(60);

/// The list in these claims, whose signature was found good. Inflates: not for a thread that others wait for.
pub(super) fn read(members: Map<String, Value>, expected: &Expected<'_>) -> Result<Document, DocumentError> {
    let claims = Claims::new(members);
    if claims.subject() != Some(expected.uri) {
        return Err(DocumentError::OtherList);
    }
    let named = claims.issuer().map_err(|_| DocumentError::Claim("iss"))?;
    if named.zip(expected.issuer).is_some_and(|(named, issuer)| named != issuer) {
        return Err(DocumentError::OtherIssuer);
    }
    let issued_at = claims.issued_at().ok().flatten().ok_or(DocumentError::Claim("iat"))?;
    if issued_at > expected.now.plus(LEEWAY) {
        return Err(DocumentError::Future);
    }
    let expires = claims.expires().map_err(|_| DocumentError::Claim("exp"))?;
    if !expected.may_be_over && expires.is_some_and(|expires| expected.now >= expires) {
        return Err(DocumentError::Expired);
    }
    let ttl = match claims.all().get("ttl") {
        None => None,
        Some(ttl) => Some(seconds(ttl).ok_or(DocumentError::Claim("ttl"))?),
    };
    let list = claims.all().get("status_list").ok_or(DocumentError::Claim("status_list"))?;
    let bits = list.get("bits").and_then(Value::as_u64).and_then(|bits| u8::try_from(bits).ok());
    let compressed =
        list.get("lst").and_then(Value::as_str).ok_or(DocumentError::Claim("status_list.lst"))?;
    let bytes = inflate(compressed, expected.max_size)?;
    let list = bits.and_then(|bits| StatusList::new(bits, bytes));
    Ok(Document { list: list.ok_or(DocumentError::Claim("status_list.bits"))?, ttl, issued_at, expires })
}

/// A positive number of seconds; a fraction never prolongs.
fn seconds(value: &Value) -> Option<Duration> {
    let seconds = value.as_f64().filter(|seconds| *seconds > 0.0)?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// One byte beyond the limit is inflated, so that a list that is too large is seen to be.
fn inflate(compressed: &str, max_size: u64) -> Result<Vec<u8>, DocumentError> {
    let compressed = URL_SAFE_NO_PAD.decode(compressed).map_err(|_| DocumentError::Compression)?;
    let mut bytes = Vec::new();
    ZlibDecoder::new(compressed.as_slice())
        .take(max_size.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|_| DocumentError::Compression)?;
    if bytes.len() as u64 > max_size {
        return Err(DocumentError::TooLarge(max_size));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const URI: &str = "https://id.example.com/status/1";
    const NOW: i64 = 1_800_000_000;
    /// The example of the draft's section 4.2: 0xB9 0xA3.
    const LST: &str = "eNrbuRgAAhcBXQ";

    #[allow(clippy::needless_pass_by_value, reason = "so that a test can write `json!` in place")]
    fn read_with(changes: Value) -> Result<Document, String> {
        let mut members = json!({
            "sub": URI, "iss": "https://id.example.com/", "iat": NOW - 10, "exp": NOW + 600, "ttl": 60,
            "status_list": { "bits": 1, "lst": LST },
        });
        for (name, value) in changes.as_object().unwrap() {
            members[name] = value.clone();
        }
        let members = members.as_object().unwrap().clone();
        let members = members.into_iter().filter(|(_, value)| !value.is_null()).collect();
        let expected = Expected {
            uri: URI,
            issuer: Some("https://id.example.com/"),
            max_size: 2,
            now: UnixSeconds(NOW),
            may_be_over: false,
        };
        read(members, &expected).map_err(|error| error.to_string())
    }

    #[test]
    fn the_example_of_the_draft_reads_as_it_says() {
        let document = read_with(json!({})).unwrap();
        let statuses: Vec<u8> = (0..16).filter_map(|index| document.list.get(index)).collect();
        assert_eq!(statuses, [1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1]);
        assert_eq!(document.ttl, Some(Duration::from_secs(60)));
        assert_eq!(document.expires, Some(UnixSeconds(NOW + 600)));
        assert!(read_with(json!({ "ttl": null, "exp": null, "iss": null })).is_ok());
    }

    #[test]
    fn what_is_not_exactly_a_list_for_us_is_not_taken() {
        let bomb = {
            use std::io::Write as _;
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(&vec![0; 10_000_000]).unwrap();
            URL_SAFE_NO_PAD.encode(encoder.finish().unwrap())
        };
        for changes in [
            json!({ "sub": null }),
            json!({ "sub": "https://id.example.com/status/2" }),
            json!({ "iss": "https://evil.example.com/" }),
            json!({ "iat": null }),
            json!({ "iat": NOW + 3600 }),
            json!({ "exp": NOW }),
            json!({ "exp": "soon" }),
            json!({ "ttl": 0 }),
            json!({ "ttl": -1 }),
            json!({ "ttl": "60" }),
            json!({ "status_list": null }),
            json!({ "status_list": { "bits": 3, "lst": LST } }),
            json!({ "status_list": { "bits": 257, "lst": LST } }),
            json!({ "status_list": { "bits": 1 } }),
            json!({ "status_list": { "bits": 1, "lst": "" } }),
            json!({ "status_list": { "bits": 1, "lst": "AAAA" } }),
            json!({ "status_list": { "bits": 1, "lst": format!("{LST}==") } }),
            json!({ "status_list": { "bits": 1, "lst": LST[..LST.len() - 4] } }),
            json!({ "status_list": { "bits": 1, "lst": bomb } }),
        ] {
            assert!(read_with(changes.clone()).is_err(), "{changes}");
        }
    }
}
