#!/usr/bin/env python3
"""What a flood of tokens with random key ids costs the identity provider, and valid traffic beside it.

    deploy/build && tests/load/unknown_kids.py [--requests 100000] [--rate 2000] [--binary PATH]

A provider on loopback counts how often its keys are fetched, and takes a quarter of a second for each answer. A client asks
with one good token every few milliseconds: first alone, then while as many requests as are said, each with a key id that was
never seen, arrive on 16 connections. Every answer is checked: 200 for the good token, 401 or 503 for the others, and nothing
of them at the API. Needs openssl.

It fails if the provider is asked more often than once in a cooldown, or if the good token's requests take longer beside the
flood than
    p50: 1.5 times as long as alone, and 1 ms
    p99: 2 times as long as alone, and 10 ms
What is added is for the machine, which the flood's generator, the client and the API share with the gateway: a good request
may stand behind one of each other connection, and wait for a slice of the scheduler's. A good request that waited for the
provider would miss this by far: a fetch is under way for 5 % of the time, so that its p99 would be some 200 ms. The rate must
be one that the machine bears; beyond it everything stands in line, whatever is asked for.
"""

import argparse
import asyncio
import http.server
import json
import multiprocessing
import os
import pathlib
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time

from signing import ISSUER, Key, encoded

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONNECTIONS = 16
COOLDOWN = 5
# Seconds that the provider takes to answer.
SLOWNESS = 0.25
# Times as long as alone, and seconds more.
P50, P99 = (1.5, 0.001), (2.0, 0.010)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--requests", type=int, default=100_000)
    options.add_argument("--rate", type=int, default=2000, help="of the flood, in requests a second")
    options.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/valgate")
    options = options.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        return measure(options, pathlib.Path(directory))


def measure(options: argparse.Namespace, directory: pathlib.Path) -> int:
    key = Key(directory)
    provider, api = Counting({"keys": [key.jwk]}, SLOWNESS), Counting({"ok": True})
    port = free_port()
    configuration = directory / "valgate.yaml"
    configuration.write_text(f"""
version: 1
workers: 1
access_log: off
listeners: [{{ address: "127.0.0.1:{port}", plaintext: true }}]
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ jwks_url: "http://127.0.0.1:{provider.port}/jwks", cooldown: {COOLDOWN}s, refresh_interval: 1h }}
    audiences: [api]
upstreams: [{{ name: api, endpoints: ["http://127.0.0.1:{api.port}"] }}]
routes: [{{ match: {{ path: /** }}, require: {{ issuers: [main] }}, upstream: api }}]
""")
    gateway = subprocess.Popen([options.binary, "run", "-c", configuration], stderr=subprocess.DEVNULL)
    try:
        good = key.token()
        wait_for(port, good)
        idle = asyncio.run(canary(port, good, lambda: False, seconds=10))
        before, passed = provider.count, api.count
        flood = multiprocessing.Process(target=flood_of, args=(port, key.claims(), options.requests, options.rate))
        flood.start()
        began = time.monotonic()
        beside = asyncio.run(canary(port, good, lambda: not flood.is_alive()))
        took = time.monotonic() - began
        flood.join()
        fetches, passed = provider.count - before, api.count - passed
    finally:
        gateway.kill()
    most = int(took / COOLDOWN) + 2
    print(f"{options.requests} requests with random key ids in {took:.1f} s: {fetches} fetches (at most {most})")
    for name, times in (("alone", idle), ("beside the flood", beside)):
        p50, p99 = (1000 * quantile(times, part) for part in (0.5, 0.99))
        print(f"good token, {name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, of {len(times)}")
    missed = []
    if flood.exitcode != 0 or passed != len(beside):
        missed.append(f"flood {flood.exitcode}, {passed} requests at the API of {len(beside)} good ones")
    if fetches > most:
        missed.append(f"the provider was asked {fetches} times, not {most} at most")
    for name, part, (times_as_long, more) in (("p50", 0.5, P50), ("p99", 0.99, P99)):
        bound = times_as_long * quantile(idle, part) + more
        if quantile(beside, part) > bound:
            missed.append(f"{name} of the good token beside the flood is above {1000 * bound:.2f} ms")
    for miss in missed:
        print(f"failed: {miss}", file=sys.stderr)
    return 1 if missed else 0


def quantile(times: list[float], part: float) -> float:
    return sorted(times)[int(len(times) * part)]


async def canary(port: int, token: str, is_over, seconds: float = 3600) -> list[float]:
    """How long requests with a good token take, one after the other on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end and not is_over():
        began = time.perf_counter()
        if await ask(reader, writer, token) != 200:
            raise SystemExit("the good token was refused")
        times.append(time.perf_counter() - began)
        await asyncio.sleep(0.005)
    writer.close()
    return times


def flood_of(port: int, claims: str, requests: int, rate: int) -> None:
    async def connection(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        due = time.monotonic() + secrets.randbelow(1000) / 1000 * CONNECTIONS / rate
        for _ in range(number):
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            # What came late is not made up for by a burst.
            due = max(due, time.monotonic()) + CONNECTIONS / rate
            header = encoded(json.dumps({"alg": "ES256", "kid": secrets.token_hex(8)}).encode())
            status = await ask(reader, writer, f"{header}.{claims}.{encoded(os.urandom(64))}")
            if status not in (401, 503):
                raise SystemExit(f"a token of an unknown key was answered with {status}")

    async def all_of_them() -> None:
        await asyncio.gather(*(connection(requests // CONNECTIONS) for _ in range(CONNECTIONS)))

    asyncio.run(all_of_them())


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> int:
    writer.write(f"GET /x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = next(int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length:"))
    await reader.readexactly(length)
    return int(head.split(" ")[1])


def wait_for(port: int, token: str) -> None:
    for _ in range(500):
        try:
            asyncio.run(canary(port, token, lambda: False, seconds=0.01))
            return
        except (OSError, SystemExit, asyncio.IncompleteReadError):
            time.sleep(0.02)
    raise SystemExit("the gateway does not answer")


class Counting:
    """A server that says the same to all, after so many seconds, and counts."""

    def __init__(self, answer: dict, after: float = 0.0) -> None:
        outer, body = self, json.dumps(answer).encode()
        self.count = 0

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.count += 1
                time.sleep(after)
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        Handler.wbufsize = -1
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
