//! Client certificates: what one says of its bearer, what a route demands of it, and tokens that are bound to one
//! (RFC 8705). Pure: that an authority stands behind a certificate, and that the client holds its key, is for TLS to
//! find out before.

mod binding;
mod name;
mod rules;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

pub use binding::{bound_to, check_binding};
pub use rules::{Admitted, CertificateRules};

/// A verified client certificate and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    der: Box<[u8]>,
    digest: [u8; 32],
    subject: String,
    common_names: Vec<String>,
    dns_names: Vec<String>,
    uris: Vec<String>,
    emails: Vec<String>,
}

/// What a certificate says of its bearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CertificateFact {
    /// The whole subject as RFC 4514 writes it: `CN=orders,O=Example`.
    Subject,
    /// The subject's common names.
    CommonName,
    /// The subject's alternative names of the kind `dNSName` (RFC 5280 section 4.2.1.6), in lower case.
    SanDns,
    /// Those of the kind `uniformResourceIdentifier`, such as SPIFFE ids.
    SanUri,
    /// Those of the kind `rfc822Name`.
    SanEmail,
    /// The SHA-256 digest of the certificate, in hexadecimal.
    Thumbprint,
    /// The certificate itself as a structured header has it (RFC 9440 section 2.1).
    Rfc9440,
}

/// The certificate's bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client certificate cannot be read")]
pub struct Unreadable;

impl ClientCertificate {
    /// Reads a certificate that TLS has verified.
    ///
    /// # Errors
    /// It is no X.509 certificate, or has more than one extension with alternative names.
    pub fn from_der(der: &[u8]) -> Result<Self, Unreadable> {
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| Unreadable)?;
        if !rest.is_empty() {
            return Err(Unreadable);
        }
        let mut certificate = Self {
            der: der.into(),
            digest: digest(der),
            subject: name::rfc4514(parsed.subject()),
            common_names: name::common_names(parsed.subject()),
            dns_names: Vec::new(),
            uris: Vec::new(),
            emails: Vec::new(),
        };
        let names = parsed.subject_alternative_name().map_err(|_| Unreadable)?;
        for name in names.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::DNSName(name) => certificate.dns_names.push(name.to_ascii_lowercase()),
                GeneralName::URI(uri) => certificate.uris.push((*uri).to_owned()),
                GeneralName::RFC822Name(email) => certificate.emails.push((*email).to_owned()),
                _ => {}
            }
        }
        Ok(certificate)
    }

    /// What it says: nothing, one text, or several.
    pub fn texts(&self, fact: CertificateFact) -> Vec<String> {
        match fact {
            CertificateFact::Subject if self.subject.is_empty() => Vec::new(),
            CertificateFact::Subject => vec![self.subject.clone()],
            CertificateFact::CommonName => self.common_names.clone(),
            CertificateFact::SanDns => self.dns_names.clone(),
            CertificateFact::SanUri => self.uris.clone(),
            CertificateFact::SanEmail => self.emails.clone(),
            CertificateFact::Thumbprint => vec![self.thumbprint()],
            CertificateFact::Rfc9440 => vec![format!(":{}:", STANDARD.encode(&self.der))],
        }
    }

    /// By what a log names its bearer: the first alternative name that says who it is, or else the subject.
    pub fn principal(&self) -> &str {
        let names = [&self.uris, &self.dns_names, &self.emails].into_iter().find_map(|names| names.first());
        names.unwrap_or(&self.subject)
    }

    fn thumbprint(&self) -> String {
        use std::fmt::Write as _;
        self.digest.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// Its SHA-256 digest as the claim `cnf` has it (RFC 8705 section 3.1).
    pub fn x5t_s256(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.digest)
    }
}

impl CertificateFact {
    /// As the configuration names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::CommonName => "common_name",
            Self::SanDns => "san_dns",
            Self::SanUri => "san_uri",
            Self::SanEmail => "san_email",
            Self::Thumbprint => "thumbprint",
            Self::Rfc9440 => "rfc9440",
        }
    }
}

fn digest(der: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    let mut bytes = [0; 32];
    for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    bytes
}

#[cfg(test)]
mod tests;
