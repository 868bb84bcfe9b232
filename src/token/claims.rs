//! The claims of a token (RFC 7519 section 4, RFC 9068 section 2), typed: a known claim of the wrong type is an
//! error, never taken for absent.

use serde_json::{Map, Number, Value};

use crate::clock::UnixSeconds;

/// The claims that valgate itself reads, and all others as they came.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    all: Map<String, Value>,
    scopes: Vec<Box<str>>,
}

/// A known claim that does not have its type: the claim's name, and what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongType {
    /// The claim's name.
    pub claim: &'static str,
    /// What it must be.
    pub expected: &'static str,
}

const STRINGS: [&str; 6] = ["iss", "sub", "jti", "sid", "client_id", "azp"];
const STRING: &str = "a string";
const STRING_OR_STRINGS: &str = "a string or an array of strings";
const SECONDS: &str = "a number of seconds since 1970";

impl Claims {
    /// Takes the members over. Types are checked by [`Self::check_types`] and by the accessors.
    pub fn new(all: Map<String, Value>) -> Self {
        let scopes = scopes_of(&all);
        Self { all, scopes }
    }

    /// The first known claim of the wrong type that no accessor reports (RFC 7519 section 4.1).
    pub fn check_types(&self) -> Result<(), WrongType> {
        for claim in STRINGS {
            self.text(claim)?;
        }
        if !matches!(self.all.get("scope"), None | Some(Value::String(_))) {
            return Err(WrongType { claim: "scope", expected: "a string of scopes separated by spaces" });
        }
        if !self.all.get("scp").is_none_or(is_string_or_strings) {
            return Err(WrongType { claim: "scp", expected: STRING_OR_STRINGS });
        }
        Ok(())
    }

    fn text(&self, claim: &'static str) -> Result<Option<&str>, WrongType> {
        match self.all.get(claim) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(WrongType { claim, expected: STRING }),
        }
    }

    /// `iss`.
    pub fn issuer(&self) -> Result<Option<&str>, WrongType> {
        self.text("iss")
    }

    /// `aud`, one or several (RFC 7519 section 4.1.3); `None` if absent.
    pub fn audiences(&self) -> Result<Option<Vec<&str>>, WrongType> {
        match self.all.get("aud") {
            None => Ok(None),
            Some(value) if is_string_or_strings(value) => Ok(Some(strings(value).collect())),
            Some(_) => Err(WrongType { claim: "aud", expected: STRING_OR_STRINGS }),
        }
    }

    /// `exp`, rounded down: a fraction never lengthens a token's life.
    pub fn expires(&self) -> Result<Option<UnixSeconds>, WrongType> {
        self.seconds("exp", f64::floor)
    }

    /// `nbf`, rounded up: a fraction never makes a token valid early.
    pub fn not_before(&self) -> Result<Option<UnixSeconds>, WrongType> {
        self.seconds("nbf", f64::ceil)
    }

    /// `iat`, rounded down: a fraction never lifts a token over a cut-off.
    pub fn issued_at(&self) -> Result<Option<UnixSeconds>, WrongType> {
        self.seconds("iat", f64::floor)
    }

    fn seconds(&self, claim: &'static str, round: fn(f64) -> f64) -> Result<Option<UnixSeconds>, WrongType> {
        let wrong = WrongType { claim, expected: SECONDS };
        match self.all.get(claim) {
            None => Ok(None),
            Some(Value::Number(number)) => numeric_date(number, round).map(Some).ok_or(wrong),
            Some(_) => Err(wrong),
        }
    }

    /// `sub`.
    pub fn subject(&self) -> Option<&str> {
        self.text("sub").ok().flatten()
    }

    /// `jti`.
    pub fn token_id(&self) -> Option<&str> {
        self.text("jti").ok().flatten()
    }

    /// `sid`, the session (`OpenID` Connect Front-Channel Logout 1.0 section 3).
    pub fn session(&self) -> Option<&str> {
        self.text("sid").ok().flatten()
    }

    /// `client_id` (RFC 9068 section 2.2), or `azp` where an issuer uses that.
    pub fn client(&self) -> Option<&str> {
        self.text("client_id").ok().flatten().or_else(|| self.text("azp").ok().flatten())
    }

    /// The scopes granted: `scope` (RFC 8693 section 4.2) and `scp` together.
    pub fn scopes(&self) -> &[Box<str>] {
        &self.scopes
    }

    /// Whether the claim is there, with a value other than null.
    pub fn has(&self, claim: &str) -> bool {
        self.all.get(claim).is_some_and(|value| !value.is_null())
    }

    /// The claim at this path, one name a level.
    pub fn at<S: AsRef<str>>(&self, path: &[S]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        let start = self.all.get(first.as_ref())?;
        rest.iter().try_fold(start, |value, name| value.as_object()?.get(name.as_ref()))
    }

    /// All claims as they came.
    pub fn all(&self) -> &Map<String, Value> {
        &self.all
    }
}

/// A single JSON value as the text that a header or a rule compares: strings as they are, numbers and booleans as
/// JSON writes them; `None` for null, arrays and objects.
pub fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

fn is_string_or_strings(value: &Value) -> bool {
    match value {
        Value::String(_) => true,
        Value::Array(items) => items.iter().all(Value::is_string),
        _ => false,
    }
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    let one = value.as_str();
    let many = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    one.into_iter().chain(many)
}

fn scopes_of(all: &Map<String, Value>) -> Vec<Box<str>> {
    let mut scopes: Vec<Box<str>> = [all.get("scope").filter(|value| value.is_string()), all.get("scp")]
        .into_iter()
        .flatten()
        .flat_map(strings)
        .flat_map(|text| text.split(' '))
        .filter(|scope| !scope.is_empty())
        .map(Box::from)
        .collect();
    scopes.sort_unstable();
    scopes.dedup();
    scopes
}

/// A `NumericDate` (RFC 7519 section 2): any number from 0 up to what an `f64` holds exactly, well past year 9999.
fn numeric_date(number: &Number, round: fn(f64) -> f64) -> Option<UnixSeconds> {
    const LAST: i64 = 1 << 53;
    if let Some(whole) = number.as_i64() {
        return (0..=LAST).contains(&whole).then_some(UnixSeconds(whole));
    }
    let rounded = round(number.as_f64()?);
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "bounded right here")]
    (0.0..=LAST as f64).contains(&rounded).then_some(UnixSeconds(rounded as i64))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Claims;
    use crate::clock::UnixSeconds;

    fn claims(value: Value) -> Claims {
        let Value::Object(members) = value else { panic!("an object") };
        Claims::new(members)
    }

    #[test]
    fn a_date_of_the_wrong_type_or_range_is_an_error_not_absent() {
        for bad in [
            json!("1700000000"),
            json!(null),
            json!(true),
            json!([1]),
            json!({}),
            json!(-1),
            json!(1e300),
            json!(u64::MAX),
            json!(-0.5),
        ] {
            assert!(claims(json!({ "exp": bad })).expires().is_err(), "{bad}");
        }
    }

    #[test]
    fn fractions_round_to_the_strict_side() {
        let claims = claims(json!({ "exp": 10.9, "nbf": 10.1, "iat": 10.9 }));
        assert_eq!(claims.expires(), Ok(Some(UnixSeconds(10))));
        assert_eq!(claims.not_before(), Ok(Some(UnixSeconds(11))));
        assert_eq!(claims.issued_at(), Ok(Some(UnixSeconds(10))));
    }

    #[test]
    fn scopes_come_from_scope_and_scp() {
        let both = claims(json!({ "scope": "b a", "scp": ["c", "a"] }));
        assert_eq!(both.scopes(), ["a", "b", "c"].map(Box::<str>::from));
        let entra = claims(json!({ "scp": "x y" }));
        assert_eq!(entra.scopes(), ["x", "y"].map(Box::<str>::from));
        assert!(claims(json!({ "scope": ["a"] })).scopes().is_empty());
    }

    #[test]
    fn known_claims_must_have_their_type() {
        for bad in [
            json!({ "sub": 7 }),
            json!({ "jti": ["x"] }),
            json!({ "sid": null }),
            json!({ "client_id": {} }),
            json!({ "scope": ["a"] }),
            json!({ "scp": [1] }),
            json!({ "iss": 1 }),
        ] {
            assert!(claims(bad.clone()).check_types().is_err(), "{bad}");
        }
        assert!(claims(json!({ "aud": ["a", 1] })).audiences().is_err());
        assert!(claims(json!({ "aud": {} })).audiences().is_err());
        assert_eq!(claims(json!({ "aud": [] })).audiences(), Ok(Some(vec![])));
    }
}
