//! Mistakes in a configuration, as a person reads them.

use std::fmt;
use std::ops::Range;

use super::tree::Span;

/// Longest part of a source line that is shown.
const MAX_WIDTH: usize = 140;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Line in the file, from one; zero if the file could not be read at all.
    pub line: usize,
    /// Column in characters, from one.
    pub column: usize,
    /// The field: `issuers[0].keys.jwks_url`; empty for the file as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub remedy: Option<String>,
    snippet: Option<Snippet>,
}

/// All mistakes of one file, in the order of their positions. Never empty. `Display` shows them as a compiler
/// does, with the source line and a caret; values of secrets are masked.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    /// The file, as the operator named it.
    pub file: String,
    /// The mistakes.
    pub list: Vec<Diagnostic>,
}

/// The part of the source that a mistake is about.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Snippet {
    text: String,
    /// Characters before the caret.
    indent: usize,
    /// Carets.
    width: usize,
}

impl Diagnostic {
    /// A mistake of the file as a whole.
    pub(super) fn of_file(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            line: 0,
            column: 0,
            path: String::new(),
            message: message.into(),
            remedy: Some(remedy.into()),
            snippet: None,
        }
    }

    /// A mistake at `span` of `source`, whose parts in `secrets` must not be shown.
    pub(super) fn at(source: &str, secrets: &[Span], span: Span, path: String, message: String) -> Self {
        let snippet = Snippet::of(source, secrets, span);
        Self { line: span.line, column: span.column, path, message, remedy: None, snippet }
    }

    /// Adds what would be right.
    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl Snippet {
    fn of(source: &str, secrets: &[Span], span: Span) -> Option<Self> {
        let line = source.lines().nth(span.line.checked_sub(1)?)?;
        let masked: String = mask(line, span.line, secrets);
        let end = if span.end_line == span.line { span.end_column } else { usize::MAX };
        let before = span.column.saturating_sub(1);
        // A long line is cut so that the caret stays in view.
        let from = if before < MAX_WIDTH - 40 { 0 } else { before - 40 };
        let text: String = masked.chars().skip(from).take(MAX_WIDTH).map(visible).collect();
        let text = text.trim_end().to_owned();
        let indent = before - from;
        let room = text.chars().count().saturating_sub(indent);
        let width = end.saturating_sub(span.column).min(room).max(1);
        Some(Self { text, indent, width })
    }
}

/// Control characters would move the terminal's cursor, or worse.
fn visible(character: char) -> char {
    match character {
        '\t' => ' ',
        control if control.is_control() => '\u{fffd}',
        character => character,
    }
}

/// The line with what lies within a secret replaced.
fn mask(line: &str, number: usize, secrets: &[Span]) -> String {
    let looks_secret = looks_secret(line);
    let hidden = |index: usize| {
        let at = (number, index + 1);
        let marked = secrets
            .iter()
            .any(|span| at >= (span.line, span.column) && at < (span.end_line, span.end_column));
        marked || looks_secret.iter().any(|range| range.contains(&index))
    };
    line.chars().enumerate().map(|(index, character)| if hidden(index) { '*' } else { character }).collect()
}

/// What looks like a secret even where the file could not be understood: credentials after `authorization:` and
/// in URLs. Counts characters.
fn looks_secret(line: &str) -> Vec<Range<usize>> {
    let characters: Vec<char> = line.chars().map(|character| character.to_ascii_lowercase()).collect();
    let mut ranges = Vec::new();
    for start in after_each(&characters, "authorization:") {
        let value: String = characters.iter().skip(start).collect();
        if !value.contains("${") && !value.trim_start().starts_with("file:") {
            ranges.push(start + 1..characters.len());
        }
    }
    for start in after_each(&characters, "://") {
        let rest = characters.get(start..).unwrap_or_default();
        let ends = |character: &char| character.is_whitespace() || matches!(character, '/' | ',' | '"');
        let end = rest.iter().position(ends).unwrap_or(rest.len());
        if let Some(at) = rest.iter().take(end).rposition(|character| *character == '@') {
            ranges.push(start..start + at);
        }
    }
    ranges
}

/// Where each occurrence of `text` ends.
fn after_each(characters: &[char], text: &str) -> Vec<usize> {
    let text: Vec<char> = text.chars().collect();
    let windows = characters.windows(text.len()).enumerate();
    windows.filter(|(_, window)| *window == text).map(|(start, _)| start + text.len()).collect()
}

impl Diagnostic {
    /// As a compiler shows it: what it is, where it stands, what would be right.
    pub(super) fn render(&self, label: &str, file: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => writeln!(f, "{label}: {}", self.message)?,
            path => writeln!(f, "{label}: {path}: {}", self.message)?,
        }
        let gutter = self.line.to_string().len();
        match self.line {
            0 => writeln!(f, " --> {file}")?,
            line => writeln!(f, "{:gutter$}--> {file}:{line}:{}", "", self.column)?,
        }
        if let Some(Snippet { text, indent, width }) = &self.snippet {
            writeln!(f, "{:gutter$} |", "")?;
            writeln!(f, "{} | {text}", self.line)?;
            writeln!(f, "{:gutter$} | {:indent$}{}", "", "", "^".repeat(*width))?;
        }
        if let Some(remedy) = &self.remedy {
            writeln!(f, "{:gutter$} = help: {remedy}", "")?;
        }
        Ok(())
    }
}

impl Diagnostics {
    /// The only mistake of a file.
    pub(super) fn one(file: &str, diagnostic: Diagnostic) -> Self {
        Self { file: file.to_owned(), list: vec![diagnostic] }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.list {
            diagnostic.render("error", &self.file, f)?;
            writeln!(f)?;
        }
        let count = self.list.len();
        let mistakes = if count == 1 { "mistake" } else { "mistakes" };
        write!(f, "{}: {count} {mistakes}", self.file)
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::{Diagnostic, Diagnostics, Span};

    fn rendered(source: &str, secrets: &[Span], span: Span) -> String {
        let diagnostic = Diagnostic::at(source, secrets, span, "a.b".to_owned(), "is wrong".to_owned());
        Diagnostics::one("x.yaml", diagnostic.remedy("make it right")).to_string()
    }

    #[test]
    fn it_reads_like_a_compiler_error() {
        let span = Span { line: 2, column: 4, end_line: 2, end_column: 6 };
        assert_eq!(
            rendered("a:\n b:\t12\n", &[], span),
            "error: a.b: is wrong\n --> x.yaml:2:4\n  |\n2 |  b: 12\n  |    ^^^\n  = help: make it right\n\nx.yaml: 1 mistake"
                .replace("^^^", "^^")
        );
    }

    #[test]
    fn secrets_and_terminal_escapes_are_not_shown() {
        let secret = Span { line: 1, column: 4, end_line: 1, end_column: 10 };
        let text = rendered(
            "k: s3cret # \u{1b}[31m",
            &[secret],
            Span { line: 1, column: 1, end_line: 1, end_column: 2 },
        );
        assert!(!text.contains("s3cret"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn what_looks_like_a_secret_is_not_shown_even_in_what_is_not_understood() {
        let here = Span { line: 1, column: 1, end_line: 1, end_column: 2 };
        for line in [
            "{ url: https://u:s3cret@host/, x: 1 }",
            "url: https://s3cret@host",
            "Authorization: Bearer s3cret",
            "http: { authorization: s3cret }",
            "a: http://x/, b: http://u:s3cret@y/",
        ] {
            assert!(!rendered(line, &[], here).contains("s3cret"), "{line}");
        }
        for line in
            ["authorization: Bearer ${TOKEN}", "authorization: file:token.txt", "url: https://host/@me"]
        {
            assert!(rendered(line, &[], here).contains(line), "{line}");
        }
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let source = format!("k: {}here", "x".repeat(5000));
        let text = rendered(&source, &[], Span { line: 1, column: 5004, end_line: 1, end_column: 5008 });
        assert!(text.contains("xhere\n"), "{text}");
        assert!(text.lines().all(|line| line.len() < 200));
    }
}
