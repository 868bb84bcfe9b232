#!/usr/bin/env python3
"""Runs docs/tutorial.md as a reader would, and compares what it shows with what happens.

    tests/tutorial/run.py [VALGATE]     the binary, named valgate; by default the one that cargo built last

Blocks of the page, by the first line of their fence:

    ```js provider.mjs    a file of that name (any language)
    ```sh                 pasted into one bash shell, in order; must end with status 0, and print nothing
                          unless a ```console block follows
    ```console            what the block before it printed: `...` alone on a line stands for any lines,
                          within a line for any text

What the page installs is kept in target/tools/tutorial, so that only the first run needs the registries.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/tutorial.md"
SCRATCH = ROOT / "target/tools/tutorial"
INSTALLED = {"node_modules", "package.json", "package-lock.json", "python"}
SECONDS_PER_BLOCK = 300
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Step:
    line: int
    script: str
    expected: str | None = None


def main() -> int:
    files, steps = read(PAGE.read_text())
    prepare(files)
    shell = Shell(binary())
    passed = failed = 0
    try:
        for step in steps:
            began = time.monotonic()
            deviation = shell.deviation(step)
            took = time.monotonic() - began
            if deviation is None:
                passed += 1
                print(f"ok      line {step.line:3}  {took:5.1f} s  {title(step)}", flush=True)
            else:
                failed += 1
                print(f"FAILED  line {step.line:3}  {took:5.1f} s  {title(step)}\n{deviation}", flush=True)
            if shell.ended:
                break
    finally:
        shell.end()
    left_out = len(steps) - passed - failed
    print(f"tutorial: {passed} passed, {failed} failed" + (f", {left_out} not run" if left_out else ""))
    return 0 if passed == len(steps) else 1


def read(page: str) -> tuple[dict[str, str], list[Step]]:
    files: dict[str, str] = {}
    steps: list[Step] = []
    for block in FENCE.finditer(page):
        language, name, text = block.groups()
        line = page.count("\n", 0, block.start()) + 1
        if name is not None:
            files[name] = text
        elif language == "sh":
            steps.append(Step(line, text))
        elif language == "console":
            steps[-1].expected = text
    if not files or not steps:
        sys.exit(f"{PAGE}: no files or no steps found; is it still the tutorial?")
    return files, steps


def prepare(files: dict[str, str]) -> None:
    SCRATCH.mkdir(parents=True, exist_ok=True)
    for path in SCRATCH.iterdir():
        if path.name not in INSTALLED:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    # Without it npm installs into the project that the directory is part of.
    (SCRATCH / "package.json").write_text('{ "private": true }\n')
    for name, text in files.items():
        (SCRATCH / name).write_text(text)
    for address, port in set(re.findall(r"(127\.0\.0\.1):(\d+)", PAGE.read_text())):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, int(port)))
            except OSError as error:
                sys.exit(f"tutorial: port {port} is needed: {error.strerror}; stop what listens there")


def binary() -> Path:
    if len(sys.argv) > 1:
        candidates = [Path(sys.argv[1]).resolve()]
    else:
        candidates = [ROOT / "target" / profile / "valgate" for profile in ("debug", "release")]
    built = [path for path in candidates if path.name == "valgate" and os.access(path, os.X_OK)]
    if not built:
        sys.exit(f"tutorial: there is no valgate at {candidates[0]}; build it first: cargo build")
    return max(built, key=lambda path: path.stat().st_mtime)


class Shell:
    """One bash, so that variables, functions and background jobs last from block to block."""

    def __init__(self, valgate: Path) -> None:
        path = f"{valgate.parent}{os.pathsep}{os.environ['PATH']}"
        self.ended = False
        self.output = SCRATCH / "output.txt"
        self.bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=SCRATCH,
            env={**os.environ, "PATH": path, "NO_COLOR": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def deviation(self, step: Step) -> str | None:
        script = SCRATCH / "block.sh"
        script.write_text(step.script)
        alarm(SECONDS_PER_BLOCK)
        try:
            self.bash.stdin.write(f"source {script.name} > {self.output.name} 2>&1 < /dev/null; echo $?\n")
            self.bash.stdin.flush()
            answer = self.bash.stdout.readline()
            status = answer.strip() or "unknown: the shell ended"
            self.ended = not answer
        except TimeoutError:
            status = f"none within {SECONDS_PER_BLOCK} s"
            self.ended = True
        finally:
            alarm(0)
        printed = self.output.read_text()
        if status != "0":
            return f"status {status}\n{indented(printed)}"
        expected = "" if step.expected is None else step.expected
        if not matches(expected, printed):
            return f"expected\n{indented(expected)}\nprinted\n{indented(printed)}"
        return None

    def end(self) -> None:
        """Ends the shell and all that it started."""
        try:
            os.killpg(self.bash.pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
        self.bash.wait()


def alarm(seconds: int) -> None:
    def ring(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)


def matches(expected: str, printed: str) -> bool:
    def pattern(line: str) -> str:
        if line.strip() == "...":
            return r"(?:[^\n]*\n)*?"
        return ".*?".join(re.escape(part) for part in line.split("...")) + r"\n"

    # A trailing space or carriage return cannot be seen on the page.
    lines = [line.rstrip() for line in printed.splitlines()]
    printed = "".join(f"{line}\n" for line in lines)
    return re.fullmatch("".join(map(pattern, expected.splitlines())), printed) is not None


def title(step: Step) -> str:
    return step.script.splitlines()[-1]


def indented(text: str) -> str:
    return "".join(f"        {line}\n" for line in text.splitlines()) or "        (nothing)"


if __name__ == "__main__":
    sys.exit(main())
