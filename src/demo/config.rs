//! The configuration that the demo runs on, as a YAML file like any other.

use std::net::SocketAddr;
use std::path::Path;

/// What the file is to name.
pub struct Addresses<'a> {
    /// Where the gateway shall listen; port 0 for any free one.
    pub listen: SocketAddr,
    /// The development issuer's `iss` and base URL.
    pub issuer: &'a str,
    /// The `aud` of its tokens.
    pub audience: &'a str,
    /// The sample API.
    pub api: SocketAddr,
    /// Where nothing listens.
    pub nothing: SocketAddr,
}

/// The file's text, for certificates that lie in `dir`.
pub fn yaml(addresses: &Addresses<'_>, dir: &Path) -> String {
    let Addresses { listen, issuer, audience, api, nothing } = addresses;
    let certificate = quoted(&dir.join(super::files::CERTIFICATE));
    let key = quoted(&dir.join(super::files::PRIVATE_KEY));
    let log = quoted(&dir.join(super::files::ACCESS_LOG));
    format!(
        r#"{MARKER}
# Issuer and API live in the demo's process and end with it.
version: 1
access_log: {{ format: json, output: {{ file: {log} }} }}

listeners:
  - address: "{listen}"
    tls:
      certificates:
        - {{ certificate: {certificate}, private_key: {key} }}

issuers:
  - name: dev
    issuer: "{issuer}"
    keys: {{ jwks_url: "{issuer}/jwks", cooldown: 1s }} # short, since people rotate keys by hand here
    audiences: ["{audience}"]
    algorithms: [ES256, RS256]
    revocation: {{ feeds: [revocations], max_staleness: 10m, when_stale: reject }}

feeds:
  - name: revocations
    http: {{ url: "{issuer}/revocations", long_poll: 30s }}

upstreams:
  - name: orders
    endpoints: ["http://{api}"]
  - name: inventory # nothing listens there, to show what happens then
    endpoints: ["http://{nothing}"]

routes:
  - match: {{ path: "/orders/**", methods: [GET] }}
    require: {{ issuers: [dev], scopes: ["orders:read"] }}
    identity_headers: {{ X-Auth-Subject: sub, X-Auth-Scope: scope }}
    upstream: orders

  - match: {{ path: "/orders/**", methods: [POST] }}
    require: {{ issuers: [dev], scopes: ["orders:write"] }}
    identity_headers: {{ X-Auth-Subject: sub, X-Auth-Scope: scope }}
    upstream: orders

  - match: {{ path: "/inventory/**", methods: [GET] }}
    require: {{ issuers: [dev], scopes: ["orders:read"] }}
    upstream: inventory

  - match: {{ path: "/status", methods: [GET] }}
    public: true
    upstream: orders
"#
    )
}

/// The first line, by which the demo knows a file that it may overwrite.
pub const MARKER: &str = "# Written by `valgate demo`; overwritten by its next run in this directory.";

/// A path as a double-quoted YAML scalar, of which a JSON string is a special case (YAML 1.2 section 1.3).
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_one_yaml_document_that_names_every_address() {
        let addresses = Addresses {
            listen: ([127, 0, 0, 1], 0).into(),
            issuer: "http://127.0.0.1:1001",
            audience: "orders-api",
            api: ([127, 0, 0, 1], 1002).into(),
            nothing: ([127, 0, 0, 1], 1003).into(),
        };
        let text = yaml(&addresses, Path::new("/tmp/a \"b\": c"));
        let document: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(document["listeners"][0]["address"], "127.0.0.1:0");
        let certificate = &document["listeners"][0]["tls"]["certificates"][0]["certificate"];
        assert_eq!(certificate, "/tmp/a \"b\": c/tls.crt");
        assert_eq!(document["issuers"][0]["keys"]["jwks_url"], "http://127.0.0.1:1001/jwks");
        assert_eq!(document["upstreams"][0]["endpoints"][0], "http://127.0.0.1:1002");
        assert_eq!(document["upstreams"][1]["endpoints"][0], "http://127.0.0.1:1003");
    }
}
