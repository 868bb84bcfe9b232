"""What the gateway and its peers are measured with: keys, tokens, a certificate, revocations, and valgate's
configuration with everything on that a user has on.

Keys and certificate are made by openssl, so that nothing else is needed.
"""

import base64
import json
import re
import socket
import subprocess
import time
from pathlib import Path

ISSUER = "https://id.bench.test/"
AUDIENCE = "bench-api"
HOST = "api.bench.test"
#: Far enough for a file of tokens to serve many runs; a peer that rejects long lifetimes has no default that does.
LIFETIME = 30 * 24 * 3600
#: By algorithm: the key's file, how openssl makes it, how it signs.
ALGORITHMS = {
    "RS256": ("rs256", ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
    "ES256": ("es256", ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
    "EdDSA": ("ed25519", ["-algorithm", "ED25519"]),
}


class Fixture:
    """A directory with everything in it; made on first use, kept while its tokens live."""

    def __init__(self, directory: Path):
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        stamp = directory / "made"
        fresh = stamp.exists() and time.time() - float(stamp.read_text()) < LIFETIME / 2
        if not fresh:
            for old in directory.glob("tokens-*"):
                old.unlink()
            self._make()
            stamp.write_text(str(time.time()))

    def path(self, name: str) -> Path:
        return self.directory / name

    def private_key(self, algorithm: str) -> Path:
        return self.path(f"{ALGORITHMS[algorithm][0]}.key")

    def public_key(self, algorithm: str) -> Path:
        return self.path(f"{ALGORITHMS[algorithm][0]}.pub")

    def token(self, algorithm: str, **claims) -> str:
        """A signed token; claims override the usual ones."""
        now = int(time.time())
        payload = {
            "iss": ISSUER, "sub": "user-4711", "aud": AUDIENCE, "exp": now + LIFETIME, "iat": now,
            "jti": f"{time.time_ns():x}", "scope": "orders:read orders:write", "client_id": "bench",
        } | claims
        header = {"alg": algorithm, "typ": "JWT", "kid": ALGORITHMS[algorithm][0]}
        signed = ".".join(base64url(json.dumps(part, separators=(",", ":")).encode()) for part in (header, payload))
        return f"{signed}.{base64url(self._sign(algorithm, signed.encode()))}"

    def refused_tokens(self, algorithm: str) -> dict[str, str]:
        """Tokens that every gateway must refuse, by what is wrong with them."""
        good = self.token(algorithm)
        head, payload, signature = good.split(".")
        flipped = ("A" if signature[20] != "A" else "B")
        return {
            "expired": self.token(algorithm, exp=int(time.time()) - 3600),
            "wrong audience": self.token(algorithm, aud="another-api"),
            "wrong issuer": self.token(algorithm, iss="https://elsewhere.test/"),
            "bad signature": f"{head}.{payload}.{signature[:20]}{flipped}{signature[21:]}",
            "malformed": f"{head}.{payload}",
        }

    def valgate_config(self, *, tls: int, plain: int, admin: int, upstream: int, workers: int = 1) -> Path:
        """With all on; the access log is rendered and written, but to no disk."""
        path = self.path(f"valgate-{tls}.yaml")
        path.write_text(f"""\
version: 1
workers: {workers}
listeners:
  - address: 127.0.0.1:{tls}
    tls: {{ certificates: [{{ certificate: tls.crt, private_key: tls.key }}] }}
  - {{ address: 127.0.0.1:{plain}, plaintext: true }}
admin: {{ address: 127.0.0.1:{admin} }}
access_log: {{ output: {{ file: /dev/null }} }}
issuers:
  - name: main
    issuer: {ISSUER}
    keys: {{ file: jwks.json }}
    audiences: [{AUDIENCE}]
    revocation: {{ feeds: [logout], max_staleness: 10m, when_stale: reject }}
feeds:
  - name: logout
    file: {{ path: revoked.json }}
upstreams:
  - name: api
    endpoints: [http://127.0.0.1:{upstream}]
routes:
  - match: {{ path: /** }}
    require: {{ issuers: [main], scopes: ["orders:read"] }}
    identity_headers: {{ X-Auth-Subject: sub, X-Auth-Scope: scope }}
    upstream: api
""")
        return path

    def _make(self):
        run = lambda *arguments: subprocess.run(arguments, check=True, capture_output=True)
        keys = []
        for algorithm, (name, parameters) in ALGORITHMS.items():
            private, public = self.private_key(algorithm), self.public_key(algorithm)
            run("openssl", "genpkey", *parameters, "-out", private)
            run("openssl", "pkey", "-in", private, "-pubout", "-out", public)
            der = run("openssl", "pkey", "-in", private, "-pubout", "-outform", "DER").stdout
            keys.append({"kid": name, "alg": algorithm, "use": "sig"} | self._jwk(algorithm, private, der))
        self.path("jwks.json").write_text(json.dumps({"keys": keys}))
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "60",
            "-subj", f"/CN={HOST}", "-addext", "basicConstraints=critical,CA:FALSE", "-addext", f"subjectAltName=DNS:{HOST},IP:127.0.0.1",
            "-keyout", self.path("tls.key"), "-out", self.path("tls.crt"))
        self.path("tls.pem").write_text(self.path("tls.crt").read_text() + self.path("tls.key").read_text())
        expires = int(time.time()) + LIFETIME
        entries = [{"jti": f"revoked-{number}", "exp": expires} for number in range(10_000)]
        revoked = {"version": 1, "kind": "snapshot", "epoch": "bench", "entries": entries}
        self.path("revoked.json").write_text(json.dumps(revoked))

    @staticmethod
    def _jwk(algorithm: str, private: Path, der: bytes) -> dict:
        if algorithm == "RS256":
            text = subprocess.run(["openssl", "rsa", "-in", private, "-noout", "-modulus"], check=True, capture_output=True)
            modulus = bytes.fromhex(re.search(rb"Modulus=([0-9A-F]+)", text.stdout)[1].decode())
            return {"kty": "RSA", "n": base64url(modulus), "e": "AQAB"}
        # A SubjectPublicKeyInfo ends in the bare key.
        if algorithm == "ES256":
            return {"kty": "EC", "crv": "P-256", "x": base64url(der[-64:-32]), "y": base64url(der[-32:])}
        return {"kty": "OKP", "crv": "Ed25519", "x": base64url(der[-32:])}

    def _sign(self, algorithm: str, message: bytes) -> bytes:
        key = self.private_key(algorithm)
        if algorithm == "EdDSA":
            # openssl signs pure EdDSA from a file only.
            text = self.path("message")
            text.write_bytes(message)
            command = ["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", text]
            return subprocess.run(command, check=True, capture_output=True).stdout
        command = ["openssl", "dgst", "-sha256", "-sign", key]
        signature = subprocess.run(command, check=True, capture_output=True, input=message).stdout
        return signature if algorithm == "RS256" else fixed_size(signature)


def fixed_size(der: bytes) -> bytes:
    """An ECDSA signature as JWS wants it (RFC 7518 section 3.4), from DER."""
    r_end = 4 + der[3]
    r, s = der[4:r_end], der[r_end + 2:]
    return b"".join(int.from_bytes(number, "big").to_bytes(32, "big") for number in (r, s))


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports
