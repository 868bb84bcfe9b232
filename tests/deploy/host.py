#!/usr/bin/env python3
"""The Debian package on a host that systemd runs: installed, configured, upgraded under load, removed, purged.

    tests/deploy/host.py [VALGATE]     the binary; by default the one that cargo built last; after artefacts.py

The host is this machine's own file system, under an overlay that is thrown away, booted by systemd-nspawn in namespaces
of its own. Needs root, and a kernel that lets it; where the host does not boot, says so and checks no more than the
package itself.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MATERIALS = ROOT / "target/tools/valgate.cdx.json"
CLIENT = ROOT / "tests/deploy/client.py"
APPLICATION = ROOT / "tests/deploy/application.py"
# What the installed configuration becomes: one route, to the application.
ROUTED = """
version: 1
state_dir: /var/lib/valgate
listeners: [{ address: "127.0.0.1:8443", plaintext: true }]
admin: { socket: /run/valgate/admin.sock }
upstreams: [{ name: orders, endpoints: ["http://127.0.0.1:8080"] }]
routes: [{ match: { path: /orders/** }, public: true, upstream: orders }]
"""
CONFIGURATION = "/etc/valgate/valgate.yaml"
URL = "http://127.0.0.1:8443"
APPLICATION_URL = "http://127.0.0.1:8080"

failures = []


def main() -> int:
    # Told to end, it leaves nothing mounted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    valgate = (Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "target/debug/valgate").resolve()
    with tempfile.TemporaryDirectory() as scratch:
        packages = build_packages(valgate, Path(scratch))
        lint(packages["1"])
        with booted(Path(scratch)) as host:
            if host:
                for package in packages.values():
                    shutil.copy(package, host.root / "srv")
                for script in [CLIENT, APPLICATION]:
                    shutil.copy(script, host.root / "srv")
                rehearse(host, {version: f"/srv/{package.name}" for version, package in packages.items()})
    if failures:
        print("\n".join(["", *failures]))
    return 1 if failures else 0


def rehearse(host: "Host", packages: dict[str, str]) -> None:
    application = host.start("env", "HOST=127.0.0.1", "python3", "/srv/application.py")
    try:
        install(host, packages["1"])
        first_start(host)
        hardened(host)
        reload(host)
        crash(host)
        secrets(host)
        upgrade(host, packages["2"])
        broken_upgrade(host, packages["broken"], packages["2"])
        broken_start(host)
        activate_by_socket(host)
        remove(host, packages["2"])
        purge(host)
    finally:
        application.kill()
        application.wait()


# --- the package itself ---


def build_packages(valgate: Path, scratch: Path) -> dict[str, Path]:
    """As it is; a later version, with another default configuration; and one whose program does not work."""
    program = scratch / "valgate"
    run("strip", "-o", program, valgate)
    build = [ROOT / "deploy/debian/build", program, MATERIALS, scratch]
    fast = {**os.environ, "COMPRESSION": "0"}
    built = [Path(run(*build, env=fast).strip())]
    digest = run("sha256sum", built[0])
    run(*build, env={**fast, "TZ": "Asia/Tokyo"}, umask=0o077)
    report("built twice, it has the same bytes", digest == run("sha256sum", built[0]))

    later = unpacked(built[0], scratch / "later", "2")
    with (later / "etc/valgate/valgate.yaml").open("a") as file:
        file.write("# This version says more.\n")
    broken = unpacked(built[0], scratch / "broken", "3")
    (broken / "usr/bin/valgate").write_text("#!/bin/sh\nexit 1\n")
    for folder in [later, broken]:
        package = scratch / f"{folder.name}.deb"
        run("dpkg-deb", "-Znone", "--root-owner-group", "--build", folder, package)
        built.append(package)
    return dict(zip(["1", "2", "broken"], built, strict=True))


def unpacked(package: Path, folder: Path, revision: str) -> Path:
    run("dpkg-deb", "--raw-extract", package, folder)
    control = folder / "DEBIAN/control"
    control.write_text(control.read_text().replace("Version: 0.1.0-1", f"Version: 0.1.0-{revision}"))
    return folder


def lint(package: Path) -> None:
    if not shutil.which("lintian"):
        print("SKIPPED   lintian: not here")
        return
    options = ["--fail-on", "error,warning", "--tag-display-limit", "0", "--allow-root"]
    linted = subprocess.run(["lintian", *options, package], capture_output=True, text=True)
    report("lintian finds nothing", linted.returncode == 0, linted.stdout + linted.stderr)


# --- on a host ---


def install(host: "Host", package: str) -> None:
    host.run("dpkg", "--install", package)
    files = host.run("stat", "--format=%a %U:%G %n", *INSTALLED).splitlines()
    wanted = [f"{mode} {path}" for path, mode in INSTALLED.items()]
    report("files are there, with their owners and modes", files == wanted, "\n".join(files))
    user = host.run("getent", "passwd", "valgate").strip()
    report("the user cannot log in", user.endswith(":/usr/sbin/nologin"), user)
    report("nothing is enabled, nothing runs", host.states() == ["disabled inactive", "disabled inactive"])
    checked = host.try_run("valgate", "check", "--config", CONFIGURATION)
    mistakes = checked.stdout + checked.stderr
    only = "routes: the list is empty" in mistakes and ": 1 mistake\n" in mistakes
    report("the configuration lacks nothing but routes", only, mistakes)
    man = host.run("man", "--where", "valgate", "valgate-run")
    report("man finds its pages", "valgate.1" in man and "valgate-run.1" in man, man)


INSTALLED = {
    "/usr/bin/valgate": "755 root:root",
    "/lib/systemd/system/valgate.service": "644 root:root",
    "/lib/systemd/system/valgate.socket": "644 root:root",
    "/etc/valgate": "750 root:valgate",
    "/etc/valgate/valgate.yaml": "644 root:root",
    "/usr/share/doc/valgate/valgate.cdx.json": "644 root:root",
    "/usr/share/doc/valgate/copyright": "644 root:root",
    "/usr/share/bash-completion/completions/valgate": "644 root:root",
}


def first_start(host: "Host") -> None:
    host.write(CONFIGURATION, ROUTED)
    host.run("systemctl", "enable", "--now", "valgate")
    report("configured, it is started and serves", host.answer() == "200", "")
    files = host.run("stat", "--format=%a %U:%G %n", *MADE).splitlines()
    wanted = [f"{mode} {path}" for path, mode in MADE.items()]
    report("it has made its directories and its socket", files == wanted, "\n".join(files))
    ask = ["runuser", "-u", "valgate", "--", "curl", "--silent", "--unix-socket", "/run/valgate/admin.sock"]
    status = json.loads(host.run(*ask, "http://localhost/status"))
    report("the administrator's socket answers", "version" in status, str(status))


MADE = {
    "/var/lib/valgate": "700 valgate:valgate",
    "/var/log/valgate": "750 valgate:valgate",
    "/run/valgate/admin.sock": "600 valgate:valgate",
}


def hardened(host: "Host") -> None:
    lines = host.run("cat", f"/proc/{host.main_process()}/status").splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    held = {name: status[name].strip() for name in ["CapEff", "NoNewPrivs", "Seccomp"]}
    # Bit 10: CAP_NET_BIND_SERVICE.
    wanted = {"CapEff": "0000000000000400", "NoNewPrivs": "1", "Seccomp": "2"}
    report("the process has the one capability, and a filter of system calls", held == wanted, str(held))


def reload(host: "Host") -> None:
    host.write(CONFIGURATION, ROUTED.replace("/orders/**", "/items/**"))
    host.run("systemctl", "reload", "valgate")
    report("a reload puts the file in force", host.eventually_answers(404), "")
    host.write(CONFIGURATION, ROUTED)
    host.run("systemctl", "reload", "valgate")
    host.eventually_answers(200)
    host.write(CONFIGURATION, ROUTED + "nonsense: 1\n")
    host.run("systemctl", "reload", "valgate")
    told = eventually(lambda: "nonsense" in host.run("journalctl", "--unit=valgate", "--output=cat"))
    report("a reload of a file with mistakes tells them in the journal", told)
    report("and the configuration before stays in force", host.answer() == "200" and host.is_active())
    host.write(CONFIGURATION, ROUTED)


def crash(host: "Host") -> None:
    before = host.main_process()
    host.run("systemctl", "kill", "--kill-whom=main", "--signal=SIGKILL", "valgate")
    eventually(lambda: host.main_process() not in ("0", before) and host.is_active())
    report("killed, it is started again", host.eventually_answers(200), "")


def secrets(host: "Host") -> None:
    """As docs/host.md shows it."""
    _, unit, _, configuration, *_ = section("Secrets").split("```")
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    make += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    host.run(*make, "-keyout", "/etc/ssl/private/api.example.com.key", "-out", "/etc/valgate/tls.crt")
    host.write("/etc/systemd/system/valgate.service.d/secrets.conf", unit.removeprefix("ini\n"))
    host.write(CONFIGURATION, configuration.removeprefix("yaml\n"))
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "restart", "valgate")
    ask = ["curl", "--silent", "--cacert", "/etc/valgate/tls.crt", "https://localhost:8443/orders/1"]
    served = host.try_run(*ask).stdout
    host.write(CONFIGURATION, configuration.removeprefix("yaml\n").replace("/orders/**", "/items/**"))
    host.run("systemctl", "reload", "valgate")
    reloaded = eventually(lambda: "VAL-040" in host.try_run(*ask).stdout)
    report("a private key that only root may read is served with, and survives a reload", served == "0" and reloaded)
    host.run("rm", "/etc/systemd/system/valgate.service.d/secrets.conf", "/etc/valgate/tls.crt")
    host.write(CONFIGURATION, ROUTED)
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "restart", "valgate")


def section(title: str) -> str:
    return (ROOT / "docs/host.md").read_text().split(f"## {title}\n")[1].split("\n## ")[0]


def upgrade(host: "Host", package: str) -> None:
    before = host.main_process()
    load = put_under_load(host)
    held = host.start("curl", "--silent", "--fail", "--write-out", " %{http_code}", f"{URL}/orders/held")
    eventually(lambda: host.run("curl", "--silent", f"{APPLICATION_URL}/orders/1") == "1")
    host.run("dpkg", "--force-confold", "--install", package)
    report("an upgrade replaces the process", host.main_process() not in ("0", before))
    host.run("curl", "--silent", f"{APPLICATION_URL}/release")
    served, _ = held.communicate()
    report("a request in flight is served to its end", served.endswith(" 200"), served)
    served, all_served, counts = relieve(load)
    report(f"none of {served} requests failed meanwhile", all_served, counts)
    kept = host.run("cat", CONFIGURATION) == ROUTED
    offered = "This version says more" in host.run("cat", f"{CONFIGURATION}.dpkg-dist")
    report("the edited configuration is kept, the package's lies beside it", kept and offered)


def broken_upgrade(host: "Host", broken: str, good: str) -> None:
    before = host.main_process()
    installed = host.run("dpkg", "--force-confold", "--install", broken, stderr=subprocess.STDOUT)
    told = "the version before serves on" in installed
    report("a version that does not start is told of", told, installed)
    report("and the one before serves on", host.main_process() == before and host.answer() == "200")
    host.run("dpkg", "--force-confold", "--force-downgrade", "--install", good)
    report("the way back replaces it again", host.main_process() != before and host.answer() == "200")


def broken_start(host: "Host") -> None:
    host.write(CONFIGURATION, ROUTED + "nonsense: 1\n")
    host.try_run("systemctl", "restart", "valgate")
    shown = host.run("systemctl", "show", "--property=ExecMainStatus,NRestarts,ActiveState", "valgate").split()
    wanted = ["NRestarts=0", "ExecMainStatus=2", "ActiveState=failed"]
    report("it does not start on a file with mistakes, nor tries again", sorted(shown) == sorted(wanted), str(shown))
    host.write(CONFIGURATION, ROUTED)


def activate_by_socket(host: "Host") -> None:
    host.run("systemctl", "stop", "valgate")
    host.write(
        "/etc/systemd/system/valgate.socket.d/address.conf", "[Socket]\nListenStream=\nListenStream=127.0.0.1:8443\n"
    )
    host.write(
        "/etc/systemd/system/valgate.service.d/ports.conf", "[Service]\nAmbientCapabilities=\nCapabilityBoundingSet=\n"
    )
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "enable", "--now", "valgate.socket")
    was_active = host.is_active()
    served = host.answer()
    report("a connection to the socket starts it", not was_active and served == "200" and host.is_active())
    load = put_under_load(host, "--patient")
    host.run("systemctl", "restart", "valgate")
    served, all_served, counts = relieve(load)
    report(f"a restart refuses no connection: {served} served", all_served, counts)


def remove(host: "Host", package: str) -> None:
    host.run("dpkg", "--remove", "valgate")
    gone = not host.exists("/usr/bin/valgate") and not host.is_active()
    kept = host.run("cat", CONFIGURATION) == ROUTED and host.exists("/var/lib/valgate/last-good.yaml")
    report("removed, it has stopped; configuration and state are kept", gone and kept)
    host.run("dpkg", "--force-confold", "--install", package)
    report("installed again, it serves as before", host.eventually_answers(200), "")


def purge(host: "Host") -> None:
    host.run("rm", "-r", "/etc/systemd/system/valgate.socket.d", "/etc/systemd/system/valgate.service.d")
    host.run("dpkg", "--purge", "valgate")
    places = ["/etc", "/lib", "/run", "/usr/bin", "/usr/lib", "/usr/share", "/var"]
    left = host.run("find", *places, "-name", "*valgate*").split()
    report("purged, nothing is left", not left, "\n".join(left))
    report("but its user", host.run("getent", "passwd", "valgate").startswith("valgate:"))


def put_under_load(host: "Host", *options: str) -> subprocess.Popen:
    load = host.start("python3", "/srv/client.py", "127.0.0.1", "8443", *options)
    load.stdout.readline()
    return load


def relieve(load: subprocess.Popen) -> tuple[int, bool, str]:
    """How many requests were served, whether those are all, and what else is known."""
    counts, _ = load.communicate()
    outcome = json.loads(counts)
    return outcome["served"], outcome["served"] > 0 and not outcome["failed"], counts


class Host:
    """A booted system."""

    def __init__(self, root: Path, leader: int):
        self.root = root
        self.inside = ["nsenter", f"--target={leader}", "--mount", "--uts", "--ipc", "--net", "--pid"]

    def run(self, *command: str, **options) -> str:
        return run(*self.inside, *command, **options)

    def try_run(self, *command: str) -> subprocess.CompletedProcess:
        return subprocess.run([*self.inside, *command], capture_output=True, text=True, env=ENVIRONMENT)

    def start(self, *command: str) -> subprocess.Popen:
        pipe = subprocess.PIPE
        return subprocess.Popen([*self.inside, *command], stdin=pipe, stdout=pipe, text=True, env=ENVIRONMENT)

    def write(self, path: str, text: str) -> None:
        file = self.root / path.removeprefix("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def exists(self, path: str) -> bool:
        return self.try_run("test", "-e", path).returncode == 0

    def states(self) -> list[str]:
        """Of the service and of the socket."""
        asked = ["systemctl", "show", "--property=UnitFileState,ActiveState", "valgate.service", "valgate.socket"]
        shown = [dict(line.split("=") for line in unit.splitlines()) for unit in self.run(*asked).split("\n\n")]
        return [f"{unit['UnitFileState']} {unit['ActiveState']}" for unit in shown]

    def is_active(self) -> bool:
        return self.try_run("systemctl", "is-active", "valgate.service").returncode == 0

    def main_process(self) -> str:
        return self.run("systemctl", "show", "--property=MainPID", "--value", "valgate").strip()

    def answer(self) -> str:
        options = ["--silent", "--output", "/dev/null", "--write-out", "%{http_code}"]
        return self.try_run("curl", *options, f"{URL}/orders/1").stdout

    def eventually_answers(self, status: int) -> bool:
        return eventually(lambda: self.answer() == str(status))


@contextlib.contextmanager
def booted(scratch: Path) -> Iterator[Host | None]:
    layers, root = scratch / "layers", scratch / "root"
    layers.mkdir()
    root.mkdir()
    with contextlib.ExitStack() as undo:
        try:
            # Not on the file system that is below: its layers may not overlap.
            run("mount", "--types", "tmpfs", "tmpfs", layers)
            undo.callback(run, "umount", "--lazy", layers)
            for layer in ["upper", "work"]:
                (layers / layer).mkdir()
            options = f"lowerdir=/,upperdir={layers}/upper,workdir={layers}/work"
            run("mount", "--types", "overlay", "overlay", "--options", options, root)
            undo.callback(run, "umount", "--lazy", root)
        except (OSError, subprocess.CalledProcessError) as error:
            yield skip(f"no overlay can be mounted here: {error}")
            return
        # Systems of the same identity would share a journal.
        (root / "etc/machine-id").write_text("")
        # A container image's way to say that packages start nothing; this is a host.
        (root / "usr/sbin/policy-rc.d").unlink(missing_ok=True)
        # Its database of pages would be made anew with each installation, which takes longer than all the rest.
        (root / "var/lib/man-db/auto-update").unlink(missing_ok=True)
        boot = ["systemd-nspawn", f"--directory={root}", "--register=no", "--keep-unit", "--private-network"]
        boot += ["--console=pipe", "--kill-signal=SIGRTMIN+3", "--boot", "--", "--unit=basic.target"]
        log = (scratch / "boot.log").open("w+")
        try:
            machine = subprocess.Popen(boot, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        except FileNotFoundError:
            yield skip("there is no systemd-nspawn")
            return
        undo.callback(halt, machine)
        host = wait_for_boot(machine, root)
        if host is None:
            log.seek(0)
            skip("a host does not boot here:\n" + log.read()[-2000:])
        yield host


def wait_for_boot(machine: subprocess.Popen, root: Path) -> Host | None:
    children = Path(f"/proc/{machine.pid}/task/{machine.pid}/children")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and machine.poll() is None:
        if leaders := children.read_text().split():
            host = Host(root, int(leaders[0]))
            if host.try_run("systemctl", "is-system-running").stdout.strip() in ("running", "degraded"):
                return host
        time.sleep(0.2)
    return None


def halt(machine: subprocess.Popen) -> None:
    machine.terminate()
    try:
        machine.wait(timeout=60)
    except subprocess.TimeoutExpired:
        machine.kill()
        machine.wait()


# --- running ---

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}


def run(*command: str | Path, env: dict | None = None, **options) -> str:
    options = {"stderr": subprocess.PIPE, **options}
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env or ENVIRONMENT, **options)
    if ran.returncode:
        raise SystemExit(f"FAILED    {' '.join(map(str, command))}\n{ran.stdout}{ran.stderr or ''}")
    return ran.stdout


def eventually(holds) -> bool:
    for _ in range(300):
        if holds():
            return True
        time.sleep(0.1)
    return False


def report(what: str, holds: bool, output: str = "") -> None:
    print(f"{'ok' if holds else 'FAILED':9} Debian package: {what}", flush=True)
    if not holds:
        failures.append(f"{what}\n{output}")


def skip(why: str) -> None:
    print(f"SKIPPED   Debian package on a host: {why}")


if __name__ == "__main__":
    sys.exit(main())
