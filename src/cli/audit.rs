//! `valgate audit`: what a configuration allows that the best current practice advises against.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::json;

use super::{NO, WRONG};
use crate::config::{self, Audit, Severity};

/// The command line of `valgate audit`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// The least severe finding that fails the command
    #[arg(long, value_name = "SEVERITY", default_value = "high")]
    fail_on: FailOn,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

/// When the command fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FailOn {
    Low,
    Medium,
    High,
    Never,
}

/// Audits the file and tells what it found.
pub fn run(options: &Options) -> ExitCode {
    let audit = match audited(&options.config) {
        Ok(audit) => audit,
        Err(code) => return code,
    };
    let text = if options.json { as_json(&audit) } else { audit.to_string() };
    if writeln!(std::io::stdout(), "{text}").is_err() {
        return ExitCode::FAILURE;
    }
    if options.fail_on.is_met(audit.worst()) { ExitCode::from(NO) } else { ExitCode::SUCCESS }
}

fn audited(path: &Path) -> Result<Audit, ExitCode> {
    config::audit(path).map_err(|mistakes| {
        let _ = writeln!(std::io::stderr(), "{mistakes}");
        ExitCode::from(WRONG)
    })
}

fn as_json(audit: &Audit) -> String {
    let findings = audit.findings.iter().map(|finding| {
        let diagnostic = &finding.diagnostic;
        json!({
            "severity": finding.severity,
            "rule": finding.rule,
            "field": diagnostic.path,
            "line": diagnostic.line,
            "column": diagnostic.column,
            "message": diagnostic.message,
            "remedy": diagnostic.remedy,
            "reference": finding.reference,
        })
    });
    format!("{:#}", json!({ "file": audit.file, "findings": findings.collect::<Vec<_>>() }))
}

impl FailOn {
    fn is_met(self, worst: Option<Severity>) -> bool {
        let least = match self {
            Self::Low => Severity::Low,
            Self::Medium => Severity::Medium,
            Self::High => Severity::High,
            Self::Never => return false,
        };
        worst.is_some_and(|worst| worst >= least)
    }
}
