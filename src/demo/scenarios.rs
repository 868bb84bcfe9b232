//! The table of what the demo shows: each row a request, and what has to come of it.
//!
//! The same rows are printed as `curl` lines and sent by `--check`, so the two cannot differ. Statuses, codes and
//! reasons are written out, not taken from the catalogue: they are public contract, and a test compares the two.

use super::tokens::Token;

/// One thing to show.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// A short name.
    pub name: &'static str,
    /// What it shows, for a person.
    pub shows: &'static str,
    /// What happens at the issuer first.
    pub before: Before,
    /// What is sent.
    pub request: Probe,
    /// What has to come of it.
    pub expect: Expect,
}

/// A step at the issuer, on which the request depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// None.
    Nothing,
    /// It begins to sign with its next key.
    Rotate,
    /// It revokes the token of the request, by its id; until then the token is accepted.
    RevokeToken,
    /// It revokes the session of the request's token; until then the token is accepted.
    RevokeSession,
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Its method.
    pub method: &'static str,
    /// Its path, sent as it stands.
    pub path: &'static str,
    /// What it shows of who sends it.
    pub credential: Credential,
    /// Headers besides.
    pub headers: &'static [(&'static str, &'static str)],
    /// A JSON body.
    pub body: Option<&'static str>,
}

/// The `Authorization` of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// None.
    None,
    /// `Bearer` and the token.
    Bearer(Token),
    /// Two headers, with a token each.
    Twice(Token, Token),
    /// This value.
    Verbatim(&'static str),
}

/// What has to come of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The API got it, once and without the token, and answered.
    Reaches {
        /// What the API answers.
        status: u16,
        /// The `X-Auth-Subject` that the API saw; `None` if it must not have seen any.
        subject: Option<&'static str>,
    },
    /// The gateway refused it and the API saw nothing.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The `VAL-` code.
        code: &'static str,
        /// The reason.
        reason: &'static str,
    },
}

/// All rows, in an order that tells a story: what works, what is refused, what changes while it runs.
///
/// Rotation stands before the unknown key, since a gateway asks for keys at most once in a while on account of
/// key ids that it does not know.
pub const SCENARIOS: &[Scenario] = &[
    accepted("valid token", "An access token for this API, signed with ES256.", get(bearer(Token::Valid))),
    accepted("valid, RS256", "The same, signed with the issuer's RSA key.", get(bearer(Token::ValidRs256))),
    Scenario {
        name: "valid, POST",
        shows: "A token with the scope to write; the body arrives.",
        before: Before::Nothing,
        request: post(bearer(Token::Writer)),
        expect: Expect::Reaches { status: 201, subject: Some("alice") },
    },
    Scenario {
        name: "public route",
        shows: "A route declared public needs no token.",
        before: Before::Nothing,
        request: Probe { path: "/status", ..get(Credential::None) },
        expect: Expect::Reaches { status: 200, subject: None },
    },
    accepted(
        "spoofed identity",
        "Identity headers are the gateway's to set: what the client sends is removed, in any spelling.",
        Probe {
            headers: &[("X-Auth-Subject", "mallory"), ("X_Auth_Subject", "mallory")],
            ..get(bearer(Token::Valid))
        },
    ),
    Scenario {
        name: "spoofed, public",
        shows: "They are removed on public routes too.",
        before: Before::Nothing,
        request: Probe {
            path: "/status",
            headers: &[("X-Auth-Subject", "mallory")],
            ..get(Credential::None)
        },
        expect: Expect::Reaches { status: 200, subject: None },
    },
    Scenario {
        before: Before::Rotate,
        ..accepted(
            "key rotation",
            "The issuer signs with a new key: its first token is accepted at once.",
            get(bearer(Token::Rotated)),
        )
    },
    accepted("former key", "Tokens by the former key work on.", get(bearer(Token::Valid))),
    refused("no token", "A token is needed.", get(Credential::None), 401, "VAL-010", "missing"),
    refused(
        "not Bearer",
        "Another scheme than Bearer.",
        get(Credential::Verbatim("Basic YWxpY2U6c2VjcmV0")),
        401,
        "VAL-011",
        "not_bearer",
    ),
    refused(
        "two tokens",
        "Two credentials, one of them good.",
        get(Credential::Twice(Token::Valid, Token::ValidRs256)),
        400,
        "VAL-011",
        "multiple",
    ),
    invalid("malformed", "Not a JWT.", Token::NotAJwt, "malformed"),
    invalid("expired", "Its lifetime is over.", Token::Expired, "expired"),
    invalid("not yet valid", "It becomes valid tomorrow.", Token::NotYetValid, "not_yet_valid"),
    invalid(
        "tampered",
        "The subject was changed, the signature kept.",
        Token::Tampered,
        "signature_mismatch",
    ),
    invalid("wrong issuer", "From an issuer that is not trusted.", Token::WrongIssuer, "issuer_not_trusted"),
    invalid("wrong audience", "Made for another API.", Token::WrongAudience, "audience_mismatch"),
    invalid("unknown key", "Signed with a key that is not published.", Token::UnknownKey, "unknown_key"),
    invalid(
        "key confusion",
        "HS256, with the issuer's public key as the secret.",
        Token::KeyConfusion,
        "algorithm_not_allowed",
    ),
    invalid("wrong type", "A logout token, not an access token.", Token::WrongType, "wrong_type"),
    refused(
        "missing scope",
        "The token may read but not write.",
        post(bearer(Token::Valid)),
        403,
        "VAL-030",
        "insufficient_scope",
    ),
    Scenario {
        before: Before::RevokeToken,
        ..invalid("revoked", "The token is revoked while it is in use.", Token::Revoked, "revoked")
    },
    Scenario {
        before: Before::RevokeSession,
        ..invalid("session revoked", "So is a session, with all its tokens.", Token::Session, "revoked")
    },
    accepted("not revoked", "Other tokens of the same user work on.", get(bearer(Token::Valid))),
    refused(
        "no such route",
        "What no route matches is refused.",
        Probe { path: "/nowhere", ..get(bearer(Token::Valid)) },
        404,
        "VAL-040",
        "no_route",
    ),
    refused(
        "wrong method",
        "No route lists this method for the path.",
        Probe { method: "DELETE", ..get(bearer(Token::Valid)) },
        405,
        "VAL-041",
        "method_not_allowed",
    ),
    refused(
        "ambiguous path",
        "An encoded dot segment: the API might read another path than the gateway.",
        Probe { path: "/status/%2e%2e/orders/7", ..get(Credential::None) },
        400,
        "VAL-042",
        "ambiguous_path",
    ),
    refused(
        "upstream down",
        "Allowed, but nothing listens behind this route.",
        Probe { path: "/inventory/3", ..get(bearer(Token::Valid)) },
        502,
        "VAL-060",
        "connect",
    ),
];

impl std::fmt::Display for Expect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reaches { status, .. } => write!(f, "{status}"),
            Self::Refused { status, code, reason } => write!(f, "{status} {code} {reason}"),
        }
    }
}

const fn accepted(name: &'static str, shows: &'static str, request: Probe) -> Scenario {
    let expect = Expect::Reaches { status: 200, subject: Some("alice") };
    Scenario { name, shows, before: Before::Nothing, request, expect }
}

const fn refused(
    name: &'static str,
    shows: &'static str,
    request: Probe,
    status: u16,
    code: &'static str,
    reason: &'static str,
) -> Scenario {
    let expect = Expect::Refused { status, code, reason };
    Scenario { name, shows, before: Before::Nothing, request, expect }
}

const fn invalid(name: &'static str, shows: &'static str, token: Token, reason: &'static str) -> Scenario {
    refused(name, shows, get(bearer(token)), 401, "VAL-020", reason)
}

const fn bearer(token: Token) -> Credential {
    Credential::Bearer(token)
}

const fn get(credential: Credential) -> Probe {
    Probe { method: "GET", path: "/orders/7", credential, headers: &[], body: None }
}

const fn post(credential: Credential) -> Probe {
    Probe { method: "POST", path: "/orders", credential, headers: &[], body: Some(r#"{"item":"tea"}"#) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::catalogue::{Code, Reason};

    #[test]
    fn refusals_are_those_of_the_catalogue() {
        for scenario in SCENARIOS {
            let Expect::Refused { status, code, reason } = scenario.expect else { continue };
            let code = Code::find(code).unwrap_or_else(|| panic!("{}: {code}", scenario.name));
            let row = Reason::ALL
                .iter()
                .find(|row| row.code() == code && row.name() == reason)
                .unwrap_or_else(|| panic!("{}: {code} has no reason {reason}", scenario.name));
            assert_eq!(row.status().as_u16(), status, "{}", scenario.name);
        }
    }

    #[test]
    fn names_are_unique_and_every_token_is_used() {
        let names: HashSet<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), SCENARIOS.len());
        for token in Token::ALL {
            let used = SCENARIOS.iter().any(|scenario| match scenario.request.credential {
                Credential::Bearer(one) => one == token,
                Credential::Twice(one, other) => one == token || other == token,
                Credential::None | Credential::Verbatim(_) => false,
            });
            assert!(used, "{} is minted but never sent", token.name());
        }
    }

    #[test]
    fn rotation_is_shown_before_the_unknown_key() {
        let position = |name| SCENARIOS.iter().position(|scenario| scenario.name == name).unwrap();
        assert!(position("key rotation") < position("unknown key"));
    }
}
