"""What proving who calls costs: the CPU of the process for each accepted request, read from /proc.

    python -m benchmarks.credentials [--rounds 15] [--requests 4000]

The kinds are measured in turns, and compared within each turn, so that a drift of the machine meets all of them; the
median of the turns counts. The queue is SQLite, and no worker runs.
"""

from __future__ import annotations

import argparse
import json
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jwt

from benchmarks import running

CONNECTIONS = 32
ISSUER = "https://login.example.com/"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--requests", type=int, default=4000)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        kinds = kinds_of(Path(directory))
        costs: dict[str, list[float]] = {}
        for _ in range(chosen.rounds):
            for name, (environment, field, secure) in kinds.items():
                port = running.free_port()
                with running.openhqm(port, "--role", "listener", **environment) as process:
                    costs.setdefault(name, []).append(_cost(process.pid, port, field, chosen.requests, secure))
    for name, found in costs.items():
        more = statistics.median(each / base for each, base in zip(found, costs["without"], strict=True)) - 1
        print(f"{name:8} {statistics.median(found):7.1f} us of CPU for each request  {more * 100:+6.1f} %")


def kinds_of(directory: Path) -> dict[str, tuple[dict[str, str], bytes, bool]]:
    """The environment, the header field and whether there is TLS, for each kind."""
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
    return {
        "without": ({}, b"", False),
        "api_key": (
            {"OPENHQM_AUTH__TYPE": "api_key", "OPENHQM_AUTH__KEYS_FILE": str(keys)},
            b"Authorization: Bearer %b\r\n" % made.strip(),
            False,
        ),
        "jwt": (
            {"OPENHQM_AUTH__TYPE": "jwt", "OPENHQM_AUTH__JWT": json.dumps({"issuers": [issuer]})},
            b"Authorization: Bearer %b\r\n" % token,
            False,
        ),
        "tls": ({"OPENHQM_SERVER__TLS": tls}, b"", True),
    }


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def _cost(pid: int, port: int, field: bytes, requests: int, secure: bool) -> float:
    """Microseconds of CPU for each of ``requests``, each of which is accepted, over `CONNECTIONS` connections."""
    request = b"POST /api/v1/submit HTTP/1.1\r\nHost: localhost\r\n%bContent-Type: application/json\r\n" % field
    request += b"Content-Length: %d\r\n\r\n%b" % (len(running.BODY), running.BODY)
    context = ssl._create_unverified_context()
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
    if secure:
        connections = [context.wrap_socket(each) for each in connections]
    _rounds(connections, request, 20)  # the first ones are slower
    rounds = requests // CONNECTIONS
    began = _cpu(pid)
    _rounds(connections, request, rounds)
    spent = _cpu(pid) - began
    for each in connections:
        each.close()
    return spent / (rounds * CONNECTIONS) * 1e6


def _rounds(connections: list[socket.socket], request: bytes, rounds: int) -> None:
    for _ in range(rounds):
        for each in connections:
            each.sendall(request)
        for each in connections:
            answer = each.recv(65536)
            assert answer.startswith(b"HTTP/1.1 202"), answer


def _cpu(pid: int) -> float:
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(each.read_text().split()[0]) for each in tasks) / 1e9


if __name__ == "__main__":
    main()
