//! Subject identifiers (RFC 9493, SSF 1.0 section 3), and which fact of our tokens each of them is.
//!
//! A format says how a subject is named, not which claim of an access token has that name: the operator says so
//! in the [`SubjectMapping`]. What no fact corresponds to is told, never guessed.

use serde_json::{Map, Value};

use crate::revocation::{Fact, FactKind, Target};

/// Which fact each format of subject identifiers names; `None` for those that name none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubjectMapping {
    /// `opaque` (RFC 9493 section 3.2.4).
    pub opaque: Option<FactKind>,
    /// `email` (section 3.2.2).
    pub email: Option<FactKind>,
    /// `account` (section 3.2.1).
    pub account: Option<FactKind>,
    /// `phone_number` (section 3.2.5).
    pub phone_number: Option<FactKind>,
    /// `did` (section 3.2.6).
    pub did: Option<FactKind>,
    /// `uri` (section 3.2.7).
    pub uri: Option<FactKind>,
}

/// `opaque` is the subject, as in most providers; the others are rarely what `sub` says.
impl Default for SubjectMapping {
    fn default() -> Self {
        Self {
            opaque: Some(FactKind::Sub),
            email: None,
            account: None,
            phone_number: None,
            did: None,
            uri: None,
        }
    }
}

/// What a subject identifier comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// These facts: each names the subject, or one that includes it.
    Facts(Vec<Fact>),
    /// A sound identifier that names no fact of ours.
    Unmapped,
    /// Not a subject identifier; in words.
    Broken(&'static str),
}

impl SubjectMapping {
    /// The facts that an identifier names. Of a complex one (SSF 1.0 section 3.3) the narrowest member that can be
    /// mapped counts: the session, else the user, else the client; revoking by it revokes no less than was meant.
    pub(super) fn find(self, identifier: &Value) -> Found {
        let Some(members) = identifier.as_object() else {
            return Found::Broken("the subject is not an object");
        };
        // SSF before its first Implementer's Draft said subject_type, with hyphens.
        let format = members.get("format").or_else(|| members.get("subject_type")).and_then(Value::as_str);
        match format {
            Some("complex") => self.complex(members),
            None if COMPLEX.iter().any(|(name, _)| members.contains_key(*name)) => self.complex(members),
            None => Found::Broken("the subject has no format"),
            Some("aliases") => self.aliases(members),
            Some(format) => self.simple(format, members, None),
        }
    }

    fn complex(self, members: &Map<String, Value>) -> Found {
        for (name, fact) in COMPLEX {
            let Some(member) = members.get(name) else { continue };
            let Some(inner) = member.as_object() else {
                return Found::Broken("a member of the subject is not an object");
            };
            let format = inner.get("format").or_else(|| inner.get("subject_type")).and_then(Value::as_str);
            let found = match format {
                None => return Found::Broken("a member of the subject has no format"),
                Some("aliases") => self.aliases(inner),
                Some(format) => self.simple(format, inner, Some(fact)),
            };
            if found != Found::Unmapped {
                return found;
            }
        }
        Found::Unmapped
    }

    /// All identifiers of one subject (RFC 9493 section 3.2.8): each that we know counts.
    fn aliases(self, members: &Map<String, Value>) -> Found {
        let Some(identifiers) = members.get("identifiers").and_then(Value::as_array) else {
            return Found::Broken("the subject's identifiers are not an array");
        };
        let mut facts = Vec::new();
        for identifier in identifiers.iter().take(MAX_ALIASES) {
            let inner = identifier.as_object();
            let format = inner.and_then(|members| members.get("format")).and_then(Value::as_str);
            // Aliases must not be nested.
            let (Some(inner), Some(format)) = (inner, format) else {
                return Found::Broken("one of the subject's identifiers has no format");
            };
            match self.simple(format, inner, None) {
                Found::Facts(named) => facts.extend(named),
                Found::Unmapped => {}
                broken @ Found::Broken(_) => return broken,
            }
        }
        if facts.is_empty() { Found::Unmapped } else { Found::Facts(facts) }
    }

    /// `role` is what the place in a complex subject makes of a format that could be anything.
    fn simple(self, format: &str, members: &Map<String, Value>, role: Option<FactKind>) -> Found {
        let is_user = matches!(role, None | Some(FactKind::Sub));
        let (member, kind) = match format {
            "iss_sub" | "iss-sub" => ("sub", role.or(Some(FactKind::Sub))),
            // SSF 1.0 section 3.4.1.
            "jwt_id" | "jwt-id" => ("jti", Some(FactKind::Jti)),
            "opaque" => ("id", if is_user { self.opaque } else { role }),
            "email" => ("email", self.email.filter(|_| is_user)),
            "account" => ("uri", self.account.filter(|_| is_user)),
            "phone_number" => ("phone_number", self.phone_number.filter(|_| is_user)),
            "did" => ("url", self.did.filter(|_| is_user)),
            "uri" => ("uri", self.uri.filter(|_| is_user)),
            _ => return Found::Unmapped,
        };
        let text = |name: &str| members.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let Some(value) = text(member) else {
            return Found::Broken("the subject lacks the member of its format");
        };
        let says_issuer = matches!(format, "iss_sub" | "iss-sub" | "jwt_id" | "jwt-id");
        if says_issuer && text("iss").is_none() {
            return Found::Broken("the subject lacks iss");
        }
        let Some(kind) = kind else { return Found::Unmapped };
        let issuer = if says_issuer { text("iss").map(str::to_owned) } else { None };
        Found::Facts(vec![Fact { target: Target::new(kind, value), issuer }])
    }
}

/// Members of a complex subject, the narrowest first. `device`, `tenant`, `org_unit` and `group` name nothing that a
/// token is known to have.
const COMPLEX: [(&str, FactKind); 3] =
    [("session", FactKind::Sid), ("user", FactKind::Sub), ("application", FactKind::Client)];

/// A person has a handful of names.
const MAX_ALIASES: usize = 16;
