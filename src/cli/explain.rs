//! `valgate explain`: a page of the error catalogue, or what it says of one reason.

use std::io::Write;
use std::process::ExitCode;

use super::WRONG;
use crate::catalogue::{self, Code};

/// The command line of `valgate explain`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The code, such as VAL-020, or the reason, such as expired
    #[arg(required_unless_present = "all")]
    code: Option<String>,
    /// All codes, as the Markdown of docs/errors.md
    #[arg(long)]
    all: bool,
}

/// Prints the page.
pub fn explain(options: &Options, out: &mut dyn Write) -> ExitCode {
    let page = match (&options.code, options.all) {
        (Some(asked), _) => catalogue::explain(asked),
        (None, _) => Some(catalogue::markdown()),
    };
    if let Some(page) = page {
        return write!(out, "{page}").map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let known: Vec<String> = Code::ALL.iter().map(Code::to_string).collect();
    let asked = options.code.as_deref().unwrap_or_default();
    let _ = writeln!(
        std::io::stderr(),
        "valgate: there is no code or reason '{asked}'. Known codes:\n  {}",
        known.join("\n  ")
    );
    ExitCode::from(WRONG)
}
