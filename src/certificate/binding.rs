//! Tokens bound to a client certificate (RFC 8705 section 3): stolen alone, such a token is worth nothing.

use serde_json::Value;

use super::ClientCertificate;
use crate::catalogue::Reason;
use crate::rejection::Rejection;
use crate::token::{Binding, Claims, Issuer};

/// Whether a token of this issuer with these claims may be used on a connection with this certificate.
pub fn check_binding(
    issuer: &Issuer,
    claims: &Claims,
    certificate: Option<&ClientCertificate>,
) -> Result<(), Rejection> {
    match (issuer.expectations.binding, bound_to(claims), certificate) {
        (Binding::InsecureIgnore, _, _) | (Binding::IfBound, None, _) => Ok(()),
        (Binding::Certificate, None, _) => Err(mismatch("the token is bound to no certificate")),
        (_, Some(_), None) => {
            Err(mismatch("the token is bound to a certificate, and the client showed none"))
        }
        (_, Some(Value::String(digest)), Some(certificate)) if *digest == certificate.x5t_s256() => Ok(()),
        (_, Some(_), Some(_)) => Err(mismatch("the token is bound to another certificate")),
    }
}

/// The digest of the certificate that a token with these claims is bound to, as it came; `None` if it is bound to none.
pub fn bound_to(claims: &Claims) -> Option<&Value> {
    claims.at(&["cnf", "x5t#S256"])
}

fn mismatch(log: &str) -> Rejection {
    Rejection::new(Reason::BindingMismatch).log(log)
}
