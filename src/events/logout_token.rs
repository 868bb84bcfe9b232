//! Logout tokens (`OpenID` Connect Back-Channel Logout 1.0, section 2.4), and what they revoke.

use serde_json::Value;

use super::security_event::EventRules;
use super::{Fault, INVALID_REQUEST};
use crate::clock::UnixSeconds;
use crate::revocation::{Fact, Revocation, Target};
use crate::token::Claims;

/// A logout token that passed the checks of section 2.6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogoutToken {
    /// Its id.
    pub jti: String,
    /// What it revokes: the session if it names one, else all that the subject was issued before.
    pub revocation: Revocation,
}

impl LogoutToken {
    /// Reads the claims of a verified token.
    ///
    /// # Errors
    /// Which rule it breaks.
    pub fn read(claims: &Claims, rules: &EventRules, now: UnixSeconds) -> Result<Self, Fault> {
        rules.check_origin(claims)?;
        let jti = EventRules::check_id(claims)?;
        let issued_at = rules.check_issued(claims, now)?;
        let wrong = |description| Err(Fault::new(INVALID_REQUEST, description));
        match claims.expires() {
            Ok(Some(expires)) if now < expires.plus(rules.leeway) => {}
            Ok(Some(_)) => return wrong("the claim exp has passed: the logout token came too late"),
            Ok(None) | Err(_) => return wrong("the claim exp is missing"),
        }
        // What tells a logout token from an ID token, which could be signed with the same key.
        if claims.all().contains_key("nonce") {
            return wrong("the claim nonce must not be in a logout token");
        }
        let event = claims.at(&["events", EVENT]);
        if !event.is_some_and(Value::is_object) {
            return wrong("the claim events does not have the back-channel logout event");
        }
        if claims.check_types().is_err() {
            return wrong("a known claim has the wrong type");
        }
        let given = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        let target = match (given(claims.session()), given(claims.subject())) {
            (Some(sid), _) => Target::Sid(sid),
            (None, Some(sub)) => Target::Sub(sub),
            (None, None) => return wrong("the token has neither sid nor sub"),
        };
        let fact = Fact { target, issuer: Some(rules.issuer.clone()) };
        Ok(Self { jti, revocation: rules.revocation(fact, issued_at, issued_at, "back-channel logout") })
    }
}

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
