//! What the configuration of an issuer demands of its tokens and allows its keys.

use serde_json::{Value, json};

use crate::bench::{Bench, PASSES};
use crate::support::{Signer, TestGateway, Token, base64url, now};
use crate::tokens::{
    ALGORITHM, EXPIRED, INVALID, ISSUER_UNKNOWN, KEY, MISSING, SIGNATURE, TYPE, gateway, hmac_token,
};

#[tokio::test]
async fn each_algorithm_works_where_it_is_configured_and_nowhere_else() {
    let signers: Vec<Signer> = Signer::ALGORITHMS
        .iter()
        .map(|algorithm| Signer::new(algorithm, &format!("key-{algorithm}")))
        .collect();
    let keys = json!({ "keys": signers.iter().map(Signer::bare_jwk).collect::<Vec<_>>() });
    let issuer = |algorithm: &&str| {
        format!(
            "
  - name: {algorithm}
    issuer: https://{algorithm}.example.com
    keys: {{ inline: {keys} }}
    audiences: [orders-api]
    algorithms: [{algorithm}]"
        )
    };
    let issuers: String = Signer::ALGORITHMS.iter().map(issuer).collect::<Vec<_>>().concat();
    let names = Signer::ALGORITHMS.join(", ");
    let gateway = TestGateway::start(&format!(
        "issuers: {issuers}
routes:
  - match: {{ path: /orders/** }}
    require: {{ issuers: [{names}] }}
    upstream: api
"
    ))
    .await;
    let mut bench = Bench::default();
    for configured in Signer::ALGORITHMS {
        for signer in &signers {
            // Two names of one algorithm (RFC 9864).
            let same = configured == signer.algorithm
                || (configured.starts_with("Ed") && signer.algorithm.starts_with("Ed"));
            let token = Token::new().claim("iss", format!("https://{configured}.example.com")).sign(signer);
            let name = format!("{} where {configured} is configured", signer.algorithm);
            bench.token(&gateway, "/orders", &name, &token, if same { PASSES } else { ALGORITHM }).await;
        }
    }
    bench.finish();
}

/// Keys belong to one issuer (agentgateway#3609: the first provider that owned the kid won).
#[tokio::test]
async fn keys_and_routes_belong_to_their_issuers() {
    let (ours, theirs, extra) = (Signer::es256("same"), Signer::es256("same"), Signer::es256("extra"));
    let gateway = TestGateway::start(&format!(
        "
issuers:
  - {{ name: a, issuer: https://a.example.com, keys: {{ inline: {} }}, audiences: [orders-api], algorithms: [ES256] }}
  - {{ name: b, issuer: https://b.example.com, keys: {{ inline: {} }}, audiences: [orders-api], algorithms: [ES256] }}
routes:
  - {{ match: {{ path: /a/** }}, require: {{ issuers: [a] }}, upstream: api }}
  - {{ match: {{ path: /b/** }}, require: {{ issuers: [b] }}, upstream: api }}
  - {{ match: {{ path: /both/** }}, require: {{ issuers: [a, b] }}, upstream: api }}
",
        ours.jwks(),
        json!({ "keys": [theirs.jwk(), extra.jwk()] }),
    ))
    .await;
    let a = || Token::new().claim("iss", "https://a.example.com");
    let b = || Token::new().claim("iss", "https://b.example.com");
    let (good_a, good_b) = (a().sign(&ours), b().sign(&theirs));
    let mut bench = Bench::default();
    for (name, base, token, expected) in [
        ("a's at both", "/both", &good_a, PASSES),
        ("b's at both", "/both", &good_b, PASSES),
        ("a's at b, warm from another route", "/b", &good_a, ISSUER_UNKNOWN),
        ("a's at a", "/a", &good_a, PASSES),
        ("b's at a, warm from another route", "/a", &good_b, ISSUER_UNKNOWN),
        ("b's at both again", "/both", &good_b, PASSES),
        ("a's claims with b's key of the same kid", "/both", &a().sign(&theirs), SIGNATURE),
        ("b's claims with a's key of the same kid", "/both", &b().sign(&ours), SIGNATURE),
        ("a's claims with a key that b alone has", "/both", &a().sign(&extra), KEY),
        ("the same without kid", "/both", &a().header("kid", Value::Null).sign(&extra), SIGNATURE),
    ] {
        bench.token(&gateway, base, name, token, expected).await;
    }
    bench.finish();
}

#[tokio::test]
async fn without_a_kid_exactly_one_key_must_fit() {
    let (one, other, rsa) = (Signer::es256("k1"), Signer::es256("k2"), Signer::new("RS256", "r1"));
    let keys = json!({ "keys": [one.jwk(), other.jwk(), rsa.jwk()] });
    let gateway = gateway(&keys, "audiences: [orders-api]").await;
    let token = || Token::new().header("kid", Value::Null);
    let mut bench = Bench::default();
    bench.token(&gateway, "/orders", "the only RSA key", &token().sign(&rsa), PASSES).await;
    bench.token(&gateway, "/orders", "one of two", &token().sign(&one), KEY).await;
    bench.token(&gateway, "/orders", "the other of two", &token().sign(&other), KEY).await;
    bench.token(&gateway, "/orders", "named", &Token::new().sign(&other), PASSES).await;
    let crossed = Token::new().header("kid", "r1").sign(&one);
    bench.token(&gateway, "/orders", "named, of another family", &crossed, ALGORITHM).await;
    bench.finish();
}

#[tokio::test]
async fn keys_that_are_not_for_this_or_too_weak_are_not_used() {
    let good = Signer::es256("good");
    let spoilt = |kid: &'static str, member: &str, value: Value| {
        let signer = Signer::es256(kid);
        let mut jwk = signer.jwk();
        jwk[member] = value;
        (signer, jwk)
    };
    let weak: Vec<(Signer, Value)> = vec![
        spoilt("for-encryption", "use", json!("enc")),
        spoilt("other-operations", "key_ops", json!(["encrypt"])),
        spoilt("other-algorithm", "alg", json!("ES384")),
        spoilt("wrong-curve", "crv", json!("P-384")),
        spoilt("short-x", "x", json!("AAAA")),
        spoilt("unknown-type", "kty", json!("XYZ")),
    ];
    let mut keys: Vec<Value> = weak.iter().map(|(_, jwk)| jwk.clone()).collect();
    let modulus = base64url(&[0xff; 128]);
    keys.push(json!({ "kty": "RSA", "kid": "rsa-1024", "alg": "RS256", "n": modulus, "e": "AQAB" }));
    keys.push(json!({ "kty": "oct", "kid": "k1", "alg": "HS256", "k": base64url(b"secret") }));
    keys.push(good.jwk());
    let gateway = gateway(&json!({ "keys": keys }), "audiences: [orders-api]").await;
    let mut bench = Bench::default();
    bench.token(&gateway, "/orders", "the one good key", &Token::new().sign(&good), PASSES).await;
    for (signer, _) in &weak {
        bench.token(&gateway, "/orders", &signer.kid, &Token::new().sign(signer), KEY).await;
    }
    let rsa = Signer::new("RS256", "rsa-1024");
    bench.token(&gateway, "/orders", "an RSA key of 1024 bits", &Token::new().sign(&rsa), KEY).await;
    bench.token(&gateway, "/orders", "a published secret", &hmac_token("HS256", b"secret"), ALGORITHM).await;
    bench.finish();
}

/// RFC 9068 sections 2 and 4.
#[tokio::test]
async fn the_profile_for_access_tokens_demands_what_the_standard_does() {
    let signer = Signer::es256("k1");
    let gateway = gateway(&signer.jwks(), "audiences: [orders-api]\n    profile: rfc9068").await;
    let mut bench = Bench::default();
    let token = || Token::new().header("typ", "at+jwt");
    let rows = [
        ("as it should be", token(), PASSES),
        ("typ in full", token().header("typ", "application/at+jwt"), PASSES),
        ("typ JWT", token().header("typ", "JWT"), TYPE),
        ("no typ", Token::new(), TYPE),
        ("no sub", token().without("sub"), MISSING),
        ("no client_id", token().without("client_id"), MISSING),
        ("azp is not client_id", token().without("client_id").claim("azp", "shop"), MISSING),
        ("no iat", token().without("iat"), MISSING),
        ("no jti", token().without("jti"), MISSING),
    ];
    for (name, token, expected) in rows {
        bench.token(&gateway, "/orders", name, &token.sign(&signer), expected).await;
    }
    bench.finish();
}

#[tokio::test]
async fn what_the_operator_demands_beyond_that_is_demanded() {
    let signer = Signer::es256("k1");
    let issuer = "audiences: [orders-api]
    leeway: 0s
    max_lifetime: 1h
    required_claims: [tenant, sub]";
    let gateway = gateway(&signer.jwks(), issuer).await;
    let mut bench = Bench::default();
    let token = || Token::new().claim("tenant", "acme").claim("exp", now() + 600);
    let rows = [
        ("as it should be", token(), PASSES),
        ("any value will do", token().claim("tenant", json!([1])), PASSES),
        ("no tenant", token().without("tenant"), MISSING),
        ("tenant null", token().claim("tenant", Value::Null), MISSING),
        ("no sub", token().without("sub"), MISSING),
        ("expired just now, no leeway", token().claim("exp", now() - 2), EXPIRED),
        ("lives for exactly an hour", token().claim("iat", now() - 100).claim("exp", now() + 3500), PASSES),
        ("lives for longer", token().claim("iat", now() - 100).claim("exp", now() + 3501), INVALID),
        ("lives for who knows how long", token().without("iat"), MISSING),
    ];
    for (name, token, expected) in rows {
        bench.token(&gateway, "/orders", name, &token.sign(&signer), expected).await;
    }
    bench.finish();
}

#[tokio::test]
async fn a_waived_audience_need_not_be_there_but_must_be_one() {
    let signer = Signer::es256("k1");
    let gateway = gateway(&signer.jwks(), "insecure_accept_any_audience: true").await;
    let mut bench = Bench::default();
    let rows = [
        ("none", Token::new().without("aud"), PASSES),
        ("any", Token::new().claim("aud", "billing-api"), PASSES),
        ("of the wrong type", Token::new().claim("aud", 7), INVALID),
    ];
    for (name, token, expected) in rows {
        bench.token(&gateway, "/orders", name, &token.sign(&signer), expected).await;
    }
    bench.finish();
}
