#!/usr/bin/env python3
"""No path that the gateway accepts for one route means another route to the API behind it, whoever reads it there.

    tests/paths/run.py [VALGATE]        the binary; by default the one that cargo built last

Paths are put together from the parts that bypasses are made of, and sent by HTTP/1.1 as they are. The gateway has a
public route below /public with every opt-in, and no other. What reaches the API is then read by several programs that
know nothing of each other; each must find it below /public. Readers that are not installed are left out and named.
"""

import contextlib
import itertools
import json
import os
import pathlib
import posixpath
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATHS = 6000

# What the advisories of this class were made of: see docs/protocols.md.
PARTS = [
    "/", "//", "/.", "/..", "/./", "/../", "..", ".", "...", "/...", "%2e", "%2E", "%2e%2e", ".%2e", "%2f", "%2F", "%5c",
    "\\", "/..\\", ";", ";x", ";/", "..;", "/..;/", "%3b", "%00", "%0a", "%0d%0a", "%09", "%20", "+", "%252e", "%252f",
    "%c0%ae", "%c0%af", "%e0%80%af", "%ef%bc%8f", "%e2%80%a5", "%ff", "%", "%2", "%u002e", "?", "?/../admin", "#", "%23",
    "%3f", "public", "admin", "PUBLIC", "Admin", "%61dmin", "x", "x.y", "~", ":", "@", "=", "&", "*", "//admin", "%25",
    "é", "xn--", "%2e%2e%2fadmin", "/%2e%2e/admin", "index.html", ".json",
]


def candidates() -> list[str]:
    """All pairs of parts behind /public, and longer rows of them, always the same."""
    chance = random.Random(20261123)
    pairs = [f"/public{first}{second}" for first, second in itertools.product(PARTS, repeat=2)]
    rows = ["".join(["/public", *chance.choices(PARTS, k=chance.randint(3, 6))]) for _ in range(PATHS)]
    bare = ["".join(chance.choices(PARTS, k=chance.randint(1, 4))) for _ in range(PATHS // 4)]
    return list(dict.fromkeys(pairs + rows + [path if path.startswith("/") else f"/{path}" for path in bare]))


# --- readers: each gives the paths that it could take a target for, all of which must be below /public ---


def read_python(targets: list[str]) -> list[str]:
    """urllib, unquoted and normalised, as many a small server does."""
    return [posixpath.normpath(urllib.parse.unquote(urllib.parse.urlsplit(target).path)) for target in targets]


def read_late(targets: list[str]) -> list[str]:
    """Normalised before and after it is unquoted."""
    paths = (posixpath.normpath(target.partition("?")[0]) for target in targets)
    return [posixpath.normpath(urllib.parse.unquote(path)) for path in paths]


def read_tomcat(targets: list[str]) -> list[str]:
    """Java servers: parameters are cut out of each segment before dots are looked at; backslashes may count."""
    paths = (re.sub(r";[^/]*", "", target.partition("?")[0]) for target in targets)
    return [posixpath.normpath(urllib.parse.unquote(path).replace("\\", "/")) for path in paths]


def read_werkzeug(targets: list[str]) -> list[str]:
    """Flask's router, given what its server gives it."""
    from werkzeug.routing import Map, RequestRedirect, Rule
    from werkzeug.exceptions import NotFound

    rules = Map([Rule("/public", endpoint="/public"), Rule("/public/", endpoint="/public"),
                 Rule("/public/<path:rest>", endpoint="/public"), Rule("/admin", endpoint="/admin"),
                 Rule("/admin/<path:rest>", endpoint="/admin")])
    router = rules.bind("localhost")

    def read(target: str) -> str:
        path = urllib.parse.unquote(target.partition("?")[0])
        for _ in range(3):
            try:
                return router.match(path)[0]
            except RequestRedirect as elsewhere:
                path = urllib.parse.unquote(urllib.parse.urlsplit(elsewhere.new_url).path)
            except NotFound:
                return "/public (not found)"
        return "/public (goes round in circles)"

    return [read(target) for target in targets]


def read_node(targets: list[str]) -> list[str]:
    """WHATWG's URL, whose own path is what `new URL(request.url, base)` gives to many a Node.js server; decoded."""
    program = """
        const targets = JSON.parse(require("fs").readFileSync(0));
        const path = require("path").posix;
        const read = target => {
          const url = new URL(target, "http://localhost");
          return url.host === "localhost" ? path.normalize(decodeURIComponent(url.pathname)) : `another host: ${url.host}`;
        };
        console.log(JSON.stringify(targets.map(read)));
    """
    node = subprocess.run(["node", "-e", program], input=json.dumps(targets), check=True, capture_output=True, text=True)
    return json.loads(node.stdout)


def read_nginx(targets: list[str]) -> list[str]:
    """nginx's locations."""
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as running:
        port = free_port()
        places = ("/public", "/admin", "/")
        locations = "".join(f"location {place} {{ return 200 '{place}'; }}\n" for place in places)
        config = pathlib.Path(directory, "nginx.conf")
        config.write_text(f"daemon off; pid {directory}/pid; error_log stderr emerg; events {{}}\n"
                          f"http {{ access_log off; server {{ listen 127.0.0.1:{port}; {locations} }} }}")
        nginx = subprocess.Popen(["nginx", "-c", config, "-p", directory], stderr=subprocess.DEVNULL)
        running.callback(nginx.wait)
        running.callback(nginx.terminate)
        wait_for(port)
        answers = (ask(port, target) for target in targets)
        # What nginx refuses is no other route.
        return [answer.partition("\r\n\r\n")[2] if " 200 " in answer[:20] else "/public (refused)" for answer in answers]


READERS = {"urllib": read_python, "late decoding": read_late, "Tomcat's rules": read_tomcat, "werkzeug": read_werkzeug,
           "node": read_node, "nginx": read_nginx}


# --- the run ---


def main() -> int:
    built = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug/valgate"
    valgate = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else built).resolve()
    sent = candidates()
    received = through(valgate, sent)
    missing = [name for name in ("node", "nginx") if shutil.which(name) is None]
    surprises = []
    for name, read in READERS.items():
        if name in missing:
            continue
        for target, path in zip(received, read(received), strict=True):
            if not (path == "/public" or path.startswith(("/public/", "/public "))):
                surprises.append(f"{target}: {name} reads {path}")
    print("\n".join(surprises))
    print(f"{len(sent)} paths sent, {len(received)} accepted, {len(READERS) - len(missing)} readers, "
          f"{len(surprises)} surprises{'; not installed: ' + ', '.join(missing) if missing else ''}")
    # A gateway that refuses everything would be no proof.
    return 1 if surprises or len(received) < 100 else 0


def through(valgate: pathlib.Path, sent: list[str]) -> list[str]:
    """The targets that reach the API, each as it arrives."""
    received: list[str] = []
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as running:
        api = socket.create_server(("127.0.0.1", 0))
        running.callback(api.close)
        threading.Thread(target=answer_all, args=(api, received), daemon=True).start()
        port = free_port()
        config = pathlib.Path(directory, "valgate.yaml")
        config.write_text(f"""version: 1
workers: 1
access_log: off
log: {{ level: error }}
listeners: [{{ address: "127.0.0.1:{port}", plaintext: true }}]
upstreams: [{{ name: api, endpoints: ["http://127.0.0.1:{api.getsockname()[1]}"] }}]
routes:
  - match: {{ path: /public/** }}
    public: true
    upstream: api
    allow: [encoded_slash, double_slash, path_parameters]
""")
        gateway = subprocess.Popen([valgate, "run", "--config", config])
        running.callback(gateway.wait)
        running.callback(gateway.terminate)
        wait_for(port)
        for path in sent:
            before = len(received)
            status = ask(port, path)[9:12]
            assert len(received) - before == (status == "200"), f"{path}: {status}, {received[before:]}"
    return received


def answer_all(api: socket.socket, received: list[str]) -> None:
    def serve(wire: socket.socket) -> None:
        with wire, wire.makefile("rb") as lines:
            while first := lines.readline():
                received.append(first.decode().split(" ")[1])
                while lines.readline() not in (b"\r\n", b""):
                    pass
                wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with contextlib.suppress(OSError):
        while True:
            threading.Thread(target=serve, args=(api.accept()[0],), daemon=True).start()


def ask(port: int, target: str) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as wire:
        wire.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while part := wire.recv(65536):
            answer += part
    return answer.decode()


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError("nobody listens")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
