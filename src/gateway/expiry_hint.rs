//! Telling a client in time that its token is about to expire, so that it renews before it fails.
//!
//! `Token-Expires-In` has the seconds left, as `expires_in` has them in RFC 6749 section 5.1; `Link` (RFC 8288) leads to
//! where to renew.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue, LINK};

use crate::clock::{Clock, UnixSeconds};
use crate::token::IssuerId;

const TOKEN_EXPIRES_IN: HeaderName = HeaderName::from_static("token-expires-in");

/// When and what a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiryHint {
    /// How long before the end.
    pub within: Duration,
    /// The value of `Link`, if there is a place to renew at.
    pub link: Option<HeaderValue>,
}

/// The hints of one route, by the issuer of the token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpiryHints(Vec<(IssuerId, ExpiryHint)>);

impl FromIterator<(IssuerId, ExpiryHint)> for ExpiryHints {
    fn from_iter<I: IntoIterator<Item = (IssuerId, ExpiryHint)>>(hints: I) -> Self {
        Self(hints.into_iter().collect())
    }
}

impl ExpiryHints {
    /// Adds the headers to a response for a token of this issuer that ends soon.
    pub(super) fn put(&self, headers: &mut HeaderMap, issuer: IssuerId, expires: UnixSeconds, clock: &Clock) {
        let Some((_, hint)) = self.0.iter().find(|(known, _)| *known == issuer) else { return };
        let now = clock.wall();
        if now.plus(hint.within) < expires {
            return;
        }
        let left = expires.0.saturating_sub(now.0);
        headers.insert(TOKEN_EXPIRES_IN, u64::try_from(left).unwrap_or_default().into());
        if let Some(link) = &hint.link {
            headers.append(LINK, link.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_token_is_told_and_only_of_the_issuer_that_has_a_hint() {
        let (clock, _) = Clock::manual(UnixSeconds(1000));
        let link = Some(HeaderValue::from_static("<https://id.example.com/>; rel=\"x\""));
        let hints: ExpiryHints =
            [(IssuerId(1), ExpiryHint { within: Duration::from_secs(60), link })].into_iter().collect();
        let told = |issuer, expires| {
            let mut headers = HeaderMap::new();
            hints.put(&mut headers, IssuerId(issuer), UnixSeconds(expires), &clock);
            let seconds = headers.get("token-expires-in").map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(seconds.is_some(), headers.contains_key("link"));
            seconds
        };
        assert_eq!(told(1, 1061), None);
        assert_eq!(told(1, 1060).as_deref(), Some("60"));
        assert_eq!(told(1, 990).as_deref(), Some("0"), "within the leeway");
        assert_eq!(told(0, 1001), None);
    }
}
