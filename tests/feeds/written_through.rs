//! What one gateway is told by others (`write_to`, and bearers who revoke their own) is in the shared engine before it is
//! acknowledged, and so in force at gateways that were told nothing: for every engine that can be written to.

use serde_json::json;
use valgate::revocation::{RevocationEngine, Target};

use crate::events::{CAEP, SECRET, ask, event, logout, post};
use crate::fleet::{Node, REVOKED, everything};
use crate::support::engines::Engine;
use crate::support::{ISSUER, Reply, Signer, TestGateway, Token, eventually, refused};
use crate::{feed_server, fleet, nats, valkey};

/// A gateway with an endpoint for each kind of what it may be told, all of which it writes to `shared`.
fn yaml(signer: &Signer, shared: &str) -> String {
    format!(
        "
state_dir: $DIR/state
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ inline: {} }}
    audiences: [orders-api]
    leeway: 0s
    revocation: {{ feeds: [signals, logouts, shared], max_staleness: 10m, when_stale: accept }}
feeds:
  - name: signals
    set_push: {{ signed_by: main, audiences: [gateway], authorization: \"{SECRET}\", write_to: shared }}
  - {{ name: logouts, backchannel_logout: {{ signed_by: main, audiences: [shop], write_to: shared }} }}
  - {{ name: shared, {shared} }}
routes:
  - {{ match: {{ path: /orders/** }}, require: {{ issuers: [main] }}, upstream: api }}
  - {{ match: {{ path: /signals }}, receives: signals }}
  - {{ match: {{ path: /logouts }}, receives: logouts }}
  - {{ match: {{ path: /mine }}, require: {{ issuers: [main] }}, revocation_endpoint: {{ revokes: token, feed: shared }} }}
  - {{ match: {{ path: /mine-all }}, require: {{ issuers: [main] }}, revocation_endpoint: {{ revokes: session, feed: signals }} }}
",
        signer.jwks()
    )
}

/// The ways of telling it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    SecurityEvent,
    Logout,
    OwnToken,
    OwnSession,
}

/// What is told in this way of a user of its own: the token that it revokes, and what of it is on record.
struct Told {
    way: Way,
    token: String,
    target: Target,
    statement: String,
}

impl Told {
    fn new(way: Way, signer: &Signer, name: &str) -> Self {
        let token = Token::new().claim("sub", name).claim("sid", name);
        let target = match way {
            Way::SecurityEvent => Target::Sub(name.to_owned()),
            Way::Logout | Way::OwnSession => Target::Sid(name.to_owned()),
            Way::OwnToken => Target::Jti(token.text("jti").clone()),
        };
        let statement = match way {
            Way::SecurityEvent => {
                let subject = json!({ "format": "iss_sub", "iss": ISSUER, "sub": name });
                event(&format!("{CAEP}session-revoked"), subject).sign(signer)
            }
            Way::Logout => logout(Some(name)).sign(signer),
            Way::OwnToken | Way::OwnSession => String::new(),
        };
        Self { way, token: token.sign(signer), target, statement }
    }

    async fn tell(&self, gateway: &TestGateway) -> Reply {
        let bearer = format!("Bearer {}", self.token);
        match self.way {
            Way::SecurityEvent => {
                let headers = [("Content-Type", "application/secevent+jwt"), ("Authorization", SECRET)];
                post(gateway, "/signals", &headers, &self.statement).await
            }
            Way::Logout => {
                let headers = [("Content-Type", "application/x-www-form-urlencoded")];
                post(gateway, "/logouts", &headers, &format!("logout_token={}", self.statement)).await
            }
            Way::OwnToken => post(gateway, "/mine", &[("Authorization", &bearer)], "").await,
            Way::OwnSession => post(gateway, "/mine-all", &[("Authorization", &bearer)], "").await,
        }
    }

    fn kept(&self) -> u16 {
        if self.way == Way::SecurityEvent { 202 } else { 200 }
    }
}

const WAYS: [Way; 4] = [Way::SecurityEvent, Way::Logout, Way::OwnToken, Way::OwnSession];

/// `server` is what `engine` writes to and `feed` follows, both by the name of `shared`.
async fn is_written_through(
    mut server: Engine,
    feed: String,
    engine: &dyn RevocationEngine,
    signer: &Signer,
) {
    let told = Node::start(yaml(signer, &feed)).await;
    let elsewhere = Node::start(fleet::yaml(signer, &feed)).await;
    let bystander = Token::new().claim("sub", "carol").claim("sid", "carol").sign(signer);
    for (number, way) in WAYS.into_iter().enumerate() {
        let one = Told::new(way, signer, &format!("user{number}"));
        for node in [&told, &elsewhere] {
            assert_eq!(node.ask(&one.token).await, "200", "{way:?}");
        }
        let reply = one.tell(told.gateway()).await;
        assert_eq!(reply.status, one.kept(), "{way:?}: {}", reply.text());
        let entries = everything(engine).await;
        assert_eq!(entries.len(), number + 1, "{way:?}: it was there when the gateway said so");
        assert!(entries.iter().any(|entry| entry.entry.target == one.target), "{way:?}: {entries:?}");
        assert_eq!(ask(told.gateway(), &one.token).await, REVOKED, "{way:?}");
        elsewhere.until(&one.token, REVOKED, "in force at a gateway that was told nothing").await;
        assert_eq!(elsewhere.ask(&bystander).await, "200", "{way:?}");
    }

    // What cannot be written is not acknowledged, so that who says it says it again; here it counts at once.
    let before = everything(engine).await.len();
    server.kill();
    let again = WAYS.map(|way| Told::new(way, signer, &format!("again-{way:?}")));
    for one in &again {
        let reply = one.tell(told.gateway()).await;
        match one.way {
            Way::SecurityEvent | Way::Logout => {
                assert_eq!(reply.status, 503, "{:?}: {}", one.way, reply.text());
            }
            Way::OwnToken | Way::OwnSession => refused(&reply, "VAL-051", "revocation_not_kept"),
        }
        assert_eq!(ask(told.gateway(), &one.token).await, REVOKED, "{:?}", one.way);
    }
    server.restart().await;
    for one in again.iter().filter(|one| matches!(one.way, Way::SecurityEvent | Way::Logout)) {
        eventually("acknowledged", || async { one.tell(told.gateway()).await.status == one.kept() }).await;
        elsewhere.until(&one.token, REVOKED, "in force elsewhere after all").await;
    }
    assert!(everything(engine).await.len() >= before + 2);
    assert_eq!(elsewhere.ask(&bystander).await, "200");
}

#[tokio::test]
async fn to_a_feed_server() {
    let signer = Signer::es256("k1");
    let server = Engine::feed_server("write-write-write-write").await;
    let feed = format!(
        "http: {{ url: \"http://{}/revocations\", long_poll: 30s, interval: 100ms, timeout: 1s, \
         write_authorization: \"{}\" }}",
        server.address(),
        feed_server::WRITE
    );
    let engine = feed_server::engine_at(server.port);
    is_written_through(server, feed, &engine, &signer).await;
}

#[tokio::test]
async fn to_valkey() {
    let signer = Signer::es256("k1");
    let server = Engine::valkey(&[]).await;
    let (feed, engine) = (valkey::feed(&server), valkey::engine(&server));
    is_written_through(server, feed, &engine, &signer).await;
}

#[tokio::test]
async fn to_nats() {
    let signer = Signer::es256("k1");
    let server = nats::server(&signer).await;
    let (feed, engine) = (nats::feed(&server), nats::engine(&server));
    is_written_through(server, feed, &engine, &signer).await;
}
