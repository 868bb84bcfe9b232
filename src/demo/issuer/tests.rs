//! The issuer's endpoints over real HTTP.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Value, json};

use super::{
    DevIssuer, EndpointMode, IssuerOptions, KeyChoice, Revocation, SigningKey, TokenRequest, sign_raw,
};
use crate::clock::{Clock, UnixSeconds};
use crate::demo::client::send_plain;

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

async fn issuer() -> DevIssuer {
    let (clock, _) = Clock::manual(NOW);
    DevIssuer::start(IssuerOptions { clock, ..IssuerOptions::default() }).await.unwrap()
}

async fn send(issuer: &DevIssuer, method: &str, path: &str, body: &str) -> Response<Bytes> {
    let request = Request::builder().method(method).uri(path).body(Full::from(body.to_owned())).unwrap();
    send_plain(issuer.address(), request).await.unwrap()
}

async fn get(issuer: &DevIssuer, path: &str) -> Value {
    let response = send(issuer, "GET", path, "").await;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    serde_json::from_slice(response.body()).unwrap()
}

fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn header(token: &str) -> Value {
    let header = token.split('.').next().unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap()
}

/// Whether the token's signature is by the key that the JWKS has under the token's `kid`.
fn is_signed_by(token: &str, jwks: &Value) -> bool {
    let header = header(token);
    let keys = jwks["keys"].as_array().unwrap();
    let Some(jwk) = keys.iter().find(|jwk| jwk["kid"] == header["kid"]) else { return false };
    assert_eq!(jwk["alg"], header["alg"]);
    assert_eq!(jwk["use"], "sig");
    let key = DecodingKey::from_jwk(&serde_json::from_value(jwk.clone()).unwrap()).unwrap();
    let algorithm: Algorithm = serde_json::from_value(header["alg"].clone()).unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &key, algorithm).unwrap()
}

#[tokio::test]
async fn discovery_names_the_issuer_and_its_endpoints() {
    let issuer = issuer().await;
    let document = get(&issuer, "/.well-known/openid-configuration").await;
    assert_eq!(document["issuer"], issuer.issuer_url());
    assert_eq!(document["jwks_uri"], issuer.url("/jwks"));
    assert_eq!(document["token_endpoint"], issuer.url("/token"));
    assert_eq!(issuer.discovery_fetches(), 1);
}

#[tokio::test]
async fn tokens_are_signed_by_published_keys() {
    let issuer = issuer().await;
    let jwks = get(&issuer, "/jwks").await;
    assert_eq!(issuer.jwks_fetches(), 1);
    for (choice, published) in [(KeyChoice::Current, true), (KeyChoice::Rsa, true), (KeyChoice::Next, false)]
    {
        let token = issuer.mint(&TokenRequest::new().key(choice)).unwrap();
        assert_eq!(is_signed_by(&token, &jwks), published, "{choice:?}");
    }
    let stranger = SigningKey::ed25519("stranger").unwrap();
    let token = issuer.mint_with(&TokenRequest::new(), &stranger).unwrap();
    assert!(!is_signed_by(&token, &jwks));
    assert!(is_signed_by(&token, &json!({ "keys": [stranger.jwk()] })));
}

#[tokio::test]
async fn a_token_says_what_is_asked_for_and_the_usual_besides() {
    let issuer = issuer().await;
    let request = TokenRequest::new()
        .claim("sub", "bob")
        .claim("scope", Value::Null)
        .header("typ", Value::Null)
        .header("crit", json!(["x"]));
    let token = issuer.mint(&request).unwrap();
    let claims = claims(&token);
    assert_eq!(claims["iss"], issuer.issuer_url());
    assert_eq!(claims["aud"], "orders-api");
    assert_eq!(claims["sub"], "bob");
    assert_eq!(claims["iat"], NOW.0);
    assert_eq!(claims["exp"], NOW.0 + 3600);
    assert!(claims.get("scope").is_none());
    let header = header(&token);
    assert!(header.get("typ").is_none());
    assert_eq!(header["crit"], json!(["x"]));
}

#[tokio::test]
async fn raw_bytes_are_signed_as_they_are() {
    let key = SigningKey::es256("k").unwrap();
    let token = sign_raw(r#"{"alg":"ES256","kid":"k","alg":"none"}"#, "not json", &key).unwrap();
    let mut parts = token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap());
    assert_eq!(parts.next().unwrap(), br#"{"alg":"ES256","kid":"k","alg":"none"}"#);
    assert_eq!(parts.next().unwrap(), b"not json");
}

#[tokio::test]
async fn rotation_publishes_the_next_key_and_keeps_the_former() {
    let issuer = issuer().await;
    let former = issuer.mint(&TokenRequest::new()).unwrap();
    let next = issuer.mint(&TokenRequest::new().key(KeyChoice::Next)).unwrap();
    let response = send(&issuer, "POST", "/rotate", "").await;
    assert_eq!(response.status(), StatusCode::OK);
    let jwks = get(&issuer, "/jwks").await;
    assert!(is_signed_by(&former, &jwks) && is_signed_by(&next, &jwks));
    assert_eq!(header(&issuer.mint(&TokenRequest::new()).unwrap())["kid"], header(&next)["kid"]);
    issuer.drop_former_keys();
    let jwks = get(&issuer, "/jwks").await;
    assert!(!is_signed_by(&former, &jwks) && is_signed_by(&next, &jwks));
}

#[tokio::test]
async fn the_token_endpoint_grants_client_credentials() {
    let issuer = issuer().await;
    let form = "grant_type=client_credentials&client_id=batch&scope=orders%3Aread+orders%3Awrite";
    let response = send(&issuer, "POST", "/token", form).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    let answer: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!((&answer["token_type"], &answer["expires_in"]), (&json!("Bearer"), &json!(3600)));
    let token = answer["access_token"].as_str().unwrap();
    assert!(is_signed_by(token, &get(&issuer, "/jwks").await));
    let claims = claims(token);
    assert_eq!((&claims["sub"], &claims["client_id"]), (&json!("batch"), &json!("batch")));
    assert_eq!(claims["scope"], "orders:read orders:write");
}

#[tokio::test]
async fn the_token_endpoint_says_what_is_wrong() {
    let issuer = issuer().await;
    for (form, error) in [
        ("", "unsupported_grant_type"),
        ("grant_type=password&username=a&password=b", "unsupported_grant_type"),
        ("grant_type=client_credentials&scope=admin", "invalid_scope"),
    ] {
        let response = send(&issuer, "POST", "/token", form).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{form}");
        let answer: Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(answer["error"], error, "{form}");
    }
}

#[tokio::test]
async fn the_feed_gives_a_snapshot_and_then_deltas() {
    let issuer = issuer().await;
    let empty = get(&issuer, "/revocations").await;
    assert_eq!((&empty["version"], &empty["kind"]), (&json!(1), &json!("snapshot")));
    assert_eq!(empty["entries"], json!([]));

    let body = r#"{"jti":"one"}"#;
    assert_eq!(send(&issuer, "POST", "/revoke", body).await.status(), StatusCode::OK);
    let exp = NOW.0 + 3600 + 300;
    let snapshot = get(&issuer, "/revocations").await;
    assert_eq!(snapshot["entries"], json!([{ "jti": "one", "exp": exp }]));

    issuer.revoke(Revocation { exp: Some(NOW.0 + 9), ..Revocation::session("two") }).unwrap();
    let cursor = snapshot["cursor"].as_str().unwrap();
    let delta = get(&issuer, &format!("/revocations?cursor={cursor}")).await;
    assert_eq!((&delta["kind"], &delta["epoch"]), (&json!("delta"), &snapshot["epoch"]));
    assert_eq!(delta["entries"], json!([{ "sid": "two", "exp": NOW.0 + 9 }]));

    let cursor = delta["cursor"].as_str().unwrap();
    let nothing_new = get(&issuer, &format!("/revocations?cursor={cursor}")).await;
    assert_eq!((&nothing_new["kind"], &nothing_new["cursor"]), (&json!("delta"), &json!(cursor)));
    assert_eq!(nothing_new["entries"], json!([]));
    assert_eq!(issuer.feed_fetches(), 4);
}

#[tokio::test]
async fn a_cursor_that_the_epoch_did_not_give_out_gets_a_snapshot() {
    let issuer = issuer().await;
    issuer.revoke(Revocation::token("one")).unwrap();
    let before = get(&issuer, "/revocations").await;
    let epoch = before["epoch"].as_str().unwrap();
    for cursor in ["x", "", ".", "1", "other.1", &format!("{epoch}.99"), &format!("{epoch}.-1")] {
        let answer = get(&issuer, &format!("/revocations?cursor={cursor}&wait=30")).await;
        assert_eq!(answer["kind"], "snapshot", "{cursor}");
    }
    issuer.reset_revocations().unwrap();
    let after =
        get(&issuer, &format!("/revocations?cursor={}&wait=30", before["cursor"].as_str().unwrap())).await;
    assert_eq!((&after["kind"], &after["entries"]), (&json!("snapshot"), &json!([])));
    assert_ne!(after["epoch"], before["epoch"]);
}

#[tokio::test]
async fn a_long_poll_ends_with_the_revocation() {
    let issuer = issuer().await;
    let cursor = get(&issuer, "/revocations").await["cursor"].as_str().unwrap().to_owned();
    let path = format!("/revocations?cursor={cursor}&wait=30");
    let poll = get(&issuer, &path);
    tokio::pin!(poll);
    // The poll has to be at the issuer before the revocation is made.
    while issuer.feed_fetches() < 2 {
        tokio::select! {
            answer = &mut poll => panic!("answered before anything was revoked: {answer}"),
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
    }
    issuer.revoke(Revocation::token("now")).unwrap();
    let answer = poll.await;
    let ids: BTreeSet<_> =
        answer["entries"].as_array().unwrap().iter().map(|entry| entry["jti"].as_str().unwrap()).collect();
    assert_eq!(ids, BTreeSet::from(["now"]));
}

#[tokio::test]
async fn a_long_poll_ends_when_its_time_is_up() {
    let log = super::RevocationLog::new().unwrap();
    let cursor = log.answer(None, Duration::ZERO).await["cursor"].as_str().unwrap().to_owned();
    let answer = log.answer(Some(&cursor), Duration::from_millis(5)).await;
    assert_eq!((&answer["kind"], &answer["cursor"]), (&json!("delta"), &json!(cursor)));
}

#[tokio::test]
async fn expired_entries_are_forgotten() {
    let log = super::RevocationLog::new().unwrap();
    let until = |exp| Revocation { exp: Some(exp), ..Revocation::token(format!("until-{exp}")) };
    log.add(until(10), UnixSeconds(5), UnixSeconds(100)).unwrap();
    log.add(until(20), UnixSeconds(10), UnixSeconds(100)).unwrap();
    let answer = log.answer(None, Duration::ZERO).await;
    assert_eq!(answer["entries"], json!([{ "jti": "until-20", "exp": 20 }]));
}

#[tokio::test]
async fn a_revocation_says_what_it_hits() {
    let issuer = issuer().await;
    for body in ["", "{}", r#"{"jti":"a","sub":"b"}"#, r#"{"token":"a"}"#, r#"{"jti":7}"#, r#"{"exp":7}"#] {
        assert_eq!(send(&issuer, "POST", "/revoke", body).await.status(), StatusCode::BAD_REQUEST, "{body}");
    }
    for body in [
        r#"{"before":7}"#,
        r#"{"sub":"b","before":7}"#,
        r#"{"kid":"k"}"#,
        r#"{"client":"c"}"#,
        r#"{"client_id":"c"}"#,
    ] {
        assert_eq!(send(&issuer, "POST", "/revoke", body).await.status(), StatusCode::OK, "{body}");
    }
}

#[tokio::test]
async fn endpoints_fail_as_they_are_told() {
    let issuer = issuer().await;
    issuer.set_jwks_mode(EndpointMode::Status(StatusCode::INTERNAL_SERVER_ERROR));
    assert_eq!(send(&issuer, "GET", "/jwks", "").await.status(), StatusCode::INTERNAL_SERVER_ERROR);

    let body = EndpointMode::Body { bytes: Bytes::from_static(b"{"), content_type: "text/html".to_owned() };
    issuer.set_feed_mode(body);
    let answer = send(&issuer, "GET", "/revocations", "").await;
    assert_eq!((answer.status(), answer.body().as_ref()), (StatusCode::OK, b"{".as_slice()));
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/html");

    issuer.set_jwks_mode(EndpointMode::Redirect("http://127.0.0.1:9/jwks".to_owned()));
    let answer = send(&issuer, "GET", "/jwks", "").await;
    assert_eq!(answer.status(), StatusCode::FOUND);
    assert_eq!(answer.headers()[header::LOCATION], "http://127.0.0.1:9/jwks");

    issuer.set_jwks_mode(EndpointMode::Serve);
    assert_eq!(send(&issuer, "GET", "/jwks", "").await.status(), StatusCode::OK);
    assert_eq!(issuer.jwks_fetches(), 3);
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let issuer = issuer().await;
    for path in ["/jwks", "/revocations"] {
        let tag = send(&issuer, "GET", path, "").await.headers()[header::ETAG].clone();
        let again = async || {
            let request = Request::get(path).header(header::IF_NONE_MATCH, tag.clone());
            send_plain(issuer.address(), request.body(Full::default()).unwrap()).await.unwrap()
        };
        let answer = again().await;
        assert_eq!((answer.status(), answer.body().len()), (StatusCode::NOT_MODIFIED, 0), "{path}");
        issuer.rotate().unwrap();
        issuer.revoke(Revocation::token("one")).unwrap();
        assert_eq!(again().await.status(), StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn an_issuer_comes_back_at_the_same_address() {
    let first = issuer().await;
    let address = first.address();
    get(&first, "/jwks").await;
    first.stop().await;
    let again = DevIssuer::start(IssuerOptions { address, ..IssuerOptions::default() }).await.unwrap();
    assert_eq!(again.address(), address);
    get(&again, "/jwks").await;
}

#[tokio::test]
async fn unknown_paths_are_not_found() {
    let issuer = issuer().await;
    for (method, path) in [("GET", "/token"), ("POST", "/jwks"), ("GET", "/admin")] {
        assert_eq!(send(&issuer, method, path, "").await.status(), StatusCode::NOT_FOUND, "{method} {path}");
    }
}
