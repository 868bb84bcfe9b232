//! Serves the admission webhook over TLS: `POST /mutate` for the API server, `GET /healthz` for the kubelet.
//!
//! Answers anyone who connects: an answer holds nothing but what was asked. Bodies, time and connections are bounded.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::webhook::review;

/// Serves until dropped. `certificates` is asked for each connection, so that a renewed certificate is used at once.
pub async fn serve<F: Fn() -> Arc<ServerConfig>>(listener: TcpListener, certificates: F) -> Infallible {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Closed only with the semaphore, which nobody closes.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { continue };
        match listener.accept().await {
            Ok((stream, _)) => {
                let acceptor = TlsAcceptor::from(certificates());
                tokio::spawn(async move {
                    _ = timeout(CONNECTION_TIMEOUT, connection(stream, acceptor)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the webhook cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor) {
    let stream = match acceptor.accept(stream).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "the webhook's client failed its TLS handshake");
            return;
        }
    };
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let service = service_fn(|request| async { Ok::<_, Infallible>(answer(request).await) });
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection to the webhook broke");
    }
}

async fn answer(request: Request<Incoming>) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/healthz") => response(StatusCode::OK, TEXT, "ok\n"),
        (&Method::POST, "/mutate") => {
            let Ok(body) = Limited::new(request.into_body(), MAX_REVIEW).collect().await else {
                return response(StatusCode::PAYLOAD_TOO_LARGE, TEXT, "The review is too large.\n");
            };
            match review(&body.to_bytes()) {
                Ok(review) => response(StatusCode::OK, "application/json", review.to_string()),
                Err(error) => response(StatusCode::BAD_REQUEST, TEXT, format!("{error}\n")),
            }
        }
        _ => response(StatusCode::NOT_FOUND, TEXT, "Not found; POST reviews to /mutate.\n"),
    }
}

fn response(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

const TEXT: &str = "text/plain; charset=utf-8";

/// The API server's own limit of a request is 3 MiB.
const MAX_REVIEW: usize = 4 * 1024 * 1024;

/// The API server reuses a handful of connections.
const MAX_CONNECTIONS: usize = 64;

/// Long enough for the API server to reuse a connection, short enough that nobody holds one for ever.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);

const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
