#!/usr/bin/env python3
"""Twice the load that one worker can bear: what gets through, what is shed, and what it costs in memory.

    deploy/build && tests/load/overload.py

First the peak: a closed loop, in which every client waits for its answer. Then twice that rate is offered, on so many
HTTP/2 streams that the generator need not wait. Each request has a token. The gateway has a core for itself. API
(nginx) and generator are on the others; where these are one, the generator is the one that waits, or it would be the API
that is overloaded. Fails if less than four fifths of the peak get through, or if memory grows without bound. Needs
h2load, nginx, openssl and taskset.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from signing import ISSUER, Key

ROOT = pathlib.Path(__file__).resolve().parents[2]
LEAST_GOODPUT = 0.8
# Of memory, in MiB: what as many requests in flight as the generator has streams may cost.
MOST_GROWTH = 256


def main() -> int:
    options = parse_options()
    for program in ("h2load", "nginx", "openssl", "taskset"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is needed and not installed")
    cores = sorted(os.sched_getaffinity(0))
    # The gateway alone on the first core; the rest is for the others, or shared where there is no rest.
    ours, others = cores[:1], cores[1:] or cores
    print(f"gateway on core {ours}, API and generator on {others}")
    return measure(ours, others, options)


def measure(ours: list[int], others: list[int], options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as running:
        directory = pathlib.Path(directory)
        key = Key(directory)
        api, front, health = free_port(), free_port(), free_port()
        start(running, others, ["nginx", "-c", str(nginx(directory, api)), "-p", str(directory)])
        config = gateway_config(directory, front, health, api, key, options)
        gateway = start(running, ours, [str(options.binary), "run", "-c", str(config)])
        wait_for(f"http://127.0.0.1:{health}/readyz")
        load = Load(f"http://127.0.0.1:{front}/", key.token(), others, options)

        used = cpu(gateway.pid)
        peak = load.closed_loop()
        busy = (cpu(gateway.pid) - used) / options.seconds
        before = resident(gateway.pid)
        used = cpu(gateway.pid)
        with Watch(gateway.pid) as memory:
            result = load.open_loop(options.times * peak)
        busy_then = (cpu(gateway.pid) - used) / options.seconds
        time.sleep(2)
        after = resident(gateway.pid)
        shed = metric(health, "valgate_requests_shed_total")

    share = result["good"] / peak
    print(f"{'peak, closed loop':<28}{peak:>12.0f} requests/s, {100 * busy:.0f} % of its core")
    print(f"{'offered, open loop':<28}{options.times * peak:>12.0f} requests/s")
    print(f"{'answered':<28}{result['sent']:>12.0f} requests/s, {100 * busy_then:.0f} % of its core")
    print(f"{'goodput':<28}{result['good']:>12.0f} requests/s  {100 * share:.0f} % of the peak")
    print(f"{'VAL-064':<28}{result['refused']:>12.0f} requests/s  {shed}")
    print(f"{'time to answer':<28}{result['latency']:>12}")
    print(f"{'resident memory':<28}{before:>8.0f} MiB before, {memory.peak:.0f} at the most, {after:.0f} after")
    if share < LEAST_GOODPUT or memory.peak - before > MOST_GROWTH:
        print(f"failed: goodput or memory, of which {LEAST_GOODPUT:.0%} and {MOST_GROWTH} MiB are allowed", file=sys.stderr)
        return 1
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/valgate")
    parser.add_argument("--seconds", type=int, default=10, help="of each of the two measurements")
    parser.add_argument("--times", type=float, default=2.0, help="how many times the peak is offered")
    parser.add_argument("--clients", type=int, default=100, help="connections, 100 streams each")
    parser.add_argument("--overload", default="{}", help="the `overload` section, in YAML")
    return parser.parse_args()


def nginx(directory: pathlib.Path, port: int) -> pathlib.Path:
    path = directory / "nginx.conf"
    path.write_text(
        f"""daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log stderr crit;
events {{ worker_connections 20000; }}
http {{
  access_log off; keepalive_requests 1000000000;
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 200 'hello, world'; }} }}
}}
"""
    )
    return path


def gateway_config(
    directory: pathlib.Path, front: int, health: int, api: int, key: Key, options: argparse.Namespace
) -> pathlib.Path:
    (directory / "jwks.json").write_text(json.dumps({"keys": [key.jwk]}))
    path = directory / "valgate.yaml"
    path.write_text(
        f"""version: 1
workers: 1
access_log: off
listeners: [{{ address: '127.0.0.1:{front}', plaintext: true }}]
health: {{ address: '127.0.0.1:{health}', metrics: true }}
upstreams: [{{ name: api, endpoints: ['http://127.0.0.1:{api}'] }}]
issuers: [{{ name: idp, issuer: '{ISSUER}', audiences: [api], keys: {{ file: '{directory}/jwks.json' }} }}]
routes: [{{ match: {{ path: '/**' }}, require: {{ issuers: [idp] }}, upstream: api }}]
overload: {options.overload}
"""
    )
    return path


def start(running: contextlib.ExitStack, cores: list[int], command: list[str]) -> subprocess.Popen:
    process = subprocess.Popen(pinned(cores, command), stderr=subprocess.DEVNULL)

    def stop() -> None:
        process.terminate()
        process.wait()

    running.callback(stop)
    return process


def pinned(cores: list[int], command: list[str]) -> list[str]:
    return ["taskset", "-c", ",".join(map(str, cores)), *command]


class Load:
    """The generator. It gives way to the API (`nice`), which may have to share its core."""

    def __init__(self, url: str, token: str, cores: list[int], options: argparse.Namespace) -> None:
        bearer = f"authorization: Bearer {token}"
        self.command = ["nice", "-n", "19", "h2load", "-D", str(options.seconds), "-H", bearer]
        self.url, self.cores, self.options = url, cores, options

    def closed_loop(self) -> float:
        return self.run("-c", "64", "-m", "1")["good"]

    def open_loop(self, rate: float) -> dict:
        clients = self.options.clients
        return self.run("-c", str(clients), "-m", "100", "--rps", str(max(1, round(rate / clients))))

    def run(self, *arguments: str) -> dict:
        command = pinned(self.cores, [*self.command, *arguments, self.url])
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        statuses = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", output)
        latency = re.search(r"time for request:\s+(\S+)\s+(\S+)\s+(\S+)", output)
        return {
            "good": int(statuses[1]) / self.options.seconds,
            "refused": int(statuses[4]) / self.options.seconds,
            "sent": sum(map(int, statuses.groups())) / self.options.seconds,
            "latency": f"{latency[3]} mean, {latency[2]} at the most",
        }


def metric(health: int, name: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{health}/metrics") as page:
        lines = [line.decode().strip() for line in page]
    return ", ".join(line.removeprefix(name) for line in lines if line.startswith(name))


def cpu(pid: int) -> float:
    """In seconds, so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """In MiB."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024


class Watch:
    """The most memory that a process holds while this is open."""

    def __init__(self, pid: int) -> None:
        self.pid, self.peak, self.over = pid, 0.0, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while not self.over.wait(0.1):
            self.peak = max(self.peak, resident(self.pid))

    def __enter__(self) -> "Watch":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url: str) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), urllib.request.urlopen(url):
            return
        time.sleep(0.05)
    sys.exit(f"{url} never answered")


if __name__ == "__main__":
    sys.exit(main())
