//! Client certificates that their authority has revoked: refused in the handshake, from the moment that the list says so.

use std::path::Path;
use std::sync::Arc;

use rcgen::{
    CertificateRevocationList, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, CrlScope, KeyIdMethod, RevokedCertParams, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

use crate::certificates::{Authority, Client, ask, authority, authority_named, authority_under, serial_of};
use crate::support::{TestGateway, eventually};

/// The authority's list with these names on it, in time until this year.
pub fn list(authority: &Authority, revoked: &[&str], until: i32) -> CertificateRevocationList {
    list_for(authority, revoked, until, None)
}

/// One that speaks for a part of the authority's certificates.
fn part(
    authority: &Authority,
    revoked: &[&str],
    uri: &str,
    scope: Option<CrlScope>,
) -> CertificateRevocationList {
    let distribution_point = CrlDistributionPoint { uris: vec![uri.to_owned()] };
    list_for(authority, revoked, 4096, Some(CrlIssuingDistributionPoint { distribution_point, scope }))
}

fn list_for(
    authority: &Authority,
    revoked: &[&str],
    until: i32,
    issuing_distribution_point: Option<CrlIssuingDistributionPoint>,
) -> CertificateRevocationList {
    let revoked_certs = revoked.iter().map(|name| RevokedCertParams {
        serial_number: serial_of(name),
        revocation_time: date_time_ymd(2024, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(until, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point,
        revoked_certs: revoked_certs.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(authority).unwrap()
}

const YAML: &str = "
listeners:
  - { address: 127.0.0.1:0, plaintext: true }
  - address: 127.0.0.1:0
    tls:
      certificates: [{ certificate: $DIR/tls.crt, private_key: $DIR/tls.key }]
      client_certificates: { ca: $DIR/clients.pem, crls: [$DIR/clients.crl] }
routes:
  - { match: { path: /orders/open }, public: true, upstream: api }
";

async fn gateway(authority: &Authority, crl: &[u8]) -> TestGateway {
    let dir = Arc::new(TempDir::new().unwrap());
    std::fs::write(dir.path().join("clients.pem"), authority.pem()).unwrap();
    replace(dir.path(), crl);
    TestGateway::start_in(dir, YAML).await
}

pub fn replace(dir: &Path, crl: &[u8]) {
    std::fs::write(dir.join("new"), crl).unwrap();
    std::fs::rename(dir.join("new"), dir.join("clients.crl")).unwrap();
}

/// Whether a client gets through; if not, nothing of it reached the API.
async fn passes(gateway: &TestGateway, client: &Client) -> bool {
    let before = gateway.received("/orders/open").len();
    let reply = ask(gateway, Some(client), "/orders/open", "").await;
    let came = gateway.received("/orders/open").len() - before;
    assert_eq!(came, usize::from(reply.is_some()), "{reply:?}");
    reply.is_some_and(|reply| reply.status == 200)
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_others_are_not() {
    let (ours, theirs) = (authority(), authority());
    let (good, bad) = (Client::named("good", &ours), Client::named("bad", &ours));
    let crl = list(&ours, &["bad"], 4096);
    for bytes in [crl.pem().unwrap().into_bytes(), crl.der().to_vec()] {
        let gateway = gateway(&ours, &bytes).await;
        assert!(passes(&gateway, &good).await);
        assert!(!passes(&gateway, &bad).await);
        eventually("it is counted", || async {
            gateway.metric("valgate_tls_handshakes_total{result=\"client_certificate\"}").await == 1
        })
        .await;
        // That the list of another authority names the same number means nothing.
        assert!(!passes(&gateway, &Client::named("good", &theirs)).await);
    }
}

#[tokio::test]
async fn a_list_is_read_again_when_it_changes() {
    let ours = authority();
    let client = Client::named("orders", &ours);
    let mut gateway = gateway(&ours, list(&ours, &[], 4096).pem().unwrap().as_bytes()).await;
    assert!(passes(&gateway, &client).await);
    replace(gateway.dir().path(), list(&ours, &["orders"], 4096).pem().unwrap().as_bytes());
    let changes = gateway.reload(YAML).await.unwrap();
    assert!(changes.iter().any(|change| change.contains("client_certificates.crls")), "{changes:?}");
    assert!(!passes(&gateway, &client).await);
    // What is no list takes the place of none.
    for broken in ["", "nothing of the kind", "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n"] {
        replace(gateway.dir().path(), broken.as_bytes());
        let error = gateway.reload(YAML).await.unwrap_err();
        assert!(error.contains("clients.crl"), "{error}");
        assert!(!passes(&gateway, &client).await, "{broken}");
    }
}

/// Who was revoked since is not known: then nobody is let in.
#[tokio::test]
async fn a_list_past_its_time_or_of_another_authority_lets_nobody_in() {
    let (ours, theirs) = (authority(), authority());
    let client = Client::named("orders", &ours);
    for crl in [list(&ours, &[], 2024), list(&theirs, &[], 4096)] {
        let gateway = gateway(&ours, crl.pem().unwrap().as_bytes()).await;
        assert!(!passes(&gateway, &client).await);
    }
}

/// Only one of them would be asked: what the other one revokes would pass.
#[tokio::test]
async fn a_second_list_for_the_same_certificates_is_refused_and_what_is_in_force_stays() {
    let ours = authority();
    let (good, bad) = (Client::named("good", &ours), Client::named("bad", &ours));
    let [before, after] = [&[][..], &["bad"]].map(|revoked| list(&ours, revoked, 4096).pem().unwrap());
    let [here, there] = ["http://ca.test/1", "http://ca.test/2"];
    let pem = |uri, scope| part(&ours, &["bad"], uri, scope).pem().unwrap();
    let mut gateway = gateway(&ours, after.as_bytes()).await;
    for (first, second) in [
        (before.clone(), after.clone()),
        (after.clone(), before.clone()),
        (before.clone(), pem(here, None)),
        (pem(here, None), before.clone()),
        (pem(here, None), pem(here, None)),
        (pem(here, None), pem(here, Some(CrlScope::UserCertsOnly))),
    ] {
        // In one file, as when the new one is appended to the old one.
        replace(gateway.dir().path(), format!("{first}{second}").as_bytes());
        let error = gateway.reload(YAML).await.unwrap_err();
        assert!(error.contains("clients.crl: a second certificate revocation list"), "{error}");
        // In two.
        replace(gateway.dir().path(), first.as_bytes());
        std::fs::write(gateway.dir().path().join("more.crl"), &second).unwrap();
        let both = YAML.replace("clients.crl]", "clients.crl, $DIR/more.crl]");
        let error = gateway.reload(&both).await.unwrap_err();
        assert!(error.contains("more.crl: a second") && error.contains("clients.crl: only one"), "{error}");
        assert!(passes(&gateway, &good).await && !passes(&gateway, &bad).await);
    }
    // Parts that have nothing in common stand beside each other, and so do lists of other authorities.
    let (good, bad) = (Client::listed_at("good", &ours, here), Client::listed_at("bad", &ours, here));
    let users = pem(here, Some(CrlScope::UserCertsOnly));
    let theirs = list(&authority_named("others"), &["good"], 4096).pem().unwrap();
    for others in [pem(here, Some(CrlScope::CaCertsOnly)), pem(there, None), theirs] {
        replace(gateway.dir().path(), format!("{users}{others}").as_bytes());
        gateway.reload(YAML).await.unwrap();
        assert!(passes(&gateway, &good).await && !passes(&gateway, &bad).await);
    }
}

/// Where a list is divided by place, a certificate is looked up in the part that it names. One that names none could be
/// on any, and one that names another than there is, on none: neither is let in, whatever the order of the parts.
#[tokio::test]
async fn a_certificate_that_does_not_name_its_part_of_a_divided_list_is_refused() {
    let ours = authority();
    let [here, there, nowhere] = ["http://ca.test/1", "http://ca.test/2", "http://ca.test/3"];
    let pem = |revoked: &[&str], uri, scope| part(&ours, revoked, uri, scope).pem().unwrap();
    let at = |name, uri| Client::listed_at(name, &ours, uri);
    let (one, other) = (pem(&["one"], here, None), pem(&["other"], there, None));
    for lists in [format!("{one}{other}"), format!("{other}{one}")] {
        let gateway = gateway(&ours, lists.as_bytes()).await;
        for (name, uri, passed) in [
            ("one", here, false),
            ("one", there, true),
            ("other", there, false),
            ("other", here, true),
            ("good", here, true),
            ("good", nowhere, false),
        ] {
            assert_eq!(passes(&gateway, &at(name, uri)).await, passed, "{name} {uri}");
        }
        for name in ["one", "other", "good"] {
            assert!(!passes(&gateway, &Client::named(name, &ours)).await, "{name} names no part");
        }
    }
    // Nor is a single part all that there is.
    for scope in [None, Some(CrlScope::UserCertsOnly)] {
        let gateway = gateway(&ours, pem(&["one"], here, scope).as_bytes()).await;
        assert!(!passes(&gateway, &Client::named("good", &ours)).await);
        assert!(passes(&gateway, &at("good", here)).await && !passes(&gateway, &at("one", here)).await);
    }
}

/// Likewise of the authorities between: one that names no part of its own authority's list could be on another.
#[tokio::test]
async fn nor_is_one_whose_authority_does_not_name_its_part() {
    let (ours, here) = (authority(), "http://ca.test/1");
    for (places, passed) in [(&[here][..], true), (&[], false)] {
        let between = authority_under(&ours, places);
        let lists = [part(&ours, &["one"], here, None), list(&between, &[], 4096)];
        let gateway = gateway(&ours, lists.map(|list| list.pem().unwrap()).concat().as_bytes()).await;
        let mut client = Client::named("good", &between);
        client.between.push(between.der().clone());
        assert_eq!(passes(&gateway, &client).await, passed, "{places:?}");
    }
}
