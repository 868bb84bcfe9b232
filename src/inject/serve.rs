//! Serves the admission webhook over TLS: `POST /mutate` for the API server, `GET /healthz` for the kubelet. HTTP/1.1
//! is all that an API server speaks to webhooks.
//!
//! Answers anyone who connects: an answer holds nothing but what was asked. Connections, time and memory are bounded,
//! so that it stays within the 64 MiB that `deploy/kubernetes/webhook` gives it.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::webhook::review;

/// Serves until dropped. `certificates` is asked for each connection, so that a renewed certificate is used at once.
pub async fn serve<F: Fn() -> Arc<ServerConfig>>(listener: TcpListener, certificates: F) -> Infallible {
    serve_at_most(MAX_CONNECTIONS, listener, certificates).await
}

async fn serve_at_most<F: Fn() -> Arc<ServerConfig>>(
    connections: usize,
    listener: TcpListener,
    certificates: F,
) -> Infallible {
    let places = Arc::new(Semaphore::new(connections));
    let memory = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    loop {
        // Closed only with the semaphore, which nobody closes.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { continue };
        match listener.accept().await {
            Ok((stream, _)) => {
                let accepting = TlsAcceptor::from(certificates()).accept(stream);
                let memory = Arc::clone(&memory);
                tokio::spawn(async move {
                    match timeout(HEADER_TIMEOUT, accepting).await {
                        Ok(Ok(stream)) => converse(stream, memory).await,
                        Ok(Err(error)) => {
                            tracing::debug!(%error, "the webhook's client failed its TLS handshake");
                        }
                        Err(_) => tracing::debug!("the webhook's client never ended its TLS handshake"),
                    }
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

/// Answers on one connection until it is broken or too old.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(stream: S, memory: Arc<Semaphore>) {
    let service = service_fn(|request| {
        let memory = Arc::clone(&memory);
        async move { Ok::<_, Infallible>(answer(request, memory).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_BUFFER);
    // Copied into a buffer of the connection, an answer would no longer count.
    server.writev(true);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = sleep(MAX_AGE) => {
            connection.as_mut().graceful_shutdown();
            timeout(ANSWER_TIMEOUT, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the webhook broke");
    }
}

async fn answer(request: Request<Incoming>, memory: Arc<Semaphore>) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/healthz") => response(StatusCode::OK, TEXT, "ok\n"),
        (&Method::POST, "/mutate") => match mutate(request.into_body(), memory).await {
            Ok(review) => response(StatusCode::OK, "application/json", review),
            Err((status, why)) => response(status, TEXT, why),
        },
        _ => response(StatusCode::NOT_FOUND, TEXT, "Not found; POST reviews to /mutate.\n"),
    }
}

/// Reads, once there is memory for the whole body, and answers. One review at a time becomes a tree: `review` does
/// not wait for anything, and the webhook has one thread.
async fn mutate(body: Incoming, memory: Arc<Semaphore>) -> Result<Bytes, (StatusCode, String)> {
    let refuse = |status, why: &str| Err((status, why.to_owned()));
    let size = body.size_hint().upper().unwrap_or(MAX_REVIEW.into());
    let Some(size) = u32::try_from(size).ok().filter(|size| *size <= MAX_REVIEW) else {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE);
    };
    let Ok(Ok(room)) = timeout(ROOM_TIMEOUT, memory.acquire_many_owned(size)).await else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "Too many reviews at once; try again.\n");
    };
    let body = match timeout(BODY_TIMEOUT, read(body, size as usize)).await {
        Ok(Some(body)) => body,
        Ok(None) => return refuse(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE),
        Err(_) => return refuse(StatusCode::REQUEST_TIMEOUT, "The review did not arrive in time.\n"),
    };
    if memchr::memchr3_iter(b',', b'{', b'[', &body).count() > MAX_PARTS {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "The review has too many parts.\n");
    }
    match review(&body) {
        Ok(text) => Ok(Bytes::from_owner(Answer { text, _room: room })),
        Err(error) => refuse(StatusCode::BAD_REQUEST, &format!("{error}\n")),
    }
}

/// In one piece, and never in two; `None` if it is too large or broken off.
async fn read(body: Incoming, size: usize) -> Option<Vec<u8>> {
    let mut body = Limited::new(body, size);
    let mut whole = Vec::with_capacity(size);
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.ok()?.into_data() {
            whole.extend_from_slice(&data);
        }
    }
    Some(whole)
}

/// Is about as large as the review that it answers, and keeps that one's room until it has been sent.
struct Answer {
    text: String,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

fn response(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

const TEXT: &str = "text/plain; charset=utf-8";

const TOO_LARGE: &str = "The review is too large.\n";

/// No object is larger than 1.5 MiB, by etcd's limit; a Service, which comes with its former self, is far from it.
const MAX_REVIEW: u32 = 2 * 1024 * 1024;

/// The bytes of all reviews that are being read, and of answers that are being sent.
const MAX_IN_FLIGHT: usize = 2 * MAX_REVIEW as usize;

/// The values in a review: as a tree, each may take some 300 bytes.
const MAX_PARTS: usize = 32 * 1024;

/// What a connection holds of requests that nobody reads yet.
const MAX_BUFFER: usize = 32 * 1024;

/// The API server reuses a handful of connections.
const MAX_CONNECTIONS: usize = 64;

/// Long enough for the API server to reuse a connection, short enough that nobody holds one, or an answer that is not
/// read, for ever.
const MAX_AGE: Duration = Duration::from_secs(60);

/// For a handshake, for the head of a request, and between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Below the time after which the API server gives up.
const ROOM_TIMEOUT: Duration = Duration::from_secs(3);

const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// For the last answer of a connection that is too old.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
