//! The pipeline as a whole: what a good file becomes, and that no text makes it panic.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::settings::*;
use super::{Diagnostics, load, parse};

/// The example that the design of the file is explained with; its shape is public contract.
const CONTRACT: &str = "
version: 1
state_dir: /var/lib/valgate
listeners:
  - address: 0.0.0.0:8443
    tls: { certificates: [{ certificate: tls/tls.crt, private_key: tls/tls.key }] }
  - { address: 0.0.0.0:8080, redirect_to_https: true }
health: { address: 0.0.0.0:8081 }
admin: { address: 127.0.0.1:9191 }
issuers:
  - name: main
    issuer: https://id.example.com/
    keys: { jwks_url: https://id.example.com/jwks }
    audiences: [orders-api]
    algorithms: [RS256, ES256, Ed25519]
    revocation: { feeds: [logout], max_staleness: 10m, when_stale: reject }
feeds:
  - name: logout
    http: { url: https://id.example.com/revocations, long_poll: 30s }
upstreams:
  - name: orders
    endpoints: [http://127.0.0.1:8000]
routes:
  - match: { host: api.example.com, path: /orders/**, methods: [GET] }
    require: { issuers: [main], scopes: [orders:read] }
    identity_headers: { X-Auth-Subject: sub, X-Auth-Scope: scope }
    upstream: orders
  - match: { path: /status }
    public: true
    upstream: orders
";

fn parsed(text: &str) -> Result<Config, Diagnostics> {
    let environment = |name: &str| (name == "WORKERS").then(|| "3".to_owned());
    parse(text, "x.yaml", Path::new("/etc/valgate"), &environment)
}

fn good(text: &str) -> Config {
    parsed(text).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

#[test]
fn the_contract_becomes_settings() {
    let config = good(CONTRACT);
    assert_eq!(config.workers, None);
    assert_eq!(config.listeners.len(), 2);
    let ListenerKind::Tls(tls) = &config.listeners[0].kind else { panic!("no TLS") };
    assert_eq!(tls.certificates[0].certificate, PathBuf::from("/etc/valgate/tls/tls.crt"));
    assert!(matches!(config.listeners[1].kind, ListenerKind::RedirectToHttps));

    let issuer = &config.issuers[0];
    assert_eq!(issuer.issuer, "https://id.example.com/");
    assert_eq!(issuer.audiences, Audiences::AnyOf(vec!["orders-api".to_owned()]));
    assert_eq!((issuer.leeway, issuer.max_lifetime), (Duration::from_secs(30), None));
    let revocation = issuer.revocation.as_ref().unwrap();
    assert_eq!(
        (revocation.feeds.as_slice(), revocation.when_stale),
        (&[FeedIndex(0)][..], WhenStale::Reject)
    );

    let route = &config.routes[0];
    assert_eq!(route.name, "GET api.example.com/orders/**");
    assert_eq!((route.upstream(), &route.token_from), (Some(UpstreamIndex(0)), &TokenFrom::Header));
    assert!(!route.forward_token);
    let Access::Require(requirements) = &route.access else { panic!("public") };
    assert_eq!(requirements.issuers, [IssuerIndex(0)]);
    assert_eq!(route.identity_headers[1].0, "x-auth-subject");
    assert_eq!(config.routes[1].name, "* /status");
    assert!(matches!(config.routes[1].access, Access::Public));

    assert_eq!((config.limits.token, config.limits.body), (16 * 1024, None));
    assert_eq!(config.timeouts.drain, Duration::from_secs(30));
}

#[test]
fn a_variable_fills_in_a_number() {
    assert_eq!(good(&format!("{CONTRACT}workers: ${{WORKERS}}\n")).workers.map(usize::from), Some(3));
    assert_eq!(good(&format!("{CONTRACT}workers: \"${{WORKERS}}\"\n")).workers.map(usize::from), Some(3));
    assert!(parsed(&format!("{CONTRACT}workers: \"3\"\n")).is_err());
}

#[test]
fn words_keep_the_text_that_was_written() {
    assert_eq!(good(&format!("{CONTRACT}access_log: off\n")).access_log, None);
    let versioned = CONTRACT.replace("tls.key }] }", "tls.key }], min_version: 1.3 }");
    let ListenerKind::Tls(tls) = &good(&versioned).listeners[0].kind else { panic!("no TLS") };
    assert_eq!(tls.min_version, TlsVersion::Tls13);
}

#[test]
fn http_needs_loopback_or_a_loud_name() {
    let with = |keys: &str| CONTRACT.replace("jwks_url: https://id.example.com/jwks", keys);
    for (keys, accepted) in [
        ("jwks_url: http://127.0.0.1:9000/jwks", true),
        ("jwks_url: http://127.9.9.9/jwks", true),
        ("jwks_url: \"http://[::1]:9000/jwks\"", true),
        ("jwks_url: http://localhost/jwks", false),
        ("jwks_url: http://127.0.0.1.example.com/jwks", false),
        ("jwks_url: http://10.0.0.1/jwks", false),
        ("jwks_url: \"http://[::ffff:127.0.0.1]/jwks\"", false),
        ("jwks_url: http://10.0.0.1/jwks, insecure_allow_http: true", true),
        ("discovery: true", true),
        ("discovery: http://10.0.0.1/metadata", false),
        ("discovery: https://id.example.com/metadata", true),
    ] {
        assert_eq!(parsed(&with(keys)).is_ok(), accepted, "{keys}");
    }
}

#[test]
fn endpoints_are_taken_apart() {
    let endpoint = |url: &str| {
        good(&CONTRACT.replace("[http://127.0.0.1:8000]", &format!("[\"{url}\"]"))).upstreams[0].endpoints[0]
            .clone()
    };
    for (url, tls, host, port, authority) in [
        ("http://127.0.0.1:8000", false, "127.0.0.1", 8000, "127.0.0.1:8000"),
        ("https://api.internal", true, "api.internal", 443, "api.internal"),
        ("http://API.internal:80/", false, "api.internal", 80, "api.internal"),
        ("http://[::1]:8000", false, "::1", 8000, "[::1]:8000"),
    ] {
        let endpoint = endpoint(url);
        assert_eq!((endpoint.tls, endpoint.host.as_str(), endpoint.port), (tls, host, port), "{url}");
        assert_eq!(endpoint.authority.as_str(), authority, "{url}");
    }
}

#[test]
fn a_secret_comes_from_its_file_and_is_never_printed() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("token"), "Bearer s3cret\n").unwrap();
    let text = CONTRACT.replace("long_poll: 30s", "authorization: file:token");
    let config = parse(&text, "x.yaml", directory.path(), &|_| None).unwrap();
    let FeedSource::Http(feed) = &config.feeds[0].source else { panic!("no HTTP") };
    assert_eq!(feed.authorization.as_ref().unwrap(), "Bearer s3cret");
    assert!(!format!("{config:?}").contains("s3cret"));
}

#[test]
fn load_looks_at_the_files_that_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("valgate.yaml");
    fs::write(&path, CONTRACT).unwrap();
    let diagnostics = load(&path).unwrap_err();
    let places: Vec<_> = diagnostics.list.iter().map(|diagnostic| diagnostic.path.as_str()).collect();
    let certificate = "listeners[0].tls.certificates[0]";
    assert_eq!(places, [format!("{certificate}.certificate"), format!("{certificate}.private_key")]);

    fs::create_dir(directory.path().join("tls")).unwrap();
    fs::write(directory.path().join("tls/tls.crt"), "").unwrap();
    fs::write(directory.path().join("tls/tls.key"), "").unwrap();
    assert!(load(&path).is_ok());
}

#[test]
fn what_is_no_configuration_file_is_told_as_such() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("valgate.yaml");
    let message = |path: &Path| load(path).unwrap_err().to_string();
    assert!(message(&path).contains("cannot read the file"));
    fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
    assert!(message(&path).contains("not UTF-8"));
    fs::write(&path, vec![b'#'; 1 << 21]).unwrap();
    assert!(message(&path).contains("larger than"));
    assert!(message(directory.path()).contains("cannot read the file"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_damaged_file_is_refused_or_accepted_but_never_panics(
        from in 0..CONTRACT.len(),
        length in 0_usize..40,
        insert in "[-a-z0-9:{}\\[\\]\"'$ \n]{0,8}",
    ) {
        let to = (from + length).min(CONTRACT.len());
        let text = format!("{}{insert}{}", &CONTRACT[..from], &CONTRACT[to..]);
        if let Err(diagnostics) = parsed(&text) {
            prop_assert!(!diagnostics.list.is_empty());
            let _ = diagnostics.to_string();
        }
    }
}
