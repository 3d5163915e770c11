"""Listeners and workers in processes of their own on one Redis: any of them answers for any id."""

from __future__ import annotations

import http.client
import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.brokers import RedisServer
from tests.servers import Server

JOBS = """
import os
from pathlib import Path
from twisted.internet.task import deferLater

async def handle(work):
    from twisted.internet import reactor
    for step in work.payload["steps"]:
        while not Path(step).exists():
            await deferLater(reactor, 0.01)
        work.progress(step=step)
    return {"by": os.getpid()}
"""


class Roles(SynchronousTestCase):
    """Processes in one directory, and what they tell."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        (self.directory / "jobs.py").write_text(JOBS)

    def backend(self) -> dict[str, str]:
        """The settings of the queue, as variables."""
        raise AssertionError("each has its own")

    def process(self, role: str, name: str, **more: str) -> Server:
        server = Server(self.directory, **{"OPENHQM_WORKER__HANDLER": "jobs:handle", **self.backend(), **more})
        server.launch("--role", role)
        self.addCleanup(lambda: server.process and server.process.poll() is None and server.kill())
        return server

    def until_ready(self, listener: Server) -> None:
        listener.until(lambda: listener.ask("GET", "/health/ready")[0] == 200, "not ready")

    def step(self, number: int) -> None:
        """Let the handlers take a step."""
        (self.directory / f"step{number}").touch()

    def stream(self, at: Server, correlation_id: str, seen: str = "") -> http.client.HTTPResponse:
        connection = at.connection()
        self.addCleanup(connection.close)
        headers = {"Last-Event-ID": seen} if seen else {}
        connection.request("GET", f"/api/v1/events/{correlation_id}", headers=headers)
        response = connection.getresponse()
        self.assertEqual(response.status, 200)
        return response

    def event(self, stream: http.client.HTTPResponse) -> tuple[str, str]:
        """The next event: its id and its name."""
        fields: dict[str, str] = {}
        while "event" not in fields:
            lines = []
            while (line := stream.readline().decode()) != "\n":
                self.assertTrue(line, "the stream has ended")
                lines.append(line.rstrip("\n"))
            fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
        return fields["id"], fields["event"]


class RedisRoles(Roles):
    """The same on a Redis of their own, with two listeners."""

    def setUp(self) -> None:
        super().setUp()
        self.redis = RedisServer().start()
        self.addCleanup(self.redis.close)
        self.a, self.b = (self.process("listener", name) for name in "ab")
        for listener in (self.a, self.b):
            self.until_ready(listener)

    def backend(self) -> dict[str, str]:
        return {
            "OPENHQM_QUEUE__TYPE": "redis",
            "OPENHQM_QUEUE__REDIS_URL": self.redis.url,
            "OPENHQM_QUEUE__LEASE_SECONDS": "3",
        }


class RolesTests(RedisRoles):
    """Two listeners, and workers that come and go."""

    def test_streams(self) -> None:
        """A stream on B tells what A accepted and a worker does; A goes on with it where B left off."""
        correlation_id = self.a.submit({"steps": ["step1", "step2"]})
        on_b = self.stream(self.b, correlation_id)
        self.assertEqual(self.event(on_b), ("1", "pending"))
        self.process("worker", "c")
        self.assertEqual(self.event(on_b), ("2", "processing"))
        self.step(1)
        self.assertEqual(self.event(on_b), ("3", "progress"))
        self.b.kill()
        self.step(2)
        on_a = self.stream(self.a, correlation_id, seen="3")
        self.assertEqual([self.event(on_a), self.event(on_a)], [("4", "progress"), ("5", "completed")])
        self.assertEqual(on_a.read().strip(), b"")

    def test_waiting(self) -> None:
        """A caller that waits on B is answered when a worker ends; A gives the same answer, and either one cancels."""
        correlation_id = self.a.submit({"steps": ["step1"]})
        connection = self.b.connection()
        self.addCleanup(connection.close)
        connection.request("GET", f"/api/v1/response/{correlation_id}?wait=20")
        worker = self.process("worker", "c")
        self.step(1)
        response = connection.getresponse()
        document = json.loads(response.read())
        assert worker.process is not None
        self.assertEqual((response.status, document["result"]), (200, {"by": worker.process.pid}))
        self.assertEqual(self.a.response(correlation_id), document)
        other = self.a.submit({"steps": ["never"]})
        self.assertIn(self.b.ask("POST", f"/api/v1/cancel/{other}")[0], (200, 202))
        self.assertEqual(self.a.response(other)["status"], "CANCELLED")

    def test_a_worker_that_is_killed(self) -> None:
        """A killed worker's request goes to another one when the lease is over, as the second attempt."""
        correlation_id = self.a.submit({"steps": ["step1"]})
        on_b = self.stream(self.b, correlation_id)
        first = self.process("worker", "c")
        self.assertEqual([self.event(on_b)[1] for _ in range(2)], ["pending", "processing"])
        first.kill()
        second = self.process("worker", "d")
        self.assertEqual(self.event(on_b)[1], "processing")
        self.step(1)
        self.assertEqual([self.event(on_b)[1] for _ in range(2)], ["progress", "completed"])
        document = self.a.response(correlation_id)
        assert second.process is not None
        self.assertEqual((document["attempt"], document["result"]), (2, {"by": second.process.pid}))
        self.assertEqual(second.stop(), 0)

    def test_all_work(self) -> None:
        """Several workers share the work: each request is done once, and every listener knows all of them."""
        workers = [self.process("worker", name) for name in "cd"]
        for worker in workers:
            worker.until(lambda log=worker.log: " is ready" in log(), "it does not start")
        ids = [at.submit({"steps": []}) for _ in range(50) for at in (self.a, self.b)]
        documents = [at.response(one) for one in ids for at in (self.a, self.b)]
        self.assertEqual({document["attempt"] for document in documents}, {1})
        self.assertEqual([worker.stop() for worker in workers], [0, 0])
