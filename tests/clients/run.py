#!/usr/bin/env python3
"""Clients that others wrote, against a real gateway in front of a small API.

    tests/clients/run.py [VALGATE]      the binary; by default the one that cargo built last

Each function below whose name begins with `client_` is one client: it gets a running `Stand` and asserts what the
client saw and what the API received. To add one, add a function. Needs openssl, and what the clients themselves are.
"""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60
ISSUER = "https://id.example.com/"

CONFIG = """
version: 1
workers: 1
access_log: off
listeners: [{{ address: '127.0.0.1:{port}', plaintext: true }}]
health: {{ address: '127.0.0.1:{health}' }}
issuers:
  - name: main
    issuer: {issuer}
    keys: {{ file: jwks.json }}
    audiences: [orders-api]
upstreams: [{{ name: orders, endpoints: ['{api}'] }}]
routes:
  - match: {{ path: /orders/**, methods: [GET, PUT] }}
    require: {{ issuers: [main], scopes: [orders:read] }}
    identity_headers: {{ X-Auth-Subject: sub }}
    upstream: orders
    cors: {{ allow_origins: ['{page}'], expose_headers: [X-Order] }}
"""


# --- clients ---


def client_chromium(stand: "Stand") -> None:
    """A page of another origin calls the API: it reads the answer, and the code of a refusal."""
    results = stand.open_page(CHROMIUM_PAGE)
    good, refused, poor, forbidden = (results[name] for name in ("good", "refused", "poor", "forbidden"))
    assert good == {"status": 200, "order": "7", "body": "PUT /orders/7"}, good
    assert refused["code"] == "VAL-010" and refused["status"] == 401, refused
    assert refused["challenge"].startswith("Bearer") and len(refused["request_id"]) == 32, refused
    assert poor["code"] == "VAL-030" and 'scope="orders:read"' in poor["challenge"], poor
    assert "Failed to fetch" in forbidden, f"a header that is not allowed: {forbidden}"
    assert [line for line, _ in stand.received] == ["PUT /orders/7"], stand.received
    headers = stand.received[0][1]
    assert headers["x-auth-subject"] == "alice" and "authorization" not in headers, headers

    stand.received.clear()
    elsewhere = stand.open_page(CHROMIUM_PAGE, host="localhost")
    assert all("Failed to fetch" in result for result in elsewhere.values()), elsewhere
    assert stand.received == [], "a page that may not call has its preflight refused"


CHROMIUM_PAGE = """<!doctype html><title>a page of another origin</title><script>
const call = async (token, headers = {}) => {
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(`${GATEWAY}/orders/7`, {method: "PUT", headers});
  const read = name => answer.headers.get(name);
  if (answer.ok) return {status: answer.status, order: read("X-Order"), body: await answer.text()};
  return {status: answer.status, code: (await answer.json()).code,
          challenge: read("WWW-Authenticate"), request_id: read("X-Request-Id")};
};
const told = async call => { try { return await call } catch (error) { return String(error) } };
(async () => {
  const results = {
    good: await told(call(TOKEN)),
    refused: await told(call(null, {"Content-Type": "application/json"})),
    poor: await told(call(POOR_TOKEN)),
    forbidden: await told(call(TOKEN, {"X-Other": "1"})),
  };
  await fetch("/results", {method: "POST", body: JSON.stringify(results)});
})();
</script>
"""


# --- what they meet ---


class Stand:
    """A gateway, an API behind it that remembers requests, and a web server for pages."""

    def __init__(self, valgate: Path, directory: Path) -> None:
        self.received: list[tuple[str, dict[str, str]]] = []
        self.directory = directory
        self.page, self.results, self.done = "", {}, threading.Event()
        self.api = serve(self.answer_as_api)
        self.pages = serve(self.answer_as_page)
        self.key = directory / "key.pem"
        openssl("genpkey", "-algorithm", "ed25519", "-out", self.key)
        public = openssl("pkey", "-in", self.key, "-pubout", "-outform", "DER")[-32:]
        jwk = {"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": base64url(public)}
        (directory / "jwks.json").write_text(json.dumps({"keys": [jwk]}))
        port, health = free_port(), free_port()
        self.gateway = f"http://127.0.0.1:{port}"
        config = directory / "valgate.yaml"
        config.write_text(CONFIG.format(port=port, health=health, issuer=ISSUER, api=url(self.api), page=url(self.pages)))
        self.process = subprocess.Popen([valgate, "run", "--config", config])
        wait_until_ready(f"http://127.0.0.1:{health}/readyz", self.process)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.api.shutdown()
        self.pages.shutdown()

    def token(self, scope: str = "orders:read") -> str:
        claims = {"iss": ISSUER, "aud": "orders-api", "sub": "alice", "scope": scope, "exp": int(time.time()) + 600}
        header = {"alg": "EdDSA", "kid": "k1"}
        signed = ".".join(base64url(json.dumps(part).encode()) for part in (header, claims))
        (self.directory / "signed").write_text(signed)
        signature = openssl("pkeyutl", "-sign", "-rawin", "-inkey", self.key, "-in", self.directory / "signed")
        return f"{signed}.{base64url(signature)}"

    def open_page(self, page: str, host: str = "127.0.0.1") -> dict:
        """Opens a page in Chromium, and gives what it posts to /results of its own origin."""
        known = {"GATEWAY": self.gateway, "TOKEN": self.token(), "POOR_TOKEN": self.token("orders:write")}
        constants = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in known.items())
        self.page = page.replace("<script>", f"<script>\n{constants}", 1)
        self.done.clear()
        with tempfile.TemporaryDirectory() as profile:
            browser = subprocess.Popen(
                [shutil.which("chromium") or "chromium", *CHROMIUM_FLAGS, f"--user-data-dir={profile}",
                 "--remote-debugging-port=0", f"http://{host}:{self.pages.server_port}/"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            try:
                assert self.done.wait(PATIENCE), "the page never came to an end"
            finally:
                browser.terminate()
                browser.wait(PATIENCE)
        return self.results

    def answer_as_api(self, request: BaseHTTPRequestHandler) -> None:
        line = f"{request.command} {request.path}"
        self.received.append((line, {name.lower(): value for name, value in request.headers.items()}))
        reply(request, line.encode(), {"X-Order": "7"})

    def answer_as_page(self, request: BaseHTTPRequestHandler) -> None:
        if request.path == "/results":
            self.results = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
            reply(request, b"")
            self.done.set()
        else:
            reply(request, self.page.encode(), {"Content-Type": "text/html; charset=utf-8"})


CHROMIUM_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


def serve(answer) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            answer(self)

        do_GET = do_POST = do_PUT = do_OPTIONS = handle_any

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def reply(request: BaseHTTPRequestHandler, body: bytes, headers: dict[str, str] | None = None) -> None:
    request.send_response(200)
    for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(body)


def url(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_ready(address: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the gateway does not become ready")


def openssl(*arguments: str | Path) -> bytes:
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True).stdout


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def main() -> int:
    built = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug/valgate"
    valgate = Path(sys.argv[1] if len(sys.argv) > 1 else built).resolve()
    clients = [value for name, value in globals().items() if name.startswith("client_")]
    failed = 0
    for client in clients:
        with tempfile.TemporaryDirectory() as directory:
            stand = Stand(valgate, Path(directory))
            try:
                client(stand)
                print(f"ok      {client.__name__.removeprefix('client_')}", flush=True)
            except AssertionError as error:
                failed += 1
                print(f"FAILED  {client.__name__.removeprefix('client_')}: {error}", flush=True)
            finally:
                stand.close()
    print(f"{len(clients) - failed} of {len(clients)} clients are content")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
