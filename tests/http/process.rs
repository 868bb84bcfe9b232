//! `valgate run` as a process: memory while large bodies pass, the drain on SIGTERM, a port that is taken.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::h2wire::{END_HEADERS, END_STREAM, H2, HEADERS, block, get};
use crate::recorder::{PATIENCE, Recorder};
use crate::setup::{CERTIFICATES, write_certificates, yaml};
use crate::wire::Wire;

/// A gateway in a process of its own; killed when dropped.
pub struct Process {
    child: Child,
    pub plain: SocketAddr,
    tls: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    _dir: tempfile::TempDir,
}

fn command(dir: &tempfile::TempDir, text: &str) -> Command {
    write_certificates(dir.path());
    std::fs::write(dir.path().join("valgate.yaml"), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_valgate"));
    command
        .args(["run", "-c"])
        .arg(dir.path().join("valgate.yaml"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

impl Process {
    /// Starts one in front of this address, with more lines of configuration.
    fn start(upstream: SocketAddr, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = yaml(&format!(
            "upstreams: [{{ name: api, endpoints: ['http://{upstream}'] }}]
routes: [{{ match: {{ path: '/**' }}, public: true, upstream: api }}]
log: {{ format: text }}
{more}"
        ));
        Self::spawn(command(&dir, &text), dir)
    }

    /// Runs this command, which logs to its standard error as text.
    pub fn spawn(mut command: Command, dir: tempfile::TempDir) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&log);
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (found, addresses) = mpsc::channel();
        // Reads to the end, so that the process never waits for its log.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(address) = listening(&line) {
                    let _ = found.send(address);
                }
                kept.lock().unwrap().push(line);
            }
        });
        let next = || addresses.recv_timeout(PATIENCE).expect("no listener in the log");
        let (plain, tls) = (next(), next());
        Self { child, plain, tls, log, _dir: dir }
    }

    /// Whether a line of its log says this.
    pub fn has_said(&self, text: &str) -> bool {
        self.log.lock().unwrap().iter().any(|line| line.contains(text))
    }

    /// Resident memory in KiB: now, and at its peak.
    fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let field = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    fn terminate(&self) {
        let status = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// The exit code, waited for.
    async fn exit(&mut self) -> Option<i32> {
        for _ in 0..PATIENCE.as_millis() / 10 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the process does not end");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address in a line such as `... listening address=127.0.0.1:1234`.
fn listening(line: &str) -> Option<SocketAddr> {
    let at = line.find("listening")?;
    let digits = &line[line[at..].find("127.0.0.1:")? + at..];
    let end = digits.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').unwrap_or(digits.len());
    digits[..end].parse().ok()
}

const MIB: usize = 1024 * 1024;

/// A backend that counts what it gets and sends as much back, without keeping any of it.
async fn bulk_backend(size: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = vec![0; 256 * 1024];
                let mut head = Vec::new();
                let begun = loop {
                    let count = stream.read(&mut buffer).await.unwrap();
                    assert!(count > 0);
                    head.extend_from_slice(&buffer[..count]);
                    if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
                        break head.len() - end - 4;
                    }
                };
                let mut received = begun;
                while received < size {
                    received += stream.read(&mut buffer).await.unwrap();
                }
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
                let mut left = size;
                while left > 0 {
                    let count = left.min(buffer.len());
                    stream.write_all(&buffer[..count]).await.unwrap();
                    left -= count;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_hundred_mebibytes_each_way_pass_with_flat_memory() {
    let size = 100 * MIB;
    let process = Process::start(bulk_backend(size).await, "");
    // Once small, so that everything that is made on first use is there.
    drop(Wire::plain(process.plain).await);
    let (before, _) = process.memory();
    let mut stream = TcpStream::connect(process.plain).await.unwrap();
    let head =
        format!("POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let send = async {
        let chunk = vec![b'x'; MIB];
        for _ in 0..size / MIB {
            writing.write_all(&chunk).await.unwrap();
        }
    };
    let receive = async {
        let mut buffer = vec![0; MIB];
        let mut total = 0;
        loop {
            match reading.read(&mut buffer).await.unwrap() {
                0 => return total,
                count => total += count,
            }
        }
    };
    let ((), received) = tokio::join!(send, receive);
    assert!(received > size, "{received} bytes came back");
    let (_, peak) = process.memory();
    assert!(peak < before + 32 * 1024, "from {before} KiB to {peak} KiB");
}

/// Each holds some 23 KiB while it is used, most of it buffers. Those that come after it has gone to rest get them, since
/// what is free is kept for a while.
#[tokio::test]
async fn connections_on_which_nothing_is_asked_hold_no_buffers() {
    let recorder = Recorder::start().await;
    let process = Process::start(recorder.address(), "");
    let (rounds, each) = (5, 100);
    let mut held = Vec::new();
    let open = async |held: &mut Vec<Wire>| {
        let mut wire = Wire::tls(process.tls, &CERTIFICATES.ca, "localhost", b"http/1.1").await;
        wire.send("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(wire.answer().await.unwrap().status, 200);
        held.push(wire);
    };
    // The first, so that everything that is made on first use is there.
    open(&mut held).await;
    let (before, _) = process.memory();
    for _ in 0..rounds {
        for _ in 0..each {
            open(&mut held).await;
        }
        tokio::time::sleep(Duration::from_millis(1600)).await;
    }
    let (after, _) = process.memory();
    let each = after.saturating_sub(before) / (rounds * each);
    assert!(each < 18, "{each} KiB for each connection");
}

/// In flight completes, idle connections end, new ones are refused, the exit code is 0.
#[tokio::test]
async fn sigterm_lets_what_is_in_flight_complete_and_takes_nothing_new() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let recorder = Recorder::scripted(move |mut conn| {
        let mut gate = gate.clone();
        async move {
            conn.request().await;
            gate.wait_for(|open| *open).await.unwrap();
            conn.send(crate::recorder::OK).await;
        }
    })
    .await;
    let mut process = Process::start(recorder.address(), "");
    let mut wire = Wire::plain(process.plain).await;
    wire.send("GET /h1 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut h2 = H2::tls(process.tls).await;
    h2.send(HEADERS, END_HEADERS | END_STREAM, 1, &block(&get("/h2"))).await;
    let mut unused = Wire::plain(process.plain).await;
    let mut unfinished = Wire::plain(process.tls).await;
    unfinished.send([0x16, 3]).await;
    recorder.wait_for("the first", |request| request.target() == "/h1").await;
    recorder.wait_for("the second", |request| request.target() == "/h2").await;

    process.terminate();
    unused.assert_ends().await;
    unfinished.assert_ends().await;
    for _ in 0..1000 {
        if TcpStream::connect(process.plain).await.is_err() && TcpStream::connect(process.tls).await.is_err()
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(TcpStream::connect(process.plain).await.is_err(), "new connections are still taken");
    assert_eq!(process.child.try_wait().unwrap(), None, "it did not wait for what is in flight");

    go.send_replace(true);
    let answer = wire.answer().await.unwrap();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    wire.assert_ends().await;
    assert_eq!(h2.outcome(1).await.answer().status, 200);
    while h2.step().await.is_some() {}
    assert_eq!(h2.goaway.expect("no GOAWAY").0, 0);
    assert_eq!(process.exit().await, Some(0));
}

/// What is asked of one while the drain waits is answered, and is its last; the others end when it has waited enough.
#[tokio::test]
async fn connections_at_rest_are_drained_like_others() {
    let recorder = Recorder::start().await;
    let mut process = Process::start(recorder.address(), "timeouts: { drain_idle: 3s }\n");
    let get = "GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut wires = Vec::new();
    for _ in 0..2 {
        wires.push(Wire::plain(process.plain).await);
        wires.push(Wire::tls(process.tls, &CERTIFICATES.ca, "localhost", b"http/1.1").await);
    }
    for wire in &mut wires {
        wire.send(get).await;
        assert_eq!(wire.answer().await.unwrap().status, 200);
    }
    tokio::time::sleep(Duration::from_millis(1600)).await;
    process.terminate();
    for _ in 0..1000 {
        if TcpStream::connect(process.plain).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for wire in &mut wires[..2] {
        wire.send(get).await;
        let answer = wire.answer().await.unwrap();
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    }
    for wire in &mut wires {
        wire.assert_ends().await;
    }
    assert_eq!(process.exit().await, Some(0));
}

#[tokio::test]
async fn the_drain_ends_at_its_deadline() {
    let recorder = Recorder::scripted(|mut conn| async move {
        conn.request().await;
        conn.until_closed().await;
    })
    .await;
    let mut process = Process::start(recorder.address(), "timeouts: { drain: 300ms }\n");
    let mut wire = Wire::plain(process.plain).await;
    wire.send("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    recorder.wait_for("the request", |_| true).await;
    process.terminate();
    assert_eq!(process.exit().await, Some(0));
    assert!(wire.answer().await.is_none_or(|answer| answer.status == 503));
}

#[tokio::test]
async fn a_port_in_use_is_told_at_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "version: 1
listeners: [{{ address: '{address}', plaintext: true }}]
upstreams: [{{ name: api, endpoints: ['http://127.0.0.1:1'] }}]
routes: [{{ match: {{ path: '/**' }}, public: true, upstream: api }}]
"
    );
    let output = command(&dir, &text).output().unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains(&address.to_string()) && message.contains("in use"), "{message}");
}
