#!/usr/bin/env python3
"""Clients that others wrote, against a real gateway in front of a small API.

    tests/clients/run.py [VALGATE]      the binary; by default the one that cargo built last

Each function below whose name begins with `client_` is one client: it gets a running `Stand` and asserts what the
client saw and what the API received. To add one, add a function. Needs openssl, the packages of
tests/requirements.txt, and what the other clients themselves are.
"""

import base64
import contextlib
import json
import os
import queue
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import httpx
import websockets.exceptions
import websockets.sync.client
import websockets.sync.server

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60
LARGE = 3_000_000
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
    leeway: 0s
    revocation: {{ feeds: [logout], max_staleness: 10m, when_stale: reject }}
feeds: [{{ name: logout, file: {{ path: revoked.json, interval: 100ms }} }}]
upstreams:
  - {{ name: orders, endpoints: ['{api}'] }}
  - {{ name: echo, endpoints: ['http://127.0.0.1:{websocket}'] }}
  - {{ name: rpc, endpoints: ['http://127.0.0.1:{grpc}'], protocol: http2 }}
routes:
  - match: {{ path: /orders/**, methods: [GET, PUT] }}
    require: {{ issuers: [main], scopes: [orders:read] }}
    identity_headers: {{ X-Auth-Subject: sub }}
    upstream: orders
    cors: {{ allow_origins: ['{page}'], expose_headers: [X-Order] }}
  - match: {{ path: /echo }}
    require: {{ issuers: [main] }}
    upstream: echo
  - match: {{ path: /test.Echo/* }}
    require: {{ issuers: [main] }}
    upstream: rpc
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


def client_curl(stand: "Stand") -> None:
    """HTTP/1.1 and HTTP/2, upgrades that are not taken, and the requests that are not just a GET."""
    order, token = f"{stand.gateway}/orders/7", stand.token()
    for version in ("--http1.1", "--http2-prior-knowledge", "--http2"):
        assert stand.curl(version, order, token=token)[::2] == (200, b"GET /orders/7"), version
        status, headers, body = stand.curl(version, order)
        assert status == 401 and json.loads(body)["code"] == "VAL-010", (version, status, body)
        assert headers["www-authenticate"] == 'Bearer realm="valgate", scope="orders:read"', (version, headers)
        status, headers, _ = stand.curl(version, "--head", order, token=token)
        assert (status, headers["content-length"]) == (200, "14"), (version, headers)
        status, headers, body = stand.curl(version, "--range", "4-9", order, token=token)
        assert (status, headers["content-range"], body) == (206, "bytes 4-9/13", b"/order"), (version, headers)
        status, headers, _ = stand.curl(version, "--request", "OPTIONS", order, token=token)
        assert (status, headers["allow"]) == (405, "GET, HEAD, PUT"), (version, status, headers)
    for version in ("--http1.1", "--http2-prior-knowledge"):
        stand.received.clear()
        upload = (version, "--upload-file", stand.large, "--header", "Expect: 100-continue", order)
        assert stand.curl(*upload, token=token)[::2] == (200, b"PUT /orders/7"), version
        assert stand.received[0][1]["content-length"] == str(LARGE), stand.received
        stand.received.clear()
        status, _, body = stand.curl(*upload)
        assert status == 401 and json.loads(body)["code"] == "VAL-010", (version, status, body)
        assert stand.received == [], "a refused upload reaches nobody"


def client_httpx(stand: "Stand") -> None:
    """One connection for several requests, refused ones between them, in both versions."""
    for version in ("HTTP/1.1", "HTTP/2"):
        is_http2 = version == "HTTP/2"
        with httpx.Client(http1=not is_http2, http2=is_http2, base_url=stand.gateway) as client:
            authorized = {"Authorization": f"Bearer {stand.token()}"}
            for _ in range(3):
                answer = client.get("/orders/7", headers=authorized)
                assert (answer.status_code, answer.http_version, answer.text) == (200, version, "GET /orders/7"), answer
                refused = client.put("/orders/7", content=b"x" * 100_000)
                assert (refused.status_code, refused.json()["code"]) == (401, "VAL-010"), refused
                assert refused.headers["content-type"] == "application/problem+json", refused.headers
    assert {line for line, _ in stand.received} == {"GET /orders/7"}, stand.received


def client_websockets(stand: "Stand") -> None:
    """Messages both ways; the connection ends with its token, and says so as RFC 6455 section 7.4 has it."""
    address = stand.gateway.replace("http", "ws", 1) + "/echo"

    def connect(token: str) -> websockets.sync.client.ClientConnection:
        return websockets.sync.client.connect(address, additional_headers={"Authorization": f"Bearer {token}"})

    with connect(stand.token()) as socket_:
        for message in ("hello", b"\x00\xff" * 40_000, ""):
            socket_.send(message)
            assert socket_.recv(PATIENCE) == message
        socket_.close(1000)
        assert socket_.close_code == 1000, socket_.close_code

    try:
        websockets.sync.client.connect(address)
        raise AssertionError("a connection without a token")
    except websockets.exceptions.InvalidStatus as error:
        assert error.response.status_code == 401 and b"VAL-010" in error.response.body, error.response

    with connect(stand.token(exp=int(time.time()) + 2)) as expiring, connect(stand.token(jti="t1")) as revoked:
        revoked.send("open")
        assert revoked.recv(PATIENCE) == "open"
        stand.revoke(jti="t1")
        for name, socket_ in (("revoked", revoked), ("expiring", expiring)):
            try:
                socket_.recv(PATIENCE)
                raise AssertionError(f"{name}: a message out of nowhere")
            except websockets.exceptions.ConnectionClosed as closed:
                assert closed.rcvd is not None and closed.rcvd.code == 1008, f"{name}: {closed}"


def client_grpcio(stand: "Stand") -> None:
    """Unary and streaming calls with trailers, deadlines and cancellation; refusals as gRPC knows them."""
    with grpc.insecure_channel(stand.gateway.removeprefix("http://")) as channel:
        authorized = (("authorization", f"Bearer {stand.token()}"),)
        unary, stream = channel.unary_unary("/test.Echo/Unary"), channel.stream_stream("/test.Echo/Bidi")
        answer, call = unary.with_call(b"hello", metadata=authorized, timeout=PATIENCE)
        assert answer == b"hello" and dict(call.trailing_metadata())["x-trailer"] == "7", call.trailing_metadata()

        down = channel.unary_stream("/test.Echo/Down")(b"abc", metadata=authorized, timeout=PATIENCE)
        assert list(down) == [b"a", b"b", b"c"]

        questions = queue.SimpleQueue()
        answers = stream(iter(questions.get, None), metadata=authorized, timeout=PATIENCE)
        for message in (b"one", b"two", b"x" * 1_000_000):
            questions.put(message)
            assert next(answers) == message, "answered before the next is asked"
        answers.cancel()
        assert answers.code() == grpc.StatusCode.CANCELLED, answers.code()
        assert stand.cancelled.wait(PATIENCE), "the API never heard of the cancellation"

        for metadata, method, expected in (
            ((), "/test.Echo/Unary", (grpc.StatusCode.UNAUTHENTICATED, "VAL-010")),
            (authorized, "/test.Echo/Fails", (grpc.StatusCode.FAILED_PRECONDITION, "as it was")),
            (authorized, "/test.Other/Unary", (grpc.StatusCode.UNIMPLEMENTED, "VAL-040")),
        ):
            error = failure(channel.unary_unary(method), metadata)
            assert error.code() == expected[0] and expected[1] in error.details(), (method, error)
        late = failure(channel.unary_unary("/test.Echo/Never"), authorized, timeout=0.5)
        assert late.code() == grpc.StatusCode.DEADLINE_EXCEEDED, late

        questions = queue.SimpleQueue()
        metadata = (("authorization", f"Bearer {stand.token(jti='t2')}"),)
        answers = stream(iter(questions.get, None), metadata=metadata, timeout=PATIENCE)
        questions.put(b"open")
        assert next(answers) == b"open"
        stand.revoke(jti="t2")
        try:
            next(answers)
            raise AssertionError("a message out of nowhere")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAUTHENTICATED and "VAL-020" in error.details(), error
        questions.put(None)


def failure(call, metadata: tuple, timeout: float = PATIENCE) -> grpc.RpcError:
    try:
        call(b"", metadata=metadata, timeout=timeout)
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call succeeded")


def client_h2load(stand: "Stand") -> None:
    """A thousand requests in each version, none of which fails."""
    for version in ("--h1", "--no-tls-proto=h2c"):
        command = ["h2load", version, "-n", "1000", "-c", "10", "-H", f"Authorization: Bearer {stand.token()}"]
        printed = subprocess.run([*command, f"{stand.gateway}/orders/7"], check=True, capture_output=True, text=True)
        assert "1000 succeeded, 0 failed, 0 errored, 0 timeout" in printed.stdout, printed.stdout
        assert "status codes: 1000 2xx" in printed.stdout, printed.stdout
    assert len(stand.received) == 2000, len(stand.received)


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
        self.large = directory / "large"
        self.large.write_bytes(bytes(LARGE))
        self.revoke(jti="nobody")
        self.websocket = websockets.sync.server.serve(echo, "127.0.0.1", 0)
        threading.Thread(target=self.websocket.serve_forever, daemon=True).start()
        self.cancelled = threading.Event()
        self.grpc = grpc.server(ThreadPoolExecutor(8))
        self.grpc.add_generic_rpc_handlers([self.rpc()])
        rpc_port = self.grpc.add_insecure_port("127.0.0.1:0")
        self.grpc.start()
        port, health = free_port(), free_port()
        self.gateway = f"http://127.0.0.1:{port}"
        config = directory / "valgate.yaml"
        config.write_text(CONFIG.format(
            port=port, health=health, issuer=ISSUER, api=url(self.api), page=url(self.pages),
            websocket=self.websocket.socket.getsockname()[1], grpc=rpc_port,
        ))
        self.process = subprocess.Popen([valgate, "run", "--config", config])
        wait_until_ready(f"http://127.0.0.1:{health}/readyz", self.process)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.websocket.shutdown()
        self.grpc.stop(None)
        self.api.shutdown()
        self.pages.shutdown()

    def token(self, scope: str = "orders:read", **more: object) -> str:
        claims = {"iss": ISSUER, "aud": "orders-api", "sub": "alice", "scope": scope, "exp": int(time.time()) + 600}
        claims |= more
        header = {"alg": "EdDSA", "kid": "k1"}
        signed = ".".join(base64url(json.dumps(part).encode()) for part in (header, claims))
        (self.directory / "signed").write_text(signed)
        signature = openssl("pkeyutl", "-sign", "-rawin", "-inkey", self.key, "-in", self.directory / "signed")
        return f"{signed}.{base64url(signature)}"

    def revoke(self, **target: str) -> None:
        """Has this and nothing else revoked, from the next look at the feed on."""
        entries = [{**target, "exp": int(time.time()) + 600}]
        feed = {"version": 1, "kind": "snapshot", "epoch": "e1", "entries": entries}
        (self.directory / "next.json").write_text(json.dumps(feed))
        (self.directory / "next.json").rename(self.directory / "revoked.json")

    def curl(self, *arguments: str | Path, token: str | None = None) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the last answer."""
        headers, body = self.directory / "headers", self.directory / "body"
        body.write_bytes(b"")
        authorization = ["--header", f"Authorization: Bearer {token}"] if token else []
        subprocess.run(["curl", "--silent", "--show-error", "--max-time", str(PATIENCE), "--dump-header", headers,
                        "--output", body, *authorization, *arguments], check=True)
        last = headers.read_text().strip().split("\n\n")[-1].splitlines()
        fields = (line.partition(":") for line in last[1:])
        return int(last[0].split()[1]), {name.lower(): value.strip() for name, _, value in fields}, body.read_bytes()

    def rpc(self) -> grpc.GenericRpcHandler:
        def unary(request: bytes, context: grpc.ServicerContext) -> bytes:
            context.set_trailing_metadata((("x-trailer", "7"),))
            return request

        def bidi(requests, context: grpc.ServicerContext):
            context.add_callback(self.cancelled.set)
            yield from requests

        def fails(_: bytes, context: grpc.ServicerContext) -> bytes:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as it was")

        def never(_: bytes, context: grpc.ServicerContext) -> bytes:
            over = threading.Event()
            context.add_callback(over.set)
            over.wait(PATIENCE)
            return b""

        def down(request: bytes, _: grpc.ServicerContext):
            yield from (bytes((byte,)) for byte in request)

        return grpc.method_handlers_generic_handler("test.Echo", {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "Fails": grpc.unary_unary_rpc_method_handler(fails),
            "Never": grpc.unary_unary_rpc_method_handler(never),
            "Down": grpc.unary_stream_rpc_method_handler(down),
            "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
        })

    def open_page(self, page: str, host: str = "127.0.0.1") -> dict:
        """Opens a page in Chromium, and gives what it posts to /results of its own origin."""
        known = {"GATEWAY": self.gateway, "TOKEN": self.token(), "POOR_TOKEN": self.token("orders:write")}
        constants = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in known.items())
        self.page = page.replace("<script>", f"<script>\n{constants}", 1)
        self.done.clear()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
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
        request.rfile.read(int(request.headers.get("Content-Length", "0")))
        body, wanted = line.encode(), request.headers.get("Range", "")
        if wanted:
            first, last = map(int, wanted.removeprefix("bytes=").split("-"))
            part = {"Content-Range": f"bytes {first}-{last}/{len(body)}"}
            reply(request, body[first : last + 1], part, status=206)
        else:
            reply(request, body, {"X-Order": "7"})

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

        do_GET = do_HEAD = do_POST = do_PUT = do_OPTIONS = handle_any

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def echo(socket_: websockets.sync.server.ServerConnection) -> None:
    # valgate ends the connection together with its token.
    with contextlib.suppress(websockets.exceptions.ConnectionClosed):
        for message in socket_:
            socket_.send(message)


def reply(
    request: BaseHTTPRequestHandler, body: bytes, headers: dict[str, str] | None = None, status: int = 200
) -> None:
    request.send_response(status)
    for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command != "HEAD":
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
            except (AssertionError, subprocess.CalledProcessError, httpx.HTTPError) as error:
                failed += 1
                print(f"FAILED  {client.__name__.removeprefix('client_')}: {error}", flush=True)
            finally:
                stand.close()
    print(f"{len(clients) - failed} of {len(clients)} clients are content")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
