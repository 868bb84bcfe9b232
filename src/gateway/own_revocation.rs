//! Logging out of an API: a bearer takes back its own token or session, in the manner of RFC 7009.
//!
//! The token that is revoked is the one that the request was authorized by, so nobody can revoke what is another's.
//! Answered once it is written where it is kept, and in force at this gateway.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, HeaderValue};
use http::{Method, Response};

use super::body::ResponseBody;
use super::core::Core;
use super::sanitize::CleanRequest;
use crate::catalogue::Reason;
use crate::events::Body;
use crate::policy::Permit;
use crate::rejection::Rejection;
use crate::revocation::{Entry, LiveToken, Revocation, Target};

/// What a route revokes, and where.
#[derive(Clone, Debug)]
pub struct OwnRevocation {
    /// What of the bearer's.
    pub revokes: Revokes,
    /// The place of the feed that it is written to in the configuration.
    pub feed: usize,
    /// How long the revocation of a session is kept.
    pub token_lifetime: Duration,
}

/// What a bearer revokes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revokes {
    /// The token that it sends.
    Token,
    /// The session of that token.
    Session,
}

impl OwnRevocation {
    /// Revokes what the request was permitted by.
    pub(super) async fn revoke(
        &self,
        core: &Core,
        permit: &Permit,
        request: &CleanRequest,
    ) -> Result<Response<ResponseBody>, Rejection> {
        if *request.method() != Method::POST {
            return Err(Rejection::new(Reason::MethodNotAllowed).allow("POST"));
        }
        let token = permit.token().ok_or(Reason::Internal)?;
        let revocation = self.revocation(core, token)?;
        core.hand_in(self.feed, Body::Revoke(vec![revocation])).await.map_err(|why| {
            Rejection::new(Reason::RevocationNotKept).retry_after(RETRY).log(format!("{why:?}"))
        })?;
        let mut response = Response::new(ResponseBody::full(Bytes::new()));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    fn revocation(&self, core: &Core, token: &LiveToken) -> Result<Revocation, Rejection> {
        let now = core.clock.wall();
        let (claim, named, expires) = match self.revokes {
            Revokes::Token => {
                ("jti", token.claims().token_id().map(|jti| Target::Jti(jti.to_owned())), token.expires())
            }
            Revokes::Session => {
                let expires = now.plus(self.token_lifetime).max(token.expires());
                ("sid", token.claims().session().map(|sid| Target::Sid(sid.to_owned())), expires)
            }
        };
        let target = named.ok_or_else(|| {
            Rejection::new(Reason::ClaimMissing)
                .hint(format!("The token lacks the claim {claim}, by which it would be revoked."))
        })?;
        let issuer = Some(token.issuer().url.to_string());
        Ok(Revocation {
            entry: Entry { target, issuer, before: None, expires: Some(expires) },
            reason: Some("by the bearer".to_owned()),
            revoked_at: Some(now),
        })
    }
}

const RETRY: Duration = Duration::from_secs(5);
