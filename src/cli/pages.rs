//! What the pages of commands end in: examples, what the options do not say, and exit codes.

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

pub const AUDIT: &str = "\
Examples:
  valgate audit --config valgate.yaml
  valgate audit -c valgate.yaml --fail-on medium --json

docs/audit.md lists the rules.

Exit codes: 0 nothing as severe as --fail-on; 1 failure; 2 wrong usage or a configuration with mistakes; 3 findings as
severe as --fail-on, or more.";

pub const EXPLAIN: &str = "\
Examples:
  valgate explain VAL-020
  valgate explain audience_mismatch
  valgate explain --all > errors.md

Exit codes: 0 success; 1 failure; 2 wrong usage, or there is no such code or reason.";

pub const TEST: &str = "\
Examples:
  valgate test -c valgate.yaml cases.yaml
  valgate test -c valgate.yaml cases.yaml --junit report.xml

docs/debugging-tokens.md describes the file of cases.

Exit codes: 0 all cases came out as expected; 1 failure; 2 wrong usage, or mistakes in the configuration or the cases;
3 a case came out differently.";

pub const SHADOW_REPORT: &str = "\
Examples:
  valgate shadow-report --live /run/valgate/admin.sock
  valgate shadow-report --live https://gateway.example.com:9191 --live-ca ca.pem --json

Counts begin with the process. Single requests are found in the access log by shadow_reason, and with every check's
verdict at /refusals of the admin listener. If that asks for a token, it is taken from the environment variable
VALGATE_ADMIN_TOKEN.

Exit codes: 0 nobody would have been refused; 1 there is no report; 2 wrong usage; 3 somebody would have been.";

pub const TOKEN_INSPECT: &str = "\
Examples:
  valgate token inspect --file token.txt
  valgate token inspect                    ask for it, without showing it
  wl-paste | valgate token inspect --json

Exit codes: 0 decoded, whatever the warnings; 1 the token could not be read; 2 wrong usage; 3 it is not a signed JWT.";

pub const TOKEN_VERIFY: &str = "\
Examples:
  valgate token verify -c valgate.yaml --file token.txt
  valgate token verify -c valgate.yaml --url https://api.example.com/orders/7 --method POST < token.txt
  valgate token verify --live /run/valgate/admin.sock --file token.txt

By a configuration, keys and feeds are fetched by this command; where nothing answers, the copies in state_dir serve.
With --live the running gateway answers from what it has at hand; if its admin listener asks for a token, that is taken
from the environment variable VALGATE_ADMIN_TOKEN.

Exit codes: 0 accepted; 1 there is no verdict; 2 wrong usage or a configuration with mistakes; 3 refused.";

pub const REVOKE: &str = "\
Examples:
  valgate revoke -c valgate.yaml --token < token.txt
  valgate revoke -c valgate.yaml --sub alice --issued-before now --expires 24h --reason 'laptop stolen'
  valgate revoke -c valgate.yaml --kid 2025-key --expires 7d --dry-run

Exit codes: 0 revoked, or with --dry-run shown; 1 failure: send it again, which does no harm; 2 wrong usage or a
configuration with mistakes.";

pub const REVOCATIONS_LIST: &str = "\
Examples:
  valgate revocations list -c valgate.yaml
  valgate revocations list -c valgate.yaml --feed logout | grep alice

Exit codes: 0 success; 1 failure; 2 wrong usage or a configuration with mistakes.";

pub const REVOCATIONS_EXPORT: &str = "\
Example:
  valgate revocations export -c valgate.yaml > entries.jsonl

Exit codes: 0 success; 1 failure; 2 wrong usage or a configuration with mistakes.";

pub const REVOCATIONS_LOOKUP: &str = "\
Examples:
  valgate revocations lookup -c valgate.yaml --sub alice
  valgate revocations lookup -c valgate.yaml --token-file token.txt

Exit codes: 0 it is revoked; 1 failure; 2 wrong usage or a configuration with mistakes; 3 it is not revoked.";

pub const REVOCATIONS_LIFT: &str = "\
Examples:
  valgate revocations lift -c valgate.yaml --sub alice
  valgate revocations lift -c valgate.yaml --jti 0b6a4c1e --issuer https://id.example.com/

What was revoked with an issuer is lifted with the same --issuer, and what was revoked without one without.

Exit codes: 0 lifted; 1 failure; 2 wrong usage or a configuration with mistakes; 3 there was nothing to lift.";

pub const FEED_SERVE: &str = "\
Examples:
  valgate feed serve --data /var/lib/valgate-feed --write-token-file write.token
  valgate feed serve --data /var/lib/valgate-feed --address 10.0.0.7:8500 --tls-certificate tls.crt --tls-key tls.key \\
    --write-token-file write.token --read-token-file read.token

Whoever may write sends 'Authorization: Bearer TOKEN' with the token of --write-token-file or VALGATE_FEED_WRITE_TOKEN;
with --read-token-file or VALGATE_FEED_READ_TOKEN, reading needs a token too. SIGTERM and SIGINT end it.

Exit codes: 0 stopped after a signal; 1 cannot start, told on standard error; 2 wrong usage.";

pub const INJECT: &str = "\
Examples:
  valgate inject -f deployment.yaml --app-port 8080 --lock loopback --bind-env HOST=127.0.0.1 > injected.yaml
  kubectl get deployment orders -o yaml | valgate inject -f - --app-port 8080 --lock network-policy

Manifests go to standard output, notes to standard error. docs/kubernetes.md compares the locks.

Exit codes: 0 success; 1 failure, and nothing was written: a manifest that cannot have the gateway among them; 2 wrong
usage.";

pub const WEBHOOK: &str = "\
Example:
  valgate webhook --certificate tls.crt --private-key tls.key

Pods ask by annotations, each named as the flag of 'valgate inject'; docs/kubernetes.md has them. SIGTERM and SIGINT end
it.

Exit codes: 0 stopped after a signal; 1 cannot start, told on standard error; 2 wrong usage.";

pub const SCHEMA: &str = "\
Example:
  valgate schema > valgate.schema.json

Editors take it for completion and checks: '# yaml-language-server: $schema=valgate.schema.json' at the top of the file.

Exit codes: 0 success; 1 failure; 2 wrong usage.";

pub const DEMO: &str = "\
Examples:
  valgate demo             serve, and print requests to try
  valgate demo --check     send every request, compare the answers, and exit

Exit codes: 0 success; 1 failure, or an answer that deviates; 2 wrong usage.";

pub const COMPLETIONS: &str = "\
Examples:
  valgate completions bash > /etc/bash_completion.d/valgate
  valgate completions zsh > \"${fpath[1]}/_valgate\"
  valgate completions fish > ~/.config/fish/completions/valgate.fish

Exit codes: 0 success; 1 failure; 2 wrong usage.";

pub const MAN: &str = "\
Examples:
  valgate man | man -l -
  valgate man /usr/local/share/man/man1

Exit codes: 0 success; 1 failure; 2 wrong usage.";
