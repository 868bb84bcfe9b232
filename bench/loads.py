"""The load generators: what each sends, and what it reports."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fixture import HOST
from peers import LOAD_CORE, PARTS, program_path

CONNECTIONS = 64


@dataclass
class Load:
    """What came of a load."""

    requests: int
    seconds: float


def run(*command, **options) -> str:
    done = subprocess.run(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, LOAD_CORE), **options,
    )
    if done.returncode:
        raise SystemExit(f"{command[0]} failed:\n{done.stdout[-2000:]}")
    return done.stdout


def wrk(url: str, seconds: float, script: str, scratch: Path, *, status: int, connections=CONNECTIONS) -> Load:
    """HTTP/1.1 with keep-alive. `script` is Lua that sets what is sent."""
    path = scratch / "load.lua"
    path.write_text(script + REPORT)
    output = run(program_path("wrk"), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s", "-s", path, url)
    report = re.search(r"REPORT (\d+) (\d+) (\d+) (\d+)", output)
    requests, refused, broken, micros = map(int, report.groups())
    good = requests - refused if status < 400 else refused
    # A connection that ends with the run is no error.
    if good < requests * 0.999 or broken > connections:
        raise SystemExit(f"{requests - good} of {requests} responses were not {status}, {broken} connections broke: {url}\n{output}")
    return Load(requests, micros / 1e6)


REPORT = """
done = function(summary, latency)
  local e = summary.errors
  print(string.format("REPORT %d %d %d %d", summary.requests, e.status, e.connect + e.read + e.write + e.timeout,
    summary.duration))
end
"""


def with_token(token: str, method="GET", body_bytes=0) -> str:
    body = f'wrk.body = string.rep("x", {body_bytes})\n' if body_bytes else ""
    return f'wrk.method = "{method}"\nwrk.headers["Host"] = "{HOST}"\nwrk.headers["Authorization"] = "Bearer {token}"\n{body}'


def with_tokens(file: Path, path="/orders/4711") -> str:
    """Each token once; the run must end before they do."""
    return f"""
local tokens = {{}}
for line in io.lines("{file}") do tokens[#tokens + 1] = line end
local next_token = 0
request = function()
  next_token = next_token + 1
  local token = tokens[next_token] or error("out of tokens: mint more")
  return "GET {path} HTTP/1.1\\r\\nHost: {HOST}\\r\\nAuthorization: Bearer " .. token .. "\\r\\n\\r\\n"
end
"""


def h2load(url: str, token: str, seconds: float) -> Load:
    """HTTP/2: 16 connections with 32 streams each."""
    output = run(program_path("h2load"), "-t1", "-c16", "-m32", f"-D{seconds}", *h2load_headers(token), url)
    requests = int(re.search(r"(\d+) 2xx", output)[1])
    failed = int(re.search(r"(\d+) failed", output)[1])
    if failed > requests / 1000:
        raise SystemExit(f"{failed} requests failed: {url}\n{output}")
    return Load(requests, seconds)


def steady(port: int, fixture, token: str, per_second: int, seconds: int, *, over_tls=True) -> float:
    """The median latency in seconds of HTTP/1.1 at a fixed and even rate over 20 connections."""
    output = run(PARTS, "connect", "steady", *([] if over_tls else ["--plain"]), *to(port, fixture, token),
                 "--rate", per_second, "--seconds", seconds)
    return int(output) / 1e6


def logged(log: Path, *, status: int) -> int:
    """How many requests h2load wrote down; every one must have been answered as is expected."""
    # Start time, status, microseconds.
    rows = [line.split() for line in log.read_text().splitlines()]
    others = sum(int(row[1]) != status for row in rows)
    if others or not rows:
        raise SystemExit(f"{others} of {len(rows)} responses were not {status}: {log}")
    return len(rows)


def h2load_headers(token: str) -> list[str]:
    # Over HTTP/1.1 too: `Host` would come beside the one that h2load makes of the URL, and two of them are refused.
    return ["-H", f":authority: {HOST}", *(["-H", f"Authorization: Bearer {token}"] if token else [])]


def verification(fixture, algorithm: str, seconds: float) -> float:
    """The microseconds that the library takes for a signature."""
    output = run(PARTS, "verify", "--key", fixture.private_key(algorithm), "--algorithm", algorithm, "--seconds", seconds)
    return int(output) / 1e3


def handshakes(peer, fixture, token: str, seconds: float, resume: bool) -> Load:
    """A connection for each request."""
    output = run(PARTS, "connect", "repeat", *to(peer.tls, fixture, token), "--seconds", seconds, *(["--resume"] if resume else []))
    return Load(int(output), seconds)


def hold(peer, fixture, token: str, connections: int) -> subprocess.Popen:
    """Connections that stay open until the process's standard input is closed."""
    command = [PARTS, "connect", "hold", *to(peer.tls, fixture, token), "--connections", connections]
    holder = subprocess.Popen(
        [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, LOAD_CORE),
    )
    if holder.stdout.readline() != "ready\n":
        raise SystemExit(f"{peer.peer.name} does not hold {connections} connections")
    return holder


def to(port: int, fixture, token: str) -> list:
    return ["--address", f"127.0.0.1:{port}", "--certificate", fixture.path("tls.crt"), "--host", HOST, "--token", token]
