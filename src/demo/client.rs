//! The client of `demo --check`: real TLS that trusts only the demo's authority, HTTP/1.1 and HTTP/2, and a new
//! connection for each request.
//!
//! Knows nothing of what it asks for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// Long enough for a busy machine; an answer that takes longer counts as none.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longer answers are none that the demo gives.
const MAX_BODY: usize = 1024 * 1024;

/// Which HTTP is spoken, chosen by ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    pub(super) const BOTH: [Self; 2] = [Self::Http1, Self::Http2];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }

    const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

/// A client of one gateway.
pub(super) struct Client {
    gateway: SocketAddr,
    roots: Arc<RootCertStore>,
}

impl Client {
    /// A client that trusts the authority whose certificate this is, in PEM, and no other.
    pub(super) fn new(gateway: SocketAddr, ca: &str) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            roots.add(certificate?)?;
        }
        Ok(Self { gateway, roots: Arc::new(roots) })
    }

    /// Sends a request, whose target is a path, and reads the whole answer.
    pub(super) async fn send(
        &self,
        protocol: Protocol,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<Response<Bytes>> {
        tokio::time::timeout(PATIENCE, self.exchange(protocol, request))
            .await
            .with_context(|| format!("no answer within {} s", PATIENCE.as_secs()))?
    }

    async fn exchange(
        &self,
        protocol: Protocol,
        mut request: Request<Full<Bytes>>,
    ) -> anyhow::Result<Response<Bytes>> {
        let stream = TcpStream::connect(self.gateway).await.context("connecting")?;
        let name = ServerName::from(self.gateway.ip());
        let stream = self.connector(protocol)?.connect(name, stream).await.context("TLS handshake")?;
        ensure!(
            stream.get_ref().1.alpn_protocol() == Some(protocol.alpn()),
            "the gateway did not agree to {}",
            protocol.name()
        );
        match protocol {
            Protocol::Http1 => over_http1(stream, self.gateway, request).await,
            Protocol::Http2 => {
                let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
                *request.uri_mut() = Uri::builder()
                    .scheme("https")
                    .authority(self.gateway.to_string())
                    .path_and_query(path)
                    .build()?;
                over_http2(stream, request).await
            }
        }
    }

    fn connector(&self, protocol: Protocol) -> anyhow::Result<TlsConnector> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.alpn().to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// Sends a request, whose target is a path, in the clear, and reads the whole answer.
pub(super) async fn send_plain(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Response<Bytes>> {
    let exchange = async {
        let stream = TcpStream::connect(address).await.context("connecting")?;
        over_http1(stream, address, request).await
    };
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .with_context(|| format!("no answer within {} s", PATIENCE.as_secs()))?
}

async fn over_http1(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    host: SocketAddr,
    mut request: Request<Full<Bytes>>,
) -> anyhow::Result<Response<Bytes>> {
    request.headers_mut().insert(header::HOST, HeaderValue::from_str(&host.to_string())?);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let _connection = Driver(tokio::spawn(async move { drop(connection.await) }));
    read(sender.send_request(request).await?).await
}

async fn over_http2(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Response<Bytes>> {
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let _connection = Driver(tokio::spawn(async move { drop(connection.await) }));
    read(sender.send_request(request).await?).await
}

async fn read(response: Response<hyper::body::Incoming>) -> anyhow::Result<Response<Bytes>> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|error| anyhow!(error))?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

/// Closes the connection when the answer is there, or nobody waits for it any more.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}
