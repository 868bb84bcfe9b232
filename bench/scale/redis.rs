//! The same question to a Valkey for each request: one key looked up over loopback, on a connection that stays open.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::say;

const QUESTIONS: usize = 200_000;

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts")]
pub fn measure(entries: usize, program: &Path) -> Result<()> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let arguments = ["--bind", "127.0.0.1", "--save", "", "--enable-debug-command", "local", "--port"];
    let mut command = Command::new(program);
    command.args(arguments).arg(port.to_string()).stdout(Stdio::null());
    let _server = Server(command.spawn().context("the server cannot be started")?);
    let mut wire = connect(port)?;
    let before = memory(&mut wire)?;
    wire.ask(&format!("DEBUG POPULATE {entries} revoked 1"))?;
    say("get_memory", (memory(&mut wire)? - before) / entries as f64);
    let mut took = Vec::with_capacity(QUESTIONS);
    for number in 0..QUESTIONS {
        // Half of them are there.
        let key = number * 7919 % (2 * entries);
        let question = format!("GET revoked:{key}\r\n");
        let begin = Instant::now();
        wire.ask_raw(&question)?;
        took.push(begin.elapsed().as_nanos());
    }
    took.sort_unstable();
    let at = |place: usize| took.get(place).copied().unwrap_or_default() as f64;
    say("get_p50", at(QUESTIONS / 2));
    say("get_p99", at(QUESTIONS * 99 / 100));
    Ok(())
}

fn memory(wire: &mut Wire) -> Result<f64> {
    let info = wire.ask("INFO memory")?;
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    Ok(used.context("a server says what it uses")?.trim().parse()?)
}

fn connect(port: u16) -> Result<Wire> {
    for _ in 0..500 {
        if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
            stream.set_nodelay(true)?;
            return Ok(Wire(BufReader::new(stream)));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    anyhow::bail!("the server does not listen")
}

struct Wire(BufReader<TcpStream>);

impl Wire {
    fn ask(&mut self, question: &str) -> Result<String> {
        self.ask_raw(&format!("{question}\r\n"))
    }

    fn ask_raw(&mut self, question: &str) -> Result<String> {
        self.0.get_mut().write_all(question.as_bytes())?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let Some(length) = line.strip_prefix('$') else { return Ok(line) };
        let Ok(length) = length.trim().parse::<usize>() else { return Ok(String::new()) };
        let mut text = vec![0; length + 2];
        std::io::Read::read_exact(&mut self.0, &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
