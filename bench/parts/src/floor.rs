//! The floor: TLS, HTTP, a pool of upstream connections and a map of tokens that were verified before, and nothing
//! else. No routes, no limits, no revocation, no log, no metrics. The gateway's libraries and its threading model.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{Either, Empty};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self as client, SendRequest};
use hyper::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// How the floor is called.
#[derive(clap::Args)]
pub struct Options {
    /// Where TLS connections arrive
    #[arg(long)]
    tls: SocketAddr,
    /// Where plain connections arrive
    #[arg(long)]
    plain: SocketAddr,
    #[arg(long)]
    upstream: SocketAddr,
    #[arg(long)]
    certificate: PathBuf,
    #[arg(long)]
    private_key: PathBuf,
    #[arg(long)]
    jwks: PathBuf,
    #[arg(long)]
    issuer: String,
    #[arg(long)]
    audience: String,
    #[arg(long, value_enum)]
    auth: Auth,
}

/// What is done about tokens.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Auth {
    /// Nothing
    None,
    /// Verified once, then remembered
    Cached,
    /// Verified each time
    Each,
}

struct Floor {
    upstream: SocketAddr,
    idle: RefCell<Vec<SendRequest<Incoming>>>,
    auth: Auth,
    keys: HashMap<String, (DecodingKey, Validation)>,
    verified: RefCell<HashMap<Box<str>, u64>>,
}

#[derive(Deserialize)]
struct Claims {
    exp: u64,
}

/// Serves until killed.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let keys: JwkSet = serde_json::from_str(&std::fs::read_to_string(&options.jwks)?)?;
    let keys = keys.keys.iter().map(|jwk| {
        let name = jwk.common.key_algorithm.context("a key without alg")?.to_string();
        let algorithm: Algorithm = name.parse()?;
        let mut validation = Validation::new(algorithm);
        validation.set_audience(&[&options.audience]);
        validation.set_issuer(&[&options.issuer]);
        validation.leeway = 30;
        Ok((
            jwk.common.key_id.clone().context("a key without kid")?,
            (DecodingKey::from_jwk(jwk)?, validation),
        ))
    });
    let floor = Rc::new(Floor {
        upstream: options.upstream,
        idle: RefCell::default(),
        auth: options.auth,
        keys: keys.collect::<anyhow::Result<_>>()?,
        verified: RefCell::default(),
    });
    let (tls, plain) = (TcpListener::bind(options.tls).await?, TcpListener::bind(options.plain).await?);
    let acceptor = acceptor(&options)?;
    loop {
        let floor = Rc::clone(&floor);
        tokio::select! {
            accepted = tls.accept() => {
                let (stream, acceptor) = (accepted?.0, acceptor.clone());
                stream.set_nodelay(true)?;
                tokio::task::spawn_local(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    floor.speak(stream, is_http2).await;
                });
            }
            accepted = plain.accept() => {
                let stream = accepted?.0;
                stream.set_nodelay(true)?;
                tokio::task::spawn_local(async move { floor.speak(stream, false).await });
            }
        }
    }
}

fn acceptor(options: &Options) -> anyhow::Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = vec![CertificateDer::from_pem_file(&options.certificate)?];
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(&options.private_key)?)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl Floor {
    async fn speak<S: AsyncRead + AsyncWrite + Unpin + 'static>(self: Rc<Self>, stream: S, is_http2: bool) {
        let io = TokioIo::new(stream);
        let service = service_fn(move |request| {
            let floor = Rc::clone(&self);
            Box::pin(async move { floor.handle(request).await })
        });
        // What ends a connection is of no interest here.
        let _ = if is_http2 {
            http2::Builder::new(OnThisThread).serve_connection(io, service).await
        } else {
            http1::Builder::new().serve_connection(io, service).await
        };
    }

    async fn handle(self: Rc<Self>, mut request: Request<Incoming>) -> hyper::Result<Response<Answer>> {
        if self.auth != Auth::None && !self.is_authentic(&request) {
            let mut refusal = Response::new(Either::Right(Empty::new()));
            *refusal.status_mut() = StatusCode::UNAUTHORIZED;
            return Ok(refusal);
        }
        if let Some(authority) = request.uri().authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            request.headers_mut().insert(HOST, host);
        }
        let target = std::mem::take(request.uri_mut()).into_parts().path_and_query;
        *request.uri_mut() = target.map(Uri::from).unwrap_or_default();
        *request.version_mut() = Version::HTTP_11;
        request.headers_mut().remove(CONNECTION);
        let mut sender = self.sender().await?;
        let mut response = sender.send_request(request).await?;
        response.headers_mut().remove(CONNECTION);
        Ok(response.map(|body| Either::Left(Returning { body, floor: self, sender: Some(sender) })))
    }

    fn is_authentic(&self, request: &Request<Incoming>) -> bool {
        let token = request
            .headers()
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let Some(token) = token else { return false };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |since| since.as_secs());
        if self.auth == Auth::Cached && self.verified.borrow().get(token).is_some_and(|exp| now < *exp) {
            return true;
        }
        let kid = jsonwebtoken::decode_header(token).ok().and_then(|header| header.kid);
        let Some((key, validation)) = kid.and_then(|kid| self.keys.get(&kid)) else { return false };
        let Ok(token_data) = jsonwebtoken::decode::<Claims>(token, key, validation) else { return false };
        if self.auth == Auth::Cached {
            self.verified.borrow_mut().insert(token.into(), token_data.claims.exp);
        }
        true
    }

    async fn sender(&self) -> hyper::Result<SendRequest<Incoming>> {
        while let Some(sender) = self.idle.borrow_mut().pop() {
            if sender.is_ready() {
                return Ok(sender);
            }
        }
        let stream = loop {
            if let Ok(stream) = TcpStream::connect(self.upstream).await {
                break stream;
            }
        };
        let _ = stream.set_nodelay(true);
        let (sender, connection) = client::handshake(TokioIo::new(stream)).await?;
        tokio::task::spawn_local(connection);
        Ok(sender)
    }
}

type Answer = Either<Returning, Empty<Bytes>>;

/// A response's body that gives its connection back when it ends.
struct Returning {
    body: Incoming,
    floor: Rc<Floor>,
    sender: Option<SendRequest<Incoming>>,
}

impl Body for Returning {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if (frame.is_none() || self.body.is_end_stream())
            && let Some(mut sender) = self.sender.take()
        {
            let floor = Rc::clone(&self.floor);
            if sender.is_ready() {
                floor.idle.borrow_mut().push(sender);
            } else {
                tokio::task::spawn_local(async move {
                    if sender.ready().await.is_ok() {
                        floor.idle.borrow_mut().push(sender);
                    }
                });
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[derive(Clone, Copy)]
struct OnThisThread;

impl<F: Future + 'static> hyper::rt::Executor<F> for OnThisThread {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
