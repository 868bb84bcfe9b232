//! What the endpoint answers, read strictly: JSON (RFC 7662 section 2.2), or a JWT that the issuer signs (RFC 9701).

use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::UnixSeconds;
use crate::feeds::signed::{SignatureError, SignedBy};
use crate::token::{Claims, json_object};

/// Why an answer is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("its answer is {0}")]
    NotJson(String),
    #[error("its answer has no member 'active' that is true or false")]
    NoActive,
    #[error("its answer is not of the media type {0}")]
    MediaType(&'static str),
    #[error("its signed answer is not taken: {0}")]
    Signature(#[from] SignatureError),
    #[error("its signed answer {0}")]
    NotForUs(&'static str),
}

/// How signed answers are verified.
pub(super) struct SignedAnswers {
    pub issuer: String,
    /// Whom an answer may be for: the gateway as a client, or the API whose tokens it asks about.
    pub audiences: Vec<String>,
    pub signed_by: SignedBy,
}

/// How old a signed answer may be, and how far in the future: it is made for this very request.
const ANSWER_AGE: Duration = Duration::from_secs(300);

/// The claims of a token that the answer calls active; `None` for one that it does not.
pub(super) fn read(body: &[u8]) -> Result<Option<Map<String, Value>>, AnswerError> {
    judge(json_object(body).map_err(AnswerError::NotJson)?)
}

/// `active` decides and is no claim.
fn judge(mut members: Map<String, Value>) -> Result<Option<Map<String, Value>>, AnswerError> {
    match members.remove("active") {
        Some(Value::Bool(true)) => Ok(Some(members)),
        Some(Value::Bool(false)) => Ok(None),
        _ => Err(AnswerError::NoActive),
    }
}

impl SignedAnswers {
    /// As [`read`], of a JWT (RFC 9701 section 5).
    pub(super) async fn read(&self, body: &[u8]) -> Result<Option<Map<String, Value>>, AnswerError> {
        let mut members = self.signed_by.claims(body, "token-introspection+jwt").await?;
        let said = members.remove("token_introspection");
        self.check_envelope(&Claims::new(members))?;
        match said {
            Some(Value::Object(said)) => judge(said),
            _ => Err(AnswerError::NotForUs("has no object token_introspection")),
        }
    }

    fn check_envelope(&self, claims: &Claims) -> Result<(), AnswerError> {
        if claims.issuer().ok().flatten() != Some(&self.issuer) {
            return Err(AnswerError::NotForUs("is by another issuer (iss)"));
        }
        let audiences = claims.audiences().ok().flatten().unwrap_or_default();
        if !audiences.iter().any(|named| self.audiences.iter().any(|ours| ours == named)) {
            return Err(AnswerError::NotForUs("is for somebody else (aud)"));
        }
        let now = self.signed_by.clock.wall();
        let recent = |at: UnixSeconds| at.plus(ANSWER_AGE) >= now && at <= now.plus(ANSWER_AGE);
        match claims.issued_at() {
            Ok(Some(at)) if recent(at) => Ok(()),
            _ => Err(AnswerError::NotForUs("is not of now (iat)")),
        }
    }
}
