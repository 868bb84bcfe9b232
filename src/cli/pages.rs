//! What the pages of commands end in, where the command has no more to say: examples, and exit codes that are not the
//! usual ones.

pub const RUN: &str = "\
Examples:
  valgate run --config valgate.yaml
  valgate run -c /etc/valgate/valgate.yaml --last-good /var/lib/valgate/last-good.yaml

Signals:
  SIGTERM, SIGINT   drain: finish what is in flight, then stop
  SIGHUP            read the configuration again; begin new log files
  SIGUSR2           have a new process of this program take over without a gap

Exit codes: 0 stopped after a signal; 1 cannot start, told on standard error; 2 wrong usage or a configuration with
mistakes.";

pub const CHECK: &str = "\
Example:
  valgate check --config valgate.yaml

Nothing is fetched, bound or started, but files that the configuration names are read.

Exit codes: 0 no mistakes; 1 failure; 2 wrong usage, a file that cannot be read, or mistakes, each with its line and a
remedy.";

pub const EXPLAIN: &str = "\
Examples:
  valgate explain VAL-020
  valgate explain --all > errors.md

Exit codes: 0 success; 1 failure; 2 wrong usage, or there is no such code.";

pub const SCHEMA: &str = "\
Example:
  valgate schema > valgate.schema.json

Editors take it for completion and checks: '# yaml-language-server: $schema=valgate.schema.json' at the top of the file.";

pub const DEMO: &str = "\
Examples:
  valgate demo             serve, and print requests to try
  valgate demo --check     send every request, compare the answers, and exit

Exit codes: 0 success; 1 failure, or an answer that deviates; 2 wrong usage.";

pub const COMPLETIONS: &str = "\
Examples:
  valgate completions bash > /etc/bash_completion.d/valgate
  valgate completions zsh > \"${fpath[1]}/_valgate\"
  valgate completions fish > ~/.config/fish/completions/valgate.fish";

pub const MAN: &str = "\
Examples:
  valgate man | man -l -
  valgate man /usr/local/share/man/man1";
