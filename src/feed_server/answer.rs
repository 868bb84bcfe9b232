//! The server's answers: the feed, writes to it, the keys that sign it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::Bytes;
use http::header::{
    ACCEPT, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH,
    WWW_AUTHENTICATE,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::book::{Book, Written};
use super::line::Line;
use super::sign::SIGNED;
use super::{Kept, State};

type Answer = Response<Full<Bytes>>;

/// What somebody writes.
#[derive(Deserialize)]
struct Write {
    entries: Vec<Box<RawValue>>,
}

/// Answers one request.
pub(super) async fn answer(state: &Arc<State>, request: Request<Incoming>) -> Answer {
    match (request.uri().path(), request.method()) {
        ("/revocations", &Method::GET) => read(state, &request).await,
        ("/revocations", &Method::POST) => write(state, request).await,
        ("/revocations", _) => not_allowed("GET, POST"),
        ("/jwks", &Method::GET) => match &state.signer {
            Some(signer) => typed(StatusCode::OK, JSON, signer.jwks().to_string()),
            None => problem(StatusCode::NOT_FOUND, "answers are not signed: start with --signing-key"),
        },
        ("/livez", &Method::GET) => typed(StatusCode::OK, "text/plain", "ok\n"),
        ("/jwks" | "/livez", _) => not_allowed("GET"),
        _ => problem(StatusCode::NOT_FOUND, "there is nothing here; the feed is at /revocations"),
    }
}

async fn read(state: &State, request: &Request<Incoming>) -> Answer {
    if let Some(expected) = &state.read_authorization
        && !is_authorized(request, expected)
        && !is_authorized(request, &state.write_authorization)
    {
        return unauthorized("reading needs the read token in the header Authorization");
    }
    let query = request.uri().query().unwrap_or_default();
    let parameter = |name: &str| {
        url::form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    };
    let cursor = parameter("cursor");
    let wait = parameter("wait")
        .and_then(|seconds| seconds.parse().ok())
        .map_or(Duration::ZERO, Duration::from_secs);
    let mut last = state.last.subscribe();
    if let Some(from) = cursor.as_deref().and_then(|cursor| position(state, cursor))
        && from == *last.borrow_and_update()
    {
        // Whether something came or time is up, what there is now is the answer.
        let _ = tokio::time::timeout(wait.min(LONGEST_WAIT), last.changed()).await;
    }
    document(state, request, cursor.as_deref())
}

fn document(state: &State, request: &Request<Incoming>, cursor: Option<&str>) -> Answer {
    let position = cursor.and_then(|cursor| position(state, cursor));
    let now = state.clock.wall();
    let kept = state.kept();
    let book = &kept.book;
    let mut members: Vec<(&str, Value)> = vec![("version", 1.into()), ("epoch", book.epoch().into())];
    let newest = format!("{}.{}", book.epoch(), book.last());
    members.push(("cursor", newest.as_str().into()));
    let lines: Vec<&str> = if let Some(changes) = position.and_then(|from| book.since(from, now)) {
        members.extend([("kind", "delta".into()), ("since", cursor.into())]);
        changes.map(|line| line.text.as_str()).collect()
    } else {
        members.push(("kind", "snapshot".into()));
        book.in_force(now).map(|(_, line)| line.text.as_str()).collect()
    };
    let accepts_signed = request
        .headers()
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains(SIGNED));
    let signer = state.signer.as_ref().filter(|_| accepts_signed);
    if let Some(signer) = signer {
        members.extend(signer.claims(now.0, book.last()));
    }
    let members: Map<String, Value> =
        members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    // The lines are JSON already.
    let mut text = Value::Object(members).to_string();
    text.pop();
    text.push_str(",\"entries\":[");
    text.push_str(&lines.join(","));
    text.push_str("]}");
    drop(kept);
    if let Some(signer) = signer {
        return match signer.sign(text.as_bytes()) {
            Some(jws) => typed(StatusCode::OK, SIGNED, jws),
            None => problem(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be signed"),
        };
    }
    let tag = format!("\"{newest}{}\"", if position.is_some() { "+" } else { "" });
    let known = request.headers().get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut answer =
        if known { typed(StatusCode::NOT_MODIFIED, JSON, "") } else { typed(StatusCode::OK, JSON, text) };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        answer.headers_mut().insert(ETAG, tag);
    }
    answer
}

/// The number in a cursor of this history.
fn position(state: &State, cursor: &str) -> Option<u64> {
    let (epoch, number) = cursor.rsplit_once('.')?;
    let number = number.parse().ok()?;
    let kept = state.kept();
    (epoch == kept.book.epoch() && kept.book.since(number, state.clock.wall()).is_some()).then_some(number)
}

async fn write(state: &Arc<State>, request: Request<Incoming>) -> Answer {
    if !is_authorized(&request, &state.write_authorization) {
        return unauthorized("writing needs the write token in the header Authorization");
    }
    let body = Limited::new(request.into_body(), MAX_BODY).collect();
    let body = match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => {
            return problem(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 4 MiB, or broke off");
        }
        Err(_) => return problem(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
    };
    let Ok(Write { entries }) = serde_json::from_slice(&body) else {
        return problem(
            StatusCode::BAD_REQUEST,
            "the body must be an object with 'entries', a list of entries",
        );
    };
    let now = state.clock.wall();
    let mut lines = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        match Line::read(entry.get().as_bytes(), Some(now)) {
            Ok(line) => lines.push(line),
            Err(why) => {
                return problem(StatusCode::BAD_REQUEST, &format!("entry {} is broken: {why}", index + 1));
            }
        }
    }
    let state = Arc::clone(state);
    // Waits for the disk.
    let written = tokio::task::spawn_blocking(move || put(&state, lines)).await;
    match written.map_err(io::Error::other).and_then(|written| written) {
        Ok(Some((written, cursor))) => {
            let Written { revoked, lifted } = written;
            let answer = json!({ "revoked": revoked, "lifted": lifted, "cursor": cursor });
            typed(StatusCode::OK, JSON, answer.to_string())
        }
        Ok(None) => problem(
            StatusCode::INSUFFICIENT_STORAGE,
            "the feed holds as many entries as it may (--max-entries)",
        ),
        Err(error) => {
            tracing::error!(%error, "a revocation could not be written to disk, and is refused");
            problem(StatusCode::SERVICE_UNAVAILABLE, "the log cannot be written to: see the server's own log")
        }
    }
}

/// In memory and on disk, then to those who wait. `None` if there would be too many.
fn put(state: &State, lines: Vec<Line>) -> io::Result<Option<(Written, String)>> {
    let now = state.clock.wall();
    let mut kept = state.kept();
    let Kept { book, log, swept_at } = &mut *kept;
    let is_full = |book: &Book| {
        let more = book.additions(&lines);
        more > 0 && book.live().saturating_add(more) > state.max_entries
    };
    let is_due = swept_at.plus(SWEEP) <= now;
    if is_due {
        *swept_at = now;
    }
    if (is_due && book.is_mostly_over(now)) || (is_full(book) && book.may_be_over(now)) {
        book.forget(now);
        log.rewrite(book, now)?;
    }
    if is_full(book) {
        return Ok(None);
    }
    let first = book.last() + 1;
    let (mut news, mut written) = (Vec::new(), Written::default());
    for line in lines {
        let Some(line) = book.news(line) else { continue };
        let one = book.add(book.last() + 1, line.clone());
        written.revoked += one.revoked;
        written.lifted += one.lifted;
        news.push(line);
    }
    if !news.is_empty() {
        // If that fails, gateways may hear of it all the same; who wrote it is told that it is not kept.
        log.append(first, &news, book, now)?;
        state.last.send_replace(book.last());
    }
    Ok(Some((written, format!("{}.{}", book.epoch(), book.last()))))
}

fn is_authorized(request: &Request<Incoming>, expected: &HeaderValue) -> bool {
    let mut sent = request.headers().get_all(AUTHORIZATION).iter();
    let (Some(sent), None) = (sent.next(), sent.next()) else { return false };
    verify_slices_are_equal(sent.as_bytes(), expected.as_bytes()).is_ok()
}

fn unauthorized(why: &str) -> Answer {
    let mut answer = problem(StatusCode::UNAUTHORIZED, why);
    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    answer
}

fn not_allowed(methods: &'static str) -> Answer {
    let mut answer = problem(StatusCode::METHOD_NOT_ALLOWED, "this method is not known here");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    answer
}

fn problem(status: StatusCode, why: &str) -> Answer {
    typed(status, JSON, json!({ "error": why }).to_string())
}

fn typed(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

const JSON: &str = "application/json";
const LONGEST_WAIT: Duration = Duration::from_secs(300);
const MAX_BODY: usize = 4 << 20;
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks for what is over, each of which takes a pass over all there is.
const SWEEP: Duration = Duration::from_secs(60);
