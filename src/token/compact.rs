//! The compact serialization (RFC 7515 section 7.1): three canonical base64url parts and nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::header::Header;
use super::json;

/// A token taken apart. Nothing in it is verified.
pub struct Compact<'t> {
    pub header: Header,
    pub claims: Map<String, Value>,
    /// What the signature is over: header, dot, claims, as sent (RFC 7515 section 5.2).
    pub signing_input: &'t [u8],
    pub signature: Vec<u8>,
}

impl<'t> Compact<'t> {
    /// Takes a token apart; the error says in words what is wrong, without quoting the token.
    pub fn parse(token: &'t str) -> Result<Self, String> {
        let (signing_input, signature) = token.rsplit_once('.').ok_or_else(not_three)?;
        let (header, claims) = signing_input.split_once('.').ok_or_else(not_three)?;
        if claims.contains('.') {
            return Err(if token.split('.').count() == 5 {
                "it has five parts: an encrypted token (JWE), not a signed one".to_owned()
            } else {
                not_three()
            });
        }
        let members =
            json::object(&decode(header, "header")?).map_err(|why| format!("its header is {why}"))?;
        let header = Header::read(members)?;
        let claims =
            json::object(&decode(claims, "claims")?).map_err(|why| format!("its claims are {why}"))?;
        let signature = decode(signature, "signature")?;
        if signature.is_empty() {
            return Err("it has no signature".to_owned());
        }
        Ok(Self { header, claims, signing_input: signing_input.as_bytes(), signature })
    }
}

fn not_three() -> String {
    "it does not have exactly three parts separated by dots".to_owned()
}

/// Canonical, unpadded base64url only: one token has one spelling, so that nothing keyed by a token's bytes can be
/// walked around by spelling it another way.
fn decode(part: &str, name: &str) -> Result<Vec<u8>, String> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| format!("its {name} is not canonical unpadded base64url"))
}
