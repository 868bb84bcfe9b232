//! `valgate token`: what a token says, and what the gateway would say to it.

mod input;
mod inspect;
mod verify;

use std::process::ExitCode;

use clap::Subcommand;

use super::pages;
use crate::clock::UnixSeconds;

/// The commands on tokens. A token is never an argument: `ps` and the shell's history would keep it.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what a token says, without trusting it and without a network
    #[command(after_help = pages::TOKEN_INSPECT)]
    Inspect(inspect::Options),
    /// Say whether the gateway would accept a token, check by check, and why not
    #[command(after_help = pages::TOKEN_VERIFY)]
    Verify(verify::Options),
}

/// Runs the command.
pub fn run(command: &Command) -> ExitCode {
    match command {
        Command::Inspect(options) => inspect::run(options),
        Command::Verify(options) => verify::run(options),
    }
}

/// A time on the command line.
fn time(text: &str) -> Result<UnixSeconds, String> {
    let at: jiff::Timestamp = text.parse().map_err(|_| "write it as 2026-01-31T12:00:00Z".to_owned())?;
    Ok(UnixSeconds(at.as_second()))
}

/// The exit code for a token that is refused, or is none.
const REFUSED: u8 = 3;
