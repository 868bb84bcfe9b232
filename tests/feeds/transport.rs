//! How feeds are reached: by a proxy, with a certificate, trusting one authority, and no more than so much of them.

use serde_json::json;
use tempfile::TempDir;
use valgate::revocation::RevocationEngine;

use crate::events::{CAEP, ask, event, start};
use crate::feed_server::{Commands, WRITE, engine, server};
use crate::fleet::{Node, REVOKED, Subject, yaml};
use crate::support::engines::mutual_tls_front;
use crate::support::tunnel::Tunnel;
use crate::support::{Answer, Signer, Stub, Token, eventually, write_certificate, write_certificates};

/// A server behind TLS that only `client.crt` gets through, and a proxy on the way.
struct Way {
    dir: TempDir,
    port: u16,
    tunnel: Tunnel,
}

impl Way {
    async fn to(server: u16) -> Self {
        let dir = TempDir::new().unwrap();
        let authority = write_certificates(dir.path());
        std::fs::write(dir.path().join("ca.crt"), authority).unwrap();
        let clients = write_certificate(dir.path(), "client", &["gateway"]);
        write_certificate(dir.path(), "stranger", &["gateway"]);
        let port = mutual_tls_front(dir.path(), server, &clients).await;
        Self { dir, port, tunnel: Tunnel::start().await }
    }

    /// The fields that every source over HTTP has.
    fn fields(&self, client: &str) -> String {
        let dir = self.dir.path().display();
        format!(
            "ca: {dir}/ca.crt, client_certificate: {{ certificate: {dir}/{client}.crt, private_key: {dir}/{client}.key }}, \
             proxy: {{ url: \"http://{}\", authorization: \"Basic Z2F0ZTp3YXk=\" }}",
            self.tunnel.address
        )
    }

    /// Everything went through the proxy, which was told where to and no more.
    fn check(&self) {
        let heads = self.tunnel.heads();
        assert!(!heads.is_empty());
        for head in heads {
            assert!(head.starts_with(&format!("CONNECT localhost:{} HTTP/1.1\r\n", self.port)), "{head}");
            assert!(head.to_ascii_lowercase().contains("proxy-authorization: basic z2f0ztp3yxk="), "{head}");
            assert!(!head.to_ascii_lowercase().contains("\r\nauthorization:"), "{head}");
        }
    }
}

#[tokio::test]
async fn a_feed_is_read_and_written_by_a_proxy_with_a_certificate_of_its_own() {
    let signer = Signer::es256("k1");
    let data = TempDir::new().unwrap();
    let server = server(data.path(), None, None).await;
    let way = Way::to(server.address().port()).await;
    let feed = |client: &str, more: &str| {
        format!(
            "http: {{ url: \"https://localhost:{}/revocations\", long_poll: 30s, interval: 100ms, \
             write_authorization: \"{WRITE}\", {}{more} }}",
            way.port,
            way.fields(client)
        )
    };
    let [first, second] = [(); 2].map(|()| Subject::new(&signer));
    engine(&server).revoke(&[first.revocation()]).await.unwrap();
    let node = Node::start(yaml(&signer, &feed("client", ""))).await;
    node.until(&first.token, REVOKED, "revoked").await;
    engine(&server).revoke(&[second.revocation()]).await.unwrap();
    node.until(&second.token, REVOKED, "while it waits").await;

    let commands = Commands::new(&feed("client", ""), &signer);
    let told = tokio::task::spawn_blocking(move || {
        commands.told(&["revoke", "--sub", "bob", "--expires", "1h", "--issuer", crate::support::ISSUER])
    });
    told.await.unwrap();
    let bob = Token::new().claim("sub", "bob").sign(&signer);
    node.until(&bob, REVOKED, "by command").await;
    way.check();

    let stranger = Node::start_unready(yaml(&signer, &feed("stranger", ""))).await;
    eventually("it is refused", || async { stranger.count("failures").await > 0 }).await;
    assert_eq!(stranger.ask(&first.token).await, "503 VAL-051 feed_not_loaded");

    let many: Vec<_> = (0..20).map(|_| Subject::new(&signer).revocation()).collect();
    engine(&server).revoke(&many).await.unwrap();
    let narrow = Node::start_unready(yaml(&signer, &feed("client", ", max_size: 1KiB"))).await;
    eventually("too much", || async { narrow.count("failures").await > 0 }).await;
    assert_eq!(narrow.ask(&first.token).await, "503 VAL-051 feed_not_loaded");
}

#[tokio::test]
async fn events_are_polled_by_a_proxy_with_a_certificate_of_its_own() {
    let signer = Signer::es256("k1");
    let transmitter = Stub::start().await;
    let way = Way::to(transmitter.address.port()).await;
    let sets = |who: &str, padding: usize| {
        let set = event(&format!("{CAEP}session-revoked"), json!({ "format": "opaque", "id": who }));
        Answer::json(
            &json!({ "sets": { set.text("jti"): set.sign(&signer) }, "padding": "x".repeat(padding) }),
        )
    };
    transmitter.set("/poll", sets("alice", 0));
    let told = format!(
        "set_poll: {{ url: \"https://localhost:{}/poll\", signed_by: main, audiences: [gateway], interval: 100ms, \
         long_poll: 1s, authorization: \"Bearer events\", max_size: 4KiB, {} }}",
        way.port,
        way.fields("client")
    );
    let gateway = start(&signer, &told).await;
    let (alice, bob) = (Token::new().sign(&signer), Token::new().claim("sub", "bob").sign(&signer));
    eventually("revoked", || async { ask(&gateway, &alice).await == REVOKED }).await;
    assert!(transmitter.asked("/poll")[0].head.to_ascii_lowercase().contains("authorization: bearer events"));
    way.check();

    // More than is read is no answer, whatever is in it.
    transmitter.set("/poll", sets("bob", 5000));
    let failures = "valgate_feed_failures_total{feed=\"told\"}";
    eventually("too much", || async { gateway.metric(failures).await > 0 }).await;
    assert_eq!(ask(&gateway, &bob).await, "200");
    transmitter.set("/poll", sets("bob", 100));
    eventually("revoked", || async { ask(&gateway, &bob).await == REVOKED }).await;
}
