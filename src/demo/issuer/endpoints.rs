//! The development issuer over HTTP: discovery, JWKS, tokens, revocation, rotation.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::keys::base64url;
use super::{Issuer, Revocation, TokenRequest};
use crate::demo::serve::{body, json, typed};

/// What the token endpoint grants.
const SCOPES: [&str; 2] = ["orders:read", "orders:write"];

/// So long may a gateway go without asking for the keys again.
const JWKS_CACHE_CONTROL: HeaderValue = HeaderValue::from_static("max-age=300");

/// Answers one request to the issuer.
pub(super) async fn answer(issuer: Arc<Issuer>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let known = request.headers().get(header::IF_NONE_MATCH).cloned();
    match (request.method(), path.as_str()) {
        (&Method::GET, "/.well-known/openid-configuration") => {
            issuer.fetches.discovery.fetch_add(1, Ordering::Relaxed);
            json(StatusCode::OK, &discovery(&issuer))
        }
        (&Method::GET, "/jwks") => jwks(&issuer, known.as_ref()).await,
        (&Method::GET, "/revocations") => revocations(&issuer, request.uri().query(), known.as_ref()).await,
        (&Method::POST, "/token") => token(&issuer, body(request).await),
        (&Method::POST, "/revoke") => revoke(&issuer, body(request).await),
        (&Method::POST, "/rotate") => match issuer.rotate() {
            Ok(kid) => json(StatusCode::OK, &json!({ "kid": kid })),
            Err(error) => failed(&error),
        },
        (&Method::GET, "/") => typed(StatusCode::OK, "text/plain", super::BANNER),
        _ => refused(StatusCode::NOT_FOUND, "not_found", "there is nothing here; GET / says what there is"),
    }
}

/// `OpenID` Connect Discovery 1.0 section 3, as far as a client of access tokens needs it.
fn discovery(issuer: &Issuer) -> Value {
    let url = &issuer.url;
    json!({
        "issuer": url,
        "jwks_uri": format!("{url}/jwks"),
        "token_endpoint": format!("{url}/token"),
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["client_secret_post"],
        "response_types_supported": [],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256", "RS256"],
        "scopes_supported": SCOPES,
    })
}

async fn jwks(issuer: &Issuer, known: Option<&HeaderValue>) -> Response<Full<Bytes>> {
    issuer.fetches.jwks.fetch_add(1, Ordering::Relaxed);
    if let Some(other) = issuer.modes().jwks.answer().await {
        return other;
    }
    let mut response = unless_known(&issuer.jwks(), known);
    response.headers_mut().insert(header::CACHE_CONTROL, JWKS_CACHE_CONTROL);
    response
}

async fn revocations(
    issuer: &Issuer,
    query: Option<&str>,
    known: Option<&HeaderValue>,
) -> Response<Full<Bytes>> {
    issuer.fetches.feed.fetch_add(1, Ordering::Relaxed);
    if let Some(other) = issuer.modes().feed.answer().await {
        return other;
    }
    let parameters = form(query.unwrap_or_default().as_bytes());
    let cursor = parameters.get("cursor").map(String::as_str);
    let wait = parameters.get("wait").and_then(|seconds| seconds.parse().ok()).unwrap_or(0);
    unless_known(&issuer.revocations.answer(cursor, Duration::from_secs(wait)).await, known)
}

/// RFC 6749 section 4.4. Any client is believed: this issuer is for development.
fn token(issuer: &Issuer, body: Option<Bytes>) -> Response<Full<Bytes>> {
    let parameters = form(&body.unwrap_or_default());
    let parameter = |name: &str| parameters.get(name).map(String::as_str);
    if parameter("grant_type") != Some("client_credentials") {
        return refused(
            StatusCode::BAD_REQUEST,
            "unsupported_grant_type",
            "send a form with grant_type=client_credentials",
        );
    }
    let client = parameter("client_id").unwrap_or("demo-client");
    let scope = parameter("scope").unwrap_or("orders:read");
    if scope.split_ascii_whitespace().any(|scope| !SCOPES.contains(&scope)) {
        let allowed = format!("scope may name {}", SCOPES.join(" and "));
        return refused(StatusCode::BAD_REQUEST, "invalid_scope", &allowed);
    }
    // RFC 9068 section 2.2: without a user, the subject is the client.
    let request = TokenRequest::new().claim("sub", client).claim("client_id", client).claim("scope", scope);
    match issuer.mint(&request) {
        Ok(token) => json(
            StatusCode::OK,
            &json!({
                "access_token": token,
                "token_type": "Bearer",
                "expires_in": issuer.options.lifetime.as_secs(),
                "scope": scope,
            }),
        ),
        Err(error) => failed(&error),
    }
}

fn revoke(issuer: &Issuer, body: Option<Bytes>) -> Response<Full<Bytes>> {
    let entry = serde_json::from_slice::<Revocation>(&body.unwrap_or_default()).map_err(anyhow::Error::from);
    match entry.and_then(|entry| issuer.revoke(entry)) {
        Ok(()) => json(StatusCode::OK, &json!({ "revoked": true })),
        Err(error) => refused(StatusCode::BAD_REQUEST, "invalid_request", &error.to_string()),
    }
}

/// The document with its entity tag, or 304 if that is the one the client has (RFC 9110 section 13.1.2).
fn unless_known(document: &Value, known: Option<&HeaderValue>) -> Response<Full<Bytes>> {
    let digest = digest(&SHA256, document.to_string().as_bytes());
    let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", base64url(digest.as_ref()))) else {
        return json(StatusCode::OK, document);
    };
    let mut response = if known == Some(&tag) {
        let mut unchanged = Response::default();
        *unchanged.status_mut() = StatusCode::NOT_MODIFIED;
        unchanged
    } else {
        json(StatusCode::OK, document)
    };
    response.headers_mut().insert(header::ETAG, tag);
    response
}

/// RFC 6749 section 5.2.
fn refused(status: StatusCode, error: &str, description: &str) -> Response<Full<Bytes>> {
    json(status, &json!({ "error": error, "error_description": description }))
}

fn failed(error: &anyhow::Error) -> Response<Full<Bytes>> {
    refused(StatusCode::INTERNAL_SERVER_ERROR, "server_error", &error.to_string())
}

fn form(encoded: &[u8]) -> HashMap<String, String> {
    url::form_urlencoded::parse(encoded).into_owned().collect()
}
