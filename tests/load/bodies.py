#!/usr/bin/env python3
"""Bodies of a gibibyte each way, and what the gateway's memory grows by meanwhile.

    deploy/build && tests/load/bodies.py [--mebibytes 1024] [--at-once 4]

curl downloads and uploads them over TLS, by HTTP/1.1 and HTTP/2, with a Content-Length and without; the API counts what
it receives. One client in each row is slow while the others go as fast as they can, so that what the gateway holds for
it is seen too. Fails if memory grows by more than the limit, or if a byte is lost. Needs curl and openssl.
"""

import argparse
import contextlib
import pathlib
import re
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
MIB = 1 << 20
BLOCK = bytes(MIB)


def main() -> None:
    options = parse_options()
    for program in ("curl", "openssl"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is needed and not installed")
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as running:
        directory = pathlib.Path(directory)
        size = options.mebibytes * MIB
        body = directory / "body"
        with body.open("wb") as file:
            file.truncate(size)
        api = running.enter_context(Api(size))
        front, health = free_port(), free_port()
        config = gateway_config(directory, front, health, api.server_address[1])
        gateway = start(running, [str(options.binary), "run", "-c", str(config)])
        wait_for(f"http://127.0.0.1:{health}/readyz")
        client = Client(f"https://127.0.0.1:{front}", directory)
        # What the first requests need, they need once.
        for version in ("--http1.1", "--http2"):
            client.start("up", version, directory / "small", 0).communicate()
        before = resident(gateway.pid)
        print(f"{options.at_once} at once of {options.mebibytes} MiB, one of them slow; {before:.0f} MiB resident before")
        failed = False
        for name, way in WAYS.items():
            for version in ("--http1.1", "--http2"):
                with Watch(gateway.pid) as memory:
                    wrong = transfer(client, way, version, body, size, options.at_once)
                growth = memory.peak - before
                failed |= bool(wrong) or growth > options.limit
                print(f"{name:<28}{version[2:]:<10}{growth:>6.1f} MiB  {wrong or 'complete'}")
    if failed:
        sys.exit(f"a body was not complete, or memory grew by more than {options.limit} MiB")


WAYS = {"download": "down", "upload": "up", "upload of unknown length": "chunked"}


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/valgate")
    parser.add_argument("--mebibytes", type=int, default=1024, help="of each body")
    parser.add_argument("--at-once", type=int, default=4, help="bodies at a time")
    parser.add_argument("--limit", type=float, default=64, help="how much memory may grow, in MiB")
    return parser.parse_args()


class Client:
    """curl, and how it is to be called."""

    def __init__(self, url: str, directory: pathlib.Path) -> None:
        self.url, self.directory = url, directory
        (directory / "small").write_bytes(b"x")

    def start(self, way: str, version: str, body: pathlib.Path, rate: int) -> subprocess.Popen:
        command = ["curl", "--silent", "--show-error", "--cacert", str(self.directory / "cert.pem"), version,
                   "--header", "Expect:", "--write-out", " %{http_code} %{http_version} %{size_download}"]
        if rate:
            command += ["--limit-rate", str(rate)]
        if way == "down":
            command += ["--output", "/dev/null", self.url]
        else:
            command += ["--upload-file", str(body) if way == "up" else "-", f"{self.url}/body"]
        source = body.open("rb") if way == "chunked" else subprocess.DEVNULL
        return subprocess.Popen(command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def transfer(client: Client, way: str, version: str, body: pathlib.Path, size: int, at_once: int) -> str:
    """What was not as it should be."""
    # Far slower than the quick ones; it is stopped when they are done.
    slow = client.start(way, version, body, 8 * MIB)
    quick = [client.start(way, version, body, 0) for _ in range(at_once - 1)]
    answers = [process.communicate()[0] for process in quick]
    slow.kill()
    slow.wait()
    http = "2" if version == "--http2" else "1.1"
    expected = f" 200 {http} {size}" if way == "down" else f"{size} 200 {http} {len(str(size))}"
    return "; ".join(sorted({answer for answer in answers if answer != expected}))


class Api(socketserver.ThreadingTCPServer):
    """Sends a body of this size to who asks for one, and tells everybody else how much it received."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, size: int) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.size = size
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Exchange(socketserver.StreamRequestHandler):
    rbufsize = MIB

    def handle(self) -> None:
        # A slow client is stopped in the midst of its body.
        with contextlib.suppress(OSError, ValueError):
            while line := self.rfile.readline():
                head = {name.lower(): value.strip() for name, value in self.fields()}
                if line.startswith(b"GET"):
                    self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % self.server.size)
                    for _ in range(self.server.size // MIB):
                        self.wfile.write(BLOCK)
                    continue
                chunked = b"chunked" in head.get(b"transfer-encoding", b"")
                received = self.chunks() if chunked else self.skip(int(head.get(b"content-length", 0)))
                answer = b"%d" % received
                self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(answer), answer))

    def fields(self):
        while (line := self.rfile.readline()).strip():
            yield line.split(b":", 1)

    def chunks(self) -> int:
        received = 0
        while size := int(self.rfile.readline().split(b";")[0], 16):
            received += self.skip(size)
            self.rfile.readline()
        self.rfile.readline()
        return received

    def skip(self, size: int) -> int:
        left = size
        while left and (got := len(self.rfile.read1(min(left, MIB)))):
            left -= got
        return size - left


def gateway_config(directory: pathlib.Path, front: int, health: int, api: int) -> pathlib.Path:
    key, cert = directory / "key.pem", directory / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=valgate", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )
    path = directory / "valgate.yaml"
    path.write_text(
        f"""version: 1
workers: 1
access_log: off
listeners: [{{ address: '127.0.0.1:{front}', tls: {{ certificates: [{{ certificate: '{cert}', private_key: '{key}' }}] }} }}]
health: {{ address: '127.0.0.1:{health}' }}
upstreams: [{{ name: api, endpoints: ['http://127.0.0.1:{api}'] }}]
routes: [{{ match: {{ path: '/**', methods: [GET, PUT] }}, public: true, upstream: api }}]
"""
    )
    return path


def start(running: contextlib.ExitStack, command: list[str]) -> subprocess.Popen:
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def stop() -> None:
        process.terminate()
        process.wait()

    running.callback(stop)
    return process


class Watch:
    """The most memory that a process holds while this is open."""

    def __init__(self, pid: int) -> None:
        self.pid, self.peak, self.over = pid, 0.0, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while not self.over.wait(0.05):
            self.peak = max(self.peak, resident(self.pid))

    def __enter__(self) -> "Watch":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


def resident(pid: int) -> float:
    """In MiB."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024


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
