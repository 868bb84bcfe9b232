//! What the demo says: where things are, the `curl` lines, and the table of `--check`.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use super::Demo;
use super::check::Verdict;
use super::files;
use super::scenarios::{Before, Credential, Expect, SCENARIOS, Scenario};
use super::tokens::Token;
use crate::catalogue::Code;

/// Where everything is, and a line to paste for each scenario.
pub(super) fn guide(out: &mut dyn Write, demo: &Demo) -> io::Result<()> {
    let dir = demo.files.dir();
    let issuer = demo.issuer.issuer_url();
    writeln!(out, "valgate demo: the gateway, a sample API behind it, and an issuer of tokens.")?;
    writeln!(out, "The issuer is FOR DEVELOPMENT ONLY: it gives a token to whoever asks.\n")?;
    writeln!(out, "gateway        https://{}", demo.gateway)?;
    writeln!(out, "issuer         {issuer}")?;
    writeln!(out, "sample API     http://{} (behind the gateway; it checks nothing)", demo.api.address())?;
    writeln!(out, "configuration  {}", demo.files.path(files::CONFIG).display())?;
    writeln!(out, "access log     {}", demo.files.path(files::ACCESS_LOG).display())?;
    writeln!(out, "CA             {}", demo.files.path(files::CA).display())?;
    writeln!(out, "tokens         {} (valid for 1 h)", demo.files.path(files::TOKENS).display())?;
    if demo.files.fresh() {
        writeln!(out, "               {} is removed when the demo ends; keep one with --dir", dir.display())?;
    }
    writeln!(out, "\nPaste any of these into another shell (add --http1.1 to curl to leave HTTP/2):")?;
    for scenario in SCENARIOS {
        writeln!(out, "\n# {}: {}", scenario.name, scenario.shows)?;
        if let Some(line) = before(demo, scenario.before) {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "{}", curl(demo, scenario))?;
        writeln!(out, "#   {}", outcome(scenario.expect))?;
    }
    writeln!(out, "\n# a token of your own:")?;
    writeln!(
        out,
        "curl -d grant_type=client_credentials -d client_id=me -d scope=orders:read {issuer}/token"
    )?;
    writeln!(out, "\n# everything of one user, issued before now:")?;
    writeln!(out, r#"curl -d "{{\"sub\":\"alice\",\"before\":$(date +%s)}}" {issuer}/revoke"#)?;
    writeln!(out, "\nCtrl-C ends the demo.")?;
    out.flush()
}

/// The line that sends what `--check` sends.
fn curl(demo: &Demo, scenario: &Scenario) -> String {
    let probe = scenario.request;
    let mut line = format!("curl -i --cacert {}", quoted(&demo.files.path(files::CA)));
    match probe.credential {
        Credential::None => {}
        Credential::Bearer(token) => line.push_str(&bearer(demo, token)),
        Credential::Twice(one, other) => {
            line.push_str(&bearer(demo, one));
            line.push_str(&bearer(demo, other));
        }
        Credential::Verbatim(value) => push_header(&mut line, "Authorization", value),
    }
    for (name, value) in probe.headers {
        push_header(&mut line, name, value);
    }
    if !matches!(probe.method, "GET" | "POST") {
        let _ = write!(line, " -X {}", probe.method);
    }
    if let Some(body) = probe.body {
        push_header(&mut line, "Content-Type", "application/json");
        let _ = write!(line, " -d '{body}'");
    }
    if probe.path.contains('%') {
        line.push_str(" --path-as-is");
    }
    let _ = write!(line, " https://{}{}", demo.gateway, probe.path);
    line
}

fn bearer(demo: &Demo, token: Token) -> String {
    let file = demo.files.path(files::TOKENS).join(format!("{}.jwt", token.name()));
    format!(r#" -H "Authorization: Bearer $(cat {})""#, quoted(&file))
}

fn push_header(line: &mut String, name: &str, value: &str) {
    let _ = write!(line, " -H '{name}: {value}'");
}

/// The line that makes the issuer do what comes first.
fn before(demo: &Demo, before: Before) -> Option<String> {
    let issuer = demo.issuer.issuer_url();
    match before {
        Before::Nothing => None,
        Before::Rotate => Some(format!("curl -X POST {issuer}/rotate")),
        Before::RevokeToken | Before::RevokeSession => {
            let entry = serde_json::to_string(&demo.revocation(before)?).ok()?;
            Some(format!("curl -d '{entry}' {issuer}/revoke"))
        }
    }
}

fn outcome(expect: Expect) -> String {
    match expect {
        Expect::Reaches { status, .. } => format!("{status} from the API, with the headers that it got"),
        Expect::Refused { status, code, reason } => {
            let title = Code::find(code).map_or("", Code::title);
            format!("{status}, {code} - {title}, {reason}; the API sees nothing")
        }
    }
}

/// A path as one word of a POSIX shell.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,@%".contains(&byte);
    if text.bytes().all(plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// One line for each scenario, and below a line for each deviation.
pub(super) fn table(out: &mut dyn Write, verdicts: &[Verdict]) -> io::Result<()> {
    let heading = ["", "scenario", "expected", "got over HTTP/1.1 and HTTP/2", "reached the API", ""];
    let mut rows = vec![heading.map(str::to_owned)];
    rows.extend(verdicts.iter().map(row));
    let widths: Vec<usize> = (0..heading.len())
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0))
        .collect();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    for verdict in verdicts {
        for deviation in &verdict.deviations {
            writeln!(out, "{}: {deviation}", verdict.scenario.name)?;
        }
    }
    let failed = verdicts.iter().filter(|verdict| !verdict.deviations.is_empty()).count();
    writeln!(out, "\n{} scenarios, {failed} deviate", verdicts.len())?;
    out.flush()
}

fn row(verdict: &Verdict) -> [String; 6] {
    let [(first, one), (second, other)] = &verdict.answers;
    let got = if one == other {
        one.to_string()
    } else {
        format!("{}: {one}; {}: {other}", first.name(), second.name())
    };
    let reached = match verdict.reached {
        [true, true] => "yes",
        [false, false] => "no",
        [true, false] | [false, true] => "one of two",
    };
    [
        if verdict.deviations.is_empty() { "ok" } else { "FAILED" }.to_owned(),
        verdict.scenario.name.to_owned(),
        verdict.scenario.expect.to_string(),
        got,
        reached.to_owned(),
        verdict.took.map_or_else(String::new, |took| format!("after {} ms", took.as_millis())),
    ]
}
