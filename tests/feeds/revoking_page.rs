//! docs/revoking.md: what its commands print, as it stands there, but for the times and the places of one machine.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;

use crate::fleet::{REVOKED, yaml};
use crate::support::{Signer, TestGateway, Token, eventually, now, verdict};

const PAGE: &str = include_str!("../../docs/revoking.md");

/// A command of the page, and what the page says that it prints.
struct Shown {
    command: String,
    output: String,
}

/// The commands of the section with this heading.
fn shown(section: &str) -> Vec<Shown> {
    let (_, rest) = PAGE.split_once(&format!("\n## {section}\n")).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let mut all: Vec<Shown> = Vec::new();
    for block in section.split("```console\n").skip(1) {
        let (block, _) = block.split_once("```\n").unwrap();
        for line in block.lines() {
            match line.strip_prefix("$ ") {
                Some(command) => all.push(Shown { command: command.to_owned(), output: String::new() }),
                None if all.last().unwrap().command.ends_with('\\') => {
                    let command = &mut all.last_mut().unwrap().command;
                    command.push('\n');
                    command.push_str(line);
                }
                None => all.last_mut().unwrap().output.extend([line, "\n"]),
            }
        }
    }
    all
}

/// What a shell prints in this directory, where `valgate` is the program under test.
fn printed(command: &str, dir: &Path) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_valgate")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let output = Command::new("sh")
        .args(["-c", command])
        .current_dir(dir)
        .env("PATH", format!("{}:{path}", program.display()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    // curl shows how it gets on where nobody watches.
    let is_quiet = errors.is_empty() || command.starts_with("curl ");
    assert!(output.status.success() && is_quiet, "{command}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Moments, which are others each time, become words.
fn undated(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | ':');
    let mut undated = String::new();
    for piece in text.split_inclusive(|c| !is_part(c)) {
        let word = piece.trim_end_matches(|c| !is_part(c));
        let (colons, word) = word.split_at(word.len() - word.trim_start_matches(':').len());
        let is_time = word.len() == 20 && word.ends_with('Z') && word.as_bytes()[10] == b'T';
        let is_seconds = word.len() == 10 && word.bytes().all(|byte| byte.is_ascii_digit());
        undated.push_str(colons);
        undated.push_str(match (is_time, is_seconds) {
            (true, _) => "TIME",
            (_, true) => "SECONDS",
            _ => word,
        });
        undated.push_str(&piece[colons.len() + word.len()..]);
    }
    undated
}

#[tokio::test]
async fn the_commands_and_the_admin_listener_answer_as_the_page_says() {
    let signer = Signer::es256("k1");
    let dir = Arc::new(TempDir::new().unwrap());
    let place = dir.path().to_str().unwrap().to_owned();
    let issuer = "https://id.example.com/";
    let yaml = yaml(&signer, &format!("file: {{ path: {place}/revoked.json, interval: 100ms }}"))
        .replace(crate::support::ISSUER, issuer);
    let empty = json!({ "version": 1, "kind": "snapshot", "epoch": "first", "entries": [] });
    std::fs::write(dir.path().join("revoked.json"), empty.to_string()).unwrap();
    let complete = format!(
        "version: 1\nlisteners: [{{ address: 127.0.0.1:0, plaintext: true }}]\n\
         upstreams: [{{ name: api, endpoints: [\"http://127.0.0.1:9\"] }}]\n{}",
        yaml.replace("$DIR", &place)
    );
    std::fs::write(dir.path().join("valgate.yaml"), complete).unwrap();
    let token = |sub: &str| {
        let token = Token::new().claim("iss", issuer).claim("jti", "0b6a4c1e").claim("sub", sub);
        token.claim("iat", now() - 60).claim("exp", now() + 3000).sign(&signer)
    };
    std::fs::write(dir.path().join("token.txt"), token("bob")).unwrap();

    let run = async |section: &'static str| {
        let commands = shown(section);
        let here = dir.path().to_owned();
        let running = tokio::task::spawn_blocking(move || {
            for Shown { command, output } in &commands {
                // The page's own times pass; what is over revokes nobody.
                let end = (now() + 3600).to_string();
                let command =
                    command.replace("/run/valgate", here.to_str().unwrap()).replace("1790086400", &end);
                assert_eq!(undated(&printed(&command, &here)), undated(output), "{command}");
            }
            commands.len()
        });
        running.await.unwrap()
    };
    assert_eq!(run("Commands").await, 7);

    let admin = format!("admin: {{ socket: {place}/admin.sock }}\n{yaml}");
    let gateway = TestGateway::start_in(Arc::clone(&dir), &admin).await;
    gateway.wait_until_ready().await;
    let alice =
        Token::new().claim("iss", issuer).claim("sub", "alice").claim("iat", 1_789_999_999).sign(&signer);
    let ask = async || verdict(&gateway.get("/orders/1", &alice, &[]).await);
    assert_eq!(ask().await, "200");
    assert_eq!(run("The admin listener").await, 1);
    eventually("revoked", || async { ask().await == REVOKED }).await;
}

#[test]
fn the_server_of_ones_own_starts_as_the_page_says() {
    let dir = TempDir::new().unwrap();
    let commands = shown("A server of your own: `valgate feed serve`");
    let [token, serve] = commands.as_slice() else { panic!("two commands, not {}", commands.len()) };
    assert_eq!(printed(&token.command, dir.path()), token.output);
    let arguments = serve.command.replace("/var/lib", dir.path().to_str().unwrap());
    // The port of the page is its default, and may be taken where this runs.
    let mut server = Command::new(env!("CARGO_BIN_EXE_valgate"))
        .args(arguments.split(' ').skip(1))
        .args(["--address", "127.0.0.1:0"])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    let (before, after) = serve.output.split_once("8500").unwrap();
    let port = line.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
    assert!(port.is_some_and(|port| port.parse::<u16>().is_ok()), "{line}");
}
