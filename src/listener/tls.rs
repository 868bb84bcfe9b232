//! TLS on listeners: certificates by server name, on rustls and aws-lc-rs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoClientAuth, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
    VerifierBuilderError, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::crls::{self, CrlError, RevocationLists};
use super::divided::NamesItsPart;
use crate::config::settings::{ClientCertificates, Tls, TlsVersion};

/// A certificate or key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read, or holds nothing of the kind.
    #[error("{}: {cause}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        cause: rustls::pki_types::pem::Error,
    },
    /// Key and certificate do not belong together, or the key is of an unknown kind.
    #[error("{} does not fit {}: {cause}", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What the TLS library said.
        cause: rustls::Error,
    },
    /// The authorities of client certificates are none.
    #[error("{}: {cause}", path.display())]
    Authorities {
        /// Which file.
        path: PathBuf,
        /// What the TLS library said.
        cause: VerifierBuilderError,
    },
    /// The lists of revoked client certificates are not what they have to be.
    #[error(transparent)]
    RevocationLists(#[from] CrlError),
    /// The TLS library refused the settings.
    #[error("TLS settings: {0}")]
    Settings(#[from] rustls::Error),
}

/// TLS of one listener.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// For handshakes.
    pub config: Arc<ServerConfig>,
    /// Who vouches for client certificates, where they are asked for.
    pub client_verifier: Option<Arc<dyn ClientCertVerifier>>,
}

/// The TLS configuration of a server that looks at client certificates in handshakes alone.
pub fn server_config(tls: &Tls) -> Result<Arc<ServerConfig>, TlsError> {
    server_tls(tls).map(|tls| tls.config)
}

/// TLS of one listener.
pub fn server_tls(tls: &Tls) -> Result<ServerTls, TlsError> {
    let provider = Arc::new(provider());
    let keys = tls
        .certificates
        .iter()
        .map(|pair| certified_key(&pair.certificate, &pair.private_key, &provider))
        .collect::<Result<Vec<_>, _>>()?;
    let verifier =
        tls.client_certificates.as_ref().map(|asked| client_verifier(asked, &provider)).transpose()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(tls.min_version))?
        .with_client_cert_verifier(verifier.clone().unwrap_or_else(|| Arc::new(NoClientAuth)))
        .with_cert_resolver(Arc::new(ByServerName(keys)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if verifier.is_some() {
        // A resumed session would bring a certificate along that is not verified again: it may have expired.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    } else {
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    }
    config.ignore_client_order = true;
    Ok(ServerTls { config: Arc::new(config), client_verifier: verifier })
}

/// AES-128 first, whatever the client likes better: as good as AES-256 against any attack that there is, and the hash
/// that comes with it has instructions of its own. SHA-384 has none, and is a third of a handshake
/// (docs/performance.md).
fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

fn client_verifier(
    asked: &ClientCertificates,
    provider: &Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let unusable = |cause: VerifierBuilderError| TlsError::Authorities { path: asked.ca.clone(), cause };
    let mut roots = RootCertStore::empty();
    for root in chain(&asked.ca)? {
        roots.add(root)?;
    }
    let roots = Arc::new(roots);
    let builder = || WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider));
    let mut lists = RevocationLists::default();
    for path in &asked.crls {
        for list in crls::read(path)? {
            // One by one, so that the error names the file.
            let unusable = |cause| CrlError::Unusable { path: path.clone(), cause };
            builder().with_crls([list.clone()]).build().map_err(unusable)?;
            lists.add(path, list)?;
        }
    }
    let dividing = lists.dividing();
    let revoked = lists.into_der();
    let mut builder = builder();
    if !revoked.is_empty() {
        // A list that is past its time says nothing any more of who was revoked since.
        builder = builder.with_crls(revoked).enforce_revocation_expiration();
    }
    let builder = if asked.required { builder } else { builder.allow_unauthenticated() };
    let verifier = builder.build().map_err(unusable)?;
    Ok(if dividing.is_empty() { verifier } else { Arc::new(NamesItsPart::new(verifier, dividing)) })
}

fn versions(oldest: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
    static NEWEST: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
    match oldest {
        TlsVersion::Tls12 => &BOTH,
        TlsVersion::Tls13 => &NEWEST,
    }
}

fn certified_key(
    certificate: &Path,
    key: &Path,
    provider: &rustls::crypto::CryptoProvider,
) -> Result<Arc<CertifiedKey>, TlsError> {
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|cause| TlsError::File { path: key.to_owned(), cause })?;
    let mismatch =
        |cause| TlsError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned(), cause };
    CertifiedKey::from_der(chain(certificate)?, private, provider).map(Arc::new).map_err(mismatch)
}

/// All certificates of a file; at least one.
fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |cause| TlsError::File { path: path.to_owned(), cause };
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable)?;
    if chain.is_empty() {
        return Err(unreadable(rustls::pki_types::pem::Error::NoItemsFound));
    }
    Ok(chain)
}

/// Presents the first certificate that is valid for the name that the client asked for, or the first of all.
#[derive(Debug)]
struct ByServerName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByServerName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let fitting = asked.and_then(|name| self.0.iter().find(|key| bears(key, &name)));
        fitting.or_else(|| self.0.first()).cloned()
    }
}

fn bears(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let leaf = key.end_entity_cert().ok().and_then(|leaf| ParsedCertificate::try_from(leaf).ok());
    leaf.is_some_and(|leaf| verify_server_name(&leaf, name).is_ok())
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConfig, ClientConnection, ServerConnection};
    use tempfile::TempDir;

    use super::*;
    use crate::config::settings;

    const OLD_AND_NEW: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
    const OLD: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];

    /// Certificates for these names, one each, as files and as the settings that name them.
    fn certificates(dir: &TempDir, names: &[&str], min_version: TlsVersion) -> (Tls, RootCertStore) {
        let mut roots = RootCertStore::empty();
        let mut pairs = Vec::new();
        for (place, name) in names.iter().enumerate() {
            let made = rcgen::generate_simple_self_signed([(*name).to_owned()]).unwrap();
            let [certificate, private_key] =
                ["crt", "key"].map(|kind| dir.path().join(format!("{place}.{kind}")));
            std::fs::write(&certificate, made.cert.pem()).unwrap();
            std::fs::write(&private_key, made.signing_key.serialize_pem()).unwrap();
            roots.add(made.cert.der().clone()).unwrap();
            pairs.push(settings::CertifiedKey { certificate, private_key });
        }
        (Tls { certificates: pairs, min_version, client_certificates: None, hsts: None }, roots)
    }

    /// The certificate that a client is shown who asks for this name, or why there is no connection.
    fn shown(
        config: Arc<ServerConfig>,
        roots: RootCertStore,
        name: &str,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<Vec<u8>, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name)?;
        let mut server = ServerConnection::new(config)?;
        meet(&mut client, &mut server)?;
        Ok(client.peer_certificates().unwrap()[0].to_vec())
    }

    fn meet(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), rustls::Error> {
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
            wire.clear();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    fn der(tls: &Tls, place: usize) -> Vec<u8> {
        CertificateDer::from_pem_file(&tls.certificates[place].certificate).unwrap().to_vec()
    }

    #[test]
    fn the_certificate_follows_the_name_that_the_client_asks_for() {
        let dir = TempDir::new().unwrap();
        let (tls, roots) = certificates(&dir, &["a.test", "*.b.test", "c.test"], TlsVersion::Tls12);
        let config = server_config(&tls).unwrap();
        for (name, place) in [("a.test", 0), ("x.b.test", 1), ("c.test", 2)] {
            let seen = shown(Arc::clone(&config), roots.clone(), name, OLD_AND_NEW);
            assert_eq!(seen, Ok(der(&tls, place)), "{name}");
        }
        let error = shown(config, roots, "unknown.test", OLD_AND_NEW).unwrap_err();
        assert!(format!("{error:?}").contains("NotValidForName"), "the first, which does not fit: {error:?}");
    }

    #[test]
    fn the_suite_with_the_quicker_hash_is_taken_though_the_client_prefers_another() {
        let dir = TempDir::new().unwrap();
        let (tls, roots) = certificates(&dir, &["a.test"], TlsVersion::Tls13);
        let client =
            || ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let client = client().with_safe_default_protocol_versions().unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();
        let mut client = ClientConnection::new(Arc::new(client), "a.test".try_into().unwrap()).unwrap();
        let mut server = ServerConnection::new(server_config(&tls).unwrap()).unwrap();
        meet(&mut client, &mut server).unwrap();
        let suite = server.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(suite, CipherSuite::TLS13_AES_128_GCM_SHA256);
    }

    #[test]
    fn versions_below_the_least_are_refused() {
        let dir = TempDir::new().unwrap();
        let (mut tls, roots) = certificates(&dir, &["a.test"], TlsVersion::Tls12);
        let is_served = |tls: &Tls| shown(server_config(tls).unwrap(), roots.clone(), "a.test", OLD).is_ok();
        assert!(is_served(&tls));
        tls.min_version = TlsVersion::Tls13;
        assert!(!is_served(&tls));
    }

    #[test]
    fn a_key_that_does_not_fit_is_named_at_the_start() {
        let dir = TempDir::new().unwrap();
        let (mut tls, _) = certificates(&dir, &["a.test", "b.test"], TlsVersion::Tls12);
        tls.certificates[0].private_key = tls.certificates[1].private_key.clone();
        let error = server_config(&tls).unwrap_err().to_string();
        assert!(error.contains("1.key") && error.contains("0.crt"), "{error}");
    }
}
