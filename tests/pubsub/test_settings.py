"""What an operator can say about Pub/Sub, and what is refused with its key."""

from __future__ import annotations

from openhqm.errors import ConfigurationError
from openhqm.pubsub.broker import Address
from openhqm.pubsub.settings import PubSubSettings
from tests.config.test_config import ConfigCase

KEY = "queue.connection.gcp_pubsub"


def said(connection: str, queue: str = "") -> str:
    """A configuration."""
    return f"queue: {{type: gcp_pubsub, {queue} connection: {{gcp_pubsub: {{{connection}}}}}}}"


class SettingsTests(ConfigCase):
    """``queue.connection.gcp_pubsub``"""

    def settings(self, connection: str) -> PubSubSettings:
        found: PubSubSettings = self.load(said(connection)).queue.of(PubSubSettings)
        return found

    def test_address(self) -> None:
        """The service over TLS; an emulator without an account, by its key or by the variable of Google's clients."""
        ours = self.settings("project_id: a-project")
        self.assertEqual(Address.of(ours, {}, "queue.type"), Address("a-project", "https://pubsub.googleapis.com"))
        emulator = Address("a-project", "http://localhost:8085", emulator=True)
        variable = {"PUBSUB_EMULATOR_HOST": "localhost:8085"}
        self.assertEqual(Address.of(ours, variable, "queue.type"), emulator)
        by_key = self.settings("project_id: a-project, emulator_host: 'localhost:8085'")
        self.assertEqual(Address.of(by_key, {"PUBSUB_EMULATOR_HOST": "another:1"}, "queue.type"), emulator)
        error = self.assertRaises(ConfigurationError, Address.of, ours, {"PUBSUB_EMULATOR_HOST": "http://a"}, "")
        self.assertEqual(error.complaints[0].key, "PUBSUB_EMULATOR_HOST")

    def test_refused(self) -> None:
        """What is missing or cannot be is refused with its key."""
        for connection, key, reason in (
            ("prefix: a", "project_id", "is needed"),
            ("project_id: A", "project_id", "id of a project"),
            ("project_id: a-project, emulator_host: 'http://a'", "emulator_host", "host:port"),
            ("project_id: a-project, endpoint: 'https://a/v1'", "endpoint", "without a path"),
            ("project_id: a-project, endpoint: 'https://name:secret@a'", "endpoint", "without a password"),
            ("project_id: a-project, prefix: '1.'", "prefix", "'1.openhqm-requests'"),
            ("project_id: a-project, prefix: 'goog'", "prefix", "not with goog"),
            ("project_id: a-project, lease_seconds: 5", "lease_seconds", "10"),
            ("project_id: a-project, retention_seconds: 60", "retention_seconds", "600"),
            ("project_id: a-project, dead_letter_topic: 'a b'", "dead_letter_topic", "must have 3 to 255"),
        ):
            complaint = self.complaint(said(connection))
            self.assertEqual(complaint.key, f"{KEY}.{key}", connection)
            self.assertIn(reason, complaint.reason)
