//! Documents that an issuer signs: a JWS in compact form whose signature is that of one of the issuer's keys. What the
//! claims mean is for the source that asked.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::clock::Clock;
use crate::keys::{Algorithm, KeyMiss, KeySource, LookAgain, VerificationKey};
use crate::token::Compact;

/// By what documents of one issuer are verified.
#[derive(Clone, Debug)]
pub(super) struct SignedBy {
    pub keys: Arc<KeySource>,
    pub algorithms: Vec<Algorithm>,
    pub clock: Clock,
}

/// Why a document is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignatureError {
    #[error("it is no signed JWT: {0}")]
    NotSigned(String),
    #[error("its type (typ) is not {0}")]
    WrongType(&'static str),
    #[error("it is signed with an algorithm that is none of the issuer's")]
    Algorithm,
    #[error("its key cannot be looked up, since the keys cannot be had")]
    NoKeys,
    #[error("it is signed with a key that is not published")]
    UnknownKey,
    #[error("its signature does not match its content")]
    Mismatch,
}

impl SignedBy {
    /// The claims of a document of the media type `application/` and this.
    pub(super) async fn claims(
        &self,
        body: &[u8],
        typ: &'static str,
    ) -> Result<Map<String, Value>, SignatureError> {
        let not_signed = SignatureError::NotSigned;
        let text = std::str::from_utf8(body).map_err(|_| not_signed("it is not text".to_owned()))?;
        let compact = Compact::parse(text.trim_ascii()).map_err(not_signed)?;
        if compact.header.media_type().as_deref() != Some(typ) {
            return Err(SignatureError::WrongType(typ));
        }
        let algorithm = Algorithm::from_name(&compact.header.algorithm)
            .filter(|named| self.algorithms.iter().any(|allowed| allowed.same_as(*named)))
            .ok_or(SignatureError::Algorithm)?;
        let key = self.key(compact.header.key_id.as_deref(), algorithm).await?;
        if !key.verify(algorithm, compact.signing_input, &compact.signature) {
            return Err(SignatureError::Mismatch);
        }
        compact.claims().map_err(not_signed)
    }

    async fn key(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Arc<VerificationKey>, SignatureError> {
        if let Ok(key) = self.known_key(kid, algorithm) {
            return Ok(key);
        }
        if self.keys.look_again(kid).await != LookAgain::Refreshed {
            return Err(SignatureError::NoKeys);
        }
        self.known_key(kid, algorithm).map_err(|_| SignatureError::UnknownKey)
    }

    fn known_key(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Arc<VerificationKey>, KeyMiss> {
        let state = self.keys.current();
        let keys = state.keys(self.clock.monotonic()).ok_or(KeyMiss::UnknownKid)?;
        keys.select(kid, algorithm).map(Arc::clone)
    }
}
