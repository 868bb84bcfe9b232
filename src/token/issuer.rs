//! What is expected of a token of one issuer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::introspection::{Answer, IntrospectedTokens, Introspection, TokenText, unavailable};
use crate::keys::{Algorithm, KeySource};
use crate::rejection::Rejection;

/// A trusted issuer: its identity, what its tokens must look like, and its keys, which are its alone.
#[derive(Debug)]
pub struct Issuer {
    /// Its place in the configuration; dense, so that sets of issuers are bit sets.
    pub id: IssuerId,
    /// The name that configuration, logs and metrics use.
    pub name: Box<str>,
    /// The exact value of `iss` (compared by bytes: RFC 7519 section 4.1.1, RFC 8414 section 3.3).
    pub url: Box<str>,
    /// What its tokens must satisfy.
    pub expectations: Expectations,
    /// Its keys as last published.
    pub keys: Arc<KeySource>,
    /// How it is asked about tokens, if it is.
    pub introspection: Option<Introspection>,
}

impl Issuer {
    /// What the issuer says of the token.
    ///
    /// # Errors
    /// See [`Introspector::ask`](super::Introspector::ask); one that is not configured to be asked cannot be.
    pub async fn introspect(&self, token: TokenText) -> Result<Answer, Rejection> {
        match &self.introspection {
            Some(introspection) => introspection.port.ask(token).await,
            None => Err(unavailable("the issuer has no introspection endpoint")),
        }
    }
}

/// The rules for an issuer's tokens.
#[derive(Clone, Debug)]
pub struct Expectations {
    /// Whom a token must be meant for.
    pub audiences: Audiences,
    /// The algorithms accepted; the key must allow them too.
    pub algorithms: Vec<Algorithm>,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// The longest accepted `exp - iat`; a token then needs `iat`.
    pub max_lifetime: Option<Duration>,
    /// Claims that must be there besides `exp`, `iss` and `aud`.
    pub required_claims: Vec<Box<str>>,
    /// A stricter shape.
    pub profile: Option<Profile>,
    /// What becomes of tokens that are bound to a client certificate.
    pub binding: Binding,
}

/// What becomes of tokens that are bound to a client certificate (RFC 8705), and of those that are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Binding {
    /// A bound token needs its certificate; others need none.
    #[default]
    IfBound,
    /// Every token must be bound, and needs its certificate.
    Certificate,
    /// Nobody looks, by the operator's loud word.
    InsecureIgnore,
}

/// Whom tokens must be meant for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audiences {
    /// At least one of `aud` must be one of these.
    AnyOf(Vec<Box<str>>),
    /// Waived by the operator, by a loud name: any token of the issuer will do, whatever it was issued for.
    InsecureAny,
}

/// A standard profile of access tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// RFC 9068: `typ: at+jwt`, and the claims `sub`, `client_id`, `iat`, `jti` besides the usual.
    Rfc9068,
}

impl Profile {
    /// The claims that the profile demands beyond the usual ones (RFC 9068 section 2.2).
    pub const fn required_claims(self) -> &'static [&'static str] {
        match self {
            Self::Rfc9068 => &["sub", "client_id", "iat", "jti"],
        }
    }
}

/// The place of an issuer in the configuration, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IssuerId(pub u16);

/// Issuers that a route trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IssuerSet(Vec<u64>);

impl IssuerSet {
    /// Whether the set has this issuer.
    pub fn contains(&self, issuer: IssuerId) -> bool {
        let (word, bit) = Self::place(issuer);
        self.0.get(word).is_some_and(|bits| bits & bit != 0)
    }

    fn place(issuer: IssuerId) -> (usize, u64) {
        (usize::from(issuer.0 / 64), 1 << (issuer.0 % 64))
    }
}

impl FromIterator<IssuerId> for IssuerSet {
    fn from_iter<I: IntoIterator<Item = IssuerId>>(issuers: I) -> Self {
        let mut words = Vec::new();
        for issuer in issuers {
            let (word, bit) = Self::place(issuer);
            if words.len() <= word {
                words.resize(word + 1, 0);
            }
            if let Some(bits) = words.get_mut(word) {
                *bits |= bit;
            }
        }
        Self(words)
    }
}

/// All trusted issuers, found by `iss`.
#[derive(Debug, Default)]
pub struct Issuers {
    all: Vec<Arc<Issuer>>,
    by_url: HashMap<Box<str>, Arc<Issuer>>,
}

impl Issuers {
    /// Indexes the issuers; the configuration has made sure that their URLs differ.
    pub fn new(all: Vec<Arc<Issuer>>) -> Self {
        let by_url = all.iter().map(|issuer| (issuer.url.clone(), Arc::clone(issuer))).collect();
        Self { all, by_url }
    }

    /// The issuer of exactly this `iss`.
    pub fn find(&self, url: &str) -> Option<&Arc<Issuer>> {
        self.by_url.get(url)
    }

    /// The issuer of these that is asked about opaque tokens; the configuration has made sure that a route trusts one
    /// such issuer at the most.
    pub(super) fn of_opaque(&self, trusted: &IssuerSet) -> Option<(&Arc<Issuer>, &Introspection)> {
        let trusted = self.all.iter().filter(|issuer| trusted.contains(issuer.id));
        let mut asked = trusted.filter_map(|issuer| Some((issuer, issuer.introspection.as_ref()?)));
        asked.find(|(_, how)| how.tokens != IntrospectedTokens::Jwt)
    }

    /// Whether this very issuer is one of them: not another that came in its place, by other rules or other keys.
    pub fn has(&self, issuer: &Arc<Issuer>) -> bool {
        self.all.get(usize::from(issuer.id.0)).is_some_and(|ours| Arc::ptr_eq(ours, issuer))
    }

    /// All of them, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        self.all.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::{IssuerId, IssuerSet};

    #[test]
    fn a_set_has_what_was_put_in_and_nothing_else() {
        let set: IssuerSet = [IssuerId(0), IssuerId(64), IssuerId(200)].into_iter().collect();
        for id in 0..300 {
            assert_eq!(set.contains(IssuerId(id)), [0, 64, 200].contains(&id), "{id}");
        }
        assert!(!IssuerSet::default().contains(IssuerId(0)));
    }
}
