//! Where a token comes from: a file, standard input, or a prompt that shows nothing.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::builder::TypedValueParser;
use clap::error::ErrorKind;

/// Far more than any gateway takes.
const MAX_BYTES: u64 = 1 << 20;

/// Where the token is.
#[derive(Debug, clap::Args)]
pub struct Source {
    /// File with the token; without it, it is read from standard input, or asked for without being shown
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    // Never has a value: it is there for what its refusal says.
    #[arg(hide = true, num_args = 1.., value_parser = NoArgument)]
    misplaced: Vec<Infallible>,
}

/// Refuses a token on the command line without repeating it, which would leave it in one more place.
#[derive(Clone, Copy, Debug)]
struct NoArgument;

impl TypedValueParser for NoArgument {
    type Value = Infallible;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _argument: Option<&clap::Arg>,
        _value: &OsStr,
    ) -> Result<Infallible, clap::Error> {
        let message =
            "A token is no argument: ps and the shell's history keep it. Use --file or standard input.\n";
        Err(clap::Error::raw(ErrorKind::UnknownArgument, message).with_cmd(command))
    }
}

impl Source {
    /// The token, without blanks around it and without `Authorization: Bearer` before it.
    pub fn read(&self) -> Result<String> {
        let text = match &self.file {
            Some(path) => {
                let shown = path.display();
                whole(File::open(path).with_context(|| format!("cannot open {shown}"))?)
                    .with_context(|| format!("cannot read {shown}"))?
            }
            None if io::stdin().is_terminal() => {
                rpassword::prompt_password("Token (not shown): ").context("cannot ask for the token")?
            }
            None => whole(io::stdin().lock()).context("cannot read the token from standard input")?,
        };
        let token = bare(&text);
        if token.is_empty() {
            bail!("there is no token; give it by --file or on standard input");
        }
        Ok(token.to_owned())
    }
}

fn whole(source: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    source.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is far too large for a token"));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not text"))
}

/// People copy whole header lines.
fn bare(text: &str) -> &str {
    let without = |text: &'_ str, prefix: &str| match text.get(..prefix.len()) {
        Some(start) if start.eq_ignore_ascii_case(prefix) => prefix.len(),
        _ => 0,
    };
    let text = text.trim();
    let text = text.get(without(text, "authorization:")..).unwrap_or_default().trim_start();
    text.get(without(text, "bearer ")..).unwrap_or_default().trim_start()
}

#[cfg(test)]
mod tests {
    use super::bare;

    #[test]
    fn a_header_line_is_stripped_to_its_token() {
        for text in ["a.b.c", " a.b.c\n", "Bearer a.b.c", "authorization: bearer  a.b.c\r\n"] {
            assert_eq!(bare(text), "a.b.c", "{text}");
        }
        assert_eq!(bare("Bearer"), "Bearer");
        assert_eq!(bare("a b"), "a b");
    }
}
