//! The life of keys: rotation, withdrawal, providers that fail in every way, restarts.

use serde_json::{Value, json};

use crate::support::{
    Answer, ISSUER, Signer, Stub, TestGateway, Token, base64url, eventually, get, refused, verdict,
};

const GONE: &str = "401 VAL-020 unknown_key";
const UNREACHABLE: &str = "503 VAL-050 keys_unreachable";

/// One issuer with these keys (the inside of `keys:`), one route for its tokens and one for everybody.
fn yaml(keys: &str) -> String {
    format!(
        "
issuers:
  - {{ name: main, issuer: \"{ISSUER}\", keys: {{ {keys} }}, audiences: [orders-api] }}
routes:
  - {{ match: {{ path: /orders/** }}, require: {{ issuers: [main] }}, upstream: api }}
  - {{ match: {{ path: /status }}, public: true, upstream: api }}
"
    )
}

async fn provider(keys: &Value) -> Stub {
    let provider = Stub::start().await;
    provider.set("/jwks", Answer::json(keys));
    provider
}

fn set_of(signers: &[&Signer]) -> Value {
    json!({ "keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>() })
}

/// What becomes of a fresh token of this key.
async fn try_key(gateway: &TestGateway, signer: &Signer) -> String {
    verdict(&gateway.get("/orders/1", &Token::new().sign(signer), &[]).await)
}

/// envoy#39643: the most wished-for feature of its kind.
#[tokio::test]
async fn a_rotated_key_is_accepted_at_first_sight() {
    let (old, new) = (Signer::es256("old"), Signer::es256("new"));
    let provider = provider(&old.jwks()).await;
    let keys = format!("jwks_url: \"{}\", refresh_interval: 1h, cooldown: 100ms", provider.url("/jwks"));
    let gateway = TestGateway::start(&yaml(&keys)).await;
    assert_eq!(try_key(&gateway, &old).await, "200");
    provider.set("/jwks", Answer::json(&set_of(&[&old, &new])));
    assert_eq!(try_key(&gateway, &new).await, "200");
    assert_eq!(try_key(&gateway, &old).await, "200");
    assert_eq!(provider.hits("/jwks"), 2);
}

/// RFC 7515 section 4.1.4: a `kid` is optional, and a provider with one key may do without.
#[tokio::test]
async fn a_key_without_a_name_is_rotated_at_first_sight_to_one_of_any_type() {
    let nameless = |signer: &Signer| {
        let mut jwk = signer.jwk();
        jwk.as_object_mut().unwrap().remove("kid");
        json!({ "keys": [jwk] })
    };
    let token = |signer: &Signer| Token::new().header("kid", Value::Null).sign(signer);
    let signers = ["ES256", "EdDSA", "ES384"].map(|algorithm| Signer::new(algorithm, "k"));
    let next = Signer::new("ES384", "k");
    let provider = provider(&nameless(&signers[0])).await;
    let keys = format!("jwks_url: \"{}\", refresh_interval: 1h, cooldown: 100ms", provider.url("/jwks"));
    let yaml = yaml(&keys).replace("audiences:", "algorithms: [ES256, ES384, EdDSA], audiences:");
    let gateway = TestGateway::start(&yaml).await;
    let ask = async |signer: &Signer| verdict(&gateway.get("/orders/1", &token(signer), &[]).await);
    for signer in signers.iter().chain([&next]) {
        provider.set("/jwks", Answer::json(&nameless(signer)));
        eventually("past the cooldown", || async { ask(signer).await == "200" }).await;
    }
    eventually("past the cooldown", || async { ask(&signers[0]).await == GONE }).await;
    let mismatch = "401 VAL-020 signature_mismatch";
    eventually("past the cooldown", || async { ask(&signers[2]).await == mismatch }).await;

    // Whether the provider has another key by now, nobody can tell.
    provider.set("/jwks", Answer::error(500));
    for signer in [&signers[0], &signers[2]] {
        eventually("past the cooldown", || async { ask(signer).await == UNREACHABLE }).await;
    }
    assert_eq!(ask(&next).await, "200");
    let received = gateway.received("/orders/1").len();
    assert_eq!(ask(&signers[2]).await, UNREACHABLE);
    assert_eq!(gateway.received("/orders/1").len(), received);
}

#[tokio::test]
async fn a_withdrawn_key_stops_with_its_cached_verdicts() {
    let (old, new) = (Signer::es256("old"), Signer::es256("new"));
    let provider = provider(&set_of(&[&old, &new])).await;
    let keys = format!("jwks_url: \"{}\", refresh_interval: 200ms, cooldown: 100ms", provider.url("/jwks"));
    let gateway = TestGateway::start(&yaml(&keys)).await;
    let (warm, kept) = (Token::new().sign(&old), Token::new().sign(&new));
    for token in [&warm, &warm, &kept, &kept] {
        assert_eq!(gateway.get("/orders/1", token, &[]).await.status, 200);
    }
    provider.set("/jwks", Answer::json(&new.jwks()));
    eventually("the key is gone", || async { verdict(&gateway.get("/orders/1", &warm, &[]).await) == GONE })
        .await;
    let before = gateway.received("/orders/1").len();
    assert_eq!(verdict(&gateway.get("/orders/1", &warm, &[]).await), GONE);
    assert_eq!(gateway.received("/orders/1").len(), before);
    assert_eq!(gateway.get("/orders/1", &kept, &[]).await.status, 200);

    // Another key under the name of the one that is in use.
    let impostor = Signer::es256("new");
    provider.set("/jwks", Answer::json(&impostor.jwks()));
    eventually("the key is another", || async {
        verdict(&gateway.get("/orders/1", &kept, &[]).await) == "401 VAL-020 signature_mismatch"
    })
    .await;
}

/// envoy#13705: an identity provider that is down is not the token's fault, and nothing else's problem.
#[tokio::test]
async fn a_provider_that_is_down_at_the_start_is_told_as_such_and_waited_for() {
    let signer = Signer::es256("k1");
    let provider = Stub::start().await;
    for trouble in [Answer::error(500), Answer::error(404), Answer::Close, Answer::Hang] {
        provider.set("/jwks", trouble.clone());
        let keys = format!("jwks_url: \"{}\", timeout: 200ms, cooldown: 100ms", provider.url("/jwks"));
        let gateway = TestGateway::start_unready(&yaml(&keys)).await;
        let reply = gateway.get("/orders/1", &Token::new().sign(&signer), &[]).await;
        refused(&reply, "VAL-050", "keys_not_loaded");
        assert_eq!(reply.header("www-authenticate"), None, "the token is not at fault");
        assert!(reply.header("retry-after").is_some());
        assert!(gateway.received("/orders/1").is_empty());
        assert_eq!(gateway.get("/status", "", &[]).await.status, 200, "public routes work, {trouble:?}");
        // A token that is wrong anyway needs no keys to be refused.
        let expired = Token::new().claim("exp", 1).sign(&signer);
        refused(&gateway.get("/orders/1", &expired, &[]).await, "VAL-020", "expired");

        provider.set("/jwks", Answer::json(&signer.jwks()));
        eventually("keys are there", || async { try_key(&gateway, &signer).await == "200" }).await;
    }
}

/// envoy#14557: what is no good key set never replaces one.
#[tokio::test]
async fn no_bad_answer_replaces_good_keys() {
    let (good, evil, stranger) = (Signer::es256("good"), Signer::es256("evil"), Signer::es256("stranger"));
    let provider = provider(&good.jwks()).await;
    provider.set("/elsewhere", Answer::json(&set_of(&[&good, &evil])));
    let keys = format!(
        "jwks_url: \"{}\", refresh_interval: 100ms, timeout: 300ms, cooldown: 100ms",
        provider.url("/jwks")
    );
    let gateway = TestGateway::start(&yaml(&keys)).await;
    let json = |document: Value| Answer::json(&document);
    let redirect = Answer::Status(302, vec![("Location".to_owned(), provider.url("/elsewhere"))], Vec::new());
    let mut huge = set_of(&[&evil]);
    huge["padding"] = "x".repeat(8 << 20).into();
    let many: Vec<Value> =
        (0..20_000).map(|number| json!({ "kty": "EC", "kid": number.to_string() })).collect();
    let text = good.jwks().to_string();
    let rows = [
        ("500", Answer::error(500)),
        ("503", Answer::error(503)),
        ("404", Answer::error(404)),
        ("401", Answer::error(401)),
        ("204", Answer::Status(204, Vec::new(), Vec::new())),
        ("304 that nobody asked for", Answer::Status(304, Vec::new(), Vec::new())),
        ("a redirect", redirect),
        ("an HTML page", Answer::body("text/html", "<html>maintenance</html>")),
        ("a set in a page", Answer::body("text/html", set_of(&[&good, &evil]).to_string())),
        ("a set in a picture", Answer::body("image/png", set_of(&[&good, &evil]).to_string())),
        ("nothing", Answer::body("application/json", "")),
        ("an empty object", json(json!({}))),
        ("no keys", json(json!({ "keys": [] }))),
        ("keys null", json(json!({ "keys": null }))),
        ("keys an object", json(json!({ "keys": {} }))),
        ("an array", json(json!([good.jwk()]))),
        ("a string", json(json!("keys"))),
        ("no key that can be used", json(json!({ "keys": [{ "kty": "oct", "k": "AAAA", "kid": "evil" }] }))),
        ("cut off", Answer::body("application/json", &text.as_bytes()[..text.len() - 3])),
        ("something after it", Answer::body("application/json", format!("{text}x"))),
        ("not UTF-8", Answer::body("application/json", b"{\"keys\":[\"\xff\"]}".as_slice())),
        ("huge", json(huge)),
        ("keys without number", json(json!({ "keys": many }))),
        ("nested beyond reason", Answer::body("application/json", "[".repeat(200_000))),
        ("a closed connection", Answer::Close),
        ("no answer at all", Answer::Hang),
    ];
    for (name, answer) in rows {
        provider.set("/jwks", answer);
        let mut last = String::new();
        for _ in 0..200 {
            // Asks the provider again on the token's behalf, which finds it out of order.
            last = try_key(&gateway, &stranger).await;
            if last == UNREACHABLE {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(last, UNREACHABLE, "{name}");
        assert_eq!(try_key(&gateway, &good).await, "200", "{name}");
        assert_eq!(try_key(&gateway, &evil).await, UNREACHABLE, "{name}");
        provider.set("/jwks", Answer::json(&good.jwks()));
        eventually("well again", || async { try_key(&gateway, &stranger).await == GONE }).await;
        assert_eq!(try_key(&gateway, &good).await, "200", "{name}");
    }
    assert_eq!(provider.hits("/elsewhere"), 0, "a redirect was followed");
}

#[tokio::test]
async fn one_bad_key_in_the_set_costs_that_key_alone() {
    let good = Signer::es256("good");
    let bad = [
        json!({ "kty": "EC", "crv": "P-256", "kid": "off-curve", "x": base64url(&[1; 32]), "y": base64url(&[1; 32]) }),
        json!({ "kty": "EC", "crv": "P-256", "kid": "no-point" }),
        json!({ "kty": "RSA", "kid": "no-modulus", "e": "AQAB" }),
        json!({ "kty": "AKP", "kid": "from-the-future", "alg": "ML-DSA-44", "pub": "AAAA" }),
        json!({ "kid": "no-type" }),
        json!("not an object"),
        json!(null),
    ];
    let mut keys = bad.to_vec();
    keys.push(good.jwk());
    let provider = provider(&json!({ "keys": keys })).await;
    let gateway = TestGateway::start(&yaml(&format!("jwks_url: \"{}\"", provider.url("/jwks")))).await;
    assert_eq!(try_key(&gateway, &good).await, "200");
    for (reason, count) in [("malformed", 5), ("unsupported", 1), ("weak", 1), ("symmetric", 0)] {
        let series = format!("valgate_keys_skipped{{issuer=\"main\",reason=\"{reason}\"}}");
        assert_eq!(gateway.metric(&series).await, count, "{reason}");
    }
    assert!(gateway.metric("valgate_keys_next_refresh_seconds{issuer=\"main\"}").await > 100);
    assert_eq!(gateway.metric("valgate_keys{issuer=\"main\"}").await, 1);
}

/// envoyproxy/gateway#4180 and Krakend's cooldown per kid, which random kids walk around.
#[tokio::test]
async fn a_flood_of_unknown_kids_does_not_reach_the_provider() {
    let signer = Signer::es256("k1");
    let provider = provider(&signer.jwks()).await;
    let keys = format!("jwks_url: \"{}\", refresh_interval: 1h, cooldown: 1h", provider.url("/jwks"));
    let gateway = TestGateway::start(&yaml(&keys)).await;
    let flood = (0..200).map(|number| {
        let bogus = Token::new().header("kid", format!("bogus-{number}")).sign(&signer);
        let gateway = &gateway;
        async move { verdict(&gateway.get("/orders/1", &bogus, &[]).await) }
    });
    let mut verdicts = Vec::new();
    let mut waiting: Vec<_> = flood.map(Box::pin).collect();
    while !waiting.is_empty() {
        // Twenty at a time, so that some ask while another's refresh is under way.
        let batch = waiting.split_off(waiting.len().saturating_sub(20));
        verdicts.extend(join_all(batch).await);
    }
    assert!(verdicts.iter().all(|verdict| verdict == GONE), "{verdicts:?}");
    assert_eq!(provider.hits("/jwks"), 2, "at the start, and once for all of them");
    assert_eq!(try_key(&gateway, &signer).await, "200");
}

/// A provider that accepts connections and says nothing: what waits for it is bounded for all requests together.
#[tokio::test]
async fn a_provider_that_hangs_is_waited_for_once() {
    let signer = Signer::es256("k1");
    let provider = provider(&signer.jwks()).await;
    let keys = format!(
        "jwks_url: \"{}\", refresh_interval: 1h, cooldown: 100ms, wait: 300ms, timeout: 1m",
        provider.url("/jwks")
    );
    let gateway = TestGateway::start(&yaml(&keys)).await;
    let warm = Token::new().sign(&signer);
    assert_eq!(gateway.get("/orders/1", &warm, &[]).await.status, 200);
    provider.set("/jwks", Answer::Hang);
    // If each of them waited, the fetch would be over before they are, and the next one begun.
    for number in 0..400 {
        let token = Token::new().header("kid", format!("new-{number}")).sign(&signer);
        let reply = gateway.get("/orders/1", &token, &[]).await;
        refused(&reply, "VAL-050", "keys_unreachable");
        assert!(reply.header("retry-after").is_some());
        assert_eq!(reply.header("www-authenticate"), None, "the token is not at fault");
    }
    assert_eq!(provider.hits("/jwks"), 2, "at the start, and the one that hangs");
    assert_eq!(gateway.get("/orders/1", &warm, &[]).await.status, 200);
    assert_eq!(try_key(&gateway, &signer).await, "200");
}

async fn join_all<T>(futures: Vec<std::pin::Pin<Box<impl Future<Output = T>>>>) -> Vec<T> {
    let mut pending: Vec<_> = futures.into_iter().map(Some).collect();
    let mut done = Vec::new();
    std::future::poll_fn(|context| {
        for slot in &mut pending {
            if let Some(future) = slot
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                done.push(value);
                *slot = None;
            }
        }
        if pending.iter().all(Option::is_none) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done
}

#[tokio::test]
async fn a_flood_does_not_starve_the_scheduled_refresh() {
    let (old, new) = (Signer::es256("old"), Signer::es256("new"));
    let provider = provider(&old.jwks()).await;
    let keys = format!("jwks_url: \"{}\", refresh_interval: 300ms, cooldown: 1h", provider.url("/jwks"));
    let gateway = TestGateway::start(&yaml(&keys)).await;
    assert_eq!(try_key(&gateway, &Signer::es256("bogus")).await, GONE);
    provider.set("/jwks", Answer::json(&new.jwks()));
    eventually("the schedule brings the new key", || async {
        try_key(&gateway, &Signer::es256("bogus")).await;
        try_key(&gateway, &new).await == "200" && try_key(&gateway, &old).await == GONE
    })
    .await;
}

#[tokio::test]
async fn keys_that_could_not_be_refreshed_for_max_stale_are_not_used() {
    let signer = Signer::es256("k1");
    let provider = provider(&signer.jwks()).await;
    let keys = format!(
        "jwks_url: \"{}\", refresh_interval: 200ms, max_stale: 2s, cooldown: 100ms",
        provider.url("/jwks")
    );
    let gateway = TestGateway::start(&yaml(&keys)).await;
    let warm = Token::new().sign(&signer);
    assert_eq!(gateway.get("/orders/1", &warm, &[]).await.status, 200);
    provider.set("/jwks", Answer::error(500));
    eventually("too old", || async {
        verdict(&gateway.get("/orders/1", &warm, &[]).await) == "503 VAL-050 keys_expired"
    })
    .await;
    assert_eq!(try_key(&gateway, &signer).await, "503 VAL-050 keys_expired");
    provider.set("/jwks", Answer::json(&signer.jwks()));
    eventually("well again", || async { gateway.get("/orders/1", &warm, &[]).await.status == 200 }).await;
}

#[tokio::test]
async fn a_restart_with_the_provider_down_starts_from_the_stored_keys() {
    let signer = Signer::es256("k1");
    let provider = provider(&signer.jwks()).await;
    let keys = format!("jwks_url: \"{}\", cooldown: 100ms", provider.url("/jwks"));
    let yaml = format!("state_dir: $DIR/state\n{}", yaml(&keys));
    let gateway = TestGateway::start(&yaml).await;
    assert_eq!(try_key(&gateway, &signer).await, "200");
    let dir = gateway.dir();
    eventually("stored", || async {
        std::fs::read_dir(dir.path().join("state")).is_ok_and(|mut files| files.next().is_some())
    })
    .await;
    gateway.stop().await;
    let address = provider.address;
    drop(provider);

    let restarted = TestGateway::start_in(dir.clone(), &yaml).await;
    restarted.wait_until_ready().await;
    assert_eq!(try_key(&restarted, &signer).await, "200");
    assert_eq!(try_key(&restarted, &Signer::es256("unknown")).await, UNREACHABLE);
    let page = get(restarted.health, "/metrics", &[]).await.text();
    let aged = |line: &&str| line.starts_with("valgate_keys_age_seconds{issuer=\"main\"} ");
    let age = page.lines().find(aged).and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    assert!(age.is_some_and(|age| age >= 0.0), "a restored copy has its age: {age:?}");
    restarted.stop().await;

    // A copy is of one origin: keys of another must not be taken for this one's.
    let elsewhere = yaml.replace("/jwks", "/other-jwks");
    let moved = TestGateway::start_in(dir.clone(), &elsewhere).await;
    assert_eq!(try_key(&moved, &signer).await, "503 VAL-050 keys_not_loaded");
    moved.stop().await;

    for entry in std::fs::read_dir(dir.path().join("state")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::write(path, b"\0garbage").unwrap();
        }
    }
    let corrupt = TestGateway::start_in(dir, &yaml).await;
    assert_eq!(try_key(&corrupt, &signer).await, "503 VAL-050 keys_not_loaded");
    let provider = Stub::start_on(address).await;
    provider.set("/jwks", Answer::json(&signer.jwks()));
    eventually("well again", || async { try_key(&corrupt, &signer).await == "200" }).await;
}

/// `OpenID` Connect Discovery 1.0 section 4.3, RFC 8414 section 3.3: metadata that names another issuer is not ours.
#[tokio::test]
async fn metadata_must_be_the_issuers_own() {
    let signer = Signer::es256("k1");
    let provider = provider(&signer.jwks()).await;
    let issuer = provider.url("");
    let metadata = |issuer: &str, jwks: &str| Answer::json(&json!({ "issuer": issuer, "jwks_uri": jwks }));
    let keys = "discovery: true, cooldown: 100ms, refresh_interval: 200ms";
    let yaml = yaml(keys).replace(ISSUER, &issuer);
    let well_known = "/.well-known/openid-configuration";
    let token = || Token::new().claim("iss", issuer.as_str()).sign(&signer);
    let jwks = provider.url("/jwks");
    for (name, answer) in [
        ("another issuer", metadata("https://evil.example.com", &jwks)),
        ("a slash at the end", metadata(&format!("{issuer}/"), &jwks)),
        ("no issuer", Answer::json(&json!({ "jwks_uri": jwks }))),
        ("no jwks_uri", Answer::json(&json!({ "issuer": issuer }))),
        ("a jwks_uri that is none", metadata(&issuer, "not a URL")),
        ("a jwks_uri in the clear", metadata(&issuer, "http://keys.example.com/jwks")),
        ("a page", Answer::body("text/html", "<html>")),
    ] {
        provider.set(well_known, answer);
        let gateway = TestGateway::start_unready(&yaml).await;
        let reply = gateway.get("/orders/1", &token(), &[]).await;
        assert_eq!(verdict(&reply), "503 VAL-050 keys_not_loaded", "{name}");
        assert_eq!(provider.hits("/jwks"), 0, "{name}");
    }
    provider.set(well_known, metadata(&issuer, &jwks));
    let gateway = TestGateway::start(&yaml).await;
    assert_eq!(verdict(&gateway.get("/orders/1", &token(), &[]).await), "200");
}

#[tokio::test]
async fn a_key_file_is_read_again_when_it_changes() {
    let (old, new) = (Signer::es256("old"), Signer::es256("new"));
    let dir = std::sync::Arc::new(tempfile::TempDir::new().unwrap());
    let file = dir.path().join("jwks.json");
    std::fs::write(&file, old.jwks().to_string()).unwrap();
    let yaml = yaml("file: $DIR/jwks.json, cooldown: 100ms");
    let gateway = TestGateway::start_in(dir.clone(), &yaml).await;
    gateway.wait_until_ready().await;
    assert_eq!(try_key(&gateway, &old).await, "200");

    let replacement = dir.path().join("new.json");
    std::fs::write(&replacement, new.jwks().to_string()).unwrap();
    std::fs::rename(&replacement, &file).unwrap();
    eventually("the new key", || async { try_key(&gateway, &new).await == "200" }).await;
    assert_eq!(try_key(&gateway, &old).await, GONE);

    for broken in ["", "{", "{\"keys\":[]}"] {
        std::fs::write(&file, broken).unwrap();
        eventually("the file is found broken", || async {
            try_key(&gateway, &Signer::es256("unknown")).await == UNREACHABLE
        })
        .await;
        assert_eq!(try_key(&gateway, &new).await, "200", "{broken:?}");
    }
}

/// One tenant's provider is not another's problem.
#[tokio::test]
async fn a_provider_that_is_down_concerns_its_own_issuer_alone() {
    let signer = Signer::es256("k1");
    let provider = provider(&signer.jwks()).await;
    provider.set("/down", Answer::Hang);
    let gateway = TestGateway::start_unready(&format!(
        "
issuers:
  - {{ name: up, issuer: https://up.example.com, keys: {{ jwks_url: \"{}\" }}, audiences: [orders-api] }}
  - {{ name: down, issuer: https://down.example.com, keys: {{ jwks_url: \"{}\", timeout: 300ms }}, audiences: [orders-api] }}
routes:
  - {{ match: {{ path: /orders/** }}, require: {{ issuers: [up, down] }}, upstream: api }}
",
        provider.url("/jwks"),
        provider.url("/down"),
    ))
    .await;
    let token = |issuer: &str| Token::new().claim("iss", issuer).sign(&signer);
    let ask = async |issuer: &str| verdict(&gateway.get("/orders/1", &token(issuer), &[]).await);
    eventually("the one that is up", || async { ask("https://up.example.com").await == "200" }).await;
    assert_eq!(ask("https://down.example.com").await, "503 VAL-050 keys_not_loaded");
    assert_eq!(ask("https://up.example.com").await, "200");
}

#[tokio::test]
async fn a_reload_does_not_bring_a_withdrawn_key_back_from_an_older_copy() {
    let (old, new) = (Signer::es256("old"), Signer::es256("new"));
    let provider = provider(&set_of(&[&old, &new])).await;
    let config = |cooldown: u32| {
        let url = provider.url("/jwks");
        let keys = format!("jwks_url: \"{url}\", refresh_interval: 200ms, cooldown: {cooldown}ms");
        format!("state_dir: $DIR/state\n{}", yaml(&keys))
    };
    let mut gateway = TestGateway::start(&config(100)).await;
    let (withdrawn, kept) = (Token::new().sign(&old), Token::new().sign(&new));
    assert_eq!(gateway.get("/orders/1", &withdrawn, &[]).await.status, 200);
    let state = gateway.dir().path().join("state");
    let copy = || {
        let mut files = std::fs::read_dir(&state).ok()?.map(|file| file.unwrap().path());
        files.find(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with("keys-") && path.extension().is_some_and(|end| end == "json")
        })
    };
    eventually("stored", || async { copy().is_some() }).await;
    let before = std::fs::read(copy().unwrap()).unwrap();
    provider.set("/jwks", Answer::json(&new.jwks()));
    eventually("gone", || async { verdict(&gateway.get("/orders/1", &withdrawn, &[]).await) == GONE }).await;

    // As if that had not reached the disk.
    eventually("stored too", || async { std::fs::read(copy().unwrap()).unwrap() != before }).await;
    std::fs::write(copy().unwrap(), &before).unwrap();
    provider.set("/jwks", Answer::error(500));
    let error = gateway.reload(&config(101)).await.unwrap_err();
    assert!(error.contains("keys of main cannot be loaded"), "{error}");
    assert_ne!(gateway.get("/orders/1", &withdrawn, &[]).await.status, 200);
    assert_eq!(gateway.get("/orders/1", &kept, &[]).await.status, 200);
}
