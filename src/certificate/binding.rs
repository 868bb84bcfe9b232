//! Tokens bound to a client certificate (RFC 8705 section 3): stolen alone, such a token is worth nothing.

use serde_json::Value;

use super::ClientCertificate;
use crate::catalogue::Reason;
use crate::rejection::Rejection;
use crate::token::{Binding, VerifiedToken};

/// Whether the token may be used on a connection with this certificate.
pub fn check_binding(
    token: &VerifiedToken,
    certificate: Option<&ClientCertificate>,
) -> Result<(), Rejection> {
    let binding = token.issuer().expectations.binding;
    let confirmation = token.claims().at(&["cnf"]);
    let bound_to = confirmation.and_then(|members| members.get("x5t#S256"));
    match (binding, bound_to, certificate) {
        (Binding::InsecureIgnore, _, _) | (Binding::IfBound, None, _) => Ok(()),
        (Binding::Certificate, None, _) => Err(mismatch("the token is bound to no certificate")),
        (_, Some(_), None) => {
            Err(mismatch("the token is bound to a certificate, and the client showed none"))
        }
        (_, Some(Value::String(digest)), Some(certificate)) if *digest == certificate.x5t_s256() => Ok(()),
        (_, Some(_), Some(_)) => Err(mismatch("the token is bound to another certificate")),
    }
}

fn mismatch(log: &str) -> Rejection {
    Rejection::new(Reason::BindingMismatch).log(log)
}
