//! How text output looks: in colour on a terminal, unless `NO_COLOR` is set (<https://no-color.org>).

use std::io::{self, IsTerminal as _};

/// Marks text, or leaves it as it is.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    colour: bool,
}

impl Style {
    /// For standard output as it is.
    pub fn of_stdout() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colour: !refused && io::stdout().is_terminal() }
    }

    /// Without colour, whatever the output is.
    #[cfg(test)]
    pub const PLAIN: Self = Self { colour: false };

    /// What is well.
    pub fn good(self, text: &str) -> String {
        self.marked("32", text)
    }

    /// What is wrong.
    pub fn bad(self, text: &str) -> String {
        self.marked("31", text)
    }

    /// What deserves a look.
    pub fn warning(self, text: &str) -> String {
        self.marked("33", text)
    }

    /// What is less important.
    pub fn dim(self, text: &str) -> String {
        self.marked("2", text)
    }

    fn marked(self, code: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
