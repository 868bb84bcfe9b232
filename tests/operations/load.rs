//! Changes under constant traffic, with no request lost. `OPERATIONS_RELOADS` and `OPERATIONS_RESTARTS` say how often;
//! tests/load/operations.sh asks for many and prints the figures.

use std::sync::Arc;

use tempfile::TempDir;
use valgate::demo::api::SampleApi;

use crate::process::{Process, write, yaml};
use crate::support::{Answer, ISSUER, Signer, Stub, Token};
use crate::traffic::{Authority, Traffic};

/// Requests between two changes.
const BETWEEN: u64 = 40;

struct Stage {
    api: SampleApi,
    provider: Stub,
    signer: Signer,
    authority: Authority,
    dir: Arc<TempDir>,
}

impl Stage {
    async fn new() -> Self {
        let (provider, signer) = (Stub::start().await, Signer::es256("k1"));
        for path in ["/jwks0", "/jwks1"] {
            provider.set(path, Answer::json(&signer.jwks()));
        }
        let api = SampleApi::start().await.unwrap();
        let stage = Self {
            api,
            provider,
            signer,
            authority: Authority::new(),
            dir: Arc::new(TempDir::new().unwrap()),
        };
        stage.change(0);
        stage
    }

    /// Another route, another certificate, another place of the keys.
    fn change(&self, round: usize) {
        self.authority.certify(self.dir.path());
        let keys = self.provider.url(&format!("/jwks{}", round % 2));
        let text = yaml(&format!(
            "issuers: [{{ name: main, issuer: '{ISSUER}', keys: {{ jwks_url: '{keys}' }}, audiences: [orders-api] }}]
upstreams: [{{ name: api, endpoints: ['http://{}'] }}]
routes:
  - {{ match: {{ path: /orders/secured }}, require: {{ issuers: [main] }}, upstream: api }}
  - {{ match: {{ path: /round/{round} }}, public: true, upstream: api }}
",
            self.api.address()
        ));
        let text = text.replace("interval: 100ms", "watch: false");
        write(self.dir.path(), "valgate.yaml", &text);
    }

    async fn process(&self) -> Process {
        let process = Process::spawn(Arc::clone(&self.dir), |_| {});
        process.wait_for_line("answering probes").await;
        process
    }

    fn traffic(&self, process: &Process) -> Traffic {
        let token = Token::new().claim("exp", crate::support::now() + 3600).sign(&self.signer);
        Traffic::start(process.tls(), &self.authority, &token)
    }
}

/// Memory that a process has in use, in KiB.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn rounds(variable: &str, usual: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[tokio::test]
async fn no_request_is_lost_while_the_configuration_changes() {
    let reloads = rounds("OPERATIONS_RELOADS", 20);
    let stage = Stage::new().await;
    let process = stage.process().await;
    let traffic = stage.traffic(&process);
    traffic.more(BETWEEN).await;
    println!("{} KiB resident before", resident(process.id()));
    for round in 1..=reloads {
        traffic.more(BETWEEN).await;
        stage.change(round);
        process.reload().await;
    }
    traffic.more(BETWEEN).await;
    let good = traffic.stop().await;
    assert_eq!(usize::try_from(process.metric("valgate_config_generation").await), Ok(reloads + 1));
    assert_eq!(process.metric("valgate_config_failures_total").await, 0);
    println!("{reloads} reloads, {good} requests, {} KiB resident at the end", resident(process.id()));
}

#[tokio::test]
async fn no_request_is_lost_while_processes_take_over() {
    let restarts = rounds("OPERATIONS_RESTARTS", 3);
    let stage = Stage::new().await;
    let mut process = stage.process().await;
    let traffic = stage.traffic(&process);
    for round in 1..=restarts {
        traffic.more(BETWEEN).await;
        stage.change(round);
        process.hand_over().await;
        process.wait_for_lines(" stopped", round).await;
    }
    traffic.more(BETWEEN).await;
    let good = traffic.stop().await;
    assert!(process.exit().await.success());
    println!("{restarts} restarts, {good} requests");
}
