//! What a configuration allows that the best current practice advises against (RFC 8725, RFC 9700): no mistakes, since
//! there are reasons for each, but each deserves a reason.
//!
//! Works on the settings and points into the file; decides nothing at run time.

mod rules;

use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::diagnostic::{Diagnostic, Diagnostics};
use super::place::Place;
use super::tree::{Node, Span};
use super::{Source, read};

/// How much is at stake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A second line of defence is missing.
    Low,
    /// An attack that succeeds elsewhere goes further.
    Medium,
    /// Someone can get in, or read tokens, without having to succeed elsewhere first.
    High,
}

/// One thing that deserves a reason.
#[derive(Clone, Debug)]
pub struct Finding {
    /// How much is at stake.
    pub severity: Severity,
    /// Its stable name.
    pub rule: &'static str,
    /// Where the advice is given.
    pub reference: &'static str,
    /// Where it stands, what it means, what would be better.
    pub diagnostic: Diagnostic,
}

/// The findings in one file, in the order of the file.
#[derive(Clone, Debug)]
pub struct Audit {
    /// The file, as the operator named it.
    pub file: String,
    /// What was found.
    pub findings: Vec<Finding>,
}

impl Audit {
    /// The worst of the findings.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

/// Audits the configuration file at `path`, which must be fit to run on.
pub fn audit(path: &Path) -> Result<Audit, Diagnostics> {
    let name = path.display().to_string();
    let text = read(path, &name)?;
    let base_dir = path.parent().unwrap_or_else(|| Path::new(""));
    let environment = |variable: &str| std::env::var(variable).ok();
    audit_source(&Source { text: &text, name: &name, base_dir, environment: &environment, probe_files: true })
}

/// Audits a configuration from `text`; see [`super::parse`].
pub fn audit_text(
    text: &str,
    name: &str,
    base_dir: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Audit, Diagnostics> {
    audit_source(&Source { text, name, base_dir, environment, probe_files: false })
}

fn audit_source(source: &Source<'_>) -> Result<Audit, Diagnostics> {
    let parsed = source.parse()?;
    let mut auditor =
        Auditor { source: source.text, tree: &parsed.tree, secrets: &parsed.secrets, findings: Vec::new() };
    rules::apply(&parsed.config, &mut auditor);
    let mut findings = auditor.findings;
    findings.sort_by_key(|finding| (finding.diagnostic.line, finding.diagnostic.column));
    Ok(Audit { file: source.name.to_owned(), findings })
}

/// Takes findings down at their places.
struct Auditor<'a> {
    source: &'a str,
    tree: &'a Node,
    secrets: &'a [Span],
    findings: Vec<Finding>,
}

/// A rule of this audit: its name, its severity, who advises it.
type Rule = (&'static str, Severity, &'static str);

impl Auditor<'_> {
    fn add(&mut self, rule: Rule, place: &Place, message: impl Into<String>, remedy: impl Into<String>) {
        let (rule, severity, reference) = rule;
        let span = self.tree.locate(place);
        let diagnostic = Diagnostic::at(self.source, self.secrets, span, place.to_string(), message.into());
        self.findings.push(Finding { severity, rule, reference, diagnostic: diagnostic.remedy(remedy) });
    }

    fn has(&self, place: &Place) -> bool {
        self.tree.find(place).is_some()
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        })
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let label = format!("{}[{}]", finding.severity, finding.rule);
            finding.diagnostic.render(&label, &self.file, f)?;
            let gutter = finding.diagnostic.line.to_string().len();
            writeln!(f, "{:gutter$} = see: {}\n", "", finding.reference)?;
        }
        let count = |severity| self.findings.iter().filter(|finding| finding.severity == severity).count();
        write!(
            f,
            "{}: {} high, {} medium, {} low",
            self.file,
            count(Severity::High),
            count(Severity::Medium),
            count(Severity::Low)
        )
    }
}
