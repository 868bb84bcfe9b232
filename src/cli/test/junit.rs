//! A report in the XML of `JUnit`, in the subset that pipelines agree on.

use std::fmt::Write as _;

use super::{Done, difference};

/// The report.
pub fn report(done: &[Done<'_>]) -> String {
    let failed = done.iter().filter(|done| !done.is_as_expected).count();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(out, "<testsuite name=\"valgate\" tests=\"{}\" failures=\"{failed}\">", done.len());
    for done in done {
        let name = escaped(&done.case.name());
        if done.is_as_expected {
            let _ = writeln!(out, "  <testcase classname=\"valgate\" name=\"{name}\"/>");
            continue;
        }
        let text = difference(done);
        let message = escaped(text.lines().next().unwrap_or_default());
        let _ = writeln!(out, "  <testcase classname=\"valgate\" name=\"{name}\">");
        let _ = writeln!(out, "    <failure message=\"{message}\">{}</failure>", escaped(&text));
        let _ = writeln!(out, "  </testcase>");
    }
    out.push_str("</testsuite>\n");
    out
}

/// XML 1.0 has no way to write most control characters.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push('\n'),
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn nothing_breaks_out_of_the_document() {
        assert_eq!(escaped("a<b>&\"\u{1b}\n"), "a&lt;b&gt;&amp;&quot;\u{fffd}\n");
    }
}
