"""What an operator decides about callbacks."""

from __future__ import annotations

from base64 import b64encode

from twisted.trial.unittest import SynchronousTestCase

from openhqm.config.callbacks import CallbackSettings
from openhqm.config.structure import Wrong, structure
from openhqm.errors import DestinationRefused
from openhqm.policy.callbacks import CALLBACKS

SECRET = "whsec_" + b64encode(b"x" * 32).decode()


class CallbackSettingsTests(SynchronousTestCase):
    def test_sends(self) -> None:
        """Callbacks are sent where there is a secret, and they are not switched off."""
        for section, expected in (
            ({}, False),
            ({"enabled": True}, False),
            ({"secrets": [SECRET]}, True),
            ({"secrets": [SECRET], "enabled": False}, False),
        ):
            self.assertIs(structure(section, CallbackSettings).sends, expected, section)

    def test_schedule(self) -> None:
        """A receiver that is away for a whole day, from whenever on, is called once more when it is back."""
        pauses = structure({}, CallbackSettings).schedule
        self.assertGreater(sum(pauses), 86400)
        self.assertEqual(pauses, sorted(pauses))

    def test_refused(self) -> None:
        """What cannot be kept is refused by its key, and no secret is repeated."""
        for section, key in (
            ({"secrets": ["whsec_hunter2"]}, "secrets"),
            ({"secrets": [SECRET] * 6}, "secrets"),
            ({"schedule": [5, -1]}, "schedule"),
            ({"schedule": [1e9]}, "schedule"),
            ({"schedule": [1] * 100}, "schedule"),
            ({"timeout": 0}, "timeout"),
            ({"max_in_flight": 0}, "max_in_flight"),
            ({"allow": ["http://127.0.0.1:9000/path"]}, "allow"),
            ({"allow": ["ftp://example.com"]}, "allow"),
            ({"allow": ["http://user@example.com"]}, "allow"),
            ({"allow": ["10.0.0.0/33"]}, "allow"),
            ({"channels": {"plant": []}}, "channels"),
            ({"channels": {"plant": [""]}}, "channels"),
            ({"channels": {"plant": ["a/*/b"]}}, "channels"),
        ):
            wrong = self.assertRaises(Wrong, structure, section, CallbackSettings)
            self.assertEqual([".".join(path).split(".")[0] for path, _ in wrong.found], [key], section)
            self.assertNotIn("hunter2", str(wrong.found))

    def test_origins(self) -> None:
        """An origin is allowed as it stands, and its host at no other; networks need https and 443."""
        policy = structure(
            {"allow": ["http://127.0.0.1:9000", "http://app.internal", "10.0.0.0/8"]}, CallbackSettings
        ).policy()
        for url in (
            "http://127.0.0.1:9000/done?a=1",
            "http://app.internal/",
            "https://10.1.2.3/",
            "https://example.com/",
        ):
            policy.check(url)
        for url in (
            "https://127.0.0.1:9000/",
            "http://127.0.0.1/",
            "https://127.0.0.1/",
            "https://app.internal/",
            "http://app.internal:8080/",
            "http://2130706433:9000/",
            "http://10.1.2.3/",
            "https://10.1.2.3:8443/",
            "https://192.168.0.1/",
            "http://example.com/",
        ):
            self.assertRaises(DestinationRefused, policy.check, url)
        for address, host, permitted in (
            ("127.0.0.1", "127.0.0.1", True),
            ("192.168.7.7", "app.internal", True),
            ("127.0.0.1", "example.com", False),
        ):
            self.assertIs(policy.permits(address, host), permitted)

    def test_not_shown(self) -> None:
        """The secrets are not in what is written about the settings."""
        self.assertNotIn(SECRET, repr(structure({"secrets": [SECRET]}, CallbackSettings)))

    def test_name(self) -> None:
        """No endpoint may have the name of the queue of callbacks."""
        from openhqm.config.endpoints import Proxy

        section = {"enabled": True, "endpoints": {CALLBACKS: {"url": "http://localhost"}}}
        wrong = self.assertRaises(Wrong, structure, section, Proxy)
        self.assertIn("reserved", str(wrong.found))
