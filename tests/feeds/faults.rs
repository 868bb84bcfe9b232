//! Nothing lost: gateways and sources as processes, a faulty way between them, and a schedule of faults from a seed.
//!
//! After each round everything is healed, and then every gateway must refuse every token whose revocation was
//! acknowledged. All the while a witness at each gateway asks again about tokens that it refused: one that passes
//! without having been lifted is a relapse. `tests/load/faults.sh` runs it for as long as one likes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderValue;
use tokio::net::TcpStream;
use url::Url;
use valgate::clock::Clock;
use valgate::config::settings::{HostPort, Nats, NatsCredentials, ValkeyTopology};
use valgate::demo::api::SampleApi;
use valgate::feeds::fetch::FetchSettings;
use valgate::feeds::revocation::{HttpEngine, NatsEngine, ValkeyEngine};
use valgate::revocation::RevocationEngine;

use crate::fleet::{REVOKED, Subject, revocation, yaml};
use crate::support::engines::Engine;
use crate::support::faulty::{Dice, FaultyWay, Way};
use crate::support::{Connection, Signer, eventually, now, verdict};
use crate::valkey::{at, settings};

const WRITE_TOKEN: &str = "write-write-write-write";
const GATEWAYS: usize = 3;

#[tokio::test]
async fn nothing_is_lost_between_a_feed_server_and_its_gateways() {
    let server = Engine::feed_server(WRITE_TOKEN).await;
    let url = Url::parse(&format!("http://{}/revocations", server.address())).unwrap();
    let authorization = HeaderValue::from_str(&format!("Bearer {WRITE_TOKEN}")).unwrap();
    let writer = HttpEngine::new(url, None, Some(authorization), &FetchSettings::default()).unwrap();
    let feed = |way: SocketAddr| {
        format!("http: {{ url: \"http://{way}/revocations\", long_poll: 30s, interval: 100ms }}")
    };
    Schedule::new("feed server", server, Box::new(writer), feed).await.run().await;
}

#[tokio::test]
async fn nothing_is_lost_between_valkey_and_its_gateways() {
    // By default what was acknowledged within the last second may be lost with the server.
    let server = Engine::valkey(&["--appendfsync", "always"]).await;
    let writer = ValkeyEngine::new(settings(ValkeyTopology::Single(at(server.port))), "valgate:revocations");
    let feed = |way: SocketAddr| format!("valkey: {{ address: \"{way}\", timeout: 1s }}");
    Schedule::new("valkey", server, Box::new(writer), feed).await.run().await;
}

#[tokio::test]
async fn nothing_is_lost_between_nats_and_its_gateways() {
    let server = Engine::nats("").await;
    let servers = vec![HostPort { host: "127.0.0.1".to_owned(), port: server.port }];
    let nats =
        Nats { servers, credentials: NatsCredentials::None, tls: None, timeout: Duration::from_secs(5) };
    let writer = NatsEngine::new(nats, "valgate-revocations".to_owned(), Clock::system());
    let feed = |way: SocketAddr| format!("nats: {{ servers: [\"{way}\"], timeout: 1s }}");
    Schedule::new("nats", server, Box::new(writer), feed).await.run().await;
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The way of some gateways is bad while revocations are written.
    Way(&'static str, Way),
    /// SIGKILL to the source, at any point of a write.
    SourceKilled,
    /// SIGKILL to some gateways, at any point of what they hear.
    GatewaysKilled,
    /// SIGKILL to some gateways as soon as they refuse, and a source that is away when they come back.
    KilledOnceRefused,
    /// The source says again what it said.
    Duplicates,
    /// Several writers at once, in any order.
    Reordering,
    /// What gateways heard last is no longer there when they come back.
    Gap,
}

const FAULTS: [Fault; 11] = [
    Fault::Way("partition, refused", Way::Refused),
    Fault::Way("partition, silent", Way::Silent),
    Fault::Way("slow", Way::Slow),
    Fault::Way("cut off", Way::CutOff),
    Fault::Way("garbage", Way::Garbage),
    Fault::SourceKilled,
    Fault::GatewaysKilled,
    Fault::KilledOnceRefused,
    Fault::Duplicates,
    Fault::Reordering,
    Fault::Gap,
];

/// What is done behind the schedule's back, to show that it is found: by `FAULT_PLANT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plant {
    /// A revocation that counts as acknowledged is not written.
    Loss,
    /// A revocation is lifted for a moment.
    Relapse,
}

/// The round in which it is planted.
const PLANTED_IN: u64 = 2;

/// A gateway, its way to the source, and what it refused.
struct Place {
    gateway: Engine,
    way: FaultyWay,
    refused: Arc<Refused>,
    witness: tokio::task::JoinHandle<()>,
}

/// Tokens that a gateway refused, by their id, and those of them that passed again.
#[derive(Default)]
struct Refused {
    tokens: Mutex<Vec<Arc<Subject>>>,
    relapses: Mutex<Vec<String>>,
}

struct Schedule {
    name: &'static str,
    seed: u64,
    dice: Dice,
    source: Engine,
    writer: Box<dyn RevocationEngine>,
    places: Vec<Place>,
    signer: Signer,
    /// Acknowledged, and not lifted since.
    revoked: Vec<Arc<Subject>>,
    lifted: Vec<Arc<Subject>>,
    counts: BTreeMap<String, usize>,
    missing: Vec<String>,
    _api: SampleApi,
}

impl Schedule {
    async fn new(
        name: &'static str,
        source: Engine,
        writer: Box<dyn RevocationEngine>,
        feed: impl Fn(SocketAddr) -> String,
    ) -> Self {
        let seed = number("FAULT_SEED").unwrap_or(1);
        let signer = Signer::es256("k1");
        let api = SampleApi::start().await.unwrap();
        let first = Arc::new(Subject::new(&signer));
        writer.revoke(&[first.revocation()]).await.unwrap();
        let mut places = Vec::new();
        for _ in 0..GATEWAYS {
            let way = FaultyWay::to(source.port).await;
            let text = format!(
                "version: 1\nworkers: 1\naccess_log: off\n\
                 listeners: [{{ address: \"127.0.0.1:$PORT\", plaintext: true }}]\n\
                 upstreams: [{{ name: api, endpoints: [\"http://{}\"] }}]\n{}",
                api.address(),
                yaml(&signer, &feed(way.address))
            );
            let gateway = Engine::gateway(&text).await;
            let refused = Arc::<Refused>::default();
            let witness = tokio::spawn(watch_over(gateway.port, Arc::clone(&refused)));
            places.push(Place { gateway, way, refused, witness });
        }
        let (revoked, lifted) = (vec![first], Vec::new());
        let (counts, missing) = (BTreeMap::new(), Vec::new());
        let dice = Dice(seed);
        Self { name, seed, dice, source, writer, places, signer, revoked, lifted, counts, missing, _api: api }
    }

    #[allow(clippy::print_stdout, reason = "the long form shows what it has done")]
    async fn run(mut self) {
        let rounds = number("FAULT_ROUNDS").unwrap_or(10);
        self.check(1).await;
        for round in 0..rounds {
            // Each kind comes in the short form too.
            let place = usize::try_from(round).unwrap();
            let fault = FAULTS.get(place).copied().unwrap_or_else(|| self.dice.pick(&FAULTS));
            self.round(fault).await;
            if round == PLANTED_IN {
                self.plant().await;
            }
            self.check(30).await;
        }
        self.check(usize::MAX).await;
        let relapses: Vec<String> =
            self.places.iter().flat_map(|place| place.refused.relapses.lock().unwrap().clone()).collect();
        println!(
            "{}: seed {}, {rounds} rounds at {GATEWAYS} gateways, {} revoked, {} lifted, {:?}: {} lost, {} relapsed",
            self.name,
            self.seed,
            self.revoked.len(),
            self.lifted.len(),
            self.counts,
            self.missing.len(),
            relapses.len()
        );
        for place in &self.places {
            place.witness.abort();
        }
        assert!(self.missing.is_empty() && relapses.is_empty(), "{:?} {relapses:?}", self.missing);
    }

    /// Something fails while something is revoked; then all is healed, and the source has acknowledged.
    async fn round(&mut self, fault: Fault) {
        let name = match fault {
            Fault::Way(name, _) => name.to_owned(),
            other => format!("{other:?}"),
        };
        *self.counts.entry(name).or_default() += 1;
        let victims: Vec<usize> = {
            let mask = 1 + self.dice.below((1 << GATEWAYS) - 1);
            (0..GATEWAYS).filter(|place| mask & (1 << place) != 0).collect()
        };
        let fresh: Vec<Arc<Subject>> =
            (0..=self.dice.below(4)).map(|_| Arc::new(Subject::new(&self.signer))).collect();
        match fault {
            Fault::Way(_, way) => {
                self.set_ways(&victims, way);
                self.dice.wait(200).await;
                self.revoke(&fresh).await;
                self.lift_one().await;
                self.dice.wait(400).await;
                if self.dice.below(2) == 0 {
                    self.set_ways(&victims, Way::Refused);
                    tokio::task::yield_now().await;
                }
                self.set_ways(&victims, Way::Open);
            }
            Fault::SourceKilled => {
                let entries: Vec<_> = fresh.iter().map(|one| one.revocation()).collect();
                let (dice, source, writer) = (&mut self.dice, &mut self.source, &self.writer);
                // Whether it was acknowledged is not looked at: it is written again below.
                let _ = tokio::join!(writer.revoke(&entries), async {
                    dice.wait(10).await;
                    source.kill();
                });
                self.dice.wait(400).await;
                self.source.restart().await;
                self.revoke(&fresh).await;
            }
            Fault::GatewaysKilled => {
                let entries: Vec<_> = fresh.iter().map(|one| one.revocation()).collect();
                let (dice, places, writer) = (&mut self.dice, &mut self.places, &self.writer);
                let (written, ()) = tokio::join!(writer.revoke(&entries), async {
                    dice.wait(20).await;
                    for victim in &victims {
                        places[*victim].gateway.kill();
                    }
                });
                written.unwrap();
                self.revoked.extend(fresh.iter().cloned());
                let later = Arc::new(Subject::new(&self.signer));
                self.revoke(&[later]).await;
                // One that comes up while its source cannot be reached has only what it kept.
                let is_alone = self.dice.below(2) == 0;
                if is_alone {
                    self.set_ways(&victims, Way::Refused);
                }
                for victim in &victims {
                    self.places[*victim].gateway.restart().await;
                }
                if is_alone {
                    self.dice.wait(300).await;
                    self.set_ways(&victims, Way::Open);
                }
            }
            Fault::KilledOnceRefused => {
                self.revoke(&fresh).await;
                for victim in &victims {
                    let place = &mut self.places[*victim];
                    let (port, last) = (place.gateway.port, &fresh[fresh.len() - 1]);
                    eventually("refused", || async {
                        ask(port, &last.token).await.as_deref() == Some(REVOKED)
                    })
                    .await;
                    place.gateway.kill();
                    place.refused.tokens.lock().unwrap().push(Arc::clone(last));
                }
                self.set_ways(&victims, Way::Refused);
                for victim in &victims {
                    self.places[*victim].gateway.restart().await;
                }
                self.dice.wait(300).await;
                self.set_ways(&victims, Way::Open);
            }
            Fault::Duplicates => {
                self.revoke(&fresh).await;
                let again: Vec<_> = self.revoked.iter().rev().take(20).map(|one| one.revocation()).collect();
                for _ in 0..3 {
                    self.writer.revoke(&again).await.unwrap();
                }
            }
            Fault::Reordering => {
                let mut order = fresh.clone();
                order.sort_by_key(|_| self.dice.below(1 << 20));
                let writing = order.iter().map(async |one| self.writer.revoke(&[one.revocation()]).await);
                for written in futures_util::future::join_all(writing).await {
                    written.unwrap();
                }
                self.revoked.extend(fresh);
                self.lift_one().await;
            }
            Fault::Gap => self.gap(&victims, &fresh).await,
        }
    }

    /// The history that the victims stand in goes while they are away; what is in force does not.
    async fn gap(&mut self, victims: &[usize], fresh: &[Arc<Subject>]) {
        let last = self.revoked.last().cloned().unwrap();
        self.set_ways(victims, Way::Refused);
        self.revoke(fresh).await;
        self.lift_one().await;
        // Where a newer message replaces the older, this takes the place at which the victims stood.
        let longer = revocation(&last.fact, None, Some(now() + 7200));
        self.writer.revoke(&[longer]).await.unwrap();
        if self.name == "valkey" {
            let _: i64 = self.source.ask(&["XTRIM", "{valgate:revocations}:changes", "MAXLEN", "1"]).await;
        }
        if self.name == "feed server" {
            // A start drops what no snapshot needs.
            self.source.restart().await;
        }
        self.set_ways(victims, Way::Open);
    }

    async fn plant(&mut self) {
        let plant = match std::env::var("FAULT_PLANT").ok().as_deref() {
            None => return,
            Some("loss") => Plant::Loss,
            Some("relapse") => Plant::Relapse,
            Some(other) => panic!("FAULT_PLANT is loss or relapse, not {other}"),
        };
        let subject = Arc::new(Subject::new(&self.signer));
        if plant == Plant::Relapse {
            self.revoke(std::slice::from_ref(&subject)).await;
            self.check(1).await;
            self.writer.lift(std::slice::from_ref(&subject.fact)).await.unwrap();
            let port = self.places[0].gateway.port;
            let relapses = Arc::clone(&self.places[0].refused);
            eventually("it passes again", || async {
                ask(port, &subject.token).await.as_deref() == Some("200")
                    && !relapses.relapses.lock().unwrap().is_empty()
            })
            .await;
            self.writer.revoke(&[subject.revocation()]).await.unwrap();
        } else {
            self.revoked.push(subject);
        }
    }

    fn set_ways(&self, victims: &[usize], way: Way) {
        for victim in victims {
            self.places[*victim].way.set(way);
        }
    }

    /// Revokes until it is acknowledged.
    async fn revoke(&mut self, subjects: &[Arc<Subject>]) {
        let entries: Vec<_> = subjects.iter().map(|one| one.revocation()).collect();
        eventually("acknowledged", || async { self.writer.revoke(&entries).await.is_ok() }).await;
        self.revoked.extend(subjects.iter().cloned());
    }

    async fn lift_one(&mut self) {
        if self.revoked.len() < 5 || self.dice.below(2) == 0 {
            return;
        }
        let place = usize::try_from(self.dice.below(self.revoked.len() as u64 - 1)).unwrap();
        let subject = self.revoked.remove(place);
        for place in &self.places {
            place.refused.tokens.lock().unwrap().retain(|one| !Arc::ptr_eq(one, &subject));
        }
        eventually("lifted", || async {
            self.writer.lift(std::slice::from_ref(&subject.fact)).await.is_ok()
        })
        .await;
        self.lifted.push(subject);
    }

    /// Every gateway comes to refuse the last so many of what is revoked, and to accept what was lifted last.
    async fn check(&mut self, last: usize) {
        let verdicts = |expected: &'static str| {
            move |port: u16, subject: Arc<Subject>| async move {
                let asking = async {
                    while ask(port, &subject.token).await.as_deref() != Some(expected) {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                };
                tokio::time::timeout(crate::support::PATIENCE, asking).await.is_ok()
            }
        };
        let mut lost: Vec<Arc<Subject>> = Vec::new();
        for (number, place) in self.places.iter().enumerate() {
            let port = place.gateway.port;
            for subject in self.revoked.iter().rev().take(last) {
                if verdicts(REVOKED)(port, Arc::clone(subject)).await {
                    let mut tokens = place.refused.tokens.lock().unwrap();
                    if !tokens.iter().any(|known| Arc::ptr_eq(known, subject)) {
                        tokens.push(Arc::clone(subject));
                    }
                } else {
                    self.missing.push(format!("gateway {number} accepts {:?}", subject.fact));
                    lost.push(Arc::clone(subject));
                }
            }
            for subject in self.lifted.iter().rev().take(last.min(3)) {
                if !verdicts("200")(port, Arc::clone(subject)).await {
                    self.missing
                        .push(format!("gateway {number} refuses {:?}, which was lifted", subject.fact));
                }
            }
        }
        // Once found is enough.
        self.revoked.retain(|subject| !lost.iter().any(|one| Arc::ptr_eq(one, subject)));
    }
}

/// Asks again and again about what was refused.
async fn watch_over(port: u16, refused: Arc<Refused>) {
    let mut dice = Dice(u64::from(port));
    loop {
        let subject = {
            let tokens = refused.tokens.lock().unwrap();
            (!tokens.is_empty()).then(|| {
                let place = usize::try_from(dice.below(tokens.len() as u64)).unwrap();
                // Half of the time the newest, which is what a fault may cost.
                if dice.below(2) == 0 { &tokens[place] } else { &tokens[tokens.len() - 1] }.clone()
            })
        };
        if let Some(subject) = subject
            && ask(port, &subject.token).await.as_deref() == Some("200")
            && refused.tokens.lock().unwrap().iter().any(|known| Arc::ptr_eq(known, &subject))
        {
            refused.relapses.lock().unwrap().push(format!("{:?}", subject.fact));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The verdict of a gateway that may be killed at any moment.
async fn ask(port: u16, token: &str) -> Option<String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let mut connection = Connection::over(stream);
    let head = format!(
        "GET /orders/1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    connection.write(head).await;
    Some(verdict(&connection.reply().await?))
}

fn number(variable: &str) -> Option<u64> {
    Some(std::env::var(variable).ok()?.parse().unwrap())
}
