"""Pages of other origins: what they are told, and what a browser makes of it (Fetch standard)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.backends import PRODUCTS
from openhqm.config.loading import load
from openhqm.errors import ConfigurationError
from openhqm.policy.api_keys import Role
from openhqm.policy.cors import Cors
from tests.ingress.test_access import made, write
from tests.servers import Server

APP = "https://app.example.com"


class ConfigurationTests(SynchronousTestCase):
    """The section ``cors``"""

    def complaint(self, cors: dict[str, Any]) -> str:
        error = self.assertRaises(ConfigurationError, load, None, {"OPENHQM_CORS": json.dumps(cors)}, PRODUCTS)
        return str(error)

    def test_refused(self) -> None:
        """What no browser sends, and what would let every page act as its user, is refused."""
        for origin in (
            "null",
            "",
            "https://app.example.com/",
            "https://app.example.com/path",
            "https://APP.example.com",
            "https://app.example.com:443",
            "http://app.example.com:80",
            "https://*.example.com",
            "app.example.com",
            "https://a@b.example",
            "file://",
            "https://app.example.com\r\nX: y",
        ):
            self.assertIn("cors.origins", self.complaint({"origins": [origin]}), origin)
        self.assertIn("every page", self.complaint({"origins": ["*"], "credentials": True}))
        self.assertIn("missing", self.complaint({"credentials": True}))
        for good in (APP, "http://localhost:3000", "http://[::1]:8080", "https://a.b:8443", "*"):
            load(None, {"OPENHQM_CORS": json.dumps({"origins": [good]})}, PRODUCTS)


class CorsTests(SynchronousTestCase):
    """`Cors`"""

    def test_fields(self) -> None:
        """Only a listed origin is named, to the letter, and never with a star where there are credentials."""
        cors = Cors(frozenset({APP.encode()}), credentials=True)
        found = dict(cors.fields(APP.encode()))
        self.assertEqual(found[b"Access-Control-Allow-Origin"], APP.encode())
        self.assertEqual(found[b"Access-Control-Allow-Credentials"], b"true")
        for other in (None, b"null", b"https://app.example.com.evil.example", b"http://app.example.com", b"*", b""):
            self.assertEqual(cors.fields(other), ((b"Vary", b"Origin"),), other)
        every = dict(Cors(frozenset({b"*"})).fields(b"https://any.example"))
        self.assertNotIn(b"Access-Control-Allow-Credentials", every)


class ProcessTests(SynchronousTestCase):
    """A process that lets the pages of one origin call"""

    def test_page(self) -> None:
        """What a page does: it asks, submits with its key, reads the answer, and follows the events."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        secret, key = made("a", frozenset({Role.SUBMIT, Role.READ}))
        write(directory / "keys.json", key)
        server = Server(
            directory,
            OPENHQM_QUEUE__TYPE="memory",
            OPENHQM_CORS=json.dumps({"origins": [APP]}),
            OPENHQM_AUTH__TYPE="api_key",
            OPENHQM_AUTH__KEYS_FILE=str(directory / "keys.json"),
        )
        server.start()
        self.addCleanup(server.stop)
        submit = "/api/v1/submit"
        asks = {"Origin": APP, "Access-Control-Request-Method": "POST"}
        status, fields, body = server.ask("OPTIONS", submit, None, asks)
        self.assertEqual((status, body), (204, b""))
        self.assertEqual(fields["access-control-allow-origin"], APP)
        self.assertIn("POST", fields["access-control-allow-methods"])
        for name in ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID"):
            self.assertIn(name, fields["access-control-allow-headers"].split(", "))
        mine = {"Origin": APP, "Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
        status, fields, body = server.ask("POST", submit, {"payload": 1}, mine)
        self.assertEqual(status, 202)
        self.assertEqual(fields["access-control-allow-origin"], APP)
        self.assertIn("Location", fields["access-control-expose-headers"].split(", "))
        id = json.loads(body)["correlation_id"]
        for path in (f"/api/v1/status/{id}", f"/api/v1/response/{id}?wait=10", f"/api/v1/events/{id}"):
            status, fields, body = server.ask("GET", path, None, mine)
            self.assertEqual((status, fields["access-control-allow-origin"]), (200, APP), path)
        self.assertIn(b"event: completed", body)
        # A page can tell a refusal from a broken network, too.
        for path, status in ((f"/api/v1/status/{id}x", 404), ("/metrics", 403)):
            found, fields, _ = server.ask("GET", path, None, mine)
            self.assertEqual((found, fields.get("access-control-allow-origin")), (status, APP))
        found, fields, _ = server.ask("GET", f"/api/v1/status/{id}", None, {"Origin": APP})
        self.assertEqual((found, fields.get("access-control-allow-origin")), (401, APP))
        # Another origin is told nothing, and its browser asks for nothing.
        for other in ("https://evil.example", "null", f"{APP}.evil.example"):
            status, fields, _ = server.ask("OPTIONS", submit, None, {**asks, "Origin": other})
            self.assertEqual(status, 401)
            self.assertNotIn("access-control-allow-origin", fields)
            _, fields, _ = server.ask("GET", f"/api/v1/status/{id}", None, {**mine, "Origin": other})
            self.assertNotIn("access-control-allow-origin", fields)
            self.assertEqual(fields["vary"], "Origin")
        status, fields, _ = server.ask("POST", submit, {"payload": 1}, {"Authorization": f"Bearer {secret}"})
        self.assertEqual((status, fields["x-content-type-options"]), (202, "nosniff"))
