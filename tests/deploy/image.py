#!/usr/bin/env python3
"""Runs the program in the image's file system and nothing else: as its user, in a root that holds what the Dockerfile
puts there, read-only but for /var/lib/valgate, and without /proc, which a container engine would mount.

    tests/deploy/image.py [VALGATE]     the binary; by default the one that cargo built last; after artefacts.py

Needs root, for chroot. Prints what the image weighs with this binary.
"""

import http.client
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MATERIALS = ROOT / "target/tools/valgate.cdx.json"
USER = 65532
CONFIGURATION = """
version: 1
state_dir: /var/lib/valgate
listeners: [{ address: "127.0.0.1:0", plaintext: true }]
health: { address: "127.0.0.1:0" }
upstreams: [{ name: api, endpoints: ["http://localhost:9"] }]
routes: [{ match: { path: /** }, public: true, upstream: api }]
"""


def main() -> int:
    valgate = (Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "target/debug/valgate").resolve()
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o755)
        subprocess.run([ROOT / "deploy/docker/rootfs", valgate, MATERIALS, root], check=True)
        files = [path for path in Path(root).rglob("*") if path.is_file()]
        weight = sum(path.stat().st_size for path in files)
        print(f"ok      {len(files)} files, {weight / 2**20:.1f} MiB with this binary")
        Path(root, "etc/valgate/valgate.yaml").write_text(CONFIGURATION)
        run = ["chroot", f"--userspec={USER}:{USER}", root, "/usr/bin/valgate"]
        subprocess.run([*run, "check", "--config", "/etc/valgate/valgate.yaml"], check=True, stdout=subprocess.DEVNULL)
        print("ok      valgate check, in the image's root, as its user")
        server = subprocess.Popen(
            [*run, "run", "--config", "/etc/valgate/valgate.yaml"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
            text=True, env={**os.environ, "NO_COLOR": "1"},
        )  # fmt: skip
        try:
            port = int(wait_for_line(server, "answering probes").rsplit(":", 1)[1])
            wait_until_ready(port)
            print("ok      it runs and is ready")
            server.send_signal(signal.SIGUSR2)
            wait_for_line(server, "this process is not replaced and serves on")
            wait_until_ready(port)
            print("ok      it cannot replace itself without /proc, says so and serves on")
        finally:
            server.terminate()
            ended = server.wait(timeout=60)
        print(f"{'ok' if ended == 0 else 'FAILED':7} it ends with status {ended}")
        return ended


def wait_for_line(server: subprocess.Popen, text: str) -> str:
    for line in server.stderr:
        if text in line:
            return line
    raise SystemExit(f"FAILED  it ended and never said: {text}")


def wait_until_ready(port: int) -> None:
    for _ in range(600):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/readyz")
        if connection.getresponse().status == 200:
            return
        time.sleep(0.1)
    raise SystemExit("FAILED  it does not become ready")


if __name__ == "__main__":
    sys.exit(main())
