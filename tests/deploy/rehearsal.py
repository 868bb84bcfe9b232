#!/usr/bin/env python3
"""Plays the kubelet's part for a pod that `valgate inject` made: real processes in a network namespace of their own.

    tests/deploy/rehearsal.py [VALGATE]     the binary; by default the one that cargo built last

For each way of closing the application's port: init containers in order, the sidecar's start-up probe before the
application starts, probes carried to the application, requests with and without a token, a connection around the
gateway, by IPv4 and by IPv6, a certificate rotated by the swap of a symbolic link, and an orderly end under load and
with a request in flight. What a container would run is taken from the injected manifest; only images and mounted paths
are replaced. A NetworkPolicy is put in force as network plug-ins do it, by the packet filter.
"""

import base64
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
POD_ADDRESS, NODE_ADDRESS = "10.213.0.2", "10.213.0.1"
# Every address; of both families where the kernel has both.
ANY, ANY_IN_URL = ("::", "[::]") if Path("/proc/net/if_inet6").exists() else ("0.0.0.0", "0.0.0.0")
POD_ADDRESS_6, NODE_ADDRESS_6 = "fd13:213::2", "fd13:213::1"
NAMESPACE = "valgate-rehearsal"
APPLICATION = Path(__file__).with_name("application.py")
# How long Kubernetes takes to tell everyone that a pod goes; in seconds, and slowly.
TELLING = 2

MANIFEST = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: orders }}
spec:
  selector: {{ matchLabels: {{ app: orders }} }}
  template:
    metadata: {{ labels: {{ app: orders }} }}
    spec:
      terminationGracePeriodSeconds: 20
      containers:
        - name: orders
          image: orders
          command: [{sys.executable}, {APPLICATION}]
          env: [{{ name: HOST, value: "{ANY}" }}]
          ports: [{{ name: http, containerPort: 8080 }}]
          readinessProbe: {{ httpGet: {{ path: /ready, port: http }} }}
---
apiVersion: v1
kind: Service
metadata: {{ name: orders }}
spec:
  selector: {{ app: orders }}
  ports: [{{ port: 443, targetPort: http }}]
"""

CONFIGURATION = f"""
version: 1
listeners:
  - address: "{ANY_IN_URL}:8443"
    tls: {{ certificates: [{{ certificate: tls/tls.crt, private_key: tls/tls.key }}] }}
health: {{ address: 0.0.0.0:8081 }}
reload: {{ interval: 1s }}
timeouts: {{ drain_idle: 100ms }}
access_log: off
issuers:
  - name: main
    issuer: https://id.example.com/
    keys: {{ file: keys/jwks.json }}
    audiences: [orders-api]
upstreams:
  - {{ name: orders, endpoints: ["http://127.0.0.1:8080"] }}
routes:
  - match: {{ path: /orders/** }}
    require: {{ issuers: [main] }}
    upstream: orders
"""

LOCKS = {
    "loopback": ["--lock", "loopback", "--bind-env", "HOST=127.0.0.1"],
    "nftables": ["--lock", "nftables", "--nft-image", "nft"],
    "network-policy": ["--lock", "network-policy"],
    "none": ["--insecure-leave-open"],
}

failures = []


def main() -> int:
    valgate = (Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "target/debug/valgate").resolve()
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("nft"):
        print("rehearsal: needs root, ip and nft")
        return 1
    for lock, options in LOCKS.items():
        with tempfile.TemporaryDirectory() as scratch, Network() as network:
            rehearse(lock, options, valgate, Path(scratch), network.addresses)
    if failures:
        print(f"\n{len(failures)} deviations")
    return 1 if failures else 0


def rehearse(lock: str, options: list[str], valgate: Path, scratch: Path, addresses: list[str]) -> None:
    signer = Signer(scratch / "signer")
    volume = Volume(scratch / "etc-valgate", signer.jwks())
    injected = subprocess.run(
        [valgate, "inject", "--file", "-", "--app-port", "8080", "--tls-secret", "orders-tls", *options],
        input=MANIFEST, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    deployment, service, *policies = yaml.safe_load_all(injected)
    pod = deployment["spec"]["template"]["spec"]
    paths = {"/etc/valgate": str(volume.root), "/var/lib/valgate": str(scratch / "state")}
    processes = {}

    def check(what: str, holds: bool, seen: object = "") -> None:
        print(f"{'ok' if holds else 'FAILED':7} {lock:14} {what}{f': {seen}' if seen != '' else ''}", flush=True)
        if not holds:
            failures.append((lock, what))

    try:
        for policy in policies:
            enforce(policy, deployment["spec"]["template"]["metadata"]["labels"])
        for container in pod["initContainers"]:
            if container.get("restartPolicy") == "Always":
                processes[container["name"]] = start(container, [str(valgate)], paths)
                took = wait_for(container["startupProbe"])
                check(f"{container['name']} passes its start-up probe before the application starts", took)
            else:
                ended = start(container, [], paths).wait()
                check(f"init container {container['name']} ends with status 0", ended == 0, ended)
        application = pod["containers"][0]
        processes["orders"] = start(application, [], paths)
        check("the application's readiness probe is carried", wait_for(application["readinessProbe"]))
        get = application["readinessProbe"]["httpGet"]
        check("it does not ask the application's port", get["port"] == 8081, get)
        check("the Service leads to the gateway", service["spec"]["ports"][0]["targetPort"] == "valgate")

        token = signer.token()
        for address in addresses:
            check("a request with a token reaches the application", ask("/orders/1", token, address=address), address)
            check("a request without one does not", ask("/orders/1", None, expected=401, address=address), address)
            wanted = lock == "none"
            around = "succeeds, as told loudly" if wanted else "fails"
            check(f"a connection around the gateway {around}", connects(address, 8080) == wanted, address)

        before, failed = certificate(), Load(token)
        volume.rotate()
        after = wait_until(lambda: certificate() != before)
        refused, served = failed.stop()
        check("the rotated certificate is served", after)
        check("no request failed meanwhile", refused == 0 and served > 0, f"{served} served, {refused} failed")

        # The pod's end is decided: hooks run, the application after its own hook, the sidecar after the application.
        hook = application.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        check("the application goes on until everyone has heard of the pod's end", hook > TELLING, f"{hook} s")
        load = Load(token)
        time.sleep(min(hook, TELLING))
        slow = Background(lambda: ask("/orders/slow", token))
        wait_until(lambda: in_flight(token))
        refused, served = load.stop()
        check("until then no request fails", refused == 0 and served > 0, f"{served} served, {refused} failed")
        # The rest of the hook passes without a client, and is left out.
        ended = stop(processes, "orders", pod)
        check("the application ends in time", ended == 0, ended)
        ended = stop(processes, "valgate", pod)
        check("the sidecar ends after it, in time", ended == 0, ended)
        check("the request in flight was answered", slow.result())
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


# --- the kubelet ---


def start(container: dict, image: list[str], paths: dict[str, str]) -> subprocess.Popen:
    words = container.get("command", image) + container.get("args", [])
    for inside, outside in paths.items():
        words = [word.replace(inside, outside) for word in words]
    environment = {variable["name"]: variable["value"] for variable in container.get("env", [])}
    return subprocess.Popen(["ip", "netns", "exec", NAMESPACE, *words], env={**os.environ, **environment})


def enforce(policy: dict, labels: dict[str, str]) -> None:
    """A pod that a policy selects takes the connections that a rule admits, and answers to its own."""
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items(), "it selects other pods"
    assert policy["spec"]["policyTypes"] == ["Ingress"], "it closes something else"
    admitted = [rule for rule in policy["spec"]["ingress"] if rule.keys() == {"ports"}]
    ports = ", ".join(str(port["port"]) for rule in admitted for port in rule["ports"] if port["protocol"] == "TCP")
    chain = (
        "type filter hook input priority filter; policy drop; iif lo accept; meta l4proto icmpv6 accept; "
        f"tcp flags & (syn | ack) != syn accept; tcp dport {{ {ports} }} accept;"
    )
    rules = f"table inet plugin {{ chain input {{ {chain} }}; }};"
    subprocess.run(["ip", "netns", "exec", NAMESPACE, "nft", rules], check=True)


def stop(processes: dict[str, subprocess.Popen], name: str, pod: dict) -> int | None:
    processes[name].send_signal(signal.SIGTERM)
    try:
        return processes[name].wait(timeout=pod["terminationGracePeriodSeconds"])
    except subprocess.TimeoutExpired:
        return None


def wait_for(probe: dict) -> bool:
    get = probe["httpGet"]

    def passes() -> bool:
        connection = http.client.HTTPConnection(POD_ADDRESS, get["port"], timeout=1)
        try:
            connection.request("GET", get["path"])
            return 200 <= connection.getresponse().status < 400
        except OSError:
            return False
        finally:
            connection.close()

    return wait_until(passes)


def wait_until(holds) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.05)
    return False


# --- clients outside of the pod ---


def ask(path: str, token: str | None, expected: int = 200, address: str = POD_ADDRESS) -> bool:
    context = ssl._create_unverified_context()
    connection = http.client.HTTPSConnection(address, 8443, context=context, timeout=20)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        return connection.getresponse().status == expected
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def in_flight(token: str) -> bool:
    connection = http.client.HTTPSConnection(POD_ADDRESS, 8443, context=ssl._create_unverified_context(), timeout=5)
    connection.request("GET", "/orders/in-flight", headers={"Authorization": f"Bearer {token}"})
    return connection.getresponse().read() == b"1"


def connects(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=2).close()
        return True
    except OSError:
        return False


def certificate() -> str:
    return ssl.get_server_certificate((POD_ADDRESS, 8443))


class Background(threading.Thread):
    def __init__(self, work):
        super().__init__(daemon=True)
        self.work, self.outcome = work, False
        self.start()

    def run(self):
        self.outcome = self.work()

    def result(self) -> bool:
        self.join()
        return self.outcome


class Load(Background):
    """Asks without pause, on new connections."""

    def __init__(self, token: str):
        self.ending, self.counts = threading.Event(), [0, 0]
        super().__init__(lambda: self.load(token))

    def load(self, token: str) -> None:
        while not self.ending.is_set():
            self.counts[ask("/orders/1", token)] += 1

    def stop(self) -> list[int]:
        self.ending.set()
        self.join()
        return self.counts


# --- what a pod is made of ---


class Network:
    """A node and a pod. `addresses` are the pod's: of IPv6 too, where the kernel has it."""

    def __enter__(self):
        self.__exit__()
        for command in [
            f"ip netns add {NAMESPACE}",
            f"ip link add vg-node type veth peer name vg-pod netns {NAMESPACE}",
            f"ip addr add {NODE_ADDRESS}/30 dev vg-node",
            "ip link set vg-node up",
            f"ip -n {NAMESPACE} addr add {POD_ADDRESS}/30 dev vg-pod",
            f"ip -n {NAMESPACE} link set vg-pod up",
            f"ip -n {NAMESPACE} link set lo up",
        ]:
            subprocess.run(command.split(), check=True)
        self.addresses = [POD_ADDRESS]
        second = [
            f"ip -6 addr add {NODE_ADDRESS_6}/64 dev vg-node nodad",
            f"ip -6 -n {NAMESPACE} addr add {POD_ADDRESS_6}/64 dev vg-pod nodad",
        ]
        if all(subprocess.run(command.split(), capture_output=True).returncode == 0 for command in second):
            self.addresses.append(POD_ADDRESS_6)
        else:
            print("SKIPPED rehearsal over IPv6: this kernel gives no such address")
        return self

    def __exit__(self, *_):
        # The kernel takes a deleted namespace down later, and the link with it: by itself, the link goes at once.
        for command in ["ip link del vg-node", f"ip netns del {NAMESPACE}"]:
            subprocess.run(command.split(), stderr=subprocess.DEVNULL, check=False)


class Volume:
    """A projected volume as the kubelet lays it out: a new folder each time, and one link to swap."""

    def __init__(self, root: Path, jwks: str):
        self.root, self.jwks, self.turn = root, jwks, 0
        root.mkdir()
        self.rotate()
        for name in ["valgate.yaml", "tls", "keys"]:
            (root / name).symlink_to(f"..data/{name}")

    def rotate(self) -> None:
        self.turn += 1
        folder = self.root / f"..{self.turn}"
        (folder / "tls").mkdir(parents=True)
        (folder / "keys").mkdir()
        (folder / "valgate.yaml").write_text(CONFIGURATION)
        (folder / "keys/jwks.json").write_text(self.jwks)
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
             "-subj", f"/CN=turn {self.turn}", "-addext", "subjectAltName=DNS:api.example.com",
             "-keyout", "tls/tls.key", "-out", "tls/tls.crt"], cwd=folder, check=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        link = self.root / "..data_tmp"
        link.symlink_to(folder.name)
        link.rename(self.root / "..data")


class Signer:
    """An issuer: an RSA key and what it signs, by openssl."""

    def __init__(self, folder: Path):
        folder.mkdir()
        self.key = folder / "key.pem"
        subprocess.run(["openssl", "genrsa", "-out", self.key, "2048"], check=True, stderr=subprocess.DEVNULL)

    def jwks(self) -> str:
        printed = subprocess.run(
            ["openssl", "rsa", "-in", self.key, "-noout", "-modulus"], check=True, capture_output=True, text=True
        ).stdout
        modulus = bytes.fromhex(printed.strip().removeprefix("Modulus="))
        return json.dumps({"keys": [{"kty": "RSA", "kid": "1", "alg": "RS256", "n": text(modulus), "e": "AQAB"}]})

    def token(self) -> str:
        claims = {"iss": "https://id.example.com/", "aud": "orders-api", "sub": "alice", "exp": int(time.time()) + 600}
        parts = [text(json.dumps(part).encode()) for part in [{"alg": "RS256", "kid": "1"}, claims]]
        signing = ".".join(parts)
        signed = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", self.key], input=signing.encode(), check=True, capture_output=True
        )
        return f"{signing}.{text(signed.stdout)}"


def text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


if __name__ == "__main__":
    sys.exit(main())
