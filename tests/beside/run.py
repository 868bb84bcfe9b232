#!/usr/bin/env python3
"""Real proxies that ask valgate for its verdict, by the configurations in deploy/beside.

    tests/beside/run.py [VALGATE]       the binary; by default the one that cargo built last

Each proxy meets the same requests: what passes reaches the API with the identity that valgate vouches for, what does
not is refused with valgate's code and never reaches the API. Then valgate stops, and its verdicts come too late: all is
refused.
"""

import base64
import contextlib
import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy/beside"
ISSUER = "https://id.example.com/"
# In seconds; longer than any proxy waits for a verdict.
PATIENCE = 60
WEB, API = "8080", "8000"
FORWARD_AUTH, AUTH_REQUEST, EXT_AUTHZ, EXT_AUTHZ_HTTP, INGRESS_NGINX = "9180", "9181", "9182", "9183", "9184"
ASKED = (FORWARD_AUTH, AUTH_REQUEST, EXT_AUTHZ, EXT_AUTHZ_HTTP, INGRESS_NGINX)


def main() -> None:
    valgate = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "target/debug/valgate").resolve()
    only = sys.argv[2:]
    check_documentation()
    if not only:
        with tempfile.TemporaryDirectory() as directory:
            ask_directly(Stand(valgate, Path(directory)))
        with tempfile.TemporaryDirectory() as directory:
            ask_as_stranger(Stand(valgate, Path(directory), askers="192.0.2.1"))
        with tempfile.TemporaryDirectory() as directory:
            ask_below_a_prefix(Stand(valgate, Path(directory), envoy_http_below_a_prefix, prefix="/check"))
        print("beside: asked directly ok")
    chosen = {name: start for name, start in PROXIES.items() if not only or name in only}
    with ThreadPoolExecutor() as meanwhile:
        patient = {name: meanwhile.submit(be_late, valgate, name) for name in chosen if WAITS[name] > 10}
        for name, start in chosen.items():
            with tempfile.TemporaryDirectory() as directory:
                stand = Stand(valgate, Path(directory), start)
                try:
                    judge(stand)
                    stop(stand)
                finally:
                    stand.close()
            if name not in patient:
                be_late(valgate, name)
            print(f"beside: {name} ok")
        for name, late in patient.items():
            late.result()
            print(f"beside: {name} refuses when {WAITS[name]} s are up ok")


def check_documentation() -> None:
    page = (ROOT / "docs/beside.md").read_text()
    assert f"`auth-snippet: {SNIPPET}`" in page, "docs/beside.md names another way to wait less"
    for file in DEPLOY.rglob("*"):
        if file.is_file():
            assert file.read_text() in page, f"docs/beside.md shows another {file.relative_to(ROOT)}"


# --- what is asked of every proxy ---


def judge(stand: "Stand") -> None:
    good = {"Authorization": f"Bearer {stand.token()}"}
    status, _, _ = stand.get("/orders/7?page=2", good)
    assert status == 200, status
    assert [line for line, _ in stand.received] == ["GET /orders/7?page=2"], stand.received
    headers = dict(stand.received[0][1])
    assert headers["x-auth-subject"] == "alice" and "authorization" not in headers, headers
    stand.received.clear()
    assert stand.get("/status", {})[0] == 200
    assert [line for line, _ in stand.received] == ["GET /status"], stand.received
    assert "x-auth-subject" not in dict(stand.received[0][1]), stand.received
    stand.received.clear()

    refused(stand, "/orders/7", {}, 401, "VAL-010", "Bearer")
    refused(stand, "/orders/7", {"Authorization": "Bearer a.b.c"}, 401, "VAL-020", 'error="invalid_token"')
    poor = {"Authorization": f"Bearer {stand.token('orders:write')}"}
    refused(stand, "/orders/7", poor, 403, "VAL-030", 'scope="orders:read"')
    refused(stand, "/elsewhere", good, 404, "VAL-040")
    refused(stand, "/orders/7", good, 405, "VAL-041", method="DELETE")

    # Whatever a client says about its request, it is judged by what it is.
    elsewhere = {
        "X-Forwarded-Uri": "/status", "X-Forwarded-Method": "GET", "X-Forwarded-Host": "other.example.com",
        "X-Forwarded-Proto": "https", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Prefix": "/status",
        "Forwarded": "for=127.0.0.1;proto=https", "X-Real-Ip": "127.0.0.1",
    }
    if stand.proxy_of is ingress_nginx:
        # It passes its clients' words on beside its own.
        refused(stand, "/orders/7", good | elsewhere, 400, "VAL-042")
    else:
        refused(stand, "/orders/7", elsewhere, 401, "VAL-010", "Bearer")
        refused(stand, "/elsewhere", good | elsewhere, 404, "VAL-040")
    # gRPC's refusals have status 200, which would be leave to pass.
    assert stand.get("/orders/7", {"Content-Type": "application/grpc"})[0] != 200 or stand.is_envoy
    assert stand.received == [], stand.received

    # The client's address is the one that the proxy saw.
    spoofed = {"X-Forwarded-For": SPOOFED, "X-Real-Ip": SPOOFED, "Forwarded": f"for={SPOOFED}"}
    assert stand.get("/orders/7", good | spoofed, source="127.0.0.2")[0] == 200
    stand.wait(lambda: "127.0.0.2" in stand.logged("client_ip"))
    assert SPOOFED not in stand.logged("client_ip"), stand.logged("client_ip")
    stand.received.clear()

    # Headers that say who calls, or what is called, are ours or none, in every spelling.
    for path, token in (("/orders/7", good), ("/status", {})):
        for name in ("X-Auth-Subject", "X_Auth_Subject", "X-HTTP-Method-Override", "X-Original-URL", "X-Rewrite-URL"):
            stand.get(path, token | {name: "mallory"})
            for _, headers in stand.received:
                assert all(value != "mallory" for _, value in headers), (name, headers)
            stand.received.clear()

    # Only the path that was judged is forwarded.
    for path in ("/status/../orders/7", "/status/%2e%2e/orders/7", "/status%2f..%2forders/7", "//orders/7",
                 "/status;/../orders/7", "/status\\..\\orders/7", "/status#/../orders/7", "/status%00", "/status?a#b",
                 "http://other.example.com/orders/7"):
        stand.get(path, {})
        paths = [line for line, _ in stand.received]
        assert all(line.split(" ")[1].partition("?")[0] == "/status" for line in paths), (path, paths)
        stand.received.clear()


def refused(stand, path, headers, status, code, challenge="", method="GET", port=WEB) -> None:
    seen, answer, body = stand.get(path, headers, method, port)
    if stand.proxy_of is ingress_nginx and port == WEB:
        # It knows two verdicts, tells them in its own words, and the challenge only with one.
        challenge = challenge if status == 401 else ""
        assert seen == (401 if status == 401 else 403), (path, headers, seen)
    else:
        assert (seen, json.loads(body)["code"]) == (status, code), (path, headers, seen, body)
    challenges = [value for name, value in answer if name.lower() == "www-authenticate"]
    assert len(challenges) == bool(challenge) and challenge in "".join(challenges), answer
    assert stand.received == [], stand.received


def ask_directly(stand: "Stand") -> None:
    """What a proxy that is not set up as it should be is answered."""
    try:
        for port in (FORWARD_AUTH, AUTH_REQUEST):
            good = DESCRIPTION | {"Authorization": f"Bearer {stand.token()}"}
            status, headers, _ = stand.get("/", good, port=port)
            assert status == 200 and ("x-auth-subject", "alice") in headers, (status, headers)
            for name in DESCRIPTION:
                part = {other: value for other, value in good.items() if other != name}
                refused(stand, "/", part, 400, "VAL-042", port=port)
                refused(stand, "/", part | {name: DESCRIPTION[name], name.lower(): "/status"}, 400, "VAL-042", port=port)
            refused(stand, "/", good | {"x_auth_subject": "mallory"}, 400, "VAL-042", port=port)
            # gRPC's refusals have status 200, which would be leave to pass; pages would be no problem document.
            for form in ({"Content-Type": "application/grpc"}, {"Accept": "application/json"}):
                refused(stand, "/", DESCRIPTION | form, 401, "VAL-010", "Bearer", port=port)
        good = OF_INGRESS | {"Authorization": f"Bearer {stand.token()}"}
        status, headers, _ = stand.get("/", good, port=INGRESS_NGINX)
        assert status == 200 and ("x-auth-subject", "alice") in headers, (status, headers)
        for name in OF_INGRESS:
            part = {other: value for other, value in good.items() if other != name}
            assert stand.get("/", part, port=INGRESS_NGINX)[0] == 403, name
        for name, value in DESCRIPTION.items():
            if name != "X-Forwarded-For":
                assert stand.get("/", good | {name: value}, port=INGRESS_NGINX)[0] == 200, name
                assert stand.get("/", good | {name: value + "0"}, port=INGRESS_NGINX)[0] == 403, name

        # What Envoy says by HTTP stands in the head itself; what it is to remove is said in a header.
        told = {name: DESCRIPTION[name] for name in ("X-Forwarded-Proto", "X-Forwarded-For")}
        good = told | {"Authorization": f"Bearer {stand.token()}", "X_Auth_Subject": "mallory"}
        status, headers, _ = stand.get("/orders/7", good, port=EXT_AUTHZ_HTTP)
        assert status == 200 and ("x-auth-subject", "alice") in headers, (status, headers)
        assert ("x-envoy-auth-headers-to-remove", "authorization,x_auth_subject") in headers, headers
        headers = stand.get("/status", told, port=EXT_AUTHZ_HTTP)[1]
        assert "x-envoy-auth-headers-to-remove" not in dict(headers), headers
        for name in told:
            part = {other: value for other, value in good.items() if other != name}
            refused(stand, "/orders/7", part, 400, "VAL-042", port=EXT_AUTHZ_HTTP)

        # A listener for Envoy by gRPC has no other answers.
        good = DESCRIPTION | {"Authorization": f"Bearer {stand.token()}"}
        assert stand.get("/", good, port=EXT_AUTHZ)[1].count(("content-type", "application/grpc")) == 1
    finally:
        stand.close()


def ask_as_stranger(stand: "Stand") -> None:
    try:
        good = DESCRIPTION | {"Authorization": f"Bearer {stand.token()}"}
        for port in (FORWARD_AUTH, AUTH_REQUEST, EXT_AUTHZ_HTTP, INGRESS_NGINX):
            refused(stand, "/", good, 403, "VAL-031", port=port)
    finally:
        stand.close()


def ask_below_a_prefix(stand: "Stand") -> None:
    """Envoy's `path_prefix`: the path is judged without it, and forwarded as it came."""
    try:
        status, _, _ = stand.get("/orders/7?page=2", {"Authorization": f"Bearer {stand.token()}"})
        assert (status, [line for line, _ in stand.received]) == (200, ["GET /orders/7?page=2"]), stand.received
        stand.received.clear()
        refused(stand, "/orders/7", {}, 401, "VAL-010", "Bearer")
        refused(stand, "/check/orders/7", {"Authorization": f"Bearer {stand.token()}"}, 404, "VAL-040")
    finally:
        stand.close()


DESCRIPTION = {
    "X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/orders/7", "X-Forwarded-Host": "api.example.com",
    "X-Forwarded-Proto": "https", "X-Forwarded-For": "198.51.100.7",
}
SPOOFED = "203.0.113.66"
SNIPPET = "proxy_read_timeout 2s;"
OF_INGRESS = {
    "X-Original-URL": "https://api.example.com/orders/7", "X-Original-Method": "GET", "X-Real-IP": "198.51.100.7",
}


def be_late(valgate: Path, name: str) -> None:
    """A valgate whose verdict comes when the proxy's time is up: the client is refused in time, and leave to pass that
    comes late lets nothing pass, neither the request that was asked about nor a later one on the same connection."""
    with tempfile.TemporaryDirectory() as directory:
        stand = Stand(valgate, Path(directory), PROXIES[name], relayed=True)
        try:
            good = {"Authorization": f"Bearer {stand.token()}"}
            before = stand.logged("status").count(200)
            stand.passing.clear()
            begin = time.monotonic()
            with ThreadPoolExecutor() as clients:
                asked = [clients.submit(stand.get, "/status", {}), clients.submit(stand.get, "/orders/7", good)]
                answers = [answer.result()[0] for answer in asked]
            took = time.monotonic() - begin
            assert all(status >= 400 for status in answers), answers
            assert took < WAITS[name] + 5, f"refused after {took:.1f} s"
            stand.wait(lambda: stand.held and stand.logged("status").count(200) >= before + 2)
            stand.passing.set()
            stand.wait(lambda: not stand.held)
            for _ in range(3):
                refused(stand, "/orders/7", {}, 401, "VAL-010", "Bearer")
            # What would be wrong to come has no event to wait for.
            time.sleep(0.5)
            assert stand.received == [], stand.received
            assert stand.get("/orders/7", good)[0] == 200
            assert [line for line, _ in stand.received] == ["GET /orders/7"], stand.received
        finally:
            stand.close()


def stop(stand: "Stand") -> None:
    stand.valgate.kill()
    stand.valgate.wait(PATIENCE)
    for headers in ({}, {"Authorization": f"Bearer {stand.token()}"}):
        status, _, _ = stand.get("/status", headers)
        assert status >= 400, status
    assert stand.received == [], stand.received


# --- proxies ---


def nginx(stand: "Stand") -> list:
    return nginx_with(stand, stand.adapted("nginx/valgate.conf"))


def ingress_nginx(stand: "Stand") -> list:
    """nginx, by what the controller makes of the annotations."""
    annotations = dict(
        line.strip().removeprefix("nginx.ingress.kubernetes.io/").split(": ", 1)
        for line in (DEPLOY / "ingress-nginx/ingress.yaml").read_text().splitlines() if ".io/auth-" in line)
    address = f"127.0.0.1:{INGRESS_NGINX}"
    url = annotations["auth-url"].replace(f"valgate.valgate.svc.cluster.local:{INGRESS_NGINX}", address)
    assert url == f"http://{address}/", url
    lines = []
    for index, name in enumerate(annotations["auth-response-headers"].split(",")):
        variable = name.lower().replace("-", "_")
        lines += [f"auth_request_set $authHeader{index} $upstream_http_{variable};",
                  f"proxy_set_header '{name}' $authHeader{index};"]
    site = stand.directory / "site.conf"
    text = (ROOT / "tests/beside/ingress-nginx.conf").read_text()
    text = text.replace("AUTH_URL", url).replace("AUTH_HOST", address)
    if stand.relayed:
        # Where the controller puts an `auth-snippet`. Without one it waits for a minute.
        text = text.replace("set $target", f"{SNIPPET}\n        set $target")
    site.write_text(stand.with_ports(text.replace("RESPONSE_HEADERS", "\n        ".join(lines))))
    return nginx_with(stand, site)


def nginx_with(stand: "Stand", site: Path) -> list:
    for part in ("body", "proxy", "fastcgi", "uwsgi", "scgi"):
        (stand.directory / part).mkdir()
    temp = "\n".join([f"client_body_temp_path {stand.directory}/body;"] + [
        f"{part}_temp_path {stand.directory}/{part};" for part in ("proxy", "fastcgi", "uwsgi", "scgi")])
    config = stand.directory / "nginx.conf"
    config.write_text(f"daemon off; pid {stand.directory}/pid; error_log stderr crit; events {{}}\n"
                      f"http {{ access_log off; {temp} include {site}; }}")
    return ["nginx", "-p", stand.directory, "-c", config, "-e", stand.directory / "error.log"]


def traefik(stand: "Stand") -> list:
    dynamic = stand.adapted("traefik/dynamic.yml")
    static = stand.adapted("traefik/traefik.yml")
    static.write_text(static.read_text().replace("dynamic.yml", str(dynamic)))
    return [program("traefik"), f"--configFile={static}"]


def caddy(stand: "Stand") -> list:
    config = stand.adapted("caddy/Caddyfile")
    config.write_text("{\n\tadmin off\n\tpersist_config off\n}\n" + config.read_text())
    return [program("caddy"), "run", "--adapter", "caddyfile", "--config", config]


def envoy(stand: "Stand") -> list:
    return envoy_with(stand.adapted("envoy/envoy.yaml"))


def envoy_http(stand: "Stand") -> list:
    return envoy_with(stand.adapted("envoy/envoy-http.yaml"))


def envoy_http_below_a_prefix(stand: "Stand") -> list:
    config = stand.adapted("envoy/envoy-http.yaml")
    text = config.read_text()
    changed = re.sub(r"( +)server_uri: ", r"\1path_prefix: /check\n\1server_uri: ", text)
    assert changed != text
    config.write_text(changed)
    return envoy_with(config)


def envoy_with(config: Path) -> list:
    return [program("envoy"), "-c", config, "--use-dynamic-base-id", "--concurrency", "1", "-l", "error"]


def haproxy(stand: "Stand") -> list:
    script = stand.adapted("haproxy/valgate.lua")
    config = stand.adapted("haproxy/haproxy.cfg")
    config.write_text(config.read_text().replace("valgate.lua", str(script)))
    return ["haproxy", "-db", "-f", config]


PROXIES = {
    "nginx": nginx, "ingress-nginx": ingress_nginx, "traefik": traefik, "caddy": caddy, "envoy": envoy,
    "envoy-http": envoy_http, "haproxy": haproxy,
}
# How long they wait for a verdict, in seconds; of Traefik it cannot be set.
WAITS = {"nginx": 2, "ingress-nginx": 2, "traefik": 30, "caddy": 2, "envoy": 2, "envoy-http": 2, "haproxy": 2}


# --- what they meet ---


class Stand:
    """valgate, a proxy that asks it, and an API behind the proxy that remembers requests."""

    def __init__(self, valgate: Path, directory: Path, proxy=None, askers: str = "127.0.0.1", prefix: str = "",
                 relayed: bool = False) -> None:  # fmt: skip
        self.directory, self.proxy_of, self.is_envoy = directory, proxy, proxy in (envoy, envoy_http)
        self.relayed = relayed
        self.received: list[tuple[str, list[tuple[str, str]]]] = []
        self.ports = {port: str(free_port()) for port in (WEB, *ASKED)}
        self.api = self.serve()
        self.ports[API] = str(self.api.server_address[1])
        self.key = directory / "key.pem"
        openssl("genpkey", "-algorithm", "ed25519", "-out", self.key)
        public = openssl("pkey", "-in", self.key, "-pubout", "-outform", "DER")[-32:]
        jwk = {"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": base64url(public)}
        (directory / "jwks.json").write_text(json.dumps({"keys": [jwk]}))
        config = self.adapted("valgate.yaml")
        text = config.read_text().replace("jwks_url: https://id.example.com/jwks", "file: jwks.json")
        text = text.replace("decision: { ", f"decision: {{ from: [{askers}], ")
        if prefix:
            text = text.replace("ext_authz_http }", f"ext_authz_http, path_prefix: {prefix} }}")
        self.access_log = directory / "access.log"
        config.write_text(f"{text}\naccess_log: {{ output: {{ file: {self.access_log} }} }}\nworkers: 1\n")
        self.valgate = self.proxy = None
        # What valgate answers is held back while this is not set.
        self.passing, self.held = threading.Event(), []
        self.passing.set()
        self.log = open(directory / "log", "w+")
        try:
            self.valgate = subprocess.Popen([valgate, "run", "--config", config], stderr=self.log, stdout=self.log)
            for port in ASKED:
                self.wait(lambda: self.connects(port))
            if not proxy:
                return
            if relayed:
                self.ports |= {port: self.relay(int(self.ports[port])) for port in ASKED}
            self.proxy = subprocess.Popen(proxy(self), cwd=directory, stderr=self.log, stdout=self.log)
            self.wait(lambda: self.connects(WEB) and self.get("/status", {})[0] == 200)
        except BaseException:
            self.close()
            raise
        self.received.clear()

    def close(self) -> None:
        failed = sys.exc_info()[0] is not None
        for process in (self.proxy, self.valgate):
            if process and process.poll() is None:
                process.terminate()
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self.api.shutdown()
        if failed:
            self.log.seek(0)
            print(self.log.read(), file=sys.stderr)

    def adapted(self, name: str) -> Path:
        """A file of deploy/beside, with free ports in place of its own."""
        path = self.directory / Path(name).name
        path.write_text(self.with_ports((DEPLOY / name).read_text()))
        return path

    def with_ports(self, text: str) -> str:
        return re.sub(rf"\b({'|'.join(self.ports)})\b", lambda port: self.ports[port[0]], text)

    def connects(self, port: str) -> bool:
        try:
            socket.create_connection(("127.0.0.1", int(self.ports[port])), 1).close()
        except OSError:
            return False
        return True

    def wait(self, is_so) -> None:
        end = time.monotonic() + PATIENCE
        while not is_so():
            assert time.monotonic() < end and self.valgate.poll() is None, "it does not start"
            time.sleep(0.05)

    def logged(self, field: str) -> list:
        """What the access log has in this field, line by line."""
        lines = self.access_log.read_text().split("\n")[:-1] if self.access_log.exists() else []
        return [json.loads(line).get(field) for line in lines]

    def get(self, path: str, headers: dict, method: str = "GET", port: str = WEB,
            source: str = "127.0.0.1") -> tuple[int, list, bytes]:  # fmt: skip
        """Sends the path as it is, which clients that mean well do not."""
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        with socket.create_connection(("127.0.0.1", int(self.ports[port])), PATIENCE, (source, 0)) as connection:
            request = f"{method} {path} HTTP/1.1\r\nHost: api.example.com\r\n{head}Connection: close\r\n\r\n"
            connection.sendall(request.encode())
            answer = http.client.HTTPResponse(connection, method=method)
            answer.begin()
            return answer.status, answer.getheaders(), answer.read()

    def token(self, scope: str = "orders:read", **other: object) -> str:
        claims = {"iss": ISSUER, "aud": "orders-api", "sub": "alice", "scope": scope, "exp": int(time.time()) + 600}
        claims |= other
        header = {"alg": "EdDSA", "kid": "k1"}
        signed = ".".join(base64url(json.dumps(part).encode()) for part in (header, claims))
        (self.directory / "signed").write_text(signed)
        signature = openssl("pkeyutl", "-sign", "-rawin", "-inkey", self.key, "-in", self.directory / "signed")
        return f"{signed}.{base64url(signature)}"

    def relay(self, port: int) -> str:
        """A port that leads to this one."""
        server = socket.create_server(("127.0.0.1", 0))

        def accept() -> None:
            while True:
                near, _ = server.accept()
                far = socket.create_connection(("127.0.0.1", port))
                for carry, source, target in ((ask, near, far), (answer, far, near)):
                    threading.Thread(target=carry, args=(source, target), daemon=True).start()

        def ask(source: socket.socket, target: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)

        def answer(source: socket.socket, target: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    self.held.append(data)
                    self.passing.wait()
                    self.held.remove(data)
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)

        threading.Thread(target=accept, daemon=True).start()
        return str(server.getsockname()[1])

    def serve(self) -> ThreadingHTTPServer:
        received = self.received

        class Api(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                headers = [(name.lower(), value) for name, value in self.headers.items()]
                received.append((f"{self.command} {self.path}", headers))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_PUT = do_POST = do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """A proxy that ends takes its connections with it."""

        server = Server(("127.0.0.1", 0), Api)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


def program(name: str) -> str:
    found = ROOT / "target/tools/venv/bin" / name
    return str(found) if found.exists() else shutil.which(name) or name


def openssl(*arguments: object) -> bytes:
    return subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True).stdout


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    main()
