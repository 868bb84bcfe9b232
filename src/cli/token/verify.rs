//! `valgate token verify`: the verdict on a token as a checklist, by a configuration or by a running gateway.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow};
use tokio::runtime;

use super::input::Source;
use super::{REFUSED, time};
use crate::admin::endpoints::Question;
use crate::app::Offline;
use crate::cli::style::Style;
use crate::cli::{WRONG, fail, live};
use crate::clock::{Clock, UnixSeconds};
use crate::config;
use crate::gateway::{Explanation, Outcome, PeerCertificate};

/// The command line of `valgate token verify`.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    source: Source,
    /// Configuration file
    #[arg(short, long, value_name = "FILE", required_unless_present = "live", conflicts_with = "live")]
    config: Option<PathBuf>,
    /// Admin listener of a running gateway: its URL, or the path of its socket
    #[arg(long, value_name = "URL|SOCKET")]
    live: Option<String>,
    #[command(flatten)]
    tls: live::Tls,
    /// URL of a request, to find its route and judge by that
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Method of the request
    #[arg(long, requires = "url", default_value = "GET", hide_default_value = true)]
    method: String,
    /// PEM file with the client certificate that the request comes with, leaf first
    #[arg(long, value_name = "FILE")]
    client_certificate: Option<PathBuf>,
    /// Time to judge at, such as 2026-01-31T12:00:00Z, instead of now
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "live")]
    at: Option<UnixSeconds>,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

/// Shows the verdict.
pub fn run(options: &Options) -> ExitCode {
    let config = match options.config.as_deref().map(config::load).transpose() {
        Ok(config) => config,
        Err(mistakes) => {
            let _ = writeln!(std::io::stderr(), "{mistakes}");
            return ExitCode::from(WRONG);
        }
    };
    let explanation = match verdict(options, config) {
        Ok(explanation) => explanation,
        Err(error) => return fail(&error),
    };
    let text = if options.json {
        serde_json::to_string_pretty(&explanation).unwrap_or_default() + "\n"
    } else {
        render(&explanation, Style::of_stdout())
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(_) => ExitCode::FAILURE,
        Ok(()) if explanation.accepted => ExitCode::SUCCESS,
        // Without a verdict.
        Ok(()) if explanation.refusal.is_none() => ExitCode::FAILURE,
        Ok(()) => ExitCode::from(REFUSED),
    }
}

fn verdict(options: &Options, config: Option<config::Config>) -> Result<Explanation> {
    let method = options.url.as_ref().map(|_| options.method.clone());
    let pem = |path: &PathBuf| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let client_certificate = options.client_certificate.as_ref().map(pem).transpose()?;
    let mut question =
        Question { token: String::new(), url: options.url.clone(), method, client_certificate };
    let request = question.request().map_err(|why| anyhow!("{why}"))?;
    let certificate = question.certificate().map_err(|why| anyhow!("{why}"))?;
    let clock = options.at.map_or_else(Clock::system, |at| Clock::manual(at).0);
    question.token = options.source.read()?;
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    runtime.block_on(async {
        match (config, &options.live) {
            (Some(config), _) => {
                let offline = Offline::start(config, clock).await?;
                let certificate = PeerCertificate::said(certificate.as_ref());
                Ok(offline.explainer.explain(&question.token, request, certificate).await)
            }
            (None, Some(live)) => live::post(live, &options.tls, "/token/verify", &question).await,
            (None, None) => Err(anyhow!("give --config or --live")),
        }
    })
}

/// The checklist, and below it what the client would get.
pub fn render(explanation: &Explanation, style: Style) -> String {
    let mut out = String::new();
    let width = explanation.checks.iter().map(|check| check.check.chars().count()).max().unwrap_or_default();
    let indent = " ".repeat(width + 4);
    for check in &explanation.checks {
        let mark = match check.outcome {
            Outcome::Passed => style.good("✓"),
            Outcome::Failed => style.bad("✗"),
            Outcome::NotMade => style.dim("·"),
        };
        let mut found = check.found.clone().unwrap_or_default();
        if let Some(expected) = &check.expected {
            let _ = write!(found, "{}(expected: {expected})", if found.is_empty() { "" } else { "  " });
        }
        let _ = writeln!(out, "{}", format!("{mark} {:width$}  {found}", check.check).trim_end());
        for line in check.problem.iter().chain(&check.remedy) {
            let _ = writeln!(out, "{indent}{line}");
        }
    }
    let _ = match (&explanation.refusal, &explanation.undecided) {
        (None, None) => {
            writeln!(out, "\n{} Token {} at {}", style.good("accepted"), explanation.token, explanation.at)
        }
        (None, Some(why)) => writeln!(
            out,
            "\n{} {why} Token {} at {}",
            style.warning("no verdict"),
            explanation.token,
            explanation.at
        ),
        (Some(refusal), _) => writeln!(
            out,
            "\n{} {} - {} (status {}, reason {}) Token {} at {}",
            style.bad("refused"),
            refusal.code,
            refusal.title,
            refusal.status,
            refusal.reason,
            explanation.token,
            explanation.at
        ),
    };
    out
}
