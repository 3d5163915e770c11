"""What proving who calls, tenants and limits cost: the CPU of the process for each accepted request (`accepting`).

Each is switched on by itself, and then all together. A tenant is known by its key, so tenancy is compared with that.

python -m benchmarks.credentials [--rounds 60] [--requests 640] [--only KIND ...]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jwt

from benchmarks import running
from benchmarks.accepting import Kind, compare

ISSUER = "https://login.example.com/"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=60)
    options.add_argument("--requests", type=int, default=640)
    options.add_argument("--only", nargs="+", help="these kinds, and what each is compared with")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        kinds = kinds_of(Path(directory))
        wanted = set(kinds if chosen.only is None else chosen.only)
        for name, kind in reversed(kinds.items()):  # what another is compared with stands before it
            if name in wanted:
                wanted.add(kind.than or next(iter(kinds)))
        compare({name: kind for name, kind in kinds.items() if name in wanted}, chosen.rounds, chosen.requests)


def kinds_of(directory: Path) -> dict[str, Kind]:
    key, public, cert = (directory / name for name in ("issuer.key", "issuer.pem", "cert.pem"))
    _openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", str(key))
    _openssl("pkey", "-in", str(key), "-pubout", "-out", str(public))
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost")
    _openssl("req", "-x509", *curve, "-keyout", str(directory / "tls.key"), "-out", str(cert))
    for path in (key, directory / "tls.key"):
        path.chmod(0o600)
    issuer = {
        "issuer": ISSUER,
        "audiences": ["openhqm"],
        "key_files": [str(public)],
        "tenant": "a",
        "roles": ["submit"],
    }
    claims = {"iss": ISSUER, "aud": "openhqm", "sub": "ada", "exp": int(time.time()) + 3600, "scope": "submit read"}
    token = jwt.encode(claims, key.read_text(), "RS256").encode()
    keys = directory / "keys.json"
    run = "from openhqm.command.main import run; run()"
    command = [sys.executable, "-c", run, "keys", "new", "--file", str(keys), "--tenant", "a"]
    made = subprocess.run([*command, "--role", "submit"], check=True, capture_output=True, cwd=running.ROOT).stdout
    tls = json.dumps({"cert": str(cert), "key": str(directory / "tls.key")})
    by_key = {"OPENHQM_AUTH__TYPE": "api_key", "OPENHQM_AUTH__KEYS_FILE": str(keys)}
    field = b"Authorization: Bearer %b\r\n" % made.strip()
    rows = [{"name": "a", "weight": 3}, {"name": "b"}]
    rates = {"requests_per_second": 1_000_000, "bytes_per_second": 1 << 40}
    rate_limit = {"OPENHQM_RATE_LIMIT": json.dumps({"requests": 1_000_000})}

    def tenants(**limits: float) -> dict[str, str]:
        return {**by_key, "OPENHQM_TENANTS": json.dumps([{**row, "limits": limits} for row in rows])}

    everything = tenants(**rates, queued=1_000_000_000, waits=1000, streams=1000)
    return {
        "without": Kind(),
        "limits": Kind(rate_limit),
        "api_key": Kind(by_key, field),
        "tenancy": Kind(tenants(), field, than="api_key"),
        "tenants' rates": Kind(tenants(**rates), field, than="tenancy"),
        "tenants' queued": Kind(tenants(queued=1_000_000_000), field, than="tenancy"),
        "all": Kind({**everything, **rate_limit}, field),
        "jwt": Kind(
            {"OPENHQM_AUTH__TYPE": "jwt", "OPENHQM_AUTH__JWT": json.dumps({"issuers": [issuer]})},
            b"Authorization: Bearer %b\r\n" % token,
        ),
        "tls": Kind({"OPENHQM_SERVER__TLS": tls}, secure=True),
    }


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


if __name__ == "__main__":
    main()
