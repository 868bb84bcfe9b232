//! Where a token may be, how it must be written there, and what of it the API gets to see.

use crate::bench::{Bench, PASSES};
use crate::support::{ISSUER, Signer, TestGateway, Token, http2, send, verdict};

const MISSING: &str = "401 VAL-010 missing";
const NOT_BEARER: &str = "401 VAL-011 not_bearer";
const EMPTY: &str = "400 VAL-011 empty";
const MULTIPLE: &str = "400 VAL-011 multiple";
const ILLEGAL: &str = "400 VAL-011 illegal_characters";
const CROSS_ORIGIN: &str = "403 VAL-031 cross_origin";

async fn gateway() -> (TestGateway, String) {
    let signer = Signer::es256("k1");
    let gateway = TestGateway::start(&format!(
        "
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ inline: {} }}
    audiences: [orders-api]
routes:
  - {{ match: {{ path: /orders/** }}, require: {{ issuers: [main] }}, upstream: api }}
  - match: {{ path: /app/** }}
    require: {{ issuers: [main] }}
    token_from: {{ cookie: session }}
    upstream: api
  - {{ match: {{ path: /passed-on/** }}, require: {{ issuers: [main] }}, forward_token: true, upstream: api }}
  - match: {{ path: /app-passed-on/** }}
    require: {{ issuers: [main] }}
    token_from: {{ cookie: session }}
    forward_token: true
    upstream: api
  - {{ match: {{ path: /open/** }}, public: true, upstream: api }}
",
        signer.jwks()
    ))
    .await;
    (gateway, Token::new().sign(&signer))
}

/// RFC 6750 section 2.1, RFC 9110 section 11.4.
#[tokio::test]
async fn the_authorization_header_holds_one_bearer_token_and_nothing_else() {
    let (gateway, token) = gateway().await;
    let mut bench = Bench::default();
    let rows = [
        ("as it should be", "Authorization: Bearer $T\r\n", PASSES),
        ("names and scheme in lower case", "authorization: bearer $T\r\n", PASSES),
        ("names and scheme in upper case", "AUTHORIZATION: BEARER $T\r\n", PASSES),
        ("several spaces", "Authorization: Bearer    $T\r\n", PASSES),
        ("blanks around the value", "Authorization: \t Bearer $T \t\r\n", PASSES),
        ("nothing", "", MISSING),
        ("an empty header", "Authorization:\r\n", EMPTY),
        ("the scheme alone", "Authorization: Bearer\r\n", EMPTY),
        ("the scheme and a space", "Authorization: Bearer \r\n", EMPTY),
        ("Basic", "Authorization: Basic YWxpY2U6c2VjcmV0\r\n", NOT_BEARER),
        ("Basic with the token", "Authorization: Basic $T\r\n", NOT_BEARER),
        ("DPoP", "Authorization: DPoP $T\r\n", NOT_BEARER),
        ("Token", "Authorization: Token $T\r\n", NOT_BEARER),
        ("Negotiate", "Authorization: Negotiate $T\r\n", NOT_BEARER),
        ("no scheme", "Authorization: $T\r\n", NOT_BEARER),
        ("a tab for the space", "Authorization: Bearer\tT\r\n", NOT_BEARER),
        ("a colon for the space", "Authorization: Bearer:$T\r\n", NOT_BEARER),
        ("nothing for the space", "Authorization: BearerT\r\n", NOT_BEARER),
        ("another letter before", "Authorization: XBearer $T\r\n", NOT_BEARER),
        ("the scheme twice", "Authorization: Bearer Bearer $T\r\n", ILLEGAL),
        ("two tokens", "Authorization: Bearer $T $T\r\n", ILLEGAL),
        ("a list", "Authorization: Bearer $T, Bearer $T\r\n", ILLEGAL),
        ("a list with Basic first", "Authorization: Basic eA==, Bearer $T\r\n", NOT_BEARER),
        ("a list with nothing second", "Authorization: Bearer $T,\r\n", ILLEGAL),
        ("as a parameter", "Authorization: Bearer token=$T\r\n", ILLEGAL),
        ("the same header twice", "Authorization: Bearer $T\r\nAuthorization: Bearer $T\r\n", MULTIPLE),
        ("an empty one first", "Authorization:\r\nAuthorization: Bearer $T\r\n", MULTIPLE),
        ("Basic first", "Authorization: Basic eA==\r\nAuthorization: Bearer $T\r\n", MULTIPLE),
        ("Basic second", "Authorization: Bearer $T\r\nauthorization: Basic eA==\r\n", MULTIPLE),
        ("a blank before the colon", "Authorization : Bearer $T\r\n", "400 VAL-042 illegal_header"),
        ("folded", "Authorization: Bearer\r\n $T\r\n", "400 VAL-042 illegal_header"),
        ("by another name", "X-Authorization: Bearer $T\r\n", MISSING),
        ("by a name with an underscore", "Authorization_: Bearer $T\r\n", MISSING),
        ("for a proxy", "Proxy-Authorization: Bearer $T\r\n", MISSING),
        ("in another header", "X-Access-Token: $T\r\n", MISSING),
        ("as a WebSocket subprotocol", "Sec-WebSocket-Protocol: bearer, $T\r\n", MISSING),
        ("in a cookie, where the route takes none", "Cookie: session=$T; Authorization=$T\r\n", MISSING),
    ];
    for (name, headers, expected) in rows {
        bench.request(&gateway, ("GET", "/orders"), name, &headers.replace("$T", &token), expected).await;
    }
    bench.finish();
}

/// RFC 6750 section 2.3 lets tokens be in URLs, from where they get into logs and referrers; we do not.
#[tokio::test]
async fn a_token_in_the_query_or_the_body_is_none() {
    let (gateway, token) = gateway().await;
    let query =
        format!("GET /orders/1?access_token={token} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let body = format!("access_token={token}");
    let form = format!(
        "POST /orders HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    for request in [query, form] {
        crate::support::refused(&send(gateway.plain, request).await, "VAL-010", "missing");
    }
    assert!(gateway.api.received().is_empty());
    let log = gateway.stop().await;
    assert_eq!(log.len(), 2);
    let text = serde_json::to_string(&log).unwrap();
    assert!(!text.contains("access_token"), "{text}");
}

#[tokio::test]
async fn a_cookie_holds_the_token_where_the_route_says_so() {
    let (gateway, token) = gateway().await;
    let mut bench = Bench::default();
    let rows = [
        ("alone", "Cookie: session=$T\r\n", PASSES),
        ("among others", "Cookie: a=b; session=$T; c=d\r\n", PASSES),
        ("without blanks", "Cookie: a=b;session=$T;c=d\r\n", PASSES),
        ("the header instead", "Authorization: Bearer $T\r\n", PASSES),
        ("the header instead, with other cookies", "Authorization: Bearer $T\r\nCookie: a=b\r\n", PASSES),
        ("nothing", "", MISSING),
        ("other cookies", "Cookie: a=b\r\n", MISSING),
        ("its name in another case", "Cookie: Session=$T\r\n", MISSING),
        ("a longer name", "Cookie: xsession=$T; sessionx=$T\r\n", MISSING),
        ("its name within a value", "Cookie: a=session=$T\r\n", MISSING),
        ("no equals sign", "Cookie: session\r\n", MISSING),
        ("empty", "Cookie: session=\r\n", EMPTY),
        ("in quotes", "Cookie: session=\"$T\"\r\n", ILLEGAL),
        ("twice", "Cookie: session=$T; session=$T\r\n", MULTIPLE),
        ("twice, once with a blank", "Cookie: session=$T; session =x\r\n", MULTIPLE),
        ("twice, once empty", "Cookie: session=$T; session=\r\n", MULTIPLE),
        ("in two headers", "Cookie: session=$T\r\nCookie: session=$T\r\n", MULTIPLE),
        ("in the header as well", "Cookie: session=$T\r\nAuthorization: Bearer $T\r\n", MULTIPLE),
        ("with Basic in the header", "Cookie: session=$T\r\nAuthorization: Basic eA==\r\n", NOT_BEARER),
    ];
    for (name, headers, expected) in rows {
        bench.request(&gateway, ("GET", "/app"), name, &headers.replace("$T", &token), expected).await;
    }
    bench.finish();
}

/// Browsers send cookies whoever makes them ask: OWASP CSRF, W3C Fetch Metadata.
#[tokio::test]
async fn with_a_cookie_only_pages_of_the_same_origin_may_change_something() {
    let (gateway, token) = gateway().await;
    let mut bench = Bench::default();
    let rows = [
        ("from who knows where", "", CROSS_ORIGIN),
        ("Sec-Fetch-Site same-origin", "Sec-Fetch-Site: same-origin\r\n", PASSES),
        ("Sec-Fetch-Site same-site", "Sec-Fetch-Site: same-site\r\n", CROSS_ORIGIN),
        ("Sec-Fetch-Site cross-site", "Sec-Fetch-Site: cross-site\r\n", CROSS_ORIGIN),
        ("Sec-Fetch-Site none", "Sec-Fetch-Site: none\r\n", CROSS_ORIGIN),
        ("Sec-Fetch-Site empty", "Sec-Fetch-Site:\r\n", CROSS_ORIGIN),
        ("our Origin", "Origin: http://api.example.com\r\n", PASSES),
        ("our Origin in upper case", "Origin: http://API.example.com\r\n", PASSES),
        ("another Origin", "Origin: http://evil.example.com\r\n", CROSS_ORIGIN),
        ("Origin null", "Origin: null\r\n", CROSS_ORIGIN),
        ("our Origin by the other scheme", "Origin: https://api.example.com\r\n", CROSS_ORIGIN),
        ("our Origin with another port", "Origin: http://api.example.com:8080\r\n", CROSS_ORIGIN),
        ("an Origin that begins with ours", "Origin: http://api.example.com.evil.com\r\n", CROSS_ORIGIN),
        ("an Origin that ends with ours", "Origin: http://evil-api.example.com\r\n", CROSS_ORIGIN),
        ("two Origins", "Origin: http://api.example.com\r\nOrigin: http://evil.com\r\n", CROSS_ORIGIN),
        ("two Origins in one", "Origin: http://api.example.com http://evil.com\r\n", CROSS_ORIGIN),
        (
            "our Origin, but Sec-Fetch-Site knows better",
            "Origin: http://api.example.com\r\nSec-Fetch-Site: cross-site\r\n",
            CROSS_ORIGIN,
        ),
        (
            "Sec-Fetch-Site good, Origin bad",
            "Origin: http://evil.com\r\nSec-Fetch-Site: same-origin\r\n",
            CROSS_ORIGIN,
        ),
        ("a Referer proves nothing", "Referer: http://api.example.com/page\r\n", CROSS_ORIGIN),
    ];
    for (name, headers, expected) in rows {
        for method in ["POST", "PUT", "PATCH", "DELETE", "PURGE"] {
            let headers = format!("Cookie: session={token}\r\nContent-Length: 0\r\n{headers}");
            bench.request(&gateway, (method, "/app"), &format!("{method}: {name}"), &headers, expected).await;
        }
    }
    let evil = format!("Cookie: session={token}\r\nOrigin: http://evil.example.com\r\n");
    bench.request(&gateway, ("GET", "/app"), "GET changes nothing", &evil, PASSES).await;
    let overridden = format!("{evil}X-HTTP-Method-Override: DELETE\r\n");
    bench.request(&gateway, ("GET", "/app"), "GET that would be another method", &overridden, PASSES).await;
    let header = format!("Authorization: Bearer {token}\r\nContent-Length: 0\r\n");
    bench.request(&gateway, ("POST", "/app"), "no browser adds this header", &header, PASSES).await;
    bench.finish();
    let overrides =
        |received: &valgate::demo::api::Received| received.headers.contains_key("x-http-method-override");
    assert!(!gateway.api.received().iter().any(overrides));
}

#[tokio::test]
async fn the_api_gets_the_credential_only_where_the_route_says_so() {
    let (gateway, token) = gateway().await;
    let bearer = format!("Bearer {token}");
    let cookie = format!("a=b; session={token}; c=d");
    let rows = [
        ("/orders/1", vec![("Authorization", &*bearer)], None, None),
        ("/orders/2", vec![("Authorization", &*bearer), ("Cookie", "a=b")], None, Some("a=b")),
        ("/app/1", vec![("Cookie", &*cookie)], None, Some("a=b; c=d")),
        ("/app/2", vec![("Authorization", &*bearer), ("Cookie", "a=b; c=d")], None, Some("a=b; c=d")),
        ("/passed-on/1", vec![("Authorization", &*bearer)], Some(&*bearer), None),
        ("/app-passed-on/1", vec![("Cookie", &*cookie)], None, Some(&*cookie)),
        ("/open/1", vec![("Authorization", "Basic eA==")], Some("Basic eA=="), None),
    ];
    for (path, headers, authorization, cookie) in rows {
        let reply = gateway.get(path, "", &headers).await;
        let [received] = &gateway.received(path)[..] else { panic!("{path}: {reply:?}") };
        let one = |name: &str| received.values(&name.parse().unwrap()).join("|");
        assert_eq!(one("authorization"), authorization.unwrap_or_default(), "{path}");
        assert_eq!(one("cookie"), cookie.unwrap_or_default(), "{path}");
    }
    let alone = format!("session={token}");
    gateway.get("/app/3", "", &[("Cookie", &alone)]).await;
    assert!(!gateway.received("/app/3")[0].headers.contains_key("cookie"), "an empty Cookie header is left");
}

/// HTTP/2 may split cookies over fields (RFC 9113 section 8.2.3), but not credentials.
#[tokio::test]
async fn the_same_rules_hold_over_http2() {
    let (gateway, token) = gateway().await;
    let bearer = format!("Bearer {token}");
    let session = format!("session={token}");
    let rows = [
        ("/orders/1", vec![("authorization", &*bearer)], "200"),
        ("/orders/2", vec![], MISSING),
        ("/orders/3", vec![("authorization", &*bearer), ("authorization", &*bearer)], MULTIPLE),
        ("/orders/4", vec![("authorization", &*bearer), ("authorization", "Basic eA==")], MULTIPLE),
        ("/orders/5", vec![("authorization", "Bearer")], EMPTY),
        ("/orders/6", vec![("cookie", &*session)], MISSING),
        ("/app/1", vec![("cookie", "a=b"), ("cookie", &*session), ("cookie", "c=d")], "404"),
        ("/app/2", vec![("cookie", &*session), ("cookie", &*session)], MULTIPLE),
        ("/app/3", vec![("cookie", &*session), ("authorization", &*bearer)], MULTIPLE),
        // HTTP/1.1 refuses such a head; by HTTP/2 it gets as far as this.
        ("/orders/7", vec![("authorization", "Bearer a\u{e9}")], ILLEGAL),
        ("/orders/8", vec![("authorization", "Basic \u{e9}")], NOT_BEARER),
    ];
    for (path, headers, expected) in rows {
        let mut request = http::Request::get(path);
        for (name, value) in headers {
            let value = http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
            request = request.header(name, value);
        }
        let reply = http2(gateway.connect().await, request.body(bytes::Bytes::new()).unwrap()).await;
        assert_eq!(verdict(&reply), expected, "{path}");
        assert_eq!(gateway.received(path).len(), usize::from(!expected.contains("VAL-")), "{path}");
    }
    let received = gateway.received("/app/1");
    assert_eq!(received[0].values(&http::header::COOKIE), ["a=b; c=d"]);
}
