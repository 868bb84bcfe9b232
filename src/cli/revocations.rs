//! `valgate revocations`: what an engine has in force, shown, looked up, exported, and taken back.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Subcommand;
use jiff::Timestamp;
use tokio::runtime;

use super::selection::{Chosen, Place, What};
use super::{NO, fail, pages};
use crate::clock::{Clock, UnixSeconds};
use crate::feeds::revocation::revocation_line;
use crate::revocation::{Fact, Revocation, RevocationEngine, Target};

/// The command line of `valgate revocations`.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List what is revoked, in words
    #[command(after_help = pages::REVOCATIONS_LIST)]
    List(Place),
    /// Print what is revoked as JSON, one entry a line, as docs/revocation-feed.md has it
    #[command(after_help = pages::REVOCATIONS_EXPORT)]
    Export(Place),
    /// Say whether something is revoked, by what, and why
    #[command(after_help = pages::REVOCATIONS_LOOKUP)]
    Lookup(Lookup),
    /// Take back every revocation of something
    #[command(after_help = pages::REVOCATIONS_LIFT)]
    Lift(Lookup),
}

#[derive(Debug, clap::Args)]
struct Lookup {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    what: What,
    /// Of this issuer; without it, what is revoked for every issuer
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
}

/// Runs the command.
pub fn run(options: &Options) -> ExitCode {
    match perform(&options.command, &mut io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NO),
        Err(error) => fail(&error),
    }
}

/// Does it; says no if there is nothing of the kind.
fn perform(command: &Command, out: &mut dyn Write) -> Result<bool> {
    let clock = Clock::system();
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    match command {
        Command::List(place) => {
            let engine = place.engine(&clock, false)?;
            runtime.block_on(each(&engine, &mut |revocation| writeln!(out, "{}", describe(revocation))))?;
        }
        Command::Export(place) => {
            let engine = place.engine(&clock, false)?;
            runtime.block_on(each(&engine, &mut |revocation| {
                writeln!(out, "{}", revocation_line(revocation))
            }))?;
        }
        Command::Lookup(lookup) => {
            let Chosen { feed, engine, .. } = lookup.place.engine(&clock, false)?;
            let known = runtime.block_on(look_up(&*engine, &lookup.fact()?))?;
            if known.is_empty() {
                writeln!(out, "not revoked by the feed {}", feed.name)?;
                return Ok(false);
            }
            for revocation in &known {
                writeln!(out, "{}", describe(revocation))?;
            }
        }
        Command::Lift(lookup) => {
            let Chosen { feed, engine, .. } = lookup.place.engine(&clock, true)?;
            let lifted = runtime.block_on(engine.lift(&[lookup.fact()?]))?;
            writeln!(out, "lifted, by the feed {}: {lifted}", feed.name)?;
            return Ok(lifted > 0);
        }
    }
    Ok(true)
}

impl Lookup {
    fn fact(&self) -> Result<Fact> {
        Ok(self.what.select(self.issuer.as_deref())?.fact)
    }
}

/// Those of the fact itself, and those of the same target for every issuer.
async fn look_up(engine: &dyn RevocationEngine, fact: &Fact) -> Result<Vec<Revocation>> {
    let mut known = engine.look_up(fact).await?;
    if fact.issuer.is_some() {
        known.extend(engine.look_up(&Fact { issuer: None, ..fact.clone() }).await?);
    }
    Ok(known)
}

async fn each(chosen: &Chosen, see: &mut dyn FnMut(&Revocation) -> io::Result<()>) -> Result<()> {
    let mut after = None;
    let mut broken = 0;
    loop {
        let page = chosen.engine.list(after.as_deref()).await?;
        page.revocations.iter().try_for_each(&mut *see)?;
        broken += page.broken;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if broken > 0 {
        let _ = writeln!(
            io::stderr(),
            "valgate: {broken} entries cannot be read, and are in force at no gateway"
        );
    }
    Ok(())
}

/// One revocation in one line of words.
pub(super) fn describe(revocation: &Revocation) -> String {
    let Revocation { entry, reason, revoked_at } = revocation;
    let mut text = match &entry.target {
        Target::Jti(value) => format!("the token with jti {}", quoted(value)),
        Target::Sid(value) => format!("all tokens of the session {}", quoted(value)),
        Target::Sub(value) => format!("all tokens of the subject {}", quoted(value)),
        Target::Client(value) => format!("all tokens of the client {}", quoted(value)),
        Target::Kid(value) => format!("all tokens signed by the key {}", quoted(value)),
        Target::Issuer => "all tokens".to_owned(),
    };
    // Writing to a string cannot fail.
    if let Some(issuer) = &entry.issuer {
        let _ = write!(text, " of {}", quoted(issuer));
    }
    if let Some(before) = entry.before {
        let _ = write!(text, ", issued before {}", in_words(before));
    }
    match entry.expires {
        Some(expires) => drop(write!(text, ", until {}", in_words(expires))),
        None => text.push_str(", until it is lifted"),
    }
    if let Some(at) = revoked_at {
        let _ = write!(text, "; revoked {}", in_words(*at));
    }
    if let Some(reason) = reason {
        let _ = write!(text, "; reason: {}", quoted(reason));
    }
    text
}

/// Values come from strangers: nothing in them may move a terminal's cursor.
fn quoted(value: &str) -> String {
    format!("{value:?}")
}

/// A time as people write it.
pub(super) fn in_words(UnixSeconds(seconds): UnixSeconds) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revocation::Entry;

    #[test]
    fn a_revocation_reads_as_a_sentence_that_no_value_can_break_out_of() {
        let entry = Entry {
            target: Target::Sub("eve\u{1b}[2J\n".to_owned()),
            issuer: Some("https://id.example.com/".to_owned()),
            before: Some(UnixSeconds(1_790_000_000)),
            expires: Some(UnixSeconds(1_790_086_400)),
        };
        let revocation = Revocation { entry, reason: Some("left".to_owned()), revoked_at: None };
        assert_eq!(
            describe(&revocation),
            "all tokens of the subject \"eve\\u{1b}[2J\\n\" of \"https://id.example.com/\", issued before \
             2026-09-21T14:13:20Z, until 2026-09-22T14:13:20Z; reason: \"left\""
        );
    }
}
