//! The connector under the fetch client: TCP, and TLS by rustls with aws-lc-rs asked for by name. Whether plain HTTP
//! is permitted was decided before.

use std::fs;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::error::{Cause, FetchError};
use super::{ClientCertificate, EgressProxy, FetchSettings, TrustAnchors};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Connects to `http` and `https` origins.
#[derive(Clone, Debug)]
pub(super) struct HttpsConnector {
    tcp: HttpConnector,
    tls: Tls,
    proxy: Option<EgressProxy>,
    timeout: Duration,
}

#[derive(Clone)]
struct Tls(TlsConnector);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl HttpsConnector {
    /// The connector, and whether it trusts anyone at all.
    pub(super) fn new(settings: &FetchSettings) -> Result<(Self, bool), FetchError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(settings.timeout));
        let roots = trust_anchors(settings.ca.as_ref())?;
        let trusts_anyone = !roots.is_empty();
        let mut config = config_for(roots, settings.client_certificate.as_ref())?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let tls = Tls(TlsConnector::from(Arc::new(config)));
        let (proxy, timeout) = (settings.proxy.clone(), settings.timeout);
        Ok((Self { tcp, tls, proxy, timeout }, trusts_anyone))
    }
}

impl Service<Uri> for HttpsConnector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let server_name = (uri.scheme_str() == Some("https")).then(|| server_name(&uri));
        let proxy = self.proxy.clone();
        let via = proxy.as_ref().and_then(EgressProxy::uri);
        let connecting = self.tcp.call(via.unwrap_or_else(|| uri.clone()));
        let tls = self.tls.0.clone();
        let connected = async move {
            let mut tcp = connecting.await?.into_inner();
            if let Some(proxy) = proxy {
                proxy.open(&mut tcp, &uri).await?;
            }
            let Some(server_name) = server_name else {
                return Ok(Stream { io: Box::new(TokioIo::new(tcp)), h2: false });
            };
            let stream = tls.connect(server_name?, tcp).await?;
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            Ok(Stream { io: Box::new(TokioIo::new(stream)), h2 })
        };
        let timeout = self.timeout;
        Box::pin(async move { tokio::time::timeout(timeout, connected).await? })
    }
}

fn server_name(uri: &Uri) -> Result<ServerName<'static>, BoxError> {
    let host = uri.host().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Ok(ServerName::try_from(host.to_owned())?)
}

/// TLS to a source, without ALPN.
pub(in crate::feeds) fn client_config(
    ca: Option<&TrustAnchors>,
    client: Option<&ClientCertificate>,
) -> Result<ClientConfig, FetchError> {
    config_for(trust_anchors(ca)?, client)
}

fn config_for(roots: RootCertStore, client: Option<&ClientCertificate>) -> Result<ClientConfig, FetchError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| FetchError::Tls { cause: Cause::of(&error) })?
        .with_root_certificates(roots);
    match client {
        None => Ok(builder.with_no_client_auth()),
        Some(files) => {
            let (chain, key) = client_certificate(files)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| FetchError::ClientCertificate { cause: Cause::of(&error) })
        }
    }
}

fn trust_anchors(named: Option<&TrustAnchors>) -> Result<RootCertStore, FetchError> {
    let mut roots = RootCertStore::empty();
    let (what, pem) = match named {
        None => {
            // What the system holds is not ours to judge: unusable ones are left out, and that all are is told
            // when a request needs one.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return Ok(roots);
        }
        Some(TrustAnchors::File(path)) => {
            (format!("the ca file {}", path.display()), read("the ca file", path)?)
        }
        Some(TrustAnchors::Pem(pem)) => ("the inline ca".to_owned(), pem.clone()),
    };
    for certificate in certificates(&what, &pem)? {
        roots.add(certificate).map_err(|error| FetchError::Pem {
            what: what.clone(),
            expected: CERTIFICATES,
            cause: Cause::of(&error),
        })?;
    }
    Ok(roots)
}

fn client_certificate(
    files: &ClientCertificate,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), FetchError> {
    let what = format!("the client certificate {}", files.certificate.display());
    let chain = certificates(&what, &read("the client certificate", &files.certificate)?)?;
    let pem = read("the client's private key", &files.private_key)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| FetchError::Pem {
        what: format!("the client's private key {}", files.private_key.display()),
        expected: "one unencrypted private key",
        cause: Cause::of(&error),
    })?;
    Ok((chain, key))
}

fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, FetchError> {
    let wrong = |cause| FetchError::Pem { what: what.to_owned(), expected: CERTIFICATES, cause };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(wrong(Cause::text("no certificate found"))),
        Ok(found) => Ok(found),
        Err(error) => Err(wrong(Cause::of(&error))),
    }
}

fn read(what: &'static str, path: &std::path::Path) -> Result<Vec<u8>, FetchError> {
    fs::read(path).map_err(|error| FetchError::Unreadable {
        what,
        path: path.to_owned(),
        cause: Cause::of(&error),
    })
}

const CERTIFICATES: &str = "one or more blocks of BEGIN CERTIFICATE";

trait ReadWrite: Read + Write + Unpin + Send {}
impl<T: Read + Write + Unpin + Send> ReadWrite for T {}

/// A connection, with or without TLS.
pub(super) struct Stream {
    io: Box<dyn ReadWrite>,
    h2: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        if self.h2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
