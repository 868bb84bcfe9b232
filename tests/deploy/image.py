#!/usr/bin/env python3
"""Runs the program in the image's file system and nothing else: as its user, in a root that holds what the Dockerfile
puts there, read-only but for /var/lib/valgate, and without /proc, which a container engine would mount.

    tests/deploy/image.py [VALGATE]     the binary; by default the one that cargo built last; after artefacts.py

Needs root, for mounts and chroot. What the image weighs is bounded, unless the binary is of a folder `debug`, as cargo's
profile for development: of any other, the symbols are left out, as deploy/build does it.
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
# In bytes; docs/kubernetes.md tells today's figure.
WEIGHT = 30 * 2**20
CONFIGURATION = """
version: 1
state_dir: /var/lib/valgate
listeners: [{ address: "127.0.0.1:0", plaintext: true }]
health: { address: "127.0.0.1:0" }
upstreams: [{ name: api, endpoints: ["http://localhost:9"] }]
routes: [{ match: { path: /** }, public: true, upstream: api }]
"""


# In a space of mounts of its own, which goes with the process. A root that can be written to is no rehearsal.
READ_ONLY = """
mount --bind "$0" "$0"
mount --bind "$0/var/lib/valgate" "$0/var/lib/valgate"
mount -o remount,bind,ro "$0"
if touch "$0/tmp/probe" 2>/dev/null; then echo 'the root is not read-only' >&2; exit 1; fi
exec chroot "--userspec=$1" "$0" "${@:2}"
"""


def main() -> int:
    valgate = (Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "target/debug/valgate").resolve()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "root")
        is_release = valgate.parent.name != "debug"
        program = strip(valgate, Path(scratch)) if is_release else valgate
        subprocess.run([ROOT / "deploy/docker/rootfs", program, MATERIALS, root], check=True)
        os.chmod(scratch, 0o755)
        files = [path for path in root.rglob("*") if path.is_file()]
        weight = sum(path.stat().st_size for path in files)
        of_that = f"{len(files)} files, {weight / 2**20:.1f} MiB, of which the program {program.stat().st_size:,} bytes"
        if is_release and weight > WEIGHT:
            raise SystemExit(f"FAILED  {of_that}: more than {WEIGHT / 2**20:.0f} MiB")
        print(f"ok      {of_that}" + ("" if is_release else "; not bounded, since it is no release"))
        Path(root, "etc/valgate/valgate.yaml").write_text(CONFIGURATION)
        run = ["unshare", "--mount", "bash", "-euc", READ_ONLY, root, f"{USER}:{USER}", "/usr/bin/valgate"]
        subprocess.run([*run, "check", "--config", "/etc/valgate/valgate.yaml"], check=True, stdout=subprocess.DEVNULL)
        print("ok      valgate check, in the image's root, read-only, as its user")
        server = subprocess.Popen(
            [*run, "run", "--config", "/etc/valgate/valgate.yaml"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
            text=True, env={**os.environ, "NO_COLOR": "1"},
        )  # fmt: skip
        try:
            port = int(wait_for_line(server, "answering probes").rsplit(":", 1)[1])
            wait_until_ready(port)
            kept = list(Path(root, "var/lib/valgate").iterdir())
            if not kept:
                raise SystemExit("FAILED  it keeps nothing in /var/lib/valgate")
            print("ok      it runs, keeps its state and is ready")
            server.send_signal(signal.SIGUSR2)
            wait_for_line(server, "this process is not replaced and serves on")
            wait_until_ready(port)
            print("ok      it cannot replace itself without /proc, says so and serves on")
        finally:
            server.terminate()
            ended = server.wait(timeout=60)
        print(f"{'ok' if ended == 0 else 'FAILED':7} it ends with status {ended}")
        return ended


def strip(valgate: Path, scratch: Path) -> Path:
    stripped = scratch / "valgate"
    subprocess.run(["strip", "-o", stripped, valgate], check=True)
    return stripped


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
