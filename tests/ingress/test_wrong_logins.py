"""Wrong credentials and signatures, as often as an address likes to send them."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.config.auth import WrongLogins as Settings
from openhqm.ingress.access import Access
from openhqm.ingress.authentication import Authentication
from openhqm.ingress.key_sets import FixedKeys
from openhqm.ingress.tokens import Issuer, Tokens
from openhqm.ingress.wrong_logins import make_wrong_logins
from openhqm.policy.api_keys import Caller, Role
from tests.ingress.test_access import made, write
from tests.ingress.test_tokens import RULES, keys
from tests.policy.test_hook_signatures import github
from tests.servers import Server
from tests.signing import NOW, claims, token

MOST = 3
METRIC = "openhqm_wrong_credentials_total"
HERE, THERE = "192.0.2.7", "198.51.100.9"


class Connection:
    """A connection from an address; None: over a Unix socket."""

    def __init__(self, host: str | None) -> None:
        self.peer_host = host or ""


class Keys:
    """One key, called good; and whether each question was to be verified."""

    def __init__(self) -> None:
        self.asked: list[bool] = []

    def caller(self, secret: bytes, verify: bool = True) -> Caller | None:
        self.asked.append(verify)
        return Caller("acme", frozenset({Role.READ}), "1") if secret == b"good" else None

    def certified(self, connection: object) -> Caller | None:
        return None


class AccessTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.keys = Keys()
        self.registry = CollectorRegistry()
        self.wrong = make_wrong_logins(Settings(requests=MOST, per_seconds=60), self.clock.seconds, self.registry)
        self.access = Access(self.keys, self.clock, lambda: 0.0, self.wrong)

    def ask(self, secret: str | None, host: str | None = HERE, **more: Any) -> tuple[int, dict[bytes, bytes]]:
        credentials = () if secret is None else ((b"openhqm-key", secret.encode()),)
        answer, _ = self.access.check(Role.READ, b"/", credentials, Connection(host), **more)
        return (200, {}) if answer is None else (answer.status, dict(answer.fields))

    def test_refused_unseen(self) -> None:
        """After so many, a wrong one is 429 with the time to wait, and is not verified; later, it is 401 again."""
        self.assertEqual([self.ask("wrong")[0] for _ in range(MOST + 2)], [401] * MOST + [429] * 2)
        self.assertEqual(self.keys.asked, [True] * MOST + [False] * 2)
        wait = int(self.ask("wrong")[1][b"Retry-After"])
        self.assertLessEqual(wait, 60 / MOST)
        self.clock.advance(wait)
        self.assertEqual([self.ask("wrong")[0] for _ in range(2)], [401, 429])
        self.clock.advance(60)
        self.assertEqual(self.ask("wrong")[0], 401)

    def test_others(self) -> None:
        """Other addresses are verified as before; and so is what a look into a table shows to be good."""
        for _ in range(MOST + 5):
            self.ask("wrong")
        self.assertEqual((self.ask("good")[0], self.ask("good", THERE)[0]), (200, 200))
        self.assertEqual(self.ask("wrong", THERE)[0], 401)
        self.assertEqual(self.ask("wrong")[0], 429)

    def test_what_counts(self) -> None:
        """A request without a credential does not count, nor one that is looked at twice, nor a Unix socket."""
        for _ in range(MOST + 5):
            self.assertEqual(self.ask(None)[0], 401)
            self.assertEqual(self.ask("wrong", count=False)[0], 401)
            self.assertEqual(self.ask("wrong", None)[0], 401)
            self.assertEqual(self.ask("good")[0], 200)
        self.assertEqual([self.ask("wrong")[0] for _ in range(MOST + 1)], [401] * MOST + [429])

    def test_switched_off(self) -> None:
        """Without a number, there is no limit, and wrong ones are counted all the same."""
        wrong = make_wrong_logins(Settings(requests=None), self.clock.seconds, registry := CollectorRegistry())
        self.access = Access(self.keys, self.clock, lambda: 0.0, wrong)
        self.assertEqual({self.ask("wrong")[0] for _ in range(100)}, {401})
        self.assertEqual(registry.get_sample_value(METRIC, {"outcome": "checked"}), 100)

    def test_metric(self) -> None:
        """The metric says how many were wrong, and how many of them were refused unseen."""
        for _ in range(MOST + 2):
            self.ask("wrong")
        found = [self.registry.get_sample_value(METRIC, {"outcome": outcome}) for outcome in ("checked", "unseen")]
        self.assertEqual(found, [MOST, 2])

    def test_tokens(self) -> None:
        """A token that was verified before stays good; one that was not is not verified while the address waits."""
        tokens = Tokens([Issuer(RULES, FixedKeys(keys()))], self.clock.seconds, lambda: float(NOW))
        access = Authentication(None, tokens, None, self.clock, self.wrong).access
        assert access is not None

        def status(text: bytes) -> int:
            answer, _ = access.check(Role.READ, b"/", ((b"authorization", b"Bearer " + text),), Connection(HERE))
            return 200 if answer is None else answer.status

        first, second = token(), token(payload=claims(jti="2"))
        self.assertEqual(status(first), 200)
        self.assertEqual([status(b"a.b.c") for _ in range(MOST)], [401] * MOST)
        self.clock.advance(1)  # what is remembered for half a second is forgotten
        self.assertEqual((status(first), status(second)), (200, 429))
        self.clock.advance(60)
        self.assertEqual(status(second), 200)


class ProcessTests(SynchronousTestCase):
    """A process behind a balancer that says who its clients are"""

    def setUp(self) -> None:
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        self.key, kept = made("a", frozenset({Role.SUBMIT}))
        write(directory / "keys.json", kept)
        auth = {"type": "api_key", "keys_file": str(directory / "keys.json"), "wrong_logins": {"requests": MOST}}
        self.server = Server(
            directory,
            OPENHQM_AUTH=json.dumps(auth),
            OPENHQM_QUEUE__TYPE="memory",
            OPENHQM_HOOKS=json.dumps({"code": {"preset": "github", "secrets": ["one"]}}),
            OPENHQM_SERVER__PROXY_PROTOCOL="true",
            OPENHQM_SERVER__TRUSTED_PROXIES='["127.0.0.1"]',
        )
        self.server.launch()
        self.addCleanup(self.server.stop)
        self.server.until(lambda: self.ask(THERE, "GET", "/health/ready")[0] == 200, "not ready")

    def ask(self, host: str, method: str, path: str, body: bytes = b"", **fields: str) -> tuple[int, str]:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
        lines += f"Host: a\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
        with socket.create_connection(("127.0.0.1", self.server.port), 20) as peer:
            peer.sendall(
                f"PROXY TCP4 {host} 127.0.0.1 1000 80\r\n{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body
            )
            answer = b""
            while piece := peer.recv(65536):
                answer += piece
        return (int(answer[9:12]) if answer else 0), answer.decode()

    def submit(self, host: str, key: str) -> int:
        fields = {"Content-Type": "application/json", "OpenHQM-Key": key}
        return self.ask(host, "POST", "/api/v1/submit", b'{"payload":1}', **fields)[0]

    def test_keys(self) -> None:
        """One address that guesses gets 429 by each route; others, and its own good keys, are served."""
        self.assertEqual([self.submit(HERE, "wrong") for _ in range(MOST + 2)], [401] * MOST + [429] * 2)
        status, text = self.ask(HERE, "GET", "/api/v1/dead-letters?limit=1", OpenHQM_Key="wrong")
        self.assertEqual(status, 429)
        self.assertIn("retry-after: ", text.lower())
        self.assertEqual(self.ask(HERE, "GET", "/health/live", OpenHQM_Key="wrong")[0], 200)
        self.assertEqual((self.submit(HERE, self.key), self.submit(THERE, self.key)), (202, 202))
        self.assertEqual(self.submit(THERE, "wrong"), 401)
        self.assertIn(HERE, self.server.log())
        self.assertNotIn(self.key, self.server.log())

    def test_hooks(self) -> None:
        """An address that sends wrong signatures gets 429, with the right one as well; another one is served."""

        def deliver(host: str, secret: str) -> int:
            fields = {**github(secret, b"{}", 0), "Content-Type": "application/json"}
            return self.ask(host, "POST", "/hooks/code", b"{}", **fields)[0]

        self.assertEqual([deliver(HERE, "x") for _ in range(MOST + 1)], [401] * MOST + [429])
        self.assertEqual((deliver(HERE, "one"), deliver(THERE, "one")), (429, 202))
