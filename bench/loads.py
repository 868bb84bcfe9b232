"""The load generators: what each sends, and what it reports."""

import os
import re
import statistics
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
    #: Seconds, where the generator tells.
    p50: float = 0.0


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
    report = re.search(r"REPORT (\d+) (\d+) (\d+) (\d+) (\d+)", output)
    requests, refused, broken, micros, p50 = map(int, report.groups())
    good = requests - refused if status < 400 else refused
    # A connection that ends with the run is no error.
    if good < requests * 0.999 or broken > connections:
        raise SystemExit(f"{requests - good} of {requests} responses were not {status}, {broken} connections broke: {url}\n{output}")
    return Load(requests, micros / 1e6, p50 / 1e6)


REPORT = """
done = function(summary, latency)
  local e = summary.errors
  print(string.format("REPORT %d %d %d %d %d", summary.requests, e.status, e.connect + e.read + e.write + e.timeout,
    summary.duration, latency:percentile(50)))
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


def steady(url: str, token: str, per_second: int, seconds: int, log: Path) -> Load:
    """HTTP/1.1 at a fixed rate over 20 connections."""
    clients = 20
    log.unlink(missing_ok=True)
    run(program_path("h2load"), "--h1", "-t1", f"-c{clients}", "-m1", f"--rps={per_second / clients}",
        f"-n{per_second * seconds}", f"--log-file={log}", *h2load_headers(token), url)
    micros = logged(log, status=200)
    return Load(len(micros), seconds, statistics.median(micros) / 1e6)


def logged(log: Path, *, status: int) -> list[int]:
    """What h2load wrote down of each request, in microseconds; every one must have been answered as is expected."""
    # Start time, status, microseconds.
    rows = [line.split() for line in log.read_text().splitlines()]
    others = sum(int(row[1]) != status for row in rows)
    if others or not rows:
        raise SystemExit(f"{others} of {len(rows)} responses were not {status}: {log}")
    return [int(row[2]) for row in rows]


def h2load_headers(token: str) -> list[str]:
    # Over HTTP/1.1 too: `Host` would come beside the one that h2load makes of the URL, and two of them are refused.
    return ["-H", f":authority: {HOST}", *(["-H", f"Authorization: Bearer {token}"] if token else [])]


def handshakes(peer, fixture, token: str, seconds: float, resume: bool) -> Load:
    """A connection for each request."""
    output = run(PARTS, "connect", "repeat", *to(peer, fixture, token), "--seconds", seconds, *(["--resume"] if resume else []))
    return Load(int(output), seconds)


def hold(peer, fixture, token: str, connections: int) -> subprocess.Popen:
    """Connections that stay open until the process's standard input is closed."""
    command = [PARTS, "connect", "hold", *to(peer, fixture, token), "--connections", connections]
    holder = subprocess.Popen(
        [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, LOAD_CORE),
    )
    if holder.stdout.readline() != "ready\n":
        raise SystemExit(f"{peer.peer.name} does not hold {connections} connections")
    return holder


def to(peer, fixture, token: str) -> list:
    return ["--address", f"127.0.0.1:{peer.tls}", "--certificate", fixture.path("tls.crt"), "--host", HOST, "--token", token]
