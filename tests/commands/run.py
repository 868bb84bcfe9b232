#!/usr/bin/env python3
"""The command line as a person or a script meets it: colour, completions, exit codes, and the log of a process.

    tests/commands/run.py [VALGATE]     the binary; by default the one that cargo built last
"""

import contextlib
import http.client
import json
import os
import pathlib
import pty
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
VALGATE = str(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "target/debug/valgate").resolve())
CASES = ["test", "-c", "docs/debugging/valgate.yaml", "docs/debugging/cases.yaml"]
ESCAPE = "\x1b["
PATIENCE = 60

OPEN = """version: 1
listeners: [{ address: "0.0.0.0:0", plaintext: true }]
upstreams: [{ name: api, endpoints: ["http://127.0.0.1:1"] }]
routes: [{ match: { path: /** }, public: true, upstream: api }]
"""
PROCESS = """version: 1
workers: 1
access_log: off
listeners: [{ address: "127.0.0.1:0", plaintext: true }]
admin: { socket: admin.sock }
reload: { watch: false }
upstreams: [{ name: api, endpoints: ["http://127.0.0.1:1"] }]
routes: [{ match: { path: /** }, public: true, upstream: api }]
"""


def environment(**more):
    """Without what the caller's own terminal wants."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "CLICOLOR_FORCE")}
    return {**kept, "TERM": "xterm-256color", **more}


def valgate(*arguments, **options):
    return subprocess.run([VALGATE, *arguments], cwd=ROOT, env=environment(), capture_output=True, text=True,
                          timeout=PATIENCE, check=False, **options)


def on_a_terminal(arguments, **more):
    """What the command writes to a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([VALGATE, *arguments], cwd=ROOT, env=environment(**more), stdin=subprocess.DEVNULL,
                          stdout=theirs, stderr=theirs) as child:
        os.close(theirs)
        written = b""
        # Linux tells the end of the other side as an error.
        with contextlib.suppress(OSError):
            while part := os.read(ours, 65536):
                written += part
        assert child.wait(PATIENCE) == 0, written
    os.close(ours)
    return written.decode()


def colour_is_for_terminals_that_want_it():
    assert ESCAPE in on_a_terminal(CASES), "on a terminal there is colour"
    assert ESCAPE in on_a_terminal(CASES, NO_COLOR=""), "an empty NO_COLOR says nothing (no-color.org)"
    plain = on_a_terminal(CASES, NO_COLOR="1")
    assert ESCAPE not in plain and "not without the scope" in plain, plain
    piped = valgate(*CASES)
    assert piped.returncode == 0 and ESCAPE not in piped.stdout + piped.stderr, piped


def shells_load_their_completions(directory):
    script = valgate("completions", "bash").stdout
    (directory / "valgate.bash").write_text(script)
    ask = """source "$1"; complete -p valgate >/dev/null || exit 1
      COMP_WORDS=(valgate tok) COMP_CWORD=1; _valgate valgate tok valgate; echo "${COMPREPLY[*]}"
      COMP_WORDS=(valgate token ver) COMP_CWORD=2; _valgate valgate ver token; echo "${COMPREPLY[*]}" """
    told = subprocess.run(["bash", "--norc", "-c", ask, "bash", directory / "valgate.bash"], capture_output=True,
                          text=True, timeout=PATIENCE, check=True)
    assert told.stdout.split() == ["token", "verify"], told
    (directory / "_valgate").write_text(valgate("completions", "zsh").stdout)
    ask = """fpath=("$1" $fpath); autoload -Uz compinit; compinit -u -D
      print -r -- "$_comps[valgate]"; autoload -Uz +X _valgate && print -r -- loaded"""
    told = subprocess.run(["zsh", "-f", "-c", ask, "zsh", directory], capture_output=True, text=True,
                          timeout=PATIENCE, check=True, env=environment(HOME=str(directory)))
    assert told.stdout.split() == ["_valgate", "loaded"] and not told.stderr, told


def exit_codes_are_as_documented(directory):
    shutil.copytree(ROOT / "docs/debugging", directory, dirs_exist_ok=True)
    good, wrong = directory / "good.yaml", directory / "wrong.yaml"
    good.write_text(OPEN)
    wrong.write_text(OPEN.replace("public: true", "pubic: true"))
    other = directory / "cases.yaml"
    other.write_text(other.read_text().replace("expect: accepted", "expect: VAL-010", 1))
    config = "docs/debugging/valgate.yaml"
    token = "docs/debugging/token.txt"
    young = ["--at", "2026-01-31T08:30:00Z"]
    absent = directory / "absent"
    kept = directory / "kept.yaml"
    kept.write_text((ROOT / config).read_text().replace("revocations.json", "kept.json"))
    alice = ["-c", kept, "--sub", "alice"]
    occupied = socket.create_server(("127.0.0.1", 0))
    taken = directory / "taken.yaml"
    taken.write_text(OPEN.replace("0.0.0.0:0", f"127.0.0.1:{occupied.getsockname()[1]}"))
    for arguments, code in [
        (["check", "-c", good], 0),
        (["check", "-c", wrong], 2),
        (["check", "-c", directory / "absent.yaml"], 2),
        (["check"], 2),
        (["check", "--nonsense", "-c", good], 2),
        (["audit", "-c", good], 3),
        (["audit", "-c", good, "--fail-on", "never"], 0),
        (["audit", "-c", wrong], 2),
        (["audit", "-c", good, "--fail-on", "nonsense"], 2),
        (["audit"], 2),
        (["test", "-c", config, "docs/debugging/cases.yaml"], 0),
        (["test", "-c", config, other], 3),
        (["test", "-c", wrong, other], 2),
        (["test", "-c", config, good], 2),
        (["explain", "VAL-020"], 0),
        (["explain", "VAL-999"], 2),
        (["token", "inspect", "-f", token], 0),
        (["token", "inspect", "-f", absent], 1),
        (["token", "inspect", "--at", "yesterday", "-f", token], 2),
        (["token", "inspect", "-f", wrong], 3),
        (["token", "verify", "-c", config, "-f", token, *young], 0),
        (["token", "verify", "-c", config, "-f", absent], 1),
        (["token", "verify", "-c", wrong, "-f", token], 2),
        (["token", "verify", "-f", token], 2),
        (["token", "verify", "-c", config, "-f", token], 3),
        (["revocations", "lookup", *alice], 3),
        (["revocations", "lift", *alice], 3),
        (["revoke", *alice], 1),
        (["revoke", *alice, "--expires", "1h", "--dry-run"], 0),
        (["revoke", *alice, "--expires", "1h"], 0),
        (["revoke", "-c", wrong, "--sub", "alice", "--expires", "1h"], 2),
        (["revoke", "-c", kept], 2),
        (["revocations", "lookup", *alice], 0),
        (["revocations", "lookup", "-c", kept, "--token-file", absent], 1),
        (["revocations", "lookup", "-c", wrong, "--sub", "alice"], 2),
        (["revocations", "list", "-c", kept], 0),
        (["revocations", "export", "-c", kept], 0),
        (["revocations", "lift", *alice], 0),
        (["shadow-report", "--live", absent], 1),
        (["shadow-report"], 2),
        (["run", "-c", taken], 1),
        (["run", "-c", wrong], 2),
        (["feed", "serve", "--data", directory / "feed"], 1),
        (["feed", "serve"], 2),
        (["inject", "-f", absent, "--app-port", "8080", "--insecure-leave-open"], 1),
        (["inject", "-f", absent], 2),
        (["webhook", "--certificate", absent, "--private-key", absent, "--address", "127.0.0.1:0"], 1),
        (["webhook"], 2),
        (["demo", "--check"], 0),
        (["schema"], 0),
        (["completions", "fish"], 0),
        (["completions", "nonsense"], 2),
        (["man"], 0),
        (["man", good], 1),
        (["--version"], 0),
        (["nonsense"], 2),
    ]:
        run = valgate(*map(str, arguments))
        assert run.returncode == code, (arguments, code, run)
        assert run.stdout or run.stderr, (arguments, "nothing is told")
    occupied.close()


def every_page_has_its_exit_codes():
    """Of every command; those that only hold others have none."""
    def pages(*command):
        text = valgate(*command, "--help").stdout
        listed = text.partition("\nCommands:\n")[2].partition("\n\n")[0]
        names = [line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line[2] != " "]
        if not names:
            yield command, text
        for name in names:
            if name != "help":
                yield from pages(*command, name)

    found = dict(pages())
    assert len(found) > 15, found.keys()
    for command, text in found.items():
        assert "\nExit codes: 0 " in text and "\nExample" in text, (command, text)


def manual_pages_are_written(directory):
    assert valgate("man", str(directory / "man1")).returncode == 0
    pages = {page.name: page.read_text() for page in (directory / "man1").iterdir()}
    assert {"valgate.1", "valgate-run.1", "valgate-token-inspect.1"} <= pages.keys(), pages.keys()
    for name, page in pages.items():
        assert ".TH " in page and ".SH NAME" in page, (name, page)


TOKEN = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"


def a_token_that_is_typed_is_not_shown():
    child, terminal = pty.fork()
    if child == 0:
        os.execve(VALGATE, [VALGATE, "token", "inspect"], environment())
    # The terminal shows what is typed until the prompt switches that off.
    eventually("the prompt", lambda: not termios.tcgetattr(terminal)[3] & termios.ECHO)
    os.write(terminal, TOKEN.encode() + b"\n")
    written = b""
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 65536):
            written += part
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    shown = written.decode()
    assert os.waitstatus_to_exitcode(status) == 0, shown
    assert "not shown" in shown and "alice" in shown, shown
    assert not any(part in shown for part in TOKEN.split(".")), shown


def a_token_that_is_an_argument_is_refused_and_not_repeated():
    for arguments in [
        ["inspect", TOKEN],
        ["inspect", "Bearer", TOKEN],
        ["inspect", f"Bearer {TOKEN}"],
        ["verify", "-c", "docs/debugging/valgate.yaml", TOKEN],
    ]:
        run = valgate("token", *arguments)
        assert run.returncode == 2 and "A token is no argument" in run.stderr, run
        assert "eyJ" not in run.stdout + run.stderr, run


def ask(place, method, path, body=None):
    """The admin listener's answer, by its socket."""
    connection = http.client.HTTPConnection("localhost", timeout=PATIENCE)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(place))
    connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text)


def eventually(what, is_so):
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end, f"{what}: not in {PATIENCE} s"
        time.sleep(0.02)


def the_log_of_a_process_says_as_much_as_it_is_told_to(directory):
    (directory / "valgate.yaml").write_text(PROCESS)
    place, log = directory / "admin.sock", directory / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen([VALGATE, "run", "-c", directory / "valgate.yaml"], env=environment(),
                                   stdin=subprocess.DEVNULL, stderr=stderr)
    try:
        def serves():
            with contextlib.suppress(OSError):
                return ask(place, "GET", "/status")[0] == 200
            assert process.poll() is None, log.read_text()
            return False

        def reload(error_detail):
            """Has the process take another configuration."""
            (directory / "valgate.yaml").write_text(PROCESS + f"error_detail: {error_detail}\n")
            process.send_signal(signal.SIGHUP)
            eventually("the reload", lambda: error_detail in json.dumps(ask(place, "GET", "/config")[1]))

        def level(method, text=None):
            """What is logged; some libraries are quiet by levels of their own."""
            status, answer = ask(place, method, "/log-level", text and json.dumps({"level": text}))
            assert status == 200, answer
            return set(answer["level"].split(","))

        def told():
            """How many changes of the configuration the log tells of."""
            return log.read_text().count("error_detail")

        eventually("the process serves", serves)
        assert ESCAPE not in log.read_text(), "a log in a file has no colour"
        assert "info" in level("GET")
        reload("code_only")
        eventually("a line", lambda: told() == 1)
        assert "error" in level("PUT", "error")
        reload("full")
        assert ask(place, "PUT", "/log-level", '{"level":"loud"}')[0] == 400
        assert "error" in level("GET"), "what is wrong changes nothing"
        assert {"error", "valgate=info"} <= level("PUT", "error,valgate=info")
        reload("code_only")
        eventually("a line of the last change, none of the one before", lambda: told() >= 2)
        assert told() == 2, log.read_text()
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 0, log.read_text()


def main():
    for test in [
        lambda _: colour_is_for_terminals_that_want_it(),
        shells_load_their_completions,
        exit_codes_are_as_documented,
        lambda _: every_page_has_its_exit_codes(),
        manual_pages_are_written,
        lambda _: a_token_that_is_typed_is_not_shown(),
        lambda _: a_token_that_is_an_argument_is_refused_and_not_repeated(),
        the_log_of_a_process_says_as_much_as_it_is_told_to,
    ]:
        with tempfile.TemporaryDirectory() as directory:
            test(pathlib.Path(directory))
    print("commands: colour, completions, exit codes and the log level are as documented")


main()
