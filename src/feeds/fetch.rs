//! The HTTP client of all sources: one GET or POST, bounded in time and bytes, from one place only.
//!
//! What it refuses is the point: no redirects (they would let a provider's open redirect choose our keys), no plain
//! HTTP outside this machine, no answer other than 200 and 304, no body beyond the limit, no content coding. Knows
//! nothing of what the bytes mean.

mod connect;
mod error;
#[cfg(test)]
mod tests;
mod tunnel;

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT, AGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, LOCATION, USER_AGENT,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Sleep;
use url::{Host, Url};

use connect::HttpsConnector;
pub(super) use connect::client_config;
use error::Cause;
pub use error::FetchError;
pub(super) use error::shown;
pub use tunnel::EgressProxy;

/// How to reach one source.
#[derive(Clone, Debug)]
pub struct FetchSettings {
    /// The certificate authorities to trust, instead of those of the operating system.
    pub ca: Option<TrustAnchors>,
    /// The certificate to show when the source asks for one.
    pub client_certificate: Option<ClientCertificate>,
    /// The way out, where there is no direct one.
    pub proxy: Option<EgressProxy>,
    /// For the whole exchange, from looking up the name to the last byte of the body.
    pub timeout: Duration,
    /// The largest body to accept.
    pub max_bytes: u64,
    /// Allow `http://` to any host. Without it, `http://` is for literal loopback addresses only, and not through a
    /// proxy, whose loopback is another machine's.
    pub allow_http: bool,
}

/// Certificate authorities in PEM form.
#[derive(Clone, Debug)]
pub enum TrustAnchors {
    /// A file with one or more certificates.
    File(PathBuf),
    /// The text of such a file.
    Pem(Vec<u8>),
}

/// A client certificate chain and its private key, as PEM files.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// Its key: PKCS#8, PKCS#1 or SEC1.
    pub private_key: PathBuf,
}

impl Default for FetchSettings {
    fn default() -> Self {
        Self {
            ca: None,
            client_certificate: None,
            proxy: None,
            timeout: Duration::from_secs(10),
            max_bytes: 1 << 20,
            allow_http: false,
        }
    }
}

/// What to ask for.
#[derive(Clone, Copy, Debug, Default)]
pub struct FetchRequest<'a> {
    /// The value of `Accept`; empty for none.
    pub accept: &'a str,
    /// The tag of the copy at hand: sent as `If-None-Match`.
    pub etag: Option<&'a str>,
    /// The value of `Authorization`. It is marked sensitive, so it is neither logged nor indexed by HPACK.
    pub authorization: Option<&'a HeaderValue>,
    /// Further headers of the request.
    pub headers: Option<&'a HeaderMap>,
    /// Instead of [`FetchSettings::timeout`], for a long poll.
    pub timeout: Option<Duration>,
    /// How long the server may be silent, before its answer and between the parts of it, where the whole may take
    /// longer: a large answer is worth waiting for, a server that says nothing is not.
    pub silence: Option<Duration>,
}

/// The body of a POST. Never shown: it may hold tokens and secrets.
#[derive(Clone)]
pub struct Payload {
    /// The value of `Content-Type`.
    pub media_type: &'static str,
    /// The body.
    pub bytes: Bytes,
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({}, {} bytes)", self.media_type, self.bytes.len())
    }
}

/// The parts of a response head that sources use.
#[derive(Clone, Debug, Default)]
pub struct FetchedHead {
    /// The tag of this copy, to be sent back with the next request.
    pub etag: Option<String>,
    /// How long the answer may be reused by its `Cache-Control`, less its `Age`; zero for `no-store` and
    /// `no-cache` (RFC 9111 section 4.2).
    pub max_age: Option<Duration>,
    /// The media type, in lower case and without parameters.
    pub content_type: Option<String>,
    /// All fields.
    pub headers: HeaderMap,
}

/// An answer read to its end.
#[derive(Clone, Debug)]
pub enum Fetched {
    /// 304: the copy at hand is current.
    NotModified(FetchedHead),
    /// 200.
    Full {
        /// The response's head.
        head: FetchedHead,
        /// The whole body.
        body: Bytes,
    },
}

/// An answer of whatever status, read to its end.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Its status.
    pub status: StatusCode,
    /// The response's head.
    pub head: FetchedHead,
    /// The whole body.
    pub body: Bytes,
}

/// An answer whose body is still to be read.
#[derive(Debug)]
pub enum FetchedStream {
    /// 304: the copy at hand is current.
    NotModified(FetchedHead),
    /// 200.
    Full {
        /// The response's head.
        head: FetchedHead,
        /// The body, chunk by chunk.
        body: BodyStream,
    },
}

/// A client for one source; keeps its connection alive between requests. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FetchClient {
    client: Client<HttpsConnector, Full<Bytes>>,
    timeout: Duration,
    max_bytes: u64,
    plain_http: PlainHttp,
    has_trust_anchors: bool,
}

/// Where a request may go without TLS.
#[derive(Clone, Copy, Debug)]
enum PlainHttp {
    Anywhere,
    Loopback,
    Nowhere,
}

impl PlainHttp {
    fn leads_to(self, url: &Url) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Loopback => is_loopback(url),
            Self::Nowhere => false,
        }
    }
}

impl FetchClient {
    /// Reads the certificates that the settings name.
    ///
    /// # Errors
    /// A file cannot be read, or holds no usable certificate or key.
    pub fn new(settings: &FetchSettings) -> Result<Self, FetchError> {
        let (connector, has_trust_anchors) = HttpsConnector::new(settings)?;
        let plain_http = match (settings.allow_http, &settings.proxy) {
            (true, _) => PlainHttp::Anywhere,
            (false, None) => PlainHttp::Loopback,
            (false, Some(_)) => PlainHttp::Nowhere,
        };
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .http1_max_buf_size(MAX_HEAD_BYTES)
            .http2_max_header_list_size(MAX_HEAD_BYTES_H2)
            .build(connector);
        Ok(Self {
            client,
            timeout: settings.timeout,
            max_bytes: settings.max_bytes,
            plain_http,
            has_trust_anchors,
        })
    }

    /// Gets `url` and reads the body to its end.
    ///
    /// # Errors
    /// See [`FetchError`]; none of them contains credentials or the query of the URL.
    pub async fn get(&self, url: &Url, request: FetchRequest<'_>) -> Result<Fetched, FetchError> {
        self.exchange(url, request, None).await?.read().await
    }

    /// Posts `payload` to `url` and reads the answer's body to its end.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn post(
        &self,
        url: &Url,
        request: FetchRequest<'_>,
        payload: Payload,
    ) -> Result<Fetched, FetchError> {
        self.exchange(url, request, Some(payload)).await?.read().await
    }

    /// Posts `payload` to `url`, for a protocol in which statuses other than 200 say what to do next.
    ///
    /// # Errors
    /// See [`FetchError`]; never for a status.
    pub async fn deliver(
        &self,
        url: &Url,
        request: FetchRequest<'_>,
        payload: Payload,
    ) -> Result<Answered, FetchError> {
        let (response, turn) = self.ask(url, request, Some(payload)).await?;
        let (status, head) = (response.status(), FetchedHead::read(response.headers()));
        let body = self.body(url, response, turn).read().await?;
        Ok(Answered { status, head, body })
    }

    /// Gets `url` and hands back the body unread, for sources too large to hold in memory twice.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn get_stream(
        &self,
        url: &Url,
        request: FetchRequest<'_>,
    ) -> Result<FetchedStream, FetchError> {
        self.exchange(url, request, None).await
    }

    async fn exchange(
        &self,
        url: &Url,
        request: FetchRequest<'_>,
        payload: Option<Payload>,
    ) -> Result<FetchedStream, FetchError> {
        let (response, turn) = self.ask(url, request, payload).await?;
        let head = FetchedHead::read(response.headers());
        if response.status() == StatusCode::NOT_MODIFIED && request.etag.is_some() {
            return Ok(FetchedStream::NotModified(head));
        }
        self.admit(url, &response)?;
        Ok(FetchedStream::Full { head, body: self.body(url, response, turn) })
    }

    async fn ask(
        &self,
        url: &Url,
        request: FetchRequest<'_>,
        payload: Option<Payload>,
    ) -> Result<(Response<Incoming>, Turn), FetchError> {
        self.permit(url)?;
        let outgoing = build_request(url, request, payload)?;
        let timeout = request.timeout.unwrap_or(self.timeout);
        let silence = request.silence.unwrap_or(timeout).min(timeout);
        let deadline = Box::pin(tokio::time::sleep(timeout));
        let response = tokio::time::timeout(silence, self.client.request(outgoing))
            .await
            .map_err(|_| FetchError::Timeout { url: shown(url), after: silence })?
            .map_err(|error| unanswered(url, &error))?;
        Ok((response, Turn { deadline, timeout, silence }))
    }

    fn body(&self, url: &Url, response: Response<Incoming>, turn: Turn) -> BodyStream {
        let Turn { deadline, timeout, silence } = turn;
        BodyStream {
            body: response.into_body(),
            url: shown(url),
            left: self.max_bytes,
            limit: self.max_bytes,
            deadline,
            timeout,
            silence,
        }
    }

    fn permit(&self, url: &Url) -> Result<(), FetchError> {
        if !url.username().is_empty() || url.password().is_some() {
            return Err(FetchError::CredentialsInUrl { url: shown(url) });
        }
        match url.scheme() {
            "https" if self.has_trust_anchors => Ok(()),
            "https" => Err(FetchError::NoTrustAnchors { url: shown(url) }),
            "http" if self.plain_http.leads_to(url) => Ok(()),
            "http" if is_loopback(url) => Err(FetchError::PlainHttpByProxy { url: shown(url) }),
            "http" => Err(FetchError::PlainHttp { url: shown(url) }),
            other => Err(FetchError::Scheme { url: shown(url), scheme: other.to_owned() }),
        }
    }

    fn admit(&self, url: &Url, response: &Response<Incoming>) -> Result<(), FetchError> {
        let status = response.status();
        let headers = response.headers();
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
            return Err(FetchError::Redirect { url: shown(url), status, to: redirect_target(url, headers) });
        }
        if status != StatusCode::OK {
            return Err(FetchError::Status { url: shown(url), status });
        }
        if headers
            .get(CONTENT_ENCODING)
            .is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
        {
            return Err(FetchError::ContentCoding { url: shown(url) });
        }
        let announced =
            headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > self.max_bytes) {
            return Err(FetchError::TooLarge { url: shown(url), limit: self.max_bytes });
        }
        Ok(())
    }
}

/// How much time an exchange has left.
struct Turn {
    deadline: Pin<Box<Sleep>>,
    timeout: Duration,
    silence: Duration,
}

impl FetchedStream {
    async fn read(self) -> Result<Fetched, FetchError> {
        match self {
            Self::NotModified(head) => Ok(Fetched::NotModified(head)),
            Self::Full { head, body } => Ok(Fetched::Full { head, body: body.read().await? }),
        }
    }
}

/// A body that is read in chunks, within the byte limit and the deadline of its request.
#[derive(Debug)]
pub struct BodyStream {
    body: Incoming,
    url: String,
    left: u64,
    limit: u64,
    deadline: Pin<Box<Sleep>>,
    timeout: Duration,
    silence: Duration,
}

impl BodyStream {
    async fn read(mut self) -> Result<Bytes, FetchError> {
        let mut whole = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }

    /// The next chunk; `None` at the proper end of the body.
    ///
    /// # Errors
    /// The connection broke off, the body is larger than the limit, or the time is over. Nothing more can be read
    /// after an error.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            let late = |after| FetchError::Timeout { url: self.url.clone(), after };
            let frame = tokio::select! {
                biased;
                frame = tokio::time::timeout(self.silence, self.body.frame()) => {
                    frame.map_err(|_| late(self.silence))?
                }
                () = &mut self.deadline => return Err(late(self.timeout)),
            };
            let frame = match frame {
                None => return Ok(None),
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    return Err(FetchError::Interrupted { url: self.url.clone(), cause: Cause::of(&error) });
                }
            };
            let Ok(data) = frame.into_data() else { continue };
            self.left = u64::try_from(data.len())
                .ok()
                .and_then(|length| self.left.checked_sub(length))
                .ok_or_else(|| FetchError::TooLarge { url: self.url.clone(), limit: self.limit })?;
            return Ok(Some(data));
        }
    }
}

impl FetchedHead {
    fn read(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        Self {
            etag: text(ETAG).map(str::to_owned),
            max_age: max_age(headers),
            content_type: text(CONTENT_TYPE)
                .and_then(|value| value.split(';').next())
                .map(|media_type| media_type.trim().to_ascii_lowercase()),
            headers: headers.clone(),
        }
    }

    /// Whether the media type is JSON: `application/json`, or any with the suffix `+json` (RFC 6839).
    pub fn is_json(&self) -> bool {
        self.content_type
            .as_deref()
            .is_some_and(|media_type| media_type == "application/json" || media_type.ends_with("+json"))
    }
}

/// Whether the URL's host is a loopback address by its digits. A name such as `localhost` is not: what it resolves
/// to is not ours to know.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(_)) | None => false,
    }
}

fn unanswered(url: &Url, error: &hyper_util::client::legacy::Error) -> FetchError {
    let (url, cause) = (shown(url), Cause::of(error));
    if error.is_connect() {
        FetchError::Unreachable { url, cause }
    } else {
        FetchError::Interrupted { url, cause }
    }
}

fn build_request(
    url: &Url,
    request: FetchRequest<'_>,
    payload: Option<Payload>,
) -> Result<Request<Full<Bytes>>, FetchError> {
    let illegal = |what: &'static str| FetchError::IllegalRequest { url: shown(url), what };
    let mut bare = url.clone();
    bare.set_fragment(None);
    let uri: Uri = bare.as_str().parse().map_err(|_| illegal("URL"))?;
    let mut outgoing = Request::new(Full::default());
    *outgoing.uri_mut() = uri;
    if let Some(Payload { media_type, bytes }) = payload {
        *outgoing.method_mut() = Method::POST;
        outgoing.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        *outgoing.body_mut() = Full::new(bytes);
    }
    let headers = outgoing.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("valgate/", env!("CARGO_PKG_VERSION"))));
    if !request.accept.is_empty() {
        headers.insert(ACCEPT, HeaderValue::from_str(request.accept).map_err(|_| illegal("Accept"))?);
    }
    if let Some(etag) = request.etag {
        headers.insert(IF_NONE_MATCH, HeaderValue::from_str(etag).map_err(|_| illegal("If-None-Match"))?);
    }
    for (name, value) in request.headers.into_iter().flatten() {
        headers.insert(name, value.clone());
    }
    if let Some(authorization) = request.authorization {
        let mut authorization = authorization.clone();
        authorization.set_sensitive(true);
        headers.insert(AUTHORIZATION, authorization);
    }
    Ok(outgoing)
}

fn redirect_target(url: &Url, headers: &HeaderMap) -> Option<String> {
    let location = headers.get(LOCATION)?.to_str().ok()?;
    url.join(location).ok().map(|target| shown(&target))
}

fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let mut seconds: Option<u64> = None;
    for value in headers.get_all(CACHE_CONTROL) {
        for directive in value.to_str().ok()?.split(',') {
            let (name, argument) = directive.trim().split_once('=').unwrap_or((directive.trim(), ""));
            if name.eq_ignore_ascii_case("no-store") || name.eq_ignore_ascii_case("no-cache") {
                return Some(Duration::ZERO);
            }
            if name.eq_ignore_ascii_case("max-age") {
                seconds = argument.trim_matches('"').parse().ok();
            }
        }
    }
    let age = headers.get(AGE).and_then(|age| age.to_str().ok()?.parse::<u64>().ok()).unwrap_or(0);
    seconds.map(|seconds| Duration::from_secs(seconds.saturating_sub(age)))
}

/// A source is asked by one task: one connection in use and one being replaced.
const IDLE_CONNECTIONS: usize = 2;
/// No source needs a response head beyond this; hyper's least for HTTP/1.1 is 8 KiB.
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_HEAD_BYTES_H2: u32 = 64 * 1024;
