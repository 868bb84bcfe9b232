//! `valgate test`: cases of tokens and requests, held against a configuration, for the pipelines of those who write it.
//!
//! The verdicts are those of the checks that serve requests. What is not the configuration's is stood in for: the
//! issuers' keys by keys that are made for the run, the feeds by the revocations that the cases list.

mod cases;
mod junit;
mod stand_in;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use tokio::runtime;

use super::style::Style;
use super::{WRONG, fail};
use crate::config::{self, Config};
use crate::gateway::{Explanation, Outcome};
use cases::{Case, Cases, Expected};
use stand_in::Bench;

/// The exit code for a case that came out differently.
const DIFFERENT: u8 = 3;

/// The command line of `valgate test`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// File of cases
    #[arg(value_name = "CASES")]
    cases: PathBuf,
    /// Write a report as XML that most pipelines read (`JUnit`)
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// One case and what came of it.
struct Done<'c> {
    case: &'c Case,
    explanation: Explanation,
    is_as_expected: bool,
}

/// Runs the cases.
pub fn run(options: &Options) -> ExitCode {
    let config = match config::load(&options.config) {
        Ok(config) => config,
        Err(mistakes) => {
            let _ = writeln!(std::io::stderr(), "{mistakes}");
            return ExitCode::from(WRONG);
        }
    };
    let cases = match Cases::load(&options.cases, &config) {
        Ok(cases) => cases,
        Err(mistake) => {
            let _ = writeln!(std::io::stderr(), "{}: {mistake:#}", options.cases.display());
            return ExitCode::from(WRONG);
        }
    };
    match perform(options, &config, &cases) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(DIFFERENT),
        Err(error) => fail(&error),
    }
}

fn perform(options: &Options, config: &Config, cases: &Cases) -> Result<bool> {
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    let done = runtime.block_on(async {
        let bench = Bench::set_up(config, cases).await?;
        let mut done = Vec::new();
        for case in &cases.list {
            let explanation = bench.judge(case).await.with_context(|| case.name())?;
            let is_as_expected = case.expect.is_met(&explanation);
            done.push(Done { case, explanation, is_as_expected });
        }
        anyhow::Ok(done)
    })?;
    std::io::stdout().write_all(text(&done, Style::of_stdout()).as_bytes())?;
    if let Some(path) = &options.junit {
        std::fs::write(path, junit::report(&done)).with_context(|| path.display().to_string())?;
    }
    Ok(done.iter().all(|done| done.is_as_expected))
}

fn text(done: &[Done<'_>], style: Style) -> String {
    let mut out = String::new();
    for done in done {
        let name = done.case.name();
        if done.is_as_expected {
            let _ = writeln!(out, "{}    {name}", style.good("ok"));
            continue;
        }
        let _ = writeln!(out, "{}  {name}", style.bad("FAIL"));
        for line in difference(done).lines() {
            let _ = writeln!(out, "      {line}");
        }
    }
    let failed = done.iter().filter(|done| !done.is_as_expected).count();
    let _ = writeln!(out, "\n{} cases, {failed} failed", done.len());
    out
}

/// What was expected, what came, and the checks that made it so.
fn difference(done: &Done<'_>) -> String {
    let mut out = format!("expected {}, got {}\n", done.case.expect, told(&done.explanation));
    let failed = done.explanation.checks.iter().filter(|check| check.outcome == Outcome::Failed);
    for check in failed {
        let found = check.found.as_deref().unwrap_or_default();
        let expected =
            check.expected.as_deref().map(|text| format!(" (expected: {text})")).unwrap_or_default();
        let problem = check.problem.as_deref().unwrap_or_default();
        let _ = writeln!(out, "{}: {found}{expected}\n  {problem}", check.check);
    }
    out
}

fn told(explanation: &Explanation) -> String {
    match &explanation.refusal {
        None => Expected::ACCEPTED.to_owned(),
        Some(refusal) => format!("{} {}", refusal.code, refusal.reason),
    }
}

/// Names that stand twice would hide one another in a report.
fn repeated(names: impl Iterator<Item = String>) -> Option<String> {
    let mut seen = HashSet::new();
    names.into_iter().find(|name| !seen.insert(name.clone()))
}
