//! What a route demands beyond a valid token: scopes and rules on claims.

use serde_json::{Value, json};

use crate::bench::{Bench, PASSES};
use crate::support::{ISSUER, Signer, TestGateway, Token};

const SCOPE: &str = "403 VAL-030 insufficient_scope";
const RULE: &str = "403 VAL-031 claim_rule";

async fn gateway(signer: &Signer) -> TestGateway {
    TestGateway::start(&format!(
        "
issuers:
  - {{ name: main, issuer: {ISSUER}, keys: {{ inline: {} }}, audiences: [orders-api] }}
routes:
  - {{ match: {{ path: /all/** }}, require: {{ issuers: [main], scopes: [a, b] }}, upstream: api }}
  - {{ match: {{ path: /any/** }}, require: {{ issuers: [main], any_scopes: [a, b] }}, upstream: api }}
  - {{ match: {{ path: /mixed/** }}, require: {{ issuers: [main], scopes: [a], any_scopes: [b, c] }}, upstream: api }}
  - {{ match: {{ path: /equals/** }}, require: {{ issuers: [main], claims: [{{ claim: x, equals: acme }}] }}, upstream: api }}
  - {{ match: {{ path: /number/** }}, require: {{ issuers: [main], claims: [{{ claim: x, equals: 7 }}] }}, upstream: api }}
  - {{ match: {{ path: /true/** }}, require: {{ issuers: [main], claims: [{{ claim: x, equals: true }}] }}, upstream: api }}
  - {{ match: {{ path: /contains/** }}, require: {{ issuers: [main], claims: [{{ claim: x, contains: clerk }}] }}, upstream: api }}
  - {{ match: {{ path: /one-of/** }}, require: {{ issuers: [main], claims: [{{ claim: x, one_of: [sales, audit] }}] }}, upstream: api }}
  - {{ match: {{ path: /nested/** }}, require: {{ issuers: [main], claims: [{{ claim: [x, roles], contains: clerk }}] }}, upstream: api }}
  - match: {{ path: /two/** }}
    require: {{ issuers: [main], claims: [{{ claim: x, equals: acme }}, {{ claim: y, equals: z }}] }}
    upstream: api
",
        signer.jwks()
    ))
    .await
}

#[tokio::test]
async fn scopes_are_whole_words_and_all_or_any_of_them() {
    let signer = Signer::es256("k1");
    let gateway = gateway(&signer).await;
    let mut bench = Bench::default();
    let rows: Vec<(&str, &str, Value, &str)> = vec![
        ("/all", "scope", json!("a b"), PASSES),
        ("/all", "scope", json!("c b a"), PASSES),
        ("/all", "scope", json!("a  b"), PASSES),
        ("/all", "scope", json!("a"), SCOPE),
        ("/all", "scope", json!(""), SCOPE),
        ("/all", "scope", json!("A B"), SCOPE),
        ("/all", "scope", json!("a,b"), SCOPE),
        ("/all", "scope", json!("a\tb"), SCOPE),
        ("/all", "scope", json!("a\nb"), SCOPE),
        ("/all", "scope", json!("ab"), SCOPE),
        ("/all", "scope", json!("aa bb"), SCOPE),
        ("/all", "scope", json!("a b\0"), SCOPE),
        ("/all", "scp", json!("a b"), PASSES),
        ("/all", "scp", json!(["a", "b"]), PASSES),
        ("/all", "scp", json!(["a"]), SCOPE),
        ("/all", "scp", json!([]), SCOPE),
        ("/all", "scopes", json!(["a", "b"]), SCOPE),
        ("/all", "permissions", json!(["a", "b"]), SCOPE),
        ("/any", "scope", json!("a"), PASSES),
        ("/any", "scope", json!("b"), PASSES),
        ("/any", "scope", json!("c"), SCOPE),
        ("/any", "scp", json!(["b"]), PASSES),
        ("/mixed", "scope", json!("a b"), PASSES),
        ("/mixed", "scope", json!("a c"), PASSES),
        ("/mixed", "scope", json!("a"), SCOPE),
        ("/mixed", "scope", json!("b c"), SCOPE),
    ];
    for (base, claim, value, expected) in rows {
        let token = Token::new().without("scope").claim(claim, value.clone()).sign(&signer);
        bench.token(&gateway, base, &format!("{base} {claim} {value}"), &token, expected).await;
    }
    let both = Token::new().claim("scope", "a").claim("scp", json!(["b"])).sign(&signer);
    bench.token(&gateway, "/all", "scope and scp together", &both, PASSES).await;
    let none = Token::new().without("scope").sign(&signer);
    bench.token(&gateway, "/all", "no scope", &none, SCOPE).await;
    bench.finish();
}

#[tokio::test]
async fn rules_hold_for_what_they_say_and_nothing_near_it() {
    let signer = Signer::es256("k1");
    let gateway = gateway(&signer).await;
    let mut bench = Bench::default();
    let rows: Vec<(&str, Value, &str)> = vec![
        ("/equals", json!("acme"), PASSES),
        ("/equals", json!("Acme"), RULE),
        ("/equals", json!("acme "), RULE),
        ("/equals", json!(["acme"]), RULE),
        ("/equals", json!({ "acme": true }), RULE),
        ("/equals", json!(null), RULE),
        ("/number", json!(7), PASSES),
        ("/number", json!(7.5), RULE),
        ("/number", json!(70), RULE),
        ("/number", json!([7]), RULE),
        ("/true", json!(true), PASSES),
        ("/true", json!(false), RULE),
        ("/true", json!(1), RULE),
        ("/contains", json!(["clerk"]), PASSES),
        ("/contains", json!(["x", "clerk"]), PASSES),
        ("/contains", json!("clerk"), RULE),
        ("/contains", json!("a clerk b"), RULE),
        ("/contains", json!([["clerk"]]), RULE),
        ("/contains", json!(["clerks"]), RULE),
        ("/contains", json!([]), RULE),
        ("/one-of", json!("audit"), PASSES),
        ("/one-of", json!("sales"), PASSES),
        ("/one-of", json!("ops"), RULE),
        ("/one-of", json!(["sales"]), RULE),
        ("/nested", json!({ "roles": ["clerk"] }), PASSES),
        ("/nested", json!({ "roles": ["boss"] }), RULE),
        ("/nested", json!(["roles", "clerk"]), RULE),
        ("/nested", json!("roles"), RULE),
        ("/two", json!("acme"), RULE),
    ];
    for (base, value, expected) in rows {
        let token = Token::new().claim("x", value.clone()).sign(&signer);
        bench.token(&gateway, base, &format!("{base} {value}"), &token, expected).await;
    }
    let both = Token::new().claim("x", "acme").claim("y", "z").sign(&signer);
    bench.token(&gateway, "/two", "both rules hold", &both, PASSES).await;
    let dotted = Token::new().claim("x.roles", json!(["clerk"])).sign(&signer);
    bench.token(&gateway, "/nested", "a dot is part of a name", &dotted, RULE).await;
    for base in ["/equals", "/contains", "/one-of", "/nested", "/number"] {
        bench
            .token(&gateway, base, &format!("{base}: no such claim"), &Token::new().sign(&signer), RULE)
            .await;
    }
    bench.finish();
}

/// A route's rules are the route's: a verdict that another route cached does not weaken them.
#[tokio::test]
async fn a_token_that_is_warm_is_weighed_anew_on_each_route() {
    let signer = Signer::es256("k1");
    let gateway = gateway(&signer).await;
    let token = Token::new().claim("scope", "a").claim("x", "acme").sign(&signer);
    let mut bench = Bench::default();
    for (base, expected) in [
        ("/any", PASSES),
        ("/all", SCOPE),
        ("/equals", PASSES),
        ("/two", RULE),
        ("/any", PASSES),
        ("/mixed", SCOPE),
    ] {
        bench.token(&gateway, base, base, &token, expected).await;
    }
    bench.finish();
}
