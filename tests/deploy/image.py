#!/usr/bin/env python3
"""Runs the program in the image's file system and nothing else: as its user, in a root that holds what the Dockerfile
puts there, read-only but for /var/lib/valgate.

    tests/deploy/image.py [VALGATE]     the binary; by default the one that cargo built last

Needs root, for chroot. Prints what the image weighs with this binary.
"""

import http.client
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
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
        subprocess.run([ROOT / "deploy/docker/rootfs", valgate, root], check=True)
        files = [path for path in Path(root).rglob("*") if path.is_file()]
        weight = sum(path.stat().st_size for path in files)
        print(f"ok      {len(files)} files, {weight / 2**20:.1f} MiB with this binary")
        Path(root, "etc/valgate/valgate.yaml").write_text(CONFIGURATION)
        run = ["chroot", f"--userspec={USER}:{USER}", root, "/usr/bin/valgate"]
        subprocess.run([*run, "check", "--config", "/etc/valgate/valgate.yaml"], check=True, stdout=subprocess.DEVNULL)
        print("ok      valgate check, in the image's root, as its user")
        # As every container engine mounts it.
        proc = Path(root, "proc")
        proc.mkdir()
        subprocess.run(["mount", "--bind", "/proc", proc], check=True)
        server = subprocess.Popen(
            [*run, "run", "--config", "/etc/valgate/valgate.yaml"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
            text=True, env={**os.environ, "NO_COLOR": "1"},
        )  # fmt: skip
        try:
            for line in server.stderr:
                if "answering probes" in line:
                    break
            port = int(line.rsplit(":", 1)[1])
            for _ in range(600):
                connection = http.client.HTTPConnection("127.0.0.1", port)
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    break
                time.sleep(0.1)
            else:
                raise SystemExit("FAILED  it does not become ready")
            print("ok      it runs and is ready")
        finally:
            server.terminate()
            ended = server.wait(timeout=60)
            subprocess.run(["umount", proc], check=True)
        print(f"{'ok' if ended == 0 else 'FAILED':7} it ends with status {ended}")
        return ended


if __name__ == "__main__":
    sys.exit(main())
