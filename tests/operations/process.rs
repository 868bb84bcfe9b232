//! `valgate run` as a process with a directory of its own, its log, and signals.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::{PATIENCE, get, write_certificates};

/// A gateway in a process, or in the one that took over from it; killed when dropped.
pub struct Process {
    pub dir: Arc<TempDir>,
    pub child: Child,
    log: Arc<Mutex<Vec<String>>>,
    successor: Option<u32>,
}

/// Two listeners, one with TLS, and probes; the rest as the test says.
pub fn yaml(rest: &str) -> String {
    format!(
        "version: 1
workers: 2
access_log: off
log: {{ format: text }}
state_dir: state
health: {{ address: '127.0.0.1:0', metrics: true }}
reload: {{ interval: 100ms }}
listeners:
  - {{ address: '127.0.0.1:0', plaintext: true }}
  - {{ address: '127.0.0.1:0', tls: {{ certificates: [{{ certificate: tls.crt, private_key: tls.key }}] }} }}
{rest}"
    )
}

/// Public routes for these paths, in front of this backend.
pub fn routes(api: SocketAddr, paths: &[&str]) -> String {
    let route = |path: &&str| format!("  - {{ match: {{ path: {path} }}, public: true, upstream: api }}\n");
    let routes: String = paths.iter().map(route).collect();
    format!("upstreams: [{{ name: api, endpoints: ['http://{api}'] }}]\nroutes:\n{routes}")
}

impl Process {
    /// Starts one on this configuration and waits until it serves.
    pub async fn start(text: &str) -> Self {
        let dir = Arc::new(TempDir::new().unwrap());
        write_certificates(dir.path());
        std::fs::write(dir.path().join("valgate.yaml"), text).unwrap();
        let process = Self::spawn(dir, |_| {});
        process.wait_for_line("answering probes").await;
        process
    }

    /// Starts one in this directory, with changes to the command, and does not wait.
    pub fn spawn(dir: Arc<TempDir>, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_valgate"));
        command.args(["run", "-c"]).arg(dir.path().join("valgate.yaml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let log = Arc::<Mutex<Vec<String>>>::default();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let written = Arc::clone(&log);
        // Reads to the end, which is that of the last process that has the pipe.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                written.lock().unwrap().push(line);
            }
        });
        Self { dir, child, log, successor: None }
    }

    /// A file in its directory, replaced as a whole.
    pub fn write(&self, file: &str, text: &str) {
        write(self.dir.path(), file, text);
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// How often a line with this text was logged.
    pub fn lines(&self, text: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|line| line.contains(text)).count()
    }

    pub async fn wait_for_line(&self, text: &str) {
        self.wait_for_lines(text, 1).await;
    }

    /// Waits until a line with this text was logged so often.
    pub async fn wait_for_lines(&self, text: &str, count: usize) {
        // A process starts meanwhile, perhaps among many.
        let deadline = PATIENCE.as_millis() / 10 * 3;
        for _ in 0..deadline {
            if self.lines(text) >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no {count} lines with {text:?} in:\n{}", self.log());
    }

    /// The address in the first line with this text.
    pub fn address(&self, text: &str, place: usize) -> SocketAddr {
        let log = self.log();
        let line = log.lines().filter(|line| line.contains(text)).nth(place).unwrap();
        let digits = &line[line.find("127.0.0.1:").unwrap()..];
        let end = digits.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').unwrap_or(digits.len());
        digits[..end].parse().unwrap()
    }

    pub fn plain(&self) -> SocketAddr {
        self.address(" listening", 0)
    }

    pub fn tls(&self) -> SocketAddr {
        self.address(" listening", 1)
    }

    pub fn health(&self) -> SocketAddr {
        self.address("answering probes", 0)
    }

    /// The process that serves now.
    pub fn id(&self) -> u32 {
        self.successor.unwrap_or(self.child.id())
    }

    /// Sends a signal to the process that serves now.
    pub fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// A reload by SIGHUP, which must succeed.
    pub async fn reload(&self) {
        let before = self.lines("a new configuration is in force");
        self.signal("HUP");
        self.wait_for_lines("a new configuration is in force", before + 1).await;
    }

    /// Has a new process take over, and waits until it has.
    pub async fn hand_over(&mut self) {
        let before = self.lines("another process serves from now on");
        self.signal("USR2");
        self.wait_for_lines("another process serves from now on", before + 1).await;
        let log = self.log();
        let line = log.lines().rfind(|line| line.contains("another process serves from now on")).unwrap();
        let id = line.split("successor=").nth(1).unwrap();
        self.successor = Some(id.split_whitespace().next().unwrap().parse().unwrap());
    }

    /// The whole part of a metric's value.
    pub async fn metric(&self, series: &str) -> u64 {
        let page = get(self.health(), "/metrics", &[]).await.text();
        let value = |line: &str| {
            line.strip_prefix(series)?
                .trim_start_matches("{}")
                .strip_prefix(' ')?
                .trim()
                .split('.')
                .next()?
                .parse()
                .ok()
        };
        page.lines().find_map(value).unwrap_or_default()
    }

    /// How the first process ended, waited for.
    pub async fn exit(&mut self) -> ExitStatus {
        for _ in 0..PATIENCE.as_millis() / 10 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the process does not end:\n{}", self.log());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(successor) = self.successor {
            signal(successor, "KILL");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Puts a file in the place of another.
pub fn write(dir: &Path, file: &str, text: &str) {
    std::fs::write(dir.join("written"), text).unwrap();
    std::fs::rename(dir.join("written"), dir.join(file)).unwrap();
}

fn signal(process: u32, name: &str) {
    // It may have ended.
    let _ =
        Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).stderr(Stdio::null()).status();
}
