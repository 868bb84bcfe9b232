//! The JWS layer as the verifier uses it: the same parser, the same choice of a key, the same signature check, but
//! for payloads that are no claims of ours.

use serde_json::{Value, json};
use valgate::keys::{Algorithm, JwksLimits, KeySet, parse_jwks};
use valgate::token::{BearerToken, Compact};

/// The payload of `token` if one of `keys` signed it, otherwise why it is refused.
pub fn verify(token: &str, keys: &[Value]) -> Result<Vec<u8>, String> {
    let token = BearerToken::new(token).ok_or("characters that no bearer token has")?;
    let jws = Compact::parse(token.expose())?;
    let name = &jws.header.algorithm;
    let algorithm = Algorithm::from_name(name).ok_or(format!("algorithm {name}"))?;
    let key_set = key_set(keys)?;
    let key = key_set.select(jws.header.key_id.as_deref(), algorithm).map_err(|miss| format!("{miss:?}"))?;
    let signed = key.verify(algorithm, jws.signing_input, &jws.signature);
    if signed { Ok(jws.payload) } else { Err("the signature does not match".to_owned()) }
}

/// The keys as a gateway would have them that fetched this set.
pub fn key_set(keys: &[Value]) -> Result<KeySet, String> {
    let document = json!({ "keys": keys }).to_string();
    let set = parse_jwks(document.as_bytes(), &Algorithm::ALL, JwksLimits::default());
    set.map(|set| KeySet::new(set.keys)).map_err(|error| error.to_string())
}
