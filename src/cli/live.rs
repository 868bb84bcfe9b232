//! The admin listener of a running gateway, asked over TCP, TLS or its Unix socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use url::Url;

const TOKEN_VARIABLE: &str = "VALGATE_ADMIN_TOKEN";

/// A gateway that waits for keys takes some seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Answers are some kilobytes.
const MAX_ANSWER: usize = 1 << 20;

/// How the admin listener is reached with TLS.
#[derive(Debug, clap::Args)]
pub struct Tls {
    /// PEM file with the authority of an admin listener with TLS, beside the system's
    #[arg(long = "live-ca", value_name = "FILE", requires = "live")]
    ca: Option<PathBuf>,
    /// PEM file with the client certificate that it asks for, leaf first
    #[arg(long = "live-certificate", value_name = "FILE", requires_all = ["live", "key"])]
    certificate: Option<PathBuf>,
    /// PEM file with the private key of that certificate
    #[arg(long = "live-key", value_name = "FILE", requires_all = ["live", "certificate"])]
    key: Option<PathBuf>,
}

/// Gets what the gateway whose admin listener is at this URL or socket has at a path.
pub async fn get<T: DeserializeOwned>(place: &str, tls: &Tls, path: &str) -> Result<T> {
    call(place, tls, Method::GET, path, Bytes::new()).await
}

/// Sends it a value, and gets what it answers.
pub async fn post<T: DeserializeOwned>(
    place: &str,
    tls: &Tls,
    path: &str,
    value: &impl Serialize,
) -> Result<T> {
    call(place, tls, Method::POST, path, Bytes::from(serde_json::to_vec(value)?)).await
}

async fn call<T: DeserializeOwned>(
    place: &str,
    tls: &Tls,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<T> {
    let asking = async {
        let request = request(method, path, body)?;
        let response = if place.starts_with("http://") || place.starts_with("https://") {
            ask_url(place, tls, request).await
        } else {
            let stream = UnixStream::connect(place).await?;
            send(stream, "localhost", request).await
        };
        read(response?).await
    };
    let answered = tokio::time::timeout(PATIENCE, asking).await;
    answered
        .unwrap_or_else(|_| Err(anyhow!("no answer in time")))
        .with_context(|| format!("cannot ask {place}"))
}

fn request(method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>> {
    let mut request = Request::builder().method(method).uri(path);
    if let Ok(token) = std::env::var(TOKEN_VARIABLE) {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| anyhow!("{TOKEN_VARIABLE} holds what cannot be a token"))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    if !body.is_empty() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    Ok(request.body(Full::new(body))?)
}

async fn ask_url(text: &str, tls: &Tls, request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
    let url = Url::parse(text)?;
    let host = url.host_str().context("the URL has no host")?;
    let port = url.port_or_known_default().unwrap_or(80);
    let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let stream = TcpStream::connect((name.as_str(), port)).await?;
    let authority = format!("{host}:{port}");
    if url.scheme() == "http" {
        return send(stream, &authority, request).await;
    }
    let connector = TlsConnector::from(Arc::new(tls.client_config()?));
    let stream = connector.connect(ServerName::try_from(name)?, stream).await?;
    send(stream, &authority, request).await
}

impl Tls {
    fn client_config(&self) -> Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = &self.ca {
            for authority in certificates(path)? {
                roots.add(authority).with_context(|| path.display().to_string())?;
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let builder = builder.with_root_certificates(roots);
        let (Some(certificate), Some(key)) = (&self.certificate, &self.key) else {
            return Ok(builder.with_no_client_auth());
        };
        let private_key = PrivateKeyDer::from_pem_file(key).with_context(|| key.display().to_string())?;
        let shown = || format!("{} and {} do not fit together", certificate.display(), key.display());
        builder.with_client_auth_cert(certificates(certificate)?, private_key).with_context(shown)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| path.display().to_string())
}

async fn send<S>(stream: S, authority: &str, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    request.headers_mut().insert(HOST, HeaderValue::from_str(authority)?);
    Ok(sender.send_request(request).await?)
}

async fn read<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T> {
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| anyhow!("{error}"))?.to_bytes();
    if status == StatusCode::OK {
        return serde_json::from_slice(&body)
            .context("the answer is not as expected; is this the admin listener?");
    }
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    match problem.get("detail").and_then(Value::as_str) {
        Some(detail) if status == StatusCode::UNAUTHORIZED => bail!("{detail} Set {TOKEN_VARIABLE} to it."),
        Some(detail) => bail!("{detail}"),
        None => bail!("it answers {status}; is this the admin listener?"),
    }
}
