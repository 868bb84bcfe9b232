//! What the endpoint answers, read strictly: JSON (RFC 7662 section 2.2), or a JWT that the issuer signs (RFC 9701).

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::{Clock, UnixSeconds};
use crate::keys::{Algorithm, KeyMiss, KeySource, LookAgain, VerificationKey};
use crate::token::{Claims, Compact, json_object};

/// Why an answer is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("its answer is {0}")]
    NotJson(String),
    #[error("its answer has no member 'active' that is true or false")]
    NoActive,
    #[error("its answer is no signed JWT (RFC 9701): {0}")]
    NotSigned(String),
    #[error("the signature of its answer does not hold: {0}")]
    Signature(&'static str),
    #[error("its signed answer {0}")]
    NotForUs(&'static str),
}

/// How signed answers are verified.
pub(super) struct SignedAnswers {
    pub issuer: String,
    /// Whom an answer may be for: the gateway as a client, or the API whose tokens it asks about.
    pub audiences: Vec<String>,
    pub algorithms: Vec<Algorithm>,
    pub keys: Arc<KeySource>,
    pub clock: Clock,
}

/// How old a signed answer may be, and how far in the future: it is made for this very request.
const ANSWER_AGE: Duration = Duration::from_secs(300);

/// The claims of a token that the answer calls active; `None` for one that it does not.
pub(super) fn read(body: &[u8]) -> Result<Option<Map<String, Value>>, AnswerError> {
    let members = json_object(body).map_err(AnswerError::NotJson)?;
    judge(members)
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
        let text = std::str::from_utf8(body).map_err(|_| AnswerError::NotSigned("not text".to_owned()))?;
        let compact = Compact::parse(text.trim_ascii()).map_err(AnswerError::NotSigned)?;
        if compact.header.media_type().as_deref() != Some("token-introspection+jwt") {
            return Err(AnswerError::NotSigned("its typ is not token-introspection+jwt".to_owned()));
        }
        let algorithm = Algorithm::from_name(&compact.header.algorithm)
            .filter(|named| self.algorithms.iter().any(|allowed| allowed.same_as(*named)))
            .ok_or(AnswerError::Signature("the algorithm is none of the issuer's"))?;
        let key = self.key(compact.header.key_id.as_deref(), algorithm).await?;
        if !key.verify(algorithm, compact.signing_input, &compact.signature) {
            return Err(AnswerError::Signature("it does not match the content"));
        }
        let mut members = compact.claims().map_err(AnswerError::NotSigned)?;
        let said = members.remove("token_introspection");
        self.check_envelope(&Claims::new(members))?;
        match said {
            Some(Value::Object(said)) => judge(said),
            _ => Err(AnswerError::NotSigned("it has no object token_introspection".to_owned())),
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
        let now = self.clock.wall();
        let recent = |at: UnixSeconds| at.plus(ANSWER_AGE) >= now && at <= now.plus(ANSWER_AGE);
        match claims.issued_at() {
            Ok(Some(at)) if recent(at) => Ok(()),
            _ => Err(AnswerError::NotForUs("is not of now (iat)")),
        }
    }

    async fn key(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Arc<VerificationKey>, AnswerError> {
        if let Ok(key) = self.known_key(kid, algorithm) {
            return Ok(key);
        }
        if self.keys.look_again(kid).await != LookAgain::Refreshed {
            return Err(AnswerError::Signature("the issuer's keys cannot be had"));
        }
        self.known_key(kid, algorithm).map_err(|_| AnswerError::Signature("its key is not published"))
    }

    fn known_key(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Arc<VerificationKey>, KeyMiss> {
        let state = self.keys.current();
        let keys = state.keys(self.clock.monotonic()).ok_or(KeyMiss::UnknownKid)?;
        keys.select(kid, algorithm).map(Arc::clone)
    }
}
