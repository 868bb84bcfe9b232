//! The command line: one file for each command.

mod audit;
pub mod check;
mod demo;
mod explain;
mod feed;
mod inject;
mod live;
pub mod manual;
mod pages;
mod revocations;
mod revoke;
mod run;
pub mod schema;
mod selection;
mod shadow_report;
mod style;
mod test;
mod token;
mod webhook;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Diagnostics;

/// valgate: a reverse-proxy authentication gateway
#[derive(Debug, Parser)]
#[command(name = "valgate", version, about, long_about = LONG_ABOUT, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const LONG_ABOUT: &str = "valgate stands in front of an HTTP API, checks the bearer token of every request against \
    its issuer's keys and a revocation feed, forwards what is authorized, and refuses the rest with a documented \
    code before the API sees a byte of it.";

const AFTER_HELP: &str = "Exit codes: 0 success; 1 failure, told on standard error; 2 wrong usage or a \
    configuration with mistakes; 3 done, and the answer is no (audit, test, token, shadow-report, revocations).\n\n\
    Start with 'valgate demo'.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    #[command(after_help = pages::RUN)]
    Run(run::Options),
    /// Say everything that is wrong with a configuration, without starting anything
    #[command(after_help = pages::CHECK)]
    Check {
        /// Configuration file
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Say what a configuration allows that the best current practice advises against
    #[command(after_help = pages::AUDIT)]
    Audit(audit::Options),
    /// Explain an error code: its causes, who must act, and how to fix them
    #[command(after_help = pages::EXPLAIN)]
    Explain(explain::Options),
    /// Run cases of requests and tokens against a configuration
    #[command(after_help = pages::TEST)]
    Test(test::Options),
    /// Say whom the routes in shadow mode would have refused
    #[command(after_help = pages::SHADOW_REPORT)]
    ShadowReport(shadow_report::Options),
    /// Show what a token says, or why it is accepted or refused
    #[command(subcommand)]
    Token(token::Command),
    /// Print the JSON Schema of the configuration
    #[command(after_help = pages::SCHEMA)]
    Schema,
    /// Revoke a token, a session, or all tokens of a subject, client, key or issuer
    #[command(after_help = pages::REVOKE)]
    Revoke(revoke::Options),
    /// List, look up, export and lift revocations
    Revocations(revocations::Options),
    /// Serve a revocation feed to gateways
    Feed(feed::Options),
    /// Put the gateway as a sidecar into Kubernetes manifests
    #[command(after_help = pages::INJECT)]
    Inject(inject::Options),
    /// Serve an admission webhook that puts the gateway into pods as they are made
    #[command(after_help = pages::WEBHOOK)]
    Webhook(webhook::Options),
    /// Run the gateway with a development issuer and a sample API, to try it out
    #[command(after_help = pages::DEMO)]
    Demo(crate::demo::Options),
    /// Print completions for a shell
    #[command(after_help = pages::COMPLETIONS)]
    Completions(manual::Completions),
    /// Write the manual pages
    #[command(after_help = pages::MAN)]
    Man(manual::Man),
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run(options) => run::run(&options),
        Command::Check { config } => {
            let outcome = check::check(&config, &mut io::stdout().lock());
            match outcome {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::from(WRONG),
                Err(error) => fail(&error.into()),
            }
        }
        Command::Audit(options) => audit::run(&options),
        Command::Explain(options) => explain::explain(&options, &mut io::stdout().lock()),
        Command::Test(options) => test::run(&options),
        Command::Token(command) => token::run(&command),
        Command::ShadowReport(options) => shadow_report::run(&options),
        Command::Schema => schema::schema(&mut io::stdout().lock())
            .map_or_else(|error| fail(&error.into()), |()| ExitCode::SUCCESS),
        Command::Revoke(options) => revoke::run(&options),
        Command::Revocations(options) => revocations::run(&options),
        Command::Feed(options) => feed::run(&options),
        Command::Inject(options) => inject::run(options, &mut io::stdout().lock(), &mut io::stderr().lock())
            .map_or_else(|error| fail(&error), |()| ExitCode::SUCCESS),
        Command::Webhook(options) => {
            webhook::run(&options).map_or_else(|error| fail(&error), |()| ExitCode::SUCCESS)
        }
        Command::Demo(options) => demo::run(&options),
        Command::Completions(options) => manual::completions(&options),
        Command::Man(options) => manual::man(&options),
    }
}

/// The exit code for wrong usage and wrong configuration, as clap has it.
const WRONG: u8 = 2;

/// The exit code of a command that was done, and whose answer is no.
const NO: u8 = 3;

/// Tells what went wrong, if only that the configuration has mistakes.
fn fail(error: &anyhow::Error) -> ExitCode {
    // Nothing is left to be done if standard error is gone.
    if let Some(mistakes) = error.downcast_ref::<Diagnostics>() {
        let _ = writeln!(io::stderr(), "{mistakes}");
        return ExitCode::from(WRONG);
    }
    let _ = writeln!(io::stderr(), "valgate: {error:#}");
    ExitCode::FAILURE
}
