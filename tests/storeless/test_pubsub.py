"""A listener with the embedded file, and workers without a store, in processes of their own on one Pub/Sub."""

from __future__ import annotations

import json

from tests.pubsub.server import PROJECT, PubSubServer
from tests.redis.test_roles import Roles
from tests.servers import Server

MANY = 12


class PubSubTests(Roles):
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

    def histories(self, ids: list[str]) -> dict[str, list[str]]:
        """What the stream of each tells from its beginning to its end."""
        found = {}
        for id in ids:
            text = self.stream(self.listener, id).read().decode()
            found[id] = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
        return found

    def processing(self, ids: list[str]) -> int:
        """How many of them are being worked on."""
        found = [json.loads(self.listener.ask("GET", f"/api/v1/status/{id}")[2])["status"] for id in ids]
        return found.count("PROCESSING")

    def once(self, ids: list[str]) -> None:
        """Each has completed, once."""
        documents = [self.listener.response(id, wait=40) for id in ids]
        self.assertEqual({document["status"] for document in documents}, {"COMPLETED"})
        for id, steps in self.histories(ids).items():
            self.assertEqual((steps[0], steps[-1], steps.count("completed")), ("pending", "completed", 1), id)

    def test_killed_worker(self) -> None:
        """One of two workers is killed with work in its hands: every request ends once, with an answer."""
        first, second = (self.process("worker", name) for name in "bc")
        ids = [self.listener.submit({"steps": ["step1"]}) for _ in range(MANY)]
        self.listener.until(lambda: self.processing(ids) >= 2, "the workers have not begun")
        first.kill()
        self.step(1)
        self.once(ids)
        self.assertEqual(second.stop(), 0)

    def test_killed_listener(self) -> None:
        """The listener is killed while a worker goes on, and it knows of all of it when it is back."""
        ids = [self.listener.submit({"steps": ["step1"]}) for _ in range(MANY)]
        worker = self.process("worker", "b")
        self.listener.until(lambda: self.processing(ids) >= 2, "the worker has not begun")
        self.listener.kill()
        self.step(1)
        self.listener.launch("--role", "listener")
        self.until_ready(self.listener)
        self.once(ids)
        self.assertEqual(worker.stop(), 0)

    def test_refused_without_a_count(self) -> None:
        """Without that topic nothing counts, and a worker without a store is refused, with the cure."""
        ours = {"project_id": PROJECT, "emulator_host": self.pubsub.host}
        settings = {**self.backend(), "OPENHQM_QUEUE__CONNECTION__GCP_PUBSUB": json.dumps(ours)}
        worker = Server(self.directory, **{"OPENHQM_WORKER__HANDLER": "jobs:handle", **settings})
        worker.launch("--role", "worker")
        assert worker.process is not None
        worker.process.wait(30)
        self.assertIn("cache.type: gcp_pubsub does not count redeliveries", worker.log())
