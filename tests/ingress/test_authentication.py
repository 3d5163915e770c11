"""A process that asks for tokens, or for tokens and keys."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.ingress.access import TABLE
from openhqm.policy.api_keys import Role
from tests.ingress.test_access import FINISHING, made, target_of, write
from tests.servers import Server
from tests.signing import ISSUER, claims, jwk, jwks, pem, rsa_key, token

CANARY = "canary-in-a-token"


class ProcessTests(SynchronousTestCase):
    """A process with an issuer of tokens"""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        (self.directory / "issuer.pem").write_bytes(pem(rsa_key()))
        self.secret, key = made("a", frozenset({Role.SUBMIT}))
        self.keys_file = self.directory / "keys.json"
        write(self.keys_file, key)

    def server(self, kind: str, level: str = "INFO", **issuer: Any) -> Server:
        settings = {
            "issuer": ISSUER,
            "audiences": ["openhqm"],
            "key_files": [str(self.directory / "issuer.pem")],
            "tenant_claim": "tenant",
            "roles_claim": "scope",
            **issuer,
        }
        settings = {name: each for name, each in settings.items() if each is not None}
        return Server(
            self.directory,
            OPENHQM_AUTH__TYPE=kind,
            OPENHQM_AUTH__JWT=json.dumps({"issuers": [settings]}),
            OPENHQM_QUEUE__TYPE="memory",
            OPENHQM_MONITORING__LOG_LEVEL=level,
            **({"OPENHQM_AUTH__KEYS_FILE": str(self.keys_file)} if kind == "any" else {}),
        )

    def token(self, scope: str = "submit", lasts: int = 300, key: Any = None) -> str:
        """A token of now."""
        now = int(time.time())
        return token(key, payload=claims(iat=now, exp=now + lasts, scope=scope, jti=CANARY)).decode()

    def test_matrix(self) -> None:
        """Every role on every route: the token of a role opens what a key with that role opens, and nothing else."""
        server = self.server("any", "DEBUG")
        server.start()
        self.addCleanup(server.stop)

        def ask(method: str, path: str, fields: Mapping[str, str]) -> tuple[int, bytes]:
            body = {"payload": 1} if method == "POST" else None
            status, _, content = server.ask(method, path, body, dict(fields))
            return status, content

        bad = self.token(key=rsa_key(number=1))
        for method, route, needed in TABLE:
            target = target_of(route)
            missing = ask(method, target, {})
            self.assertEqual(missing[0] == 401, needed is not None, route)
            if needed is not None:
                for wrong in (bad, "wrong", self.token(lasts=-40)):
                    self.assertEqual(ask(method, target, {"Authorization": f"Bearer {wrong}"}), missing, route)
            for role in Role:
                for fields in (
                    {"Authorization": f"Bearer {self.token(role.value)}"},
                    {"OpenHQM-Key": self.token(role.value)},
                ):
                    status, _ = ask(method, target, fields)
                    if route in FINISHING:
                        self.assertGreaterEqual(status, 400, (route, role))
                    elif needed in (None, role):
                        self.assertNotIn(status, (401, 403), (route, role))
                    else:
                        self.assertEqual(status, 403, (route, role))
        self.assertEqual(ask("POST", "/api/v1/submit", {"OpenHQM-Key": self.secret})[0], 202)
        self.assertEqual(ask("GET", f"/api/v1/status/a?access_token={self.token()}", {})[0], 400)
        metrics = ask("GET", "/metrics", {"OpenHQM-Key": self.token("admin")})[1].decode()
        self.assertRegex(metrics, r'(?m)^openhqm_submissions_total\{outcome="accepted"\} 3\.0$')
        log = server.log()
        self.assertIn("a token was refused: it has a signature that no key of its issuer has made", log)
        for part in (*bad.split("."), *self.token().split("."), CANARY, self.secret):
            self.assertNotIn(part, log)

    def test_not_started(self) -> None:
        """What cannot be used ends the process with a line that has the key, the file and the cure."""
        secret = self.directory / "secret"
        shared = {"algorithms": ["HS256"], "key_files": None, "secret_file": str(secret)}
        weak, private, other = (self.directory / name for name in ("weak.pem", "private.json", "other.json"))
        weak.write_bytes(pem(rsa_key(1024)))
        private.write_bytes(jwks({**jwk(rsa_key()), "d": CANARY}))
        other.write_bytes(jwks(jwk(rsa_key(), alg="RS512")))
        for content, mode, issuer, key, word in (
            (b"a" * 32, 0o644, shared, "secret_file", "chmod 640"),
            (b"a" * 31, 0o600, shared, "secret_file", "31 bytes"),
            (pem(rsa_key()), 0o600, shared, "secret_file", "public key"),
            (b"", 0o600, {"key_files": ["missing.pem"]}, "key_files.0", "No such file"),
            (b"", 0o600, {"key_files": [str(weak)]}, "key_files.0", "2048"),
            (b"", 0o600, {"key_files": [str(private)]}, "key_files.0", "public half"),
            (b"", 0o600, {"key_files": [str(other)]}, "key_files", "algorithms"),
        ):
            secret.write_bytes(content)
            secret.chmod(mode)
            code, _, errors = self.server("jwt", **issuer).run()
            self.assertEqual(code, 1, errors)
            self.assertIn(f"auth.jwt.issuers.0.{key}: ", errors)
            self.assertIn(word, errors)
            self.assertNotIn(CANARY, errors)
