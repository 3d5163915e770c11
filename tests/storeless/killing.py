"""A listener with the embedded file, and workers without a store, of which either is killed."""

from __future__ import annotations

import json

from tests.redis.test_roles import Roles
from tests.servers import Server

MANY = 12


class Killing(Roles):
    """The backend is one that counts deliveries. ``listener`` is a process that is ready, and ``seconds`` how long a
    request may take whose worker was killed: as long as the lease.
    """

    listener: Server
    seconds = 40

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
        documents = [self.listener.response(id, wait=self.seconds) for id in ids]
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
