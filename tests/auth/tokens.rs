//! The rules for tokens, one named row each: claims, header, form, signature.

use serde_json::{Value, json};

use crate::bench::{Bench, PASSES};
use crate::support::{Answer, ISSUER, Signer, Stub, TestGateway, Token, base64url, jws, now, refused};

pub const MALFORMED: &str = "401 VAL-020 malformed";
pub const MISSING: &str = "401 VAL-020 claim_missing";
pub const INVALID: &str = "401 VAL-020 claim_invalid";
pub const EXPIRED: &str = "401 VAL-020 expired";
pub const EARLY: &str = "401 VAL-020 not_yet_valid";
pub const ISSUER_UNKNOWN: &str = "401 VAL-020 issuer_not_trusted";
pub const AUDIENCE: &str = "401 VAL-020 audience_mismatch";
pub const TYPE: &str = "401 VAL-020 wrong_type";
pub const ALGORITHM: &str = "401 VAL-020 algorithm_not_allowed";
pub const KEY: &str = "401 VAL-020 unknown_key";
pub const SIGNATURE: &str = "401 VAL-020 signature_mismatch";

/// A gateway with one issuer that has these keys and these lines besides, and one route under `/orders`.
pub async fn gateway(keys: &Value, issuer: &str) -> TestGateway {
    TestGateway::start(&format!(
        "
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ inline: {keys} }}
    {issuer}
routes:
  - match: {{ path: /orders/** }}
    require: {{ issuers: [main] }}
    upstream: api
"
    ))
    .await
}

const USUAL: &str = "audiences: [orders-api, orders-v2]\n    algorithms: [ES256]";

/// CVE-2026-25537 (a date of the wrong type taken for absent), HeliosSoftware/hfs#206 (`aud` checked only if there).
#[tokio::test]
async fn claims_are_required_typed_and_judged() {
    let signer = Signer::es256("k1");
    let gateway = gateway(&signer.jwks(), USUAL).await;
    let mut bench = Bench::default();
    let token = Token::new;
    let far = json!(now() + 600);
    let rows = [
        ("as it should be", token(), PASSES),
        ("no exp", token().without("exp"), MISSING),
        ("exp null", token().claim("exp", Value::Null), INVALID),
        ("exp a string", token().claim("exp", far.to_string()), INVALID),
        ("exp an array", token().claim("exp", json!([far])), INVALID),
        ("exp an object", token().claim("exp", json!({ "at": far })), INVALID),
        ("exp true", token().claim("exp", true), INVALID),
        ("exp negative", token().claim("exp", -1), INVALID),
        ("exp as large as can be", token().claim("exp", u64::MAX), INVALID),
        ("exp i64::MAX", token().claim("exp", i64::MAX), INVALID),
        ("exp 1e300", token().claim("exp", 1e300), INVALID),
        ("exp 2^53", token().claim("exp", 1_i64 << 53), PASSES),
        ("exp with a fraction", token().claim("exp", f64::from(i32::MAX) + 0.5), PASSES),
        ("exp 0", token().claim("exp", 0), EXPIRED),
        ("exp long ago", token().claim("exp", now() - 3600), EXPIRED),
        ("exp in milliseconds", token().claim("exp", (now() + 600) * 1000), PASSES),
        ("expired within the leeway", token().claim("exp", now() - 15), PASSES),
        ("expired beyond the leeway", token().claim("exp", now() - 45), EXPIRED),
        ("nbf ahead", token().claim("nbf", now() + 60), EARLY),
        ("nbf ahead within the leeway", token().claim("nbf", now() + 15), PASSES),
        ("nbf a string", token().claim("nbf", "0"), INVALID),
        ("nbf null", token().claim("nbf", Value::Null), INVALID),
        ("iat ahead", token().claim("iat", now() + 60), EARLY),
        ("iat ahead within the leeway", token().claim("iat", now() + 15), PASSES),
        ("iat a string", token().claim("iat", now().to_string()), INVALID),
        ("no iat", token().without("iat"), PASSES),
        ("no iss", token().without("iss"), MISSING),
        ("iss null", token().claim("iss", Value::Null), INVALID),
        ("iss an array", token().claim("iss", json!([ISSUER])), INVALID),
        ("iss of somebody else", token().claim("iss", "https://evil.example.com/"), ISSUER_UNKNOWN),
        ("iss without its slash", token().claim("iss", ISSUER.trim_end_matches('/')), ISSUER_UNKNOWN),
        ("iss in another case", token().claim("iss", ISSUER.to_uppercase()), ISSUER_UNKNOWN),
        ("iss with a port", token().claim("iss", "https://id.example.com:443/"), ISSUER_UNKNOWN),
        ("iss with a blank", token().claim("iss", format!("{ISSUER} ")), ISSUER_UNKNOWN),
        ("iss with a NUL", token().claim("iss", format!("{ISSUER}\0")), ISSUER_UNKNOWN),
        ("iss empty", token().claim("iss", ""), ISSUER_UNKNOWN),
        ("iss by the issuer's name in the configuration", token().claim("iss", "main"), ISSUER_UNKNOWN),
        ("no aud", token().without("aud"), MISSING),
        ("aud null", token().claim("aud", Value::Null), INVALID),
        ("aud a number", token().claim("aud", 7), INVALID),
        ("aud an object", token().claim("aud", json!({ "orders-api": true })), INVALID),
        ("aud another API", token().claim("aud", "billing-api"), AUDIENCE),
        ("aud empty", token().claim("aud", ""), AUDIENCE),
        ("aud no entries", token().claim("aud", json!([])), AUDIENCE),
        ("aud an array with ours", token().claim("aud", json!(["billing-api", "orders-api"])), PASSES),
        ("aud the second of ours", token().claim("aud", "orders-v2"), PASSES),
        ("aud an array with ours and a number", token().claim("aud", json!(["orders-api", 1])), INVALID),
        ("aud nested", token().claim("aud", json!([["orders-api"]])), INVALID),
        ("aud with a blank", token().claim("aud", "orders-api "), AUDIENCE),
        ("aud two in one string", token().claim("aud", "orders-api orders-v2"), AUDIENCE),
        ("aud in another case", token().claim("aud", "Orders-API"), AUDIENCE),
        ("aud that begins with ours", token().claim("aud", "orders-api.evil"), AUDIENCE),
        ("aud with a NUL", token().claim("aud", "orders-api\0"), AUDIENCE),
        ("sub a number", token().claim("sub", 7), INVALID),
        ("sub an array", token().claim("sub", json!(["alice"])), INVALID),
        ("no sub", token().without("sub"), PASSES),
        ("jti a number", token().claim("jti", 7), INVALID),
        ("jti null", token().claim("jti", Value::Null), INVALID),
        ("sid an object", token().claim("sid", json!({})), INVALID),
        ("client_id a number", token().claim("client_id", 7), INVALID),
        ("azp an array", token().claim("azp", json!(["shop"])), INVALID),
        ("scope an array", token().claim("scope", json!(["orders:read"])), INVALID),
        ("scp a number", token().claim("scp", 7), INVALID),
        ("scp with a number", token().claim("scp", json!(["a", 7])), INVALID),
        ("claims nobody knows", token().claim("x", json!({ "deep": [1, null, { "y": "z" }] })), PASSES),
    ];
    for (name, token, expected) in rows {
        bench.token(&gateway, "/orders", name, &token.sign(&signer), expected).await;
    }
    bench.finish();
}

/// RFC 8725 sections 2.1 (`none`, a public key taken for a shared secret), 2.10 (a key that the token brings), 3.11
/// (tokens of other kinds), RFC 7515 section 4.1.11 (`crit`), RFC 7797 (`b64`).
#[tokio::test]
async fn the_header_decides_nothing_that_the_configuration_has_not_allowed() {
    let signer = Signer::es256("k1");
    let other = Signer::es256("k1");
    let keys = json!({ "keys": [signer.jwk(), Signer::new("RS256", "r1").jwk()] });
    let gateway = gateway(&keys, USUAL).await;
    let evil = Stub::start().await;
    evil.set("/jwks", Answer::json(&other.jwks()));
    let mut bench = Bench::default();
    let token = Token::new;
    let rows = [
        ("no typ", token(), PASSES),
        ("typ JWT", token().header("typ", "JWT"), PASSES),
        ("typ jwt", token().header("typ", "jwt"), PASSES),
        ("typ at+jwt", token().header("typ", "at+jwt"), PASSES),
        ("typ AT+JWT", token().header("typ", "AT+JWT"), PASSES),
        ("typ application/at+jwt", token().header("typ", "application/at+jwt"), PASSES),
        ("typ Application/JWT", token().header("typ", "Application/JWT"), PASSES),
        ("typ empty", token().header("typ", ""), TYPE),
        ("typ JOSE", token().header("typ", "JOSE"), TYPE),
        ("typ logout+jwt", token().header("typ", "logout+jwt"), TYPE),
        ("typ dpop+jwt", token().header("typ", "dpop+jwt"), TYPE),
        ("typ secevent+jwt", token().header("typ", "secevent+jwt"), TYPE),
        ("typ oauth-authz-req+jwt", token().header("typ", "oauth-authz-req+jwt"), TYPE),
        ("typ token-introspection+jwt", token().header("typ", "token-introspection+jwt"), TYPE),
        ("typ with a blank", token().header("typ", "at+jwt "), TYPE),
        ("typ application/application/jwt", token().header("typ", "application/application/jwt"), TYPE),
        ("typ at+jwt;v=1", token().header("typ", "at+jwt;v=1"), TYPE),
        ("typ a number", token().header("typ", 7), MALFORMED),
        ("no kid, one key that fits", token().header("kid", Value::Null), PASSES),
        ("kid unknown", token().header("kid", "k2"), KEY),
        ("kid empty", token().header("kid", ""), KEY),
        ("kid in another case", token().header("kid", "K1"), KEY),
        ("kid with a NUL", token().header("kid", "k1\0"), KEY),
        ("kid a path", token().header("kid", "../../../dev/null"), KEY),
        ("kid a query", token().header("kid", "k1' OR '1'='1"), KEY),
        ("kid a URL", token().header("kid", evil.url("/jwks")), KEY),
        ("kid of a key for an algorithm that is not configured", token().header("kid", "r1"), KEY),
        ("kid a number", token().header("kid", 1), MALFORMED),
        ("kid an array", token().header("kid", json!(["k1"])), MALFORMED),
        ("no alg", token().header("alg", Value::Null), MALFORMED),
        ("alg a number", token().header("alg", 256), MALFORMED),
        ("alg an array", token().header("alg", json!(["ES256"])), MALFORMED),
        ("alg in lower case", token().header("alg", "es256"), ALGORITHM),
        ("alg with a blank", token().header("alg", "ES256 "), ALGORITHM),
        ("alg empty", token().header("alg", ""), ALGORITHM),
        ("alg of another curve", token().header("alg", "ES384"), ALGORITHM),
        ("alg of another family", token().header("alg", "RS256"), ALGORITHM),
        ("alg ES256K", token().header("alg", "ES256K"), ALGORITHM),
        ("alg none with a signature", token().header("alg", "none"), ALGORITHM),
        ("alg NoNe with a signature", token().header("alg", "NoNe"), ALGORITHM),
        ("alg HS256 with a signature", token().header("alg", "HS256"), ALGORITHM),
        ("alg dir", token().header("alg", "dir"), ALGORITHM),
        ("crit without entries", token().header("crit", json!([])), MALFORMED),
        ("crit that names exp", token().header("crit", json!(["exp"])).header("exp", now() + 60), MALFORMED),
        ("crit null", token().header("crit", json!("x")), MALFORMED),
        ("b64 false", token().header("b64", false).header("crit", json!(["b64"])), MALFORMED),
        ("b64 false, not critical", token().header("b64", false), MALFORMED),
        ("enc", token().header("enc", "A256GCM"), MALFORMED),
        ("jwk, not used", token().header("jwk", other.jwk()), PASSES),
        ("jku, not fetched", token().header("jku", evil.url("/jwks")), PASSES),
        ("x5u, not fetched", token().header("x5u", evil.url("/jwks")), PASSES),
    ];
    for (name, token, expected) in rows {
        bench.token(&gateway, "/orders", name, &token.sign(&signer), expected).await;
    }
    let forged = [
        ("signed with a key of that kid, but not that key", token()),
        ("jwk of the forger", token().header("jwk", other.jwk())),
        ("jku of the forger", token().header("jku", evil.url("/jwks"))),
        ("x5u of the forger", token().header("x5u", evil.url("/jwks"))),
        ("x5c of the forger", token().header("x5c", json!(["AAAA"]))),
        ("jwk of the forger, no kid", token().header("jwk", other.jwk()).header("kid", Value::Null)),
    ];
    for (name, token) in forged {
        bench.token(&gateway, "/orders", name, &token.sign(&other), SIGNATURE).await;
    }
    for alg in ["none", "None", "NONE", "nOnE"] {
        let header = json!({ "alg": alg, "kid": "k1" }).to_string();
        let input =
            format!("{}.{}.", base64url(header.as_bytes()), base64url(token().claims_text().as_bytes()));
        bench.token(&gateway, "/orders", &format!("alg {alg} without a signature"), &input, ALGORITHM).await;
    }
    for (what, secret) in public_key_bytes(&signer) {
        for alg in ["HS256", "HS384", "HS512"] {
            let token = hmac_token(alg, &secret);
            let name = format!("{alg} with the public key as {what}");
            bench.token(&gateway, "/orders", &name, &token, ALGORITHM).await;
        }
    }
    bench.finish();
    assert_eq!(evil.hits("/jwks"), 0, "a token made the gateway fetch something");
}

/// What a forger may take for the secret.
fn public_key_bytes(signer: &Signer) -> Vec<(&'static str, Vec<u8>)> {
    let jwk = signer.jwk();
    let x = jwk["x"].as_str().unwrap();
    vec![
        ("JWK", jwk.to_string().into_bytes()),
        ("x", x.as_bytes().to_vec()),
        ("an empty secret", Vec::new()),
        ("the set", signer.jwks().to_string().into_bytes()),
    ]
}

pub fn hmac_token(alg: &str, secret: &[u8]) -> String {
    use aws_lc_rs::hmac;
    let algorithm = match alg {
        "HS256" => hmac::HMAC_SHA256,
        "HS384" => hmac::HMAC_SHA384,
        _ => hmac::HMAC_SHA512,
    };
    let header = json!({ "alg": alg, "kid": "k1" }).to_string();
    let input =
        format!("{}.{}", base64url(header.as_bytes()), base64url(Token::new().claims_text().as_bytes()));
    let tag = hmac::sign(&hmac::Key::new(algorithm, secret), input.as_bytes());
    format!("{input}.{}", base64url(tag.as_ref()))
}

/// RFC 7515 sections 3 and 5.2, RFC 7518 section 3.4: zeros, values out of range and wrong lengths for r and s.
#[tokio::test]
async fn one_token_has_one_form_and_its_signature_is_over_all_of_it() {
    let signer = Signer::es256("k1");
    let gateway = gateway(&signer.jwks(), USUAL).await;
    let mut bench = Bench::default();
    let good = Token::new().sign(&signer);
    let [header, claims, signature] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let admin = base64url(Token::new().claim("sub", "admin").claims_text().as_bytes());
    let other_header = base64url(br#"{"kid":"k1","alg":"ES256"}"#);
    let raw = signer.sign(format!("{header}.{claims}").as_bytes());
    let with = |bytes: &[u8]| format!("{header}.{claims}.{}", base64url(bytes));
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let n: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&order[2 * at..2 * at + 2], 16).unwrap()).collect();
    let der = {
        let mut bytes = vec![0x30, 0x44, 0x02, 0x20];
        bytes.extend(&raw[..32]);
        bytes.extend([0x02, 0x20]);
        bytes.extend(&raw[32..]);
        bytes
    };
    let flip_last = |text: &str, to: fn(u8) -> u8| {
        let mut bytes = text.as_bytes().to_vec();
        let last = bytes.last_mut().unwrap();
        *last = to(*last);
        String::from_utf8(bytes).unwrap()
    };
    let rows = [
        ("as it should be", good.clone(), PASSES),
        ("claims changed", format!("{header}.{admin}.{signature}"), SIGNATURE),
        ("header changed", format!("{other_header}.{claims}.{signature}"), SIGNATURE),
        ("signature of zeros", with(&[0; 64]), SIGNATURE),
        ("r = s = n", with(&[n.clone(), n.clone()].concat()), SIGNATURE),
        ("r + 0", with(&[&raw[..32], &[0; 32]].concat()), SIGNATURE),
        ("signature cut short", with(&raw[..63]), SIGNATURE),
        ("signature too long", with(&[raw.clone(), vec![0]].concat()), SIGNATURE),
        ("signature with a zero before r", with(&[vec![0], raw.clone()].concat()), SIGNATURE),
        ("signature in DER", with(&der), SIGNATURE),
        (
            "a signature of another token",
            {
                let other = Token::new().sign(&signer);
                format!("{header}.{claims}.{}", other.rsplit('.').next().unwrap())
            },
            SIGNATURE,
        ),
        ("no signature", format!("{header}.{claims}."), MALFORMED),
        ("one part", "abc".to_owned(), MALFORMED),
        ("two parts", format!("{header}.{claims}"), MALFORMED),
        ("four parts", format!("{good}.{signature}"), MALFORMED),
        (
            "five parts, as of a JWE",
            format!("{header}.{claims}.{signature}.{signature}.{signature}"),
            MALFORMED,
        ),
        ("only dots", "..".to_owned(), MALFORMED),
        ("no header", format!(".{claims}.{signature}"), MALFORMED),
        ("no claims", format!("{header}..{signature}"), MALFORMED),
        ("a dot at the end", format!("{good}."), MALFORMED),
        ("a dot in front", format!(".{good}"), MALFORMED),
        ("padding", format!("{good}="), MALFORMED),
        ("padding twice", format!("{good}=="), MALFORMED),
        ("signature in plain base64", format!("{header}.{claims}.+/{}", &signature[2..]), MALFORMED),
        ("a tilde", format!("{header}.{claims}.~{}", &signature[1..]), MALFORMED),
        // 64 bytes leave four bits of the last character unused: they must be zero.
        ("signature spelled otherwise", flip_last(&good, |last| last + 1), MALFORMED),
        ("a blank within", format!("{header}. {claims}.{signature}"), "400 VAL-011 illegal_characters"),
        ("a tab within", format!("{header}.\t{claims}.{signature}"), "400 VAL-011 illegal_characters"),
        ("a comma at the end", format!("{good},"), "400 VAL-011 illegal_characters"),
        ("something after it", format!("{good} x"), "400 VAL-011 illegal_characters"),
        ("in quotes", format!("\"{good}\""), "400 VAL-011 illegal_characters"),
        ("a percent sign", format!("{good}%20"), "400 VAL-011 illegal_characters"),
        ("beyond ASCII", format!("{good}\u{e9}"), "400 VAL-042 illegal_header"),
        ("flattened JSON serialization", base64url(br#"{"payload":"x"}"#), MALFORMED),
    ];
    for (name, token, expected) in rows {
        bench.token(&gateway, "/orders", name, &token, expected).await;
    }

    bench.finish();
}

/// RFC 7519 section 7.2, RFC 8725 section 2.6: two readers of one JSON text must not disagree.
#[tokio::test]
async fn its_json_has_one_reading() {
    let signer = Signer::es256("k1");
    let gateway = gateway(&signer.jwks(), USUAL).await;
    let mut bench = Bench::default();
    let claims = Token::new().claims_text();
    let inner = claims.strip_prefix('{').unwrap();
    let deep = format!("{{\"x\":{}{},{inner}", "[".repeat(2000), "]".repeat(2000));
    let header = r#"{"alg":"ES256","kid":"k1"}"#;
    let rows: Vec<(&str, String, Vec<u8>, &str)> = vec![
        ("blanks around the JSON", header.into(), format!(" {claims}\n").into(), PASSES),
        ("exp twice", header.into(), format!("{{\"exp\":1,{inner}").into(), MALFORMED),
        ("exp twice, alike", header.into(), format!("{{\"sub\":\"alice\",{inner}").into(), MALFORMED),
        (
            "sub twice, once escaped",
            header.into(),
            format!("{{\"\\u0073ub\":\"a\",{inner}").into(),
            MALFORMED,
        ),
        (
            "a member twice, deep within",
            header.into(),
            format!("{{\"x\":[{{\"y\":1,\"y\":1}}],{inner}").into(),
            MALFORMED,
        ),
        ("alg twice", r#"{"alg":"none","alg":"ES256","kid":"k1"}"#.into(), claims.clone().into(), MALFORMED),
        ("kid twice", r#"{"kid":"k1","alg":"ES256","kid":"k1"}"#.into(), claims.clone().into(), MALFORMED),
        ("exp out of range", header.into(), format!("{{\"x\":1e999,{inner}").into(), MALFORMED),
        ("nested beyond reason", header.into(), deep.into(), MALFORMED),
        ("a comma too many", header.into(), claims.replace('}', ",}").into(), MALFORMED),
        ("something after the claims", header.into(), format!("{claims}x").into(), MALFORMED),
        ("two objects", header.into(), format!("{claims}{{}}").into(), MALFORMED),
        ("a byte order mark", header.into(), format!("\u{feff}{claims}").into(), MALFORMED),
        ("a NUL after the claims", header.into(), format!("{claims}\0").into(), MALFORMED),
        ("a NUL within a string, raw", header.into(), claims.replace("alice", "ali\0ce").into(), MALFORMED),
        ("half a surrogate", header.into(), claims.replace("alice", "\\ud800").into(), MALFORMED),
        ("not UTF-8", header.into(), [b"{\"x\":\"\xff\",".as_slice(), inner.as_bytes()].concat(), MALFORMED),
        (
            "overlong UTF-8",
            header.into(),
            [b"{\"x\":\"\xc0\xaf\",".as_slice(), inner.as_bytes()].concat(),
            MALFORMED,
        ),
        ("NaN", header.into(), format!("{{\"x\":NaN,{inner}").into(), MALFORMED),
        ("a comment", header.into(), format!("/**/{claims}").into(), MALFORMED),
        ("claims an array", header.into(), format!("[{claims}]").into(), MALFORMED),
        ("claims a string", header.into(), b"\"x\"".to_vec(), MALFORMED),
        ("claims null", header.into(), b"null".to_vec(), MALFORMED),
        ("claims no JSON", header.into(), b"hello".to_vec(), MALFORMED),
        ("no claims at all", header.into(), b"{}".to_vec(), MISSING),
        ("header an array", format!("[{header}]"), claims.clone().into(), MALFORMED),
        ("header no JSON", "hello".into(), claims.clone().into(), MALFORMED),
        ("something after the header", format!("{header} x"), claims.clone().into(), MALFORMED),
    ];
    for (name, header, claims, expected) in rows {
        bench.token(&gateway, "/orders", name, &jws(header, claims, &signer), expected).await;
    }
    bench.finish();
}

#[tokio::test]
async fn a_token_may_have_16_kib_and_not_a_byte_more() {
    let signer = Signer::es256("k1");
    let gateway = gateway(&signer.jwks(), USUAL).await;
    let mut bench = Bench::default();
    for (size, expected) in [(16 * 1024, PASSES), (16 * 1024 + 1, "431 VAL-043 token")] {
        let token = token_of_size(&signer, size);
        bench.token(&gateway, "/orders", &format!("{size} bytes"), &token, expected).await;
    }
    bench.token(&gateway, "/orders", "30 KiB", &token_of_size(&signer, 30 * 1024), "431 VAL-043 token").await;
    bench.finish();
}

fn token_of_size(signer: &Signer, size: usize) -> String {
    let bare = Token::new().claim("pad", "").sign(signer).len();
    let about = (size - bare) * 3 / 4;
    let sizes = (about - 8..about + 8).flat_map(|claims| (0..4).map(move |header| (claims, header)));
    sizes
        .map(|(claims, header)| {
            Token::new().claim("pad", "x".repeat(claims)).header("x", "x".repeat(header)).sign(signer)
        })
        .find(|token| token.len() == size)
        .unwrap()
}

/// A cached verdict ends with what it rests on: here with the token's own time.
#[tokio::test]
async fn a_cached_verdict_does_not_outlive_the_token() {
    let signer = Signer::es256("k1");
    let gateway = gateway(&signer.jwks(), "audiences: [orders-api]\n    leeway: 0s").await;
    let token = Token::new().claim("exp", now() + 3).sign(&signer);
    assert_eq!(gateway.get("/orders/1", &token, &[]).await.status, 200);
    crate::support::eventually("the token expires", || async {
        let reply = gateway.get("/orders/1", &token, &[]).await;
        crate::support::verdict(&reply) == EXPIRED
    })
    .await;
    assert_eq!(gateway.metric("valgate_auth_total{issuer=\"main\",cache=\"cold\"}").await, 1);
}

#[tokio::test]
async fn a_token_that_comes_back_is_refused_alike_and_let_through_when_the_rules_change() {
    let signer = Signer::es256("k1");
    let rules = |audience: &str| {
        format!(
            "workers: 1
issuers: [{{ name: main, issuer: {ISSUER}, keys: {{ inline: {} }}, audiences: [{audience}] }}]
routes: [{{ match: {{ path: /orders/** }}, require: {{ issuers: [main] }}, upstream: api }}]
",
            signer.jwks()
        )
    };
    // One core: each remembers what it refused itself.
    let mut gateway = TestGateway::start(&rules("billing-api")).await;
    let token = Token::new().sign(&signer);
    for _ in 0..3 {
        refused(&gateway.get("/orders/1", &token, &[]).await, "VAL-020", "audience_mismatch");
    }
    assert!(gateway.received("/orders/1").is_empty());
    gateway.reload(&rules("orders-api")).await.unwrap();
    assert_eq!(gateway.get("/orders/1", &token, &[]).await.status, 200);
    let log = gateway.stop().await;
    let auth: Vec<_> = log.iter().map(|line| line["auth"].as_str().unwrap()).collect();
    assert_eq!(auth, ["cold", "warm", "warm", "cold"]);
    assert!(
        log[..3].iter().all(|line| line["token"] == log[0]["token"] && line["token"].is_string()),
        "{log:?}"
    );
}
