//! The compact serialization of a JWS (RFC 7515 section 7.1): three canonical base64url parts and nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::header::Header;
use super::json;
use crate::keys::Algorithm;

/// A token taken apart. Nothing in it is verified.
pub struct Compact<'t> {
    /// What the token says of itself.
    pub header: Header,
    /// What is signed; for a token of ours the JSON text of its claims.
    pub payload: Vec<u8>,
    /// What the signature is over: header, dot, payload, as sent (RFC 7515 section 5.2).
    pub signing_input: &'t [u8],
    /// The signature; empty only beside an algorithm that is none of ours, which is refused for that.
    pub signature: Vec<u8>,
}

impl<'t> Compact<'t> {
    /// Takes a token apart; the error says in words what is wrong, without quoting the token.
    pub fn parse(token: &'t str) -> Result<Self, String> {
        let (signing_input, signature) = token.rsplit_once('.').ok_or_else(not_three)?;
        let (header, payload) = signing_input.split_once('.').ok_or_else(not_three)?;
        if payload.contains('.') {
            return Err(if token.split('.').count() == 5 {
                "it has five parts: an encrypted token (JWE), not a signed one".to_owned()
            } else {
                not_three()
            });
        }
        let members =
            json::object(&decode(header, "header")?).map_err(|why| format!("its header is {why}"))?;
        let header = Header::read(members)?;
        let payload = decode(payload, "claims")?;
        let signature = decode(signature, "signature")?;
        // A token that says that it has none is refused for its algorithm, which tells more.
        if signature.is_empty() && Algorithm::from_name(&header.algorithm).is_some() {
            return Err("it has no signature".to_owned());
        }
        Ok(Self { header, payload, signing_input: signing_input.as_bytes(), signature })
    }

    /// The payload as the claims of a JWT (RFC 7519 section 7.2 step 10); the error as in [`Self::parse`].
    pub fn claims(&self) -> Result<Map<String, Value>, String> {
        json::object(&self.payload).map_err(|why| format!("its claims are {why}"))
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
