//! The demo's tokens: one that is good for each thing that the sample API does, and one for each refusal.

use std::time::Duration;

use super::issuer::{DevIssuer, KeyChoice, SigningKey, TokenRequest, sign_hmac};
use super::scenarios::Credential;
use crate::clock::UnixSeconds;

/// So far off that the token will not become valid while the demo runs.
const FAR: Duration = Duration::from_secs(24 * 60 * 60);

/// The session of [`Token::Session`].
pub const SESSION: &str = "demo-session";

/// A token of the demo, by what is to be shown with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table in `mint` says what each is")]
pub enum Token {
    Valid,
    ValidRs256,
    Writer,
    Rotated,
    NotAJwt,
    Expired,
    NotYetValid,
    Tampered,
    WrongIssuer,
    WrongAudience,
    UnknownKey,
    KeyConfusion,
    WrongType,
    Revoked,
    Session,
}

impl Token {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Valid,
        Self::ValidRs256,
        Self::Writer,
        Self::Rotated,
        Self::NotAJwt,
        Self::Expired,
        Self::NotYetValid,
        Self::Tampered,
        Self::WrongIssuer,
        Self::WrongAudience,
        Self::UnknownKey,
        Self::KeyConfusion,
        Self::WrongType,
        Self::Revoked,
        Self::Session,
    ];

    /// The name of its file, without `.jwt`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::ValidRs256 => "valid-rs256",
            Self::Writer => "writer",
            Self::Rotated => "rotated",
            Self::NotAJwt => "not-a-jwt",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::Tampered => "tampered",
            Self::WrongIssuer => "wrong-issuer",
            Self::WrongAudience => "wrong-audience",
            Self::UnknownKey => "unknown-key",
            Self::KeyConfusion => "key-confusion",
            Self::WrongType => "wrong-type",
            Self::Revoked => "revoked",
            Self::Session => "session",
        }
    }

    /// Makes it.
    pub fn mint(self, issuer: &DevIssuer, now: UnixSeconds) -> anyhow::Result<String> {
        let ordinary = TokenRequest::new();
        match self {
            Self::Valid => issuer.mint(&ordinary),
            Self::ValidRs256 => issuer.mint(&ordinary.key(KeyChoice::Rsa)),
            Self::Writer => issuer.mint(&ordinary.claim("scope", "orders:read orders:write")),
            Self::Rotated => issuer.mint(&ordinary.key(KeyChoice::Next)),
            Self::NotAJwt => Ok("an-opaque-token".to_owned()),
            Self::Expired => {
                issuer.mint(&ordinary.claim("iat", now.minus(FAR * 2).0).claim("exp", now.minus(FAR).0))
            }
            Self::NotYetValid => {
                issuer.mint(&ordinary.claim("nbf", now.plus(FAR).0).claim("exp", now.plus(FAR * 2).0))
            }
            Self::Tampered => {
                let honest = issuer.mint(&ordinary.clone())?;
                let forged = issuer.mint(&ordinary.claim("sub", "mallory"))?;
                Ok(graft(&forged, &honest))
            }
            Self::WrongIssuer => issuer.mint(&ordinary.claim("iss", "https://id.example.com/")),
            Self::WrongAudience => issuer.mint(&ordinary.claim("aud", "billing-api")),
            Self::UnknownKey => issuer.mint_with(&ordinary, &SigningKey::es256("never-published")?),
            Self::KeyConfusion => key_confusion(issuer, &ordinary),
            Self::WrongType => issuer.mint(&ordinary.header("typ", "logout+jwt")),
            Self::Revoked => issuer.mint(&ordinary.claim("jti", revoked_id(issuer))),
            Self::Session => issuer.mint(&ordinary.claim("sid", SESSION)),
        }
    }
}

/// All tokens of one run.
pub struct MintedTokens(Vec<(Token, String)>);

impl MintedTokens {
    /// Makes them.
    pub fn mint(issuer: &DevIssuer, now: UnixSeconds) -> anyhow::Result<Self> {
        Token::ALL
            .into_iter()
            .map(|token| Ok((token, token.mint(issuer, now)?)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Each with its text.
    pub fn all(&self) -> &[(Token, String)] {
        &self.0
    }

    /// The values of the `Authorization` headers for this credential.
    pub fn authorization(&self, credential: Credential) -> Vec<String> {
        let bearer = |token| format!("Bearer {}", self.text(token));
        match credential {
            Credential::None => Vec::new(),
            Credential::Bearer(token) => vec![bearer(token)],
            Credential::Twice(one, other) => vec![bearer(one), bearer(other)],
            Credential::Verbatim(value) => vec![value.to_owned()],
        }
    }

    fn text(&self, token: Token) -> &str {
        self.0.iter().find(|(minted, _)| *minted == token).map_or("", |(_, text)| text)
    }
}

/// The `jti` of [`Token::Revoked`].
pub fn revoked_id(issuer: &DevIssuer) -> String {
    format!("demo-token-{}", issuer.address().port())
}

/// Header and claims of one token with the signature of another.
fn graft(content: &str, signature: &str) -> String {
    let signed = content.rsplit_once('.').map_or(content, |(signed, _)| signed);
    let signature = signature.rsplit_once('.').map_or("", |(_, signature)| signature);
    format!("{signed}.{signature}")
}

/// A token that says HS256, its tag made with the issuer's public key as if that were a shared secret.
fn key_confusion(issuer: &DevIssuer, request: &TokenRequest) -> anyhow::Result<String> {
    let key = issuer.key(KeyChoice::Rsa);
    let claims = issuer.claims(request)?;
    let header = serde_json::json!({ "typ": "at+jwt", "alg": "HS256", "kid": key.kid() });
    Ok(sign_hmac(&header.to_string(), &claims, key.jwk().to_string().as_bytes()))
}
