//! Authorities that divide their list of revoked certificates by place of publication (RFC 5280 section 5.2.5): which part
//! speaks for a certificate, only its own distribution points say. One that names none could be on any of them.
//!
//! The TLS library looks such a certificate up in the first part that it finds, and what another one revokes would pass;
//! so it is refused here. Knows nothing of what the parts say.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::OID_X509_EXT_CRL_DISTRIBUTION_POINTS;
use x509_parser::prelude::FromDer as _;

/// Accepts what another verifier accepts, unless it is of an authority that divides its list, and names no part.
#[derive(Debug)]
pub(super) struct NamesItsPart {
    verifier: Arc<dyn ClientCertVerifier>,
    /// The authorities' names, as certificates write them.
    dividing: Vec<Box<[u8]>>,
}

impl NamesItsPart {
    pub(super) fn new(verifier: Arc<dyn ClientCertVerifier>, dividing: Vec<Box<[u8]>>) -> Self {
        Self { verifier, dividing }
    }

    fn may_be_on_any(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return true };
        let issuer = certificate.issuer().as_raw();
        // An authority's certificate for itself is not revoked by its own list.
        issuer != certificate.subject().as_raw()
            && self.dividing.iter().any(|dividing| **dividing == *issuer)
            && !certificate
                .extensions()
                .iter()
                .any(|extension| extension.oid == OID_X509_EXT_CRL_DISTRIBUTION_POINTS)
    }
}

impl ClientCertVerifier for NamesItsPart {
    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.verifier.verify_client_cert(own, others, now)?;
        if std::iter::once(own).chain(others).any(|certificate| self.may_be_on_any(certificate)) {
            return Err(CertificateError::UnknownRevocationStatus.into());
        }
        Ok(verified)
    }

    fn offer_client_auth(&self) -> bool {
        self.verifier.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.verifier.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.verifier.requires_raw_public_keys()
    }
}
