//! Authorization: whether a live token may use a route, on a connection with this client certificate or none. Makes the
//! only value that lets a request through, the [`Permit`]. Knows nothing of HTTP.

use std::fmt;
use std::iter;

use serde_json::Value;

use crate::catalogue::Reason;
use crate::certificate::{Admitted, CertificateRules, ClientCertificate, check_binding};
use crate::cors::Preflight;
use crate::rejection::Rejection;
use crate::revocation::LiveToken;
use crate::token::{Claims, Issuer, IssuerSet, scalar_text};

/// What a route says of who may use it. There is no third way: a route without a policy is not public.
#[derive(Clone, Debug)]
pub enum Access {
    /// Everybody, by the operator's explicit word.
    Public,
    /// Whoever presents a client certificate that satisfies these rules; no token is asked for.
    Certificate(CertificateRules),
    /// Whoever presents a token that satisfies this policy.
    Require(Policy),
}

/// What a token must have to use a route.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Whose tokens are accepted.
    pub issuers: IssuerSet,
    /// Scopes that must all be granted.
    pub all_scopes: Vec<Box<str>>,
    /// Scopes of which one must be granted, unless there are none here.
    pub any_scopes: Vec<Box<str>>,
    /// Rules on claims that must all hold.
    pub rules: Vec<ClaimRule>,
    /// What the client certificate must say besides; `None` if none is asked for.
    pub client_certificate: Option<CertificateRules>,
}

/// A rule on one claim. An absent claim, or one that is not of a comparable type, never satisfies a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRule {
    /// What the log calls it.
    pub name: Box<str>,
    /// Where the claim is, one name a level.
    pub claim: Vec<Box<str>>,
    /// What must hold.
    pub test: ClaimTest,
}

/// What must hold of a claim. Numbers and booleans compare as JSON writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimTest {
    /// A single value equal to this.
    Equals(Box<str>),
    /// An array that has this among its values.
    Contains(Box<str>),
    /// A single value equal to one of these.
    OneOf(Vec<Box<str>>),
}

/// One of the checks of a policy.
#[derive(Clone, Copy, Debug)]
pub enum PolicyCheck<'p> {
    /// What the client certificate must say.
    Certificate(&'p CertificateRules),
    /// The client certificate is the one that the token is bound to.
    Binding,
    /// All scopes together.
    Scopes,
    /// This rule.
    Rule(&'p ClaimRule),
}

/// Whether who may not use a route is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforcement {
    /// Yes.
    #[default]
    Enforced,
    /// No: a refusal is written down, and the request goes on (shadow mode).
    Shadow,
}

/// Leave to be forwarded, and on whose behalf. Made by [`Policy::authorize`], [`Permit::public`],
/// [`Permit::preflight`], [`Permit::certificate`] and [`Permit::unenforced`] alone.
#[derive(Clone, Debug)]
pub struct Permit(Grounds);

/// Why a request may be forwarded.
#[derive(Clone, Debug)]
enum Grounds {
    /// Whoever asks may.
    Anyone,
    /// The client certificate.
    Certificate,
    /// The token.
    Token(LiveToken),
    /// None: it was refused, and the refusal is not enforced.
    Unenforced,
}

impl Permit {
    /// Leave for a route that is declared public; `None` for any other.
    pub fn public(access: &Access) -> Option<Self> {
        matches!(access, Access::Public).then_some(Self(Grounds::Anyone))
    }

    /// Leave for a browser's question, which carries neither credentials nor a body.
    pub fn preflight(_: &Preflight) -> Self {
        Self(Grounds::Anyone)
    }

    /// Leave for who was let in by a certificate.
    pub fn certificate(_: Admitted) -> Self {
        Self(Grounds::Certificate)
    }

    /// Leave in spite of a refusal, where refusals are not enforced; `None` where they are.
    pub fn unenforced(enforcement: Enforcement, _refused: &Rejection) -> Option<Self> {
        (enforcement == Enforcement::Shadow).then_some(Self(Grounds::Unenforced))
    }

    /// The token that the request speaks for; `None` where none was asked for, or it was refused.
    pub fn token(&self) -> Option<&LiveToken> {
        match &self.0 {
            Grounds::Token(token) => Some(token),
            Grounds::Anyone | Grounds::Certificate | Grounds::Unenforced => None,
        }
    }

    /// Whether the gateway vouches for who sends the request, and so may tell the API who it is.
    pub fn vouches(&self) -> bool {
        !matches!(self.0, Grounds::Unenforced)
    }
}

impl Policy {
    /// Makes the checks of a token that came on a connection with this client certificate, up to the first that fails.
    pub fn authorize(
        &self,
        token: LiveToken,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Permit, Rejection> {
        self.checks(token.issuer(), token.claims(), certificate).try_for_each(|(_, outcome)| outcome)?;
        Ok(Permit(Grounds::Token(token)))
    }

    /// The checks in their order, each made when its turn comes: the client certificate, the token's binding to it, the
    /// scopes, the rules.
    pub fn checks<'p>(
        &'p self,
        issuer: &'p Issuer,
        claims: &'p Claims,
        certificate: Option<&'p ClientCertificate>,
    ) -> impl Iterator<Item = (PolicyCheck<'p>, Result<(), Rejection>)> {
        let of_certificate = self
            .client_certificate
            .iter()
            .map(move |rules| (PolicyCheck::Certificate(rules), rules.admit(certificate).map(|_| ())));
        let binding =
            iter::once_with(move || (PolicyCheck::Binding, check_binding(issuer, claims, certificate)));
        let scopes = iter::once_with(|| (PolicyCheck::Scopes, self.check_scopes(claims)));
        of_certificate
            .chain(binding)
            .chain(scopes)
            .chain(self.rules.iter().map(|rule| (PolicyCheck::Rule(rule), rule.check(claims))))
    }

    /// The scopes that a challenge asks for (RFC 6750 section 3): all that the route requires.
    pub fn scope_text(&self) -> Option<String> {
        let needed: Vec<&str> =
            self.all_scopes.iter().chain(&self.any_scopes).map(|scope| &**scope).collect();
        (!needed.is_empty()).then(|| needed.join(" "))
    }

    fn check_scopes(&self, claims: &Claims) -> Result<(), Rejection> {
        let granted = |scope: &str| claims.scopes().binary_search_by(|held| (**held).cmp(scope)).is_ok();
        let all = self.all_scopes.iter().all(|scope| granted(scope));
        let any = self.any_scopes.is_empty() || self.any_scopes.iter().any(|scope| granted(scope));
        if all && any {
            return Ok(());
        }
        let needed = self.scope_text().unwrap_or_default();
        Err(Rejection::new(Reason::InsufficientScope)
            .hint(format!("This route requires the scope '{needed}'."))
            .scope(needed))
    }
}

impl ClaimRule {
    fn check(&self, claims: &Claims) -> Result<(), Rejection> {
        if claims.at(&self.claim).is_some_and(|value| self.test.holds(value)) {
            return Ok(());
        }
        Err(Rejection::new(Reason::ClaimRule).log(format!("claim rule '{}' does not hold", self.name)))
    }
}

impl fmt::Display for ClaimTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equals(wanted) => write!(f, "'{wanted}'"),
            Self::Contains(wanted) => write!(f, "a list with '{wanted}'"),
            Self::OneOf(wanted) => write!(f, "one of '{}'", wanted.join("', '")),
        }
    }
}

impl ClaimTest {
    fn holds(&self, value: &Value) -> bool {
        let is = |value: &Value, wanted: &str| match value {
            Value::String(text) => text == wanted,
            other => scalar_text(other).is_some_and(|text| text == wanted),
        };
        match self {
            Self::Equals(wanted) => is(value, wanted),
            Self::OneOf(wanted) => wanted.iter().any(|wanted| is(value, wanted)),
            Self::Contains(wanted) => {
                value.as_array().is_some_and(|items| items.iter().any(|item| is(item, wanted)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::ClaimTest;

    #[test]
    fn tests_hold_for_what_they_say_and_for_nothing_near_it() {
        let equals = ClaimTest::Equals("a".into());
        assert!(equals.holds(&json!("a")));
        for other in [json!("A"), json!("a "), json!(["a"]), json!({"a": "a"}), json!(null)] {
            assert!(!equals.holds(&other), "{other}");
        }
        let contains = ClaimTest::Contains("a".into());
        assert!(contains.holds(&json!(["b", "a"])));
        for other in [json!("a"), json!("ba"), json!([["a"]]), json!({"a": 1}), json!([])] {
            assert!(!contains.holds(&other), "{other}");
        }
        let one_of = ClaimTest::OneOf(vec!["1".into(), "true".into()]);
        assert!(one_of.holds(&json!(1)) && one_of.holds(&json!(true)) && one_of.holds(&json!("1")));
        assert!(!one_of.holds(&json!(1.5)) && !one_of.holds(&json!([1])));
    }
}
