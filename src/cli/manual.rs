//! `valgate completions` and `valgate man`: what the command line says of itself, for shells, for man, and for
//! docs/cli.md.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

use super::{Arguments, fail};

/// The command line of `valgate completions`.
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

/// The command line of `valgate man`.
#[derive(Debug, clap::Args)]
pub struct Man {
    /// Directory for the pages of all commands; without it the page of valgate goes to standard output
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Prints the completions.
pub fn completions(options: &Completions) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Arguments::command(), "valgate", &mut script);
    io::stdout().write_all(&script).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

/// Writes the pages.
pub fn man(options: &Man) -> ExitCode {
    let written = match &options.directory {
        Some(directory) => man_pages(directory),
        None => clap_mangen::Man::new(Arguments::command())
            .render(&mut io::stdout().lock())
            .context("cannot write the page"),
    };
    written.map_or_else(|error| fail(&error), |()| ExitCode::SUCCESS)
}

fn man_pages(directory: &Path) -> Result<()> {
    let shown = || directory.display().to_string();
    std::fs::create_dir_all(directory).with_context(shown)?;
    clap_mangen::generate_to(Arguments::command(), directory).with_context(shown)
}

/// All commands with their `--help`, in Markdown: docs/cli.md.
pub fn markdown() -> String {
    let mut page = String::from(HEAD);
    let mut command = Arguments::command();
    command.build();
    section(&command, &mut page);
    page
}

/// Writing to a text cannot fail.
fn section(command: &Command, page: &mut String) {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned();
    let help = command.clone().term_width(WIDTH).render_long_help().to_string();
    let help = help.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    let _ = write!(page, "\n## {name}\n\n```text\n{}\n```\n", help.trim_end());
    let mut subcommands: Vec<&Command> = command.get_subcommands().collect();
    subcommands.retain(|command| command.get_name() != "help" && !command.is_hide_set());
    for subcommand in subcommands {
        section(subcommand, page);
    }
}

const WIDTH: usize = 100;

const HEAD: &str = "\
# Command line

What `valgate COMMAND --help` says, of every command. This page is generated: `BLESS=1 cargo test --test check`.

| exit code | meaning |
|---|---|
| 0 | success |
| 1 | failure, told on standard error |
| 2 | wrong usage, or a configuration with mistakes |
| 3 | done, and the answer is no: a token is refused (`token verify`) or is none (`token inspect`), a case came out differently (`test`), findings are too severe (`audit`), requests would be refused (`shadow-report`), nothing of the kind is revoked (`revocations lookup` and `lift`) |

What goes to standard output is the result, and what goes to standard error is about how it came about, so that the
first can be piped. Output is in colour on a terminal only, and not if `NO_COLOR` is set (<https://no-color.org>).
No secret is ever an argument, since `ps` and the shell's history would keep it: tokens come from files, standard input,
a prompt or the environment.

`valgate completions SHELL` prints completions for bash, elvish, fish, PowerShell and zsh; `valgate man DIR` writes man
pages.
";
