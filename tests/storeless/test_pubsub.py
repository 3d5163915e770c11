"""A listener with the embedded file, and workers without a store, in processes of their own on one Pub/Sub."""

from __future__ import annotations

import json

from tests.pubsub.server import PROJECT, PubSubServer
from tests.servers import Server
from tests.storeless import killing


class PubSubTests(killing.Killing):
    """Pub/Sub counts deliveries, because there is a topic for dead letters."""

    def setUp(self) -> None:
        super().setUp()
        self.pubsub = PubSubServer().start()
        self.addCleanup(self.pubsub.close)
        self.listener = self.process("listener", "a")
        self.until_ready(self.listener)

    def backend(self) -> dict[str, str]:
        ours = {
            "project_id": PROJECT,
            "emulator_host": self.pubsub.host,
            "lease_seconds": 10,
            "dead_letter_topic": "openhqm-dead",
        }
        return {
            "OPENHQM_QUEUE__TYPE": "gcp_pubsub",
            "OPENHQM_QUEUE__CONNECTION__GCP_PUBSUB": json.dumps(ours),
            "OPENHQM_WORKER__RETRY__BASE_SECONDS": "0.1",
        }

    def test_refused_without_a_count(self) -> None:
        """Without that topic nothing counts, and a worker without a store is refused, with the cure."""
        ours = {"project_id": PROJECT, "emulator_host": self.pubsub.host}
        settings = {**self.backend(), "OPENHQM_QUEUE__CONNECTION__GCP_PUBSUB": json.dumps(ours)}
        worker = Server(self.directory, **{"OPENHQM_WORKER__HANDLER": "jobs:handle", **settings})
        worker.launch("--role", "worker")
        assert worker.process is not None
        worker.process.wait(30)
        self.assertIn("cache.type: gcp_pubsub does not count redeliveries", worker.log())
