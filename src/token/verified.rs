//! A token that passed every check of its issuer. Only [`super::Verifier`] makes one.

use std::sync::Arc;

use super::bearer::Fingerprint;
use super::claims::Claims;
use super::introspection::{ActiveToken, Answer, IntrospectedTokens, TokenText, unavailable};
use super::issuer::{Issuer, Issuers};
use super::opaque;
use crate::clock::{Monotonic, UnixSeconds};
use crate::keys::{Algorithm, VerificationKey};
use crate::rejection::Rejection;

/// Proof that an issuer stands behind these claims. It says nothing of revocation or of rights, and its times must
/// be looked at again when it comes from a cache: see [`super::Verifier::still_good`].
#[derive(Clone, Debug)]
pub struct VerifiedToken(Arc<Verified>);

#[derive(Debug)]
struct Verified {
    issuer: Arc<Issuer>,
    claims: Claims,
    expires: UnixSeconds,
    not_before: Option<UnixSeconds>,
    issued_at: Option<UnixSeconds>,
    evidence: Evidence,
    fingerprint: Fingerprint,
}

/// Why the issuer is believed to stand behind a token.
#[derive(Debug)]
pub(super) struct Evidence {
    /// Its signature; an opaque token has none.
    pub signed_by: Option<SignedBy>,
    /// Its word, where it was asked.
    pub confirmed: Option<Confirmation>,
}

/// The issuer's word on a token.
#[derive(Debug)]
pub(super) struct Confirmation {
    /// How long it holds.
    pub until: Monotonic,
    /// What to ask about again.
    pub token: TokenText,
}

/// How a token was found to be signed, so that it can be told later whether it still would be.
#[derive(Debug)]
pub(super) struct SignedBy {
    pub key: Arc<VerificationKey>,
    pub algorithm: Algorithm,
    /// The `kid` of the header; the key may have one where the header has none.
    pub key_id: Option<String>,
    /// The generation of the issuer's keys.
    pub generation: Option<u64>,
}

/// The times of a token as the checks read them.
pub(super) struct Times {
    pub expires: UnixSeconds,
    pub not_before: Option<UnixSeconds>,
    pub issued_at: Option<UnixSeconds>,
}

impl VerifiedToken {
    pub(super) fn new(
        issuer: Arc<Issuer>,
        claims: Claims,
        times: &Times,
        evidence: Evidence,
        fingerprint: Fingerprint,
    ) -> Self {
        let &Times { expires, not_before, issued_at } = times;
        Self(Arc::new(Verified { issuer, claims, expires, not_before, issued_at, evidence, fingerprint }))
    }

    /// Who issued it.
    pub fn issuer(&self) -> &Arc<Issuer> {
        &self.0.issuer
    }

    /// What it says.
    pub fn claims(&self) -> &Claims {
        &self.0.claims
    }

    /// Whether its issuer, as it is among these, has taken back the key that signed it. Keys that are merely too old to
    /// be used, or not there yet, are not taken back.
    pub fn is_key_withdrawn(&self, issuers: &Issuers) -> bool {
        let Some(SignedBy { key, key_id, generation, .. }) = &self.0.evidence.signed_by else { return false };
        // Of an issuer that is none any more the revocation step says what becomes of its tokens.
        let Some(issuer) = issuers.find(&self.0.issuer.url) else { return false };
        let state = issuer.keys.current();
        let same_source = Arc::ptr_eq(&issuer.keys, &self.0.issuer.keys);
        let Some(keys) = state.latest().filter(|_| !(same_source && state.is_of(*generation))) else {
            return false;
        };
        !keys.iter().any(|found| {
            found.thumbprint() == key.thumbprint()
                && key_id.as_deref().is_none_or(|kid| found.kid() == Some(kid))
        })
    }

    /// `exp`.
    pub fn expires(&self) -> UnixSeconds {
        self.0.expires
    }

    /// `iat`.
    pub fn issued_at(&self) -> Option<UnixSeconds> {
        self.0.issued_at
    }

    /// How long the issuer's word on it holds, where the issuer was asked.
    pub fn confirmed_until(&self) -> Option<Monotonic> {
        self.0.evidence.confirmed.as_ref().map(|confirmed| confirmed.until)
    }

    /// Asks the issuer again, which may be configured otherwise today: how long its word holds now, or `None` if nobody
    /// stands behind the token any more.
    ///
    /// # Errors
    /// It cannot be asked, or is not asked any more about tokens that it signs.
    pub async fn confirm(&self, issuers: &Issuers) -> Result<Option<Monotonic>, Rejection> {
        let Some(confirmed) = &self.0.evidence.confirmed else { return Ok(None) };
        let Some(issuer) = issuers.find(&self.0.issuer.url) else { return Ok(None) };
        let tokens = issuer.introspection.as_ref().map(|introspection| introspection.tokens);
        match (&self.0.evidence.signed_by, tokens) {
            (None, None | Some(IntrospectedTokens::Jwt)) => return Ok(None),
            (Some(_), None | Some(IntrospectedTokens::Opaque)) => {
                return Err(unavailable("the issuer is no longer asked about the tokens that it signs"));
            }
            _ => {}
        }
        let answer = issuer.introspect(confirmed.token.clone()).await?;
        let active = opaque::confirmed(&answer, &self.0.claims, issuer).ok();
        Ok(active.map(|active| active.good_until))
    }

    /// The key that signed it; none for an opaque token.
    pub fn key(&self) -> Option<&Arc<VerificationKey>> {
        self.0.evidence.signed_by.as_ref().map(|signed_by| &signed_by.key)
    }

    /// The id of the key that signed it; none for an opaque token.
    pub fn key_id(&self) -> Option<&str> {
        self.key()?.kid()
    }

    /// What its issuer said of it, as far as that is still known; `None` where the issuer was not asked.
    pub fn answer(&self) -> Option<Answer> {
        let good_until = self.confirmed_until()?;
        Some(Answer::Active(Arc::new(ActiveToken { claims: self.0.claims.all().clone(), good_until })))
    }

    /// What stands for it in logs.
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.fingerprint
    }

    pub(super) fn evidence(&self) -> &Evidence {
        &self.0.evidence
    }

    pub(super) fn times(&self) -> Times {
        Times { expires: self.0.expires, not_before: self.0.not_before, issued_at: self.0.issued_at }
    }
}
