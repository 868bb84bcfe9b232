//! What revocation costs at ten million entries, beside its targets (bench/README.md):
//!
//!   bench/scale/run [--entries N]
//!
//! Each phase is a process of its own, so that memory is measured from zero. Figures are taken inside the process that
//! has the index, by the library that the gateway is made of, with the gateway's allocator.

#![allow(clippy::print_stdout, reason = "figures go there")]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

mod feed;
mod memory;
mod probe;
mod redis;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};
use valgate::clock::UnixSeconds;
use valgate::revocation::{Change, Entry, FactHasher, FactKeys, Target, TokenFacts};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Options {
    /// How many entries the index has
    #[arg(long, default_value_t = 10_000_000)]
    entries: usize,
    /// A valkey-server or redis-server to compare with
    #[arg(long)]
    valkey: Option<PathBuf>,
    /// Only this; by default everything, and a table
    #[arg(long)]
    phase: Option<Phase>,
    /// Where the copy of the feed is kept
    #[arg(long, hide = true)]
    state_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Phase {
    /// Loads from a feed, then takes over another snapshot of which half is different
    Feed,
    /// Loads the copy that the phase before has kept
    Disk,
    /// Checks tokens while 1,000 changes a second arrive
    Check,
    /// Asks a Valkey instead
    Redis,
}

/// A figure, how it is said, and what it must not exceed.
struct Row {
    name: &'static str,
    figure: &'static str,
    unit: &'static str,
    target: Option<f64>,
}

const ROWS: [Row; 17] = [
    row("memory for each entry, at rest", "rest", "B", Some(64.0)),
    row("memory for each entry, while a snapshot is exchanged", "swap", "B", Some(128.0)),
    row("loading from a feed, checks going on", "load_feed", "s", Some(30.0)),
    row("loading from disk", "load_disk", "s", Some(30.0)),
    row("memory for each entry, while loading from disk", "load_disk_memory", "B", Some(128.0)),
    row("exchanging a snapshot, from request to force", "resync", "s", None),
    row("longest pause of a checking thread at the exchange", "swap_pause", "ms", Some(5.0)),
    row("the same with what others took of its core", "swap_gap", "ms", None),
    row("check of all facts of a token, p50, 1,000 changes/s", "check_p50", "ns", None),
    row("check of all facts of a token, p99, 1,000 changes/s", "check_p99", "ns", Some(1000.0)),
    row("check of all facts of a token, p99.9, 1,000 changes/s", "check_p999", "ns", None),
    row("of which reading the clock twice", "clock", "ns", None),
    row("changes applied meanwhile", "changes", "/s", None),
    row("applying a change, p99", "apply_p99", "us", None),
    row("GET at a Valkey over loopback, p50", "get_p50", "ns", None),
    row("GET at a Valkey over loopback, p99", "get_p99", "ns", None),
    row("Valkey's memory for each entry", "get_memory", "B", None),
];

const fn row(name: &'static str, figure: &'static str, unit: &'static str, target: Option<f64>) -> Row {
    Row { name, figure, unit, target }
}

/// Whose tokens are revoked.
pub const ISSUER: &str = "https://id.example.com/";
/// Its leeway.
pub const LEEWAY: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    let options = Options::parse();
    match options.phase {
        None => everything(&options),
        Some(Phase::Feed) => feed::from_feed(options.entries, &state_dir(&options)?),
        Some(Phase::Disk) => feed::from_disk(options.entries, &state_dir(&options)?),
        Some(Phase::Check) => probe::while_changing(options.entries),
        Some(Phase::Redis) => {
            redis::measure(options.entries, &options.valkey.context("--valkey says what to compare with")?)
        }
    }
}

fn state_dir(options: &Options) -> Result<PathBuf> {
    options.state_dir.clone().context("--state-dir is needed")
}

fn everything(options: &Options) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut figures = Vec::new();
    let phases = [Phase::Feed, Phase::Disk, Phase::Check, Phase::Redis];
    for phase in phases.into_iter().filter(|phase| options.valkey.is_some() || !matches!(phase, Phase::Redis))
    {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--phase", phase.to_possible_value().context("a phase has a name")?.get_name()]);
        command.args(["--entries", &options.entries.to_string()]).arg("--state-dir").arg(dir.path());
        command
            .args(options.valkey.iter().flat_map(|path| ["--valkey".into(), path.clone().into_os_string()]));
        let output = command.stderr(std::process::Stdio::inherit()).output()?;
        ensure!(output.status.success(), "the phase {phase:?} failed");
        for line in String::from_utf8(output.stdout)?.lines() {
            let (name, value) = line.split_once(' ').context("a figure has a name")?;
            figures.push((name.to_owned(), value.parse::<f64>()?));
        }
    }
    print!("{}", table(options.entries, &figures)?);
    let is_missed =
        |row: &&Row| row.target.zip(value(&figures, row)).is_some_and(|(target, value)| value > target);
    let missed = ROWS.iter().filter(is_missed).count();
    ensure!(missed == 0, "{missed} targets are missed");
    Ok(())
}

fn table(entries: usize, figures: &[(String, f64)]) -> Result<String> {
    let mut text = format!("| {entries} entries | measured | target | |\n|---|---:|---:|---|\n");
    for row in &ROWS {
        let Some(value) = value(figures, row) else { continue };
        let digits = usize::from(value < 100.0);
        let target = row.target.map_or(String::new(), |target| format!("{target} {}", row.unit));
        let met = row.target.map_or("", |target| if value <= target { "met" } else { "MISSED" });
        writeln!(text, "| {} | {value:.digits$} {} | {target} | {met} |", row.name, row.unit)?;
    }
    Ok(text)
}

fn value(figures: &[(String, f64)], row: &Row) -> Option<f64> {
    figures.iter().find(|(name, _)| name == row.figure).map(|(_, value)| *value)
}

/// Says a figure to whoever makes the table.
pub fn say(figure: &str, value: f64) {
    println!("{figure} {value}");
}

/// The id of the nth revoked token.
pub fn id(number: usize) -> String {
    format!("{:032x}", (number as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

/// One in ten is a session, one in ten a subject, the rest are token ids.
pub fn change(number: usize, end: UnixSeconds) -> Change {
    let target = match number % 10 {
        0 => Target::Sid(id(number)),
        1 => Target::Sub(id(number)),
        _ => Target::Jti(id(number)),
    };
    Change::Revoke(Entry { target, issuer: None, before: None, expires: Some(end) })
}

/// Tokens with all the facts that one can have, none of them revoked: those have to be looked for everywhere.
pub fn tokens(hasher: &FactHasher) -> Vec<FactKeys> {
    let token = |number: usize| {
        let value = |kind: &str| format!("{kind}-{number}");
        let (jti, sid, sub, client, kid) =
            (value("jti"), value("sid"), value("sub"), value("client"), value("kid"));
        hasher.keys(&TokenFacts {
            issuer: ISSUER,
            jti: Some(&jti),
            sid: Some(&sid),
            sub: Some(&sub),
            client: Some(&client),
            kid: Some(&kid),
            iat: None,
        })
    };
    (0..100_000).map(token).collect()
}
