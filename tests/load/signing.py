"""A key and its tokens, by openssl: for load tests that need no more than a good token."""

import base64
import json
import pathlib
import subprocess
import time

ISSUER = "http://127.0.0.1/"


class Key:
    """An ES256 key, by openssl."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.path = directory / "key.pem"
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", self.path)
        point = openssl("pkey", "-in", self.path, "-pubout", "-outform", "DER")[-64:]
        self.jwk = {"kty": "EC", "crv": "P-256", "kid": "k1", "x": encoded(point[:32]), "y": encoded(point[32:])}

    def claims(self) -> str:
        return encoded(json.dumps({"iss": ISSUER, "aud": "api", "sub": "u", "exp": int(time.time()) + 3600}).encode())

    def token(self) -> str:
        text = encoded(b'{"alg":"ES256","kid":"k1"}') + "." + self.claims()
        der = openssl("dgst", "-sha256", "-sign", self.path, stdin=text.encode())
        first = 4 + der[3]
        numbers = (der[4:first], der[first + 2 :])
        return text + "." + encoded(b"".join(number[-32:].rjust(32, b"\0") for number in numbers))


def openssl(*arguments, stdin: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *arguments], input=stdin, capture_output=True, check=True).stdout


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
