//! A certificate authority made on the spot, and the gateway's certificate from it.
//!
//! The authority's private key is dropped as soon as it has signed: nobody can make more certificates that the
//! demo's clients would trust.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

use crate::clock::UnixSeconds;

/// Client libraries refuse certificates that are valid for years.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// For a client whose clock is behind.
const HEAD_START: Duration = Duration::from_secs(24 * 60 * 60);

/// Certificates in PEM; `key` is secret.
pub struct DemoCertificates {
    /// The authority that clients are to trust.
    pub ca: String,
    /// The gateway's certificate.
    pub certificate: String,
    /// The gateway's private key.
    pub key: String,
}

/// Makes an authority and a certificate for localhost, 127.0.0.1 and `::1`.
///
/// # Errors
/// Key generation or signing failed in the cryptographic library.
pub fn make_certificates(now: UnixSeconds) -> Result<DemoCertificates, rcgen::Error> {
    let mut ca = CertificateParams::default();
    set_validity(&mut ca, now);
    ca.distinguished_name.push(DnType::CommonName, "valgate demo CA (for development only)");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;

    let mut server = CertificateParams::new(["localhost".to_owned()])?;
    set_validity(&mut server, now);
    server.distinguished_name.push(DnType::CommonName, "valgate demo gateway");
    for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        server.subject_alt_names.push(SanType::IpAddress(address));
    }
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &ca)?;
    Ok(DemoCertificates { ca: ca.pem(), certificate: certificate.pem(), key: key.serialize_pem() })
}

fn set_validity(certificate: &mut CertificateParams, now: UnixSeconds) {
    let since_1970 = |at: UnixSeconds| Duration::from_secs(u64::try_from(at.0).unwrap_or_default());
    certificate.not_before = date_time_ymd(1970, 1, 1) + since_1970(now.minus(HEAD_START));
    certificate.not_after = date_time_ymd(1970, 1, 1) + since_1970(now.plus(LIFETIME));
}
