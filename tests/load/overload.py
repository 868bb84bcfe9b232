#!/usr/bin/env python3
"""Twice the load that one worker can bear: what gets through, what is shed, and what it costs in memory.

    cargo build --release && tests/load/overload.py

First the peak: a closed loop, in which every client waits for its answer. Then twice that rate is offered, on so many
HTTP/2 streams that the generator need not wait. Gateway, API (nginx) and generator are pinned apart where the machine
has cores enough; where it has not, the figures say little. Needs h2load, nginx and taskset.
"""

import argparse
import contextlib
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

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main() -> None:
    options = parse_options()
    for program in ("h2load", "nginx", "taskset"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is needed and not installed")
    cores = sorted(os.sched_getaffinity(0))
    # The gateway alone on the first core; the rest is for the others, or shared where there is no rest.
    ours, others = cores[:1], cores[1:] or cores
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as running:
        directory = pathlib.Path(directory)
        api, front, health = free_port(), free_port(), free_port()
        start(running, others, ["nginx", "-c", str(nginx(directory, api)), "-p", str(directory)])
        config = gateway_config(directory, front, health, api, options)
        gateway = start(running, ours, [str(options.binary), "run", "-c", str(config)])
        wait_for(f"http://127.0.0.1:{health}/readyz")
        url = f"http://127.0.0.1:{front}/"

        peak = closed_loop(url, others, options.seconds)
        before = resident(gateway.pid)
        with Watch(gateway.pid) as memory:
            offered = options.times * peak
            result = open_loop(url, others, offered, options)
        time.sleep(2)
        after = resident(gateway.pid)
        shed = metric(health, "valgate_requests_shed_total")

    print(f"gateway on core {ours}, API and generator on {others}")
    print(f"{'peak, closed loop':<28}{peak:>12.0f} requests/s")
    print(f"{'offered, open loop':<28}{offered:>12.0f} requests/s")
    print(f"{'sent':<28}{result['sent']:>12.0f} requests/s")
    print(f"{'goodput':<28}{result['good']:>12.0f} requests/s  {100 * result['good'] / peak:.0f} % of the peak")
    print(f"{'VAL-064':<28}{result['refused']:>12.0f} requests/s  {shed}")
    print(f"{'time to answer':<28}{result['latency']:>12}")
    print(f"{'resident memory':<28}{before:>8.0f} MiB before, {memory.peak:.0f} at the most, {after:.0f} after")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/valgate")
    parser.add_argument("--seconds", type=int, default=10, help="of each of the two measurements")
    parser.add_argument("--times", type=float, default=2.0, help="how many times the peak is offered")
    parser.add_argument("--clients", type=int, default=200, help="connections of the open loop, 100 streams each")
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
    directory: pathlib.Path, front: int, health: int, api: int, options: argparse.Namespace
) -> pathlib.Path:
    path = directory / "valgate.yaml"
    path.write_text(
        f"""version: 1
workers: 1
access_log: off
listeners: [{{ address: '127.0.0.1:{front}', plaintext: true }}]
health: {{ address: '127.0.0.1:{health}', metrics: true }}
upstreams: [{{ name: api, endpoints: ['http://127.0.0.1:{api}'] }}]
routes: [{{ match: {{ path: '/**' }}, public: true, upstream: api }}]
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


def closed_loop(url: str, cores: list[int], seconds: int) -> float:
    command = ["h2load", "-c", "64", "-m", "1", "-D", str(seconds), url]
    output = subprocess.run(pinned(cores, command), check=True, capture_output=True, text=True).stdout
    return int(re.search(r"status codes: (\d+) 2xx", output)[1]) / seconds


def open_loop(url: str, cores: list[int], rate: float, options: argparse.Namespace) -> dict:
    each = max(1, round(rate / options.clients))
    command = ["h2load", "-c", str(options.clients), "-m", "100", "--rps", str(each), "-D", str(options.seconds), url]
    output = subprocess.run(pinned(cores, command), check=True, capture_output=True, text=True).stdout
    statuses = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", output)
    good, refused = int(statuses[1]), int(statuses[4])
    latency = re.search(r"time for request:\s+(\S+)\s+(\S+)\s+(\S+)", output)
    return {
        "good": good / options.seconds,
        "refused": refused / options.seconds,
        "sent": sum(map(int, statuses.groups())) / options.seconds,
        "latency": f"{latency[3]} mean, {latency[2]} at the most",
    }


def metric(health: int, name: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{health}/metrics") as page:
        lines = [line.decode().strip() for line in page]
    return ", ".join(line.removeprefix(name) for line in lines if line.startswith(name))


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
    main()
