//! The JOSE header (RFC 7515 section 4), read strictly: a member that we know must have its type, and what we do
//! not understand but would have to (`crit`, `b64`) is refused.

use serde_json::{Map, Value};

/// The members of the header that decide anything. `jwk`, `jku`, `x5c` and `x5u` are never looked at: a token does
/// not bring its own key.
#[derive(Clone, Debug)]
pub struct Header {
    /// `alg`, whatever it names.
    pub algorithm: String,
    /// `kid`.
    pub key_id: Option<String>,
    /// `typ`, as it came.
    pub kind: Option<String>,
}

impl Header {
    /// Reads the header's members; the error says in words what is wrong.
    pub fn read(mut members: Map<String, Value>) -> Result<Self, &'static str> {
        if members.contains_key("crit") {
            return Err("the header lists critical extensions (crit), and none is understood here");
        }
        if members.contains_key("b64") {
            return Err("the header asks for an unencoded payload (b64)");
        }
        if members.contains_key("enc") {
            return Err("the token is encrypted (JWE), not signed");
        }
        Ok(Self {
            algorithm: text(&mut members, "alg", "the header's alg is not a string")?
                .ok_or("the header names no algorithm (alg)")?,
            key_id: text(&mut members, "kid", "the header's kid is not a string")?,
            kind: text(&mut members, "typ", "the header's typ is not a string")?,
        })
    }

    /// The media type that `typ` names, in lower case and without `application/` (RFC 7515 section 4.1.9).
    pub fn media_type(&self) -> Option<String> {
        let lower = self.kind.as_ref()?.to_ascii_lowercase();
        Some(lower.strip_prefix("application/").map(str::to_owned).unwrap_or(lower))
    }
}

/// The member as text, if it is there; `wrong` if it has another type.
fn text(
    members: &mut Map<String, Value>,
    name: &str,
    wrong: &'static str,
) -> Result<Option<String>, &'static str> {
    match members.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong),
    }
}
