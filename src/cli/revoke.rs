//! `valgate revoke`: writes a revocation to the engine of a feed, from where all gateways hear of it.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use tokio::runtime;

use super::fail;
use super::revocations::{describe, in_words};
use super::selection::{Chosen, Place, What, time};
use crate::clock::Clock;
use crate::revocation::{Entry, Revocation, Target};

/// The command line of `valgate revoke`.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    what: What,
    /// Only tokens of this issuer (as in their claim iss); else of every issuer that the feed revokes
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// Only tokens issued before this: now, 1h (ago), 2026-11-23T05:00:00Z, or seconds since 1970
    #[arg(long, value_name = "TIME")]
    issued_before: Option<String>,
    /// When the revocation may be forgotten, which is when the last token concerned has expired: 24h (from now), a
    /// time, or never. A token says so itself
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// Why, for those who look it up later
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Say what would be revoked, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// Revokes.
pub fn run(options: &Options) -> ExitCode {
    match revoke(options, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn revoke(options: &Options, out: &mut dyn Write) -> Result<()> {
    let clock = Clock::system();
    let revocation = options.revocation(&clock)?;
    let Chosen { feed, issuers, engine } = options.place.engine(&clock, !options.dry_run)?;
    if let Some(issuer) = &revocation.entry.issuer {
        ensure!(
            issuers.contains(issuer),
            "the feed {} does not revoke tokens of {issuer}; it revokes those of: {}",
            feed.name,
            issuers.join(", ")
        );
    }
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    let fact = revocation.entry.fact();
    let verb = if options.dry_run { "would revoke" } else { "revoked" };
    if !options.dry_run {
        runtime.block_on(engine.revoke(std::slice::from_ref(&revocation)))?;
    }
    writeln!(out, "{verb}, by the feed {}: {}", feed.name, describe(&revocation))?;
    if revocation.entry.issuer.is_none() {
        writeln!(out, "  of the issuers: {}", issuers.join(", "))?;
    }
    if options.dry_run {
        let known = runtime.block_on(engine.look_up(&fact))?;
        match known.len() {
            0 => writeln!(out, "  nothing of this is revoked yet")?,
            count => {
                writeln!(out, "  beside {count} that {} in force:", if count == 1 { "is" } else { "are" })?;
                for revocation in &known {
                    writeln!(out, "    {}", describe(revocation))?;
                }
            }
        }
        writeln!(out, "  nothing was written")?;
    }
    Ok(())
}

impl Options {
    fn revocation(&self, clock: &Clock) -> Result<Revocation> {
        let now = clock.wall();
        let selected = self.what.select(self.issuer.as_deref())?;
        let before = self.issued_before.as_deref().map(|text| time(text, now, false)).transpose()?;
        let expires = match (self.expires.as_deref(), selected.token_expires) {
            (Some("never"), _) => None,
            (Some(text), _) => Some(time(text, now, true)?),
            (None, Some(expires)) => Some(expires),
            (None, None) => bail!(
                "say with --expires when the revocation may be forgotten: the longest lifetime of the tokens \
                 concerned, such as 24h, or never"
            ),
        };
        if let Some(expires) = expires {
            ensure!(expires > now, "there is nothing to revoke any more: it ended {}", in_words(expires));
        }
        if let (Target::Jti(_), Some(_)) = (&selected.fact.target, before) {
            bail!("a single token is revoked whenever it was issued: leave --issued-before out");
        }
        let entry = Entry { target: selected.fact.target, issuer: selected.fact.issuer, before, expires };
        Ok(Revocation { entry, reason: self.reason.clone(), revoked_at: Some(now) })
    }
}
