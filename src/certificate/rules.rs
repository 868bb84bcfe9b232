//! What a route demands of a client certificate.

use std::fmt;

use super::{CertificateFact, ClientCertificate};
use crate::catalogue::Reason;
use crate::rejection::Rejection;

/// For each fact, the texts of which the certificate must have one. Without any, every verified certificate will do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateRules(Vec<(CertificateFact, Vec<String>)>);

/// Proof that a certificate satisfies the rules of its route. Made by [`CertificateRules::admit`] alone.
#[derive(Clone, Copy, Debug)]
pub struct Admitted(());

impl CertificateRules {
    /// All of these must hold. Texts are compared exactly; DNS names are expected in lower case, and thumbprints in
    /// lower-case hexadecimal.
    pub fn new(rules: Vec<(CertificateFact, Vec<String>)>) -> Self {
        Self(rules)
    }

    /// Lets a certificate pass, or says why not.
    pub fn admit(&self, certificate: Option<&ClientCertificate>) -> Result<Admitted, Rejection> {
        let certificate = certificate.ok_or_else(|| Rejection::new(Reason::CertificateMissing))?;
        let holds = |fact: CertificateFact, allowed: &[String]| match fact {
            CertificateFact::Subject => allowed.contains(&certificate.subject),
            CertificateFact::CommonName => certificate.common_names.iter().any(|name| allowed.contains(name)),
            CertificateFact::SanDns => certificate.dns_names.iter().any(|name| allowed.contains(name)),
            CertificateFact::SanUri => certificate.uris.iter().any(|uri| allowed.contains(uri)),
            CertificateFact::SanEmail => certificate.emails.iter().any(|email| allowed.contains(email)),
            fact => certificate.texts(fact).iter().any(|text| allowed.contains(text)),
        };
        match self.0.iter().find(|(fact, allowed)| !holds(*fact, allowed)) {
            None => Ok(Admitted(())),
            Some((fact, _)) => Err(Rejection::new(Reason::CertificateRule).log(format!(
                "the client certificate of '{}' has none of the texts that the route allows for {}",
                certificate.principal(),
                fact.name()
            ))),
        }
    }
}

/// For people: `san_uri one of a, b; common_name c`.
impl fmt::Display for CertificateRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("any of the listener's authority");
        }
        for (place, (fact, allowed)) in self.0.iter().enumerate() {
            let separator = if place == 0 { "" } else { "; " };
            let several = if allowed.len() == 1 { "" } else { "one of " };
            write!(f, "{separator}{} {several}{}", fact.name(), allowed.join(", "))?;
        }
        Ok(())
    }
}
