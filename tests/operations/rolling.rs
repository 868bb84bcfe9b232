//! Three gateways behind a plain TCP balancer with one Valkey between them, replaced one by one under traffic, while
//! tokens are revoked. `OPERATIONS_ROLLS` says how often; tests/load/rolling.sh asks for many and prints the figures.
//!
//! A revocation is *in force* once Valkey has acknowledged it and each of the three addresses, asked after that, has not
//! accepted the token. From then on nobody may accept it: not through the balancer, and not at the address of any
//! gateway, from the first connection that it takes after a start, ready or not.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use valgate::clock::UnixSeconds;
use valgate::config::settings::{HostPort, Valkey, ValkeyTopology};
use valgate::demo::api::SampleApi;
use valgate::feeds::revocation::ValkeyEngine;
use valgate::revocation::{Entry, Revocation, RevocationEngine as _, Target};

use crate::process::{Process, write};
use crate::support::engines::Engine;
use crate::support::{ISSUER, Signer, Token, eventually, get, now};
use crate::traffic::{Authority, Traffic};

const MEMBERS: usize = 3;
/// As operators are shown it.
const SHOWN: &str = include_str!("../../deploy/balancer/haproxy.cfg");
/// Requests before the first and after the last.
const BETWEEN: u64 = 200;

/// How a gateway is replaced.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Roll {
    /// Drained, and started again.
    Restart,
    /// Drained, and started with another configuration.
    Change,
    /// A new process takes its sockets over.
    HandOver,
    /// Drained, and started on an empty disk, as a pod is.
    EmptyDisk,
    /// Killed, and started with a configuration that knows no revocation. No way to do it.
    Recklessly,
}

struct Fleet {
    members: Vec<Member>,
    balancer: Balancer,
    valkey: Engine,
    signer: Arc<Signer>,
    authority: Authority,
    api: SampleApi,
}

struct Member {
    process: Process,
    dir: Arc<TempDir>,
    /// Asked directly.
    plain: SocketAddr,
    /// Asked by the balancer.
    tls: SocketAddr,
    health: SocketAddr,
    /// How often a process of it has stopped.
    stopped: usize,
}

/// `HAProxy`, which sees bytes only, and asks for readiness.
struct Balancer {
    process: Child,
    plain: SocketAddr,
    tls: SocketAddr,
    _dir: TempDir,
}

/// What became of revoked tokens.
#[derive(Default)]
struct Watch {
    in_force: Mutex<Vec<Arc<str>>>,
    violations: Mutex<Vec<String>>,
    /// Asked about tokens whose revocation is in force.
    asked: AtomicU64,
    /// Refused since the gateway did not know yet.
    unavailable: AtomicU64,
    /// The longest time from the acknowledgement until it was in force.
    longest: Mutex<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Accepted,
    Revoked,
    /// It cannot be told whether the token is revoked (VAL-051).
    Unavailable,
    Unreachable,
    Other(String),
}

#[tokio::test]
async fn no_request_fails_and_no_revoked_token_passes_while_the_fleet_is_rolled() {
    let rolls = std::env::var("OPERATIONS_ROLLS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let mut fleet = Fleet::start().await;
    let (watch, traffic) = (Arc::<Watch>::default(), fleet.traffic());
    let watching = fleet.watch(&watch);
    traffic.more(BETWEEN).await;
    watch.more(10).await;
    for (number, roll) in [Roll::Restart, Roll::Change, Roll::HandOver, Roll::EmptyDisk]
        .into_iter()
        .cycle()
        .take(rolls)
        .enumerate()
    {
        fleet.roll(number % MEMBERS, roll, number + 1).await;
        watch.more(5).await;
    }
    traffic.more(BETWEEN).await;
    drop(watching);
    let good = traffic.stop().await;
    let violations = watch.violations.lock().unwrap().clone();
    assert!(violations.is_empty(), "{}: {:?}", violations.len(), &violations[..violations.len().min(5)]);
    println!("{rolls} replaced, {good} requests; {}", watch.report());
}

#[test]
fn the_balancer_is_shown_as_it_is_tested() {
    assert!(include_str!("../../docs/layouts.md").contains(SHOWN));
}

/// What the test before must be able to see.
#[tokio::test]
async fn failed_requests_and_revoked_tokens_that_pass_are_noticed() {
    let mut fleet = Fleet::start().await;
    let (watch, traffic) = (Arc::<Watch>::default(), fleet.traffic());
    let watching = fleet.watch(&watch);
    traffic.more(BETWEEN).await;
    watch.more(3).await;
    fleet.roll(0, Roll::Recklessly, 1).await;
    let passed = |what: &String| what.ends_with(": Accepted");
    eventually("a revoked token passes", || async { watch.violations.lock().unwrap().iter().any(passed) })
        .await;
    drop(watching);
    assert!(!traffic.end().await.failures.is_empty(), "no request has failed");
}

impl Fleet {
    async fn start() -> Self {
        let valkey = Engine::valkey(&[]).await;
        let (api, signer) = (SampleApi::start().await.unwrap(), Arc::new(Signer::es256("k1")));
        let authority = Authority::new();
        let mut members = Vec::new();
        for _ in 0..MEMBERS {
            let dir = Arc::new(TempDir::new().unwrap());
            authority.certify(dir.path());
            let [plain, tls, health] = free_addresses();
            let text = configuration([plain, tls, health], &valkey, &signer, &api, 0);
            write(dir.path(), "valgate.yaml", &text);
            let process = Process::spawn(Arc::clone(&dir), |_| {});
            members.push(Member { process, dir, plain, tls, health, stopped: 0 });
        }
        for member in &members {
            member.until_ready().await;
        }
        let balancer = Balancer::start(&members).await;
        Self { members, balancer, valkey, signer, authority, api }
    }

    fn traffic(&self) -> Traffic {
        let token = Token::new().claim("exp", now() + 3600).sign(&self.signer);
        Traffic::start(self.balancer.tls, &self.authority, &token)
    }

    /// Revokes tokens, and asks about those whose revocation is in force, until dropped.
    fn watch(&self, watch: &Arc<Watch>) -> JoinSet<()> {
        let settings = Valkey {
            topology: ValkeyTopology::Single(HostPort {
                host: "127.0.0.1".to_owned(),
                port: self.valkey.port,
            }),
            database: 0,
            credentials: None,
            tls: None,
            timeout: Duration::from_secs(5),
        };
        let engine = ValkeyEngine::new(settings, "valgate:revocations");
        let addresses: Vec<SocketAddr> = self.members.iter().map(|member| member.plain).collect();
        let (signer, balancer) = (Arc::clone(&self.signer), self.balancer.plain);
        let mut tasks = JoinSet::new();
        for address in addresses.iter().copied().chain([balancer]) {
            let watch = Arc::clone(watch);
            tasks.spawn(async move { watch.ask_again_and_again(address).await });
        }
        let watch = Arc::clone(watch);
        tasks.spawn(async move {
            loop {
                let token = Token::new();
                let jti = token.text("jti").clone();
                let token: Arc<str> = token.sign(&signer).into();
                match ask(balancer, &token).await {
                    Answer::Accepted => watch.revoke(&engine, jti, token, &addresses).await,
                    other => watch.violation(format!("a live token through the balancer: {other:?}")),
                }
            }
        });
        tasks
    }

    /// Replaces a member. When it is ready again, the balancer finds out by itself.
    async fn roll(&mut self, place: usize, roll: Roll, number: usize) {
        let member = &mut self.members[place];
        let addresses = [member.plain, member.tls, member.health];
        let mut text = configuration(addresses, &self.valkey, &self.signer, &self.api, number);
        match roll {
            Roll::HandOver => {
                write(member.dir.path(), "valgate.yaml", &text);
                member.process.hand_over().await;
                member.stopped += 1;
                member.process.wait_for_lines(" stopped", member.stopped).await;
                return;
            }
            Roll::Recklessly => member.process.signal("KILL"),
            Roll::Restart | Roll::Change | Roll::EmptyDisk => {
                member.process.signal("TERM");
                member.process.wait_for_lines(" stopped", member.stopped + 1).await;
            }
        }
        if roll == Roll::EmptyDisk {
            std::fs::remove_dir_all(member.dir.path().join("state")).unwrap();
        }
        if roll == Roll::Recklessly {
            text = text.lines().filter(|line| !line.contains("revocation")).collect::<Vec<_>>().join("\n");
            member.process.exit().await;
        }
        if roll != Roll::Restart {
            write(member.dir.path(), "valgate.yaml", &text);
        }
        member.process = Process::spawn(Arc::clone(&member.dir), |_| {});
        member.stopped = 0;
        member.until_ready().await;
    }
}

impl Member {
    async fn until_ready(&self) {
        self.process.wait_for_line("answering probes").await;
        eventually("ready", || async { get(self.health, "/readyz", &[]).await.status == 200 }).await;
    }
}

impl Balancer {
    async fn start(members: &[Member]) -> Self {
        let dir = TempDir::new().unwrap();
        let [plain, tls] = free_addresses();
        let mut text = SHOWN.replace("bind :443", &format!("bind {tls}")).replace("inter 1s", "inter 50ms");
        let mut direct = format!("listen plain\n    bind {plain}\n    balance roundrobin\n");
        for (place, member) in (1..).zip(members) {
            let server = format!("server gateway-{place} {} port {}", member.tls, member.health.port());
            let shown = format!("server gateway-{place} 10.0.0.1{place}:8443 port 8081");
            assert!(text.contains(&shown), "{shown}");
            text = text.replace(&shown, &server);
            let _ = writeln!(
                direct,
                "    server gateway-{place} {} track gateways/gateway-{place}",
                member.plain
            );
        }
        // Nothing is tried again: what a gateway does not take is a failure.
        text = format!("{}\n{direct}", text.replace("mode tcp", "mode tcp\n    retries 0"));
        let file = dir.path().join("haproxy.cfg");
        std::fs::write(&file, text).unwrap();
        let process = Command::new("haproxy")
            .arg("-db")
            .arg("-f")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let balancer = Self { process, plain, tls, _dir: dir };
        for address in [plain, tls] {
            eventually("balancing", || async { TcpStream::connect(address).await.is_ok() }).await;
        }
        balancer
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Watch {
    #[allow(clippy::disallowed_methods, reason = "it measures real time")]
    async fn revoke(&self, engine: &ValkeyEngine, jti: String, token: Arc<str>, addresses: &[SocketAddr]) {
        let entry = Entry {
            target: Target::Jti(jti),
            issuer: None,
            before: None,
            expires: Some(UnixSeconds(now() + 7200)),
        };
        engine.revoke(&[Revocation { entry, reason: None, revoked_at: None }]).await.unwrap();
        let acknowledged = Instant::now();
        for address in addresses {
            while ask(*address, &token).await == Answer::Accepted {}
        }
        let mut longest = self.longest.lock().unwrap();
        *longest = acknowledged.elapsed().max(*longest);
        self.in_force.lock().unwrap().push(token);
    }

    /// Asks about the newest, and about one of all, in turn.
    async fn ask_again_and_again(&self, address: SocketAddr) {
        for number in 0_usize.. {
            let token = {
                let tokens = self.in_force.lock().unwrap();
                let newest = tokens.len().wrapping_sub(1);
                let place = if number % 2 == 0 { newest } else { number / 2 % tokens.len().max(1) };
                tokens.get(place).cloned()
            };
            let Some(token) = token else {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            };
            match ask(address, &token).await {
                Answer::Revoked | Answer::Unreachable => {}
                Answer::Unavailable => {
                    self.unavailable.fetch_add(1, Ordering::Relaxed);
                }
                other => self.violation(format!("{address}: {other:?}")),
            }
            self.asked.fetch_add(1, Ordering::Relaxed);
            // Often enough that a gateway that starts is asked by its first connections.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn violation(&self, what: String) {
        self.violations.lock().unwrap().push(what);
    }

    /// Waits until so many more revocations are in force.
    async fn more(&self, count: usize) {
        let enough = self.in_force.lock().unwrap().len() + count;
        eventually("revocations", || async { self.in_force.lock().unwrap().len() >= enough }).await;
    }

    fn report(&self) -> String {
        format!(
            "{} revocations, {:?} the longest until in force; asked {} times about those in force, {} times not known yet",
            self.in_force.lock().unwrap().len(),
            self.longest.lock().unwrap(),
            self.asked.load(Ordering::Relaxed),
            self.unavailable.load(Ordering::Relaxed),
        )
    }
}

fn configuration(
    [plain, tls, health]: [SocketAddr; 3],
    valkey: &Engine,
    signer: &Signer,
    api: &SampleApi,
    number: usize,
) -> String {
    format!(
        "version: 1
workers: 1
access_log: off
log: {{ format: text }}
state_dir: state
health: {{ address: '{health}' }}
reload: {{ watch: false }}
timeouts: {{ drain_delay: 1500ms }}
listeners:
  - {{ address: '{plain}', plaintext: true }}
  - address: '{tls}'
    proxy_protocol: {{ from: [127.0.0.1] }}
    tls: {{ certificates: [{{ certificate: tls.crt, private_key: tls.key }}] }}
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ inline: {} }}
    audiences: [orders-api]
    revocation: {{ feeds: [logout], max_staleness: 10m, when_stale: reject }}
feeds:
  - {{ name: logout, valkey: {{ address: '{}' }} }}
upstreams: [{{ name: api, endpoints: ['http://{}'] }}]
routes:
  - {{ match: {{ path: /orders/secured }}, require: {{ issuers: [main] }}, upstream: api }}
  - {{ match: {{ path: /round/{number} }}, public: true, upstream: api }}
",
        signer.jwks(),
        valkey.address(),
        api.address()
    )
}

/// Asks on a connection of its own.
async fn ask(address: SocketAddr, token: &str) -> Answer {
    let request = format!(
        "GET /orders/secured HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    let mut answer = Vec::new();
    let asking = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        stream.read_to_end(&mut answer).await
    };
    match asking.await {
        Ok(read) if read > 0 => {}
        _ => return Answer::Unreachable,
    }
    let answer = String::from_utf8_lossy(&answer);
    match answer.get(9..12) {
        Some("200") => Answer::Accepted,
        Some("401") if answer.contains("\"revoked\"") => Answer::Revoked,
        Some("503") if answer.contains("VAL-051") => Answer::Unavailable,
        _ => Answer::Other(answer.into_owned()),
    }
}

/// Free for now; what binds them says so itself.
fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let taken = std::array::from_fn::<_, N, _>(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    taken.map(|listener| listener.local_addr().unwrap())
}
