//! `valgate shadow-report`: whom a running gateway would have refused, had it enforced all of its routes.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use tokio::runtime;

use super::style::Style;
use super::{NO, fail, live};
use crate::admin::endpoints::{ShadowReport, ShadowRoute};

/// The command line of `valgate shadow-report`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Admin listener of a running gateway: its URL, or the path of its socket
    #[arg(long, value_name = "URL|SOCKET")]
    live: String,
    #[command(flatten)]
    tls: live::Tls,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

/// Shows the report.
pub fn run(options: &Options) -> ExitCode {
    let report = match ask(options) {
        Ok(report) => report,
        Err(error) => return fail(&error),
    };
    let text = if options.json {
        serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
    } else {
        render(&report, Style::of_stdout())
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(_) => ExitCode::FAILURE,
        Ok(()) if report.routes.iter().all(|route| route.refused == 0) => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(NO),
    }
}

fn ask(options: &Options) -> Result<ShadowReport> {
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    runtime.block_on(live::get(&options.live, &options.tls, "/shadow"))
}

fn render(report: &ShadowReport, style: Style) -> String {
    if report.routes.is_empty() {
        return "No route is in shadow mode: none has `enforce: false`.\n".to_owned();
    }
    let mut out = String::new();
    for route in &report.routes {
        render_route(&mut out, route, style);
    }
    out
}

/// Writing to a text cannot fail.
fn render_route(out: &mut String, route: &ShadowRoute, style: Style) {
    let all = route.admitted.saturating_add(route.refused);
    let verdict = match (all, route.refused) {
        (0, _) => style.warning("no requests yet"),
        (_, 0) => style.good(&format!("none of {all} requests would be refused")),
        (_, refused) => style.bad(&format!("{refused} of {all} requests would be refused")),
    };
    let _ = writeln!(out, "{}: {verdict}", route.route);
    for cause in &route.causes {
        let _ = writeln!(out, "  {:>8}  {} - {} ({})", cause.requests, cause.code, cause.title, cause.reason);
        let _ = writeln!(out, "            {}", style.dim(&cause.remedy));
    }
}
