#!/usr/bin/env python3
"""Envoy's half of docs/migrating.md, run as it is written, beside valgate's.

    tests/beside/migrating.py [VALGATE]     the binary; by default the one that cargo built last

Both get the same requests. Where the page says that they agree they must, and where it names a difference there must
be that one.
"""

import functools
import http.server
import re
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import run

PAGE = (run.ROOT / "docs/migrating.md").read_text()
VALGATE = run.FORWARD_AUTH


def main() -> None:
    valgate = Path(sys.argv[1] if len(sys.argv) > 1 else run.ROOT / "target/debug/valgate").resolve()
    with tempfile.TemporaryDirectory() as directory:
        stand = run.Stand(valgate, Path(directory), envoy)
        try:
            take_its_place(stand, valgate)
            compare(stand)
        finally:
            stand.close()
    print("migrating: envoy jwt_authn ok")


def compare(stand: run.Stand) -> None:
    now = int(time.time())
    for name, token, alike in (
        ("good", stand.token(), 200),
        ("expired", stand.token(exp=now - 3600), 401),
        ("not yet valid", stand.token(nbf=now + 3600), 401),
        ("of another issuer", stand.token(iss="https://other.example.com/"), 401),
        ("no token", "a.b.c", 401),
    ):
        both = [ask(stand, port, "/orders/7", token)[0] for port in (run.WEB, VALGATE)]
        assert both == [alike, alike], (name, both)
    for port in (run.WEB, VALGATE):
        assert ask(stand, port, "/orders/7", None)[0] == 401, port
        headers = ask(stand, port, "/orders/7", stand.token())[1]
        assert headers["x-user"] == "alice" and headers["authorization"], headers
        # Neither passes a client's own on.
        status, headers = ask(stand, port, "/orders/7", stand.token(), {"X-User": "mallory"})
        assert status != 200 or headers["x-user"] == "alice", headers

    # The differences that the page names: Envoy, valgate.
    other = stand.token(aud="other-api")
    assert differ(stand, "/orders/7", other) == (403, 401)
    assert differ(stand, "/ordersandmore", None) == (401, 404)
    assert differ(stand, "/elsewhere", None) == (200, 404)
    assert differ(stand, "/orders/7", stand.token(exp=now - 45)) == (200, 401)


def differ(stand: run.Stand, path: str, token: str | None) -> tuple[int, int]:
    return ask(stand, run.WEB, path, token)[0], ask(stand, VALGATE, path, token)[0]


def ask(stand: run.Stand, port: str, path: str, token: str | None, more: dict | None = None) -> tuple[int, dict]:
    stand.received.clear()
    credential = {"Authorization": f"Bearer {token}"} if token else {}
    status, _, _ = stand.get(path, credential | (more or {}), port=port)
    assert (status == 200) == bool(stand.received), (status, stand.received)
    return status, dict(stand.received[0][1]) if stand.received else {}


def take_its_place(stand: run.Stand, valgate: Path) -> None:
    """The gateway of the page, in the place of the one that the stand came with."""
    stand.valgate.terminate()
    stand.valgate.wait(run.PATIENCE)
    text = shown(2).replace("    enforce: false\n", "")
    text = text.replace("jwks_url: https://id.example.com/jwks", "file: jwks.json")
    listener = re.search(r"listeners:\n(  .*\n)+", text)[0]
    text = text.replace(listener, f"listeners: [{{ address: '127.0.0.1:{VALGATE}', plaintext: true }}]\n")
    config = stand.directory / "migrated.yaml"
    config.write_text(stand.with_ports(text))
    stand.valgate = subprocess.Popen([valgate, "run", "-c", config], stdout=stand.log, stderr=stand.log)
    good = {"Authorization": f"Bearer {stand.token()}"}
    stand.wait(lambda: stand.connects(VALGATE) and stand.get("/orders/7", good, port=VALGATE)[0] == 200)


def envoy(stand: run.Stand) -> list:
    """The filter of the page, in the place of the one that asks valgate; keys come from a cluster of their own."""
    keys = serve_keys(stand.directory)
    text = (run.DEPLOY / "envoy/envoy.yaml").read_text()
    old = re.search(r" *http_filters:\n.*?(?= *- name: envoy.filters.http.router)", text, re.DOTALL)[0]
    text = text.replace(old, textwrap.indent(shown(1), " " * 16))
    begin = text.index("    - name: valgate")
    text = text[:begin] + f"""    - name: id
      load_assignment:
        cluster_name: id
        endpoints:
          - lb_endpoints:
              - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {keys} }} }} }}
"""
    config = stand.directory / "envoy.yaml"
    config.write_text(stand.with_ports(text))
    return run.envoy_with(config)


def shown(place: int) -> str:
    """A block of the page's part about Envoy."""
    part = PAGE[PAGE.index("\n## From Envoy jwt_authn"):]
    return part.split("```yaml\n")[place].partition("```")[0]


def serve_keys(directory: Path) -> int:
    (directory / "jwks").write_text((directory / "jwks.json").read_text())

    class Files(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files, directory=directory))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


if __name__ == "__main__":
    main()
