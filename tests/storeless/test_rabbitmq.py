"""A listener with the embedded file, and workers without a store, in processes of their own on one RabbitMQ."""

from __future__ import annotations

import json
from typing import Any

import pika

from tests.brokers import shared_rabbitmq
from tests.redis.test_roles import JOBS, Roles
from tests.servers import Server

MANY = 30
BEGINNING = "async def handle(work):\n"
MARKED = f"{BEGINNING}    Path(f'begun-{{os.getpid()}}').touch()\n"
"""The handler leaves a file that says in which process it has begun."""
SOON = "import openhqm.brokered.put_aside as put_aside; put_aside.FOREIGN_SECONDS = 1.0"
"""What is of another store goes back after a second, and not after half a minute."""


class ListenerAndWorkers(Roles):
    """One listener, and workers that come and go."""

    def setUp(self) -> None:
        super().setUp()
        (self.directory / "jobs.py").write_text(JOBS.replace(BEGINNING, MARKED))
        self.rabbitmq = shared_rabbitmq()
        self.listener = self.process("listener", "a")
        self.until_ready(self.listener)

    def backend(self) -> dict[str, str]:
        return {
            "OPENHQM_QUEUE__TYPE": "rabbitmq",
            "OPENHQM_QUEUE__RABBITMQ_URL": self.rabbitmq.url,
            "OPENHQM_QUEUE__CONNECTION__RABBITMQ__PREFIX": f"{self.id()}.",
            "OPENHQM_QUEUE__LEASE_SECONDS": "3",
            "OPENHQM_WORKER__RETRY__BASE_SECONDS": "0.1",
        }

    def restart_listener(self, role: str = "listener") -> None:
        self.listener.launch("--role", role)
        self.until_ready(self.listener)

    def histories(self, ids: list[str], listener: Server | None = None) -> dict[str, list[str]]:
        """What the stream of each tells from its beginning to its end."""
        found = {}
        for id in ids:
            text = self.stream(listener or self.listener, id).read().decode()
            found[id] = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
        return found

    def processing(self, ids: list[str]) -> int:
        """How many of them are being worked on."""
        found = [json.loads(self.listener.ask("GET", f"/api/v1/status/{id}")[2])["status"] for id in ids]
        return found.count("PROCESSING")

    def has_begun(self, worker: Server) -> bool:
        """Whether its handler was called."""
        return worker.process is not None and (self.directory / f"begun-{worker.process.pid}").exists()

    def documents(self, ids: list[str], listener: Server | None = None) -> list[dict[str, Any]]:
        """The responses, which have to come."""
        return [(listener or self.listener).response(id, wait=30) for id in ids]

    def warnings(self, server: Server) -> list[str]:
        """What its health says."""
        found: list[str] = json.loads(server.ask("GET", "/health")[2]).get("warnings", [])
        return found


class WorkingTests(ListenerAndWorkers):
    """What workers do, and what is known of it"""

    def test_stream(self) -> None:
        """A stream tells what a worker does while it does it."""
        id = self.listener.submit({"steps": ["step1"]})
        stream = self.stream(self.listener, id)
        self.assertEqual(self.event(stream), ("1", "pending"))
        worker = self.process("worker", "b")
        self.assertEqual(self.event(stream), ("2", "processing"))
        self.step(1)
        self.assertEqual([self.event(stream), self.event(stream)], [("3", "progress"), ("4", "completed")])
        assert worker.process is not None
        document = self.listener.response(id)
        self.assertEqual((document["result"], document["attempt"]), ({"by": worker.process.pid}, 1))
        self.assertEqual(worker.stop(), 0)

    def test_released(self) -> None:
        """A worker that is stopped hands on what it has, begun or not, and none of that was an attempt."""
        ids = [self.listener.submit({"steps": ["step1"]}, priority=name) for name in ("high", "normal", "low") * 5]
        for name in "bcd":
            # Longer than the second after which it consumes no more: what RabbitMQ has on the way to a consumer that is
            # cancelled counts as delivered, and a release makes room for more.
            worker = self.process("worker", name, OPENHQM_SERVER__DRAIN_SECONDS="3")
            worker.until(lambda: self.has_begun(worker), "the worker has not begun")  # noqa: B023
            self.assertEqual(worker.stop(), 0)
        self.step(1)
        worker = self.process("worker", "e")
        self.assertEqual({(each["status"], each["attempt"]) for each in self.documents(ids)}, {("COMPLETED", 1)})
        self.assertEqual(worker.stop(), 0)

    def test_beside_a_whole_one(self) -> None:
        """Workers may be added to a process that works itself."""
        self.listener.stop()
        self.restart_listener("all")
        worker = self.process("worker", "b")
        assert worker.process is not None and self.listener.process is not None
        pids = {worker.process.pid, self.listener.process.pid}
        seen: set[int] = set()

        def both() -> bool:
            id = self.listener.submit({"steps": []})
            document = self.listener.response(id)
            self.assertEqual(document["attempt"], 1)
            seen.add(document["result"]["by"])
            return seen == pids

        self.listener.until(both, "one of them does not work")


class FaultTests(ListenerAndWorkers):
    """Processes that are killed, and a RabbitMQ that loses messages, or takes none"""

    def test_killed_worker(self) -> None:
        """One of two workers is killed with work in its hands: every request ends once, with an answer."""
        first, second = (self.process("worker", name) for name in "bc")
        ids = [self.listener.submit({"steps": ["step1"]}) for _ in range(MANY)]
        self.listener.until(lambda: self.processing(ids) >= 8, "the workers have not begun")
        first.kill()
        self.step(1)
        documents = self.documents(ids)
        self.assertEqual({document["status"] for document in documents}, {"COMPLETED"})
        for id, steps in self.histories(ids).items():
            self.assertEqual((steps[0], steps[-1], steps.count("completed")), ("pending", "completed", 1), id)
        attempts = [document["attempt"] for document in documents]
        self.assertEqual(attempts.count(1) + attempts.count(2), MANY)
        self.assertIn(2, attempts)
        self.assertEqual(second.stop(), 0)

    def test_killed_listener(self) -> None:
        """The listener is killed, the workers go on, and it knows of all of it when it is back."""
        ids = [self.listener.submit({"steps": ["step1"]}) for _ in range(MANY)]
        worker = self.process("worker", "b")
        self.listener.until(lambda: self.processing(ids) >= 4, "the worker has not begun")
        self.listener.kill()
        self.step(1)
        worker.until(lambda: self.reported() > MANY, "the worker does not go on")
        self.restart_listener()
        documents = self.documents(ids)
        self.assertEqual({document["status"] for document in documents}, {"COMPLETED"})
        for id, steps in self.histories(ids).items():
            self.assertEqual((steps[0], steps[-1], steps.count("completed")), ("pending", "completed", 1), id)
        self.assertEqual(worker.stop(), 0)

    def test_steps_deleted(self) -> None:
        """An ending that was deleted is missed, and the work done once more, whatever else was reported since."""
        reported = self.listener.submit({"steps": ["step1"]})
        worker = self.process("worker", "b")
        self.listener.until(lambda: self.processing([reported]), "the worker has not begun")
        held = self.listener.submit({"steps": ["step2"]})
        self.listener.until(lambda: self.processing([reported, held]) == 2, "the worker has not begun")
        self.assertEqual(self.listener.stop(), 0)
        self.step(1)
        worker.until(lambda: self.reported() == 2, "the worker does not report that it has ended it")
        self.as_operator(lambda channel: channel.queue_delete(self.replies))
        self.step(2)
        worker.until(lambda: f"no channel {self.replies}" in worker.log(), "the worker does not say what is missing")
        self.restart_listener()
        self.assertEqual({each["status"] for each in self.documents([reported, held])}, {"COMPLETED"})
        (warning,) = self.warnings(self.listener)
        self.assertIn(f"channel {self.replies} was gone: 2 requests are published again", warning)
        self.assertEqual(worker.stop(), 0)

    def test_out_of_memory(self) -> None:
        """While RabbitMQ takes no reports nothing is begun, and no attempts are used up by that."""
        id = self.listener.submit({"steps": []})
        self.addCleanup(self.rabbitmq.have_memory_again)
        self.rabbitmq.run_out_of_memory()
        worker = self.process("worker", "b", OPENHQM_QUEUE__CONNECTION__RABBITMQ__TIMEOUT_SECONDS="1")
        worker.until(lambda: "steps cannot be reported" in worker.log(), "the worker does not say so")
        self.assertEqual(self.processing([id]), 0)
        self.rabbitmq.have_memory_again()
        document = self.listener.response(id, wait=30)
        self.assertEqual((document["status"], document["attempt"]), ("COMPLETED", 1))
        self.assertEqual(worker.stop(), 0)

    @property
    def replies(self) -> str:
        """The queue in which the worker reports."""
        return f"{self.id()}.openhqm-responses"

    def reported(self) -> int:
        """How many reports lie there."""

        def count(channel: Any) -> int:
            found: int = channel.queue_declare(self.replies, passive=True).method.message_count
            return found

        try:
            return self.as_operator(count)
        except pika.exceptions.ChannelClosedByBroker:
            return 0

    def as_operator(self, do: Any) -> Any:
        """Do it over a channel of another program."""
        with pika.BlockingConnection(pika.URLParameters(self.rabbitmq.url)) as connection:
            return do(connection.channel())


class SecondStoreTests(ListenerAndWorkers):
    """A second process with a file of its own uses the same RabbitMQ and prefix by mistake"""

    def process(self, role: str, name: str, **more: str) -> Server:
        server = Server(self.directory, SOON, **{"OPENHQM_WORKER__HANDLER": "jobs:handle", **self.backend(), **more})
        server.launch("--role", role)
        self.addCleanup(lambda: server.process and server.process.poll() is None and server.kill())
        return server

    def check(self, role: str) -> None:
        """Both accept, in that role; each request completes where it was accepted, and both say what is wrong."""
        if role == "all":
            self.listener.stop()
            self.restart_listener(role)
        second = self.process(role, "b", OPENHQM_QUEUE__CONNECTION__SQLITE__PATH=str(self.directory / "other"))
        self.until_ready(second)
        worker = self.process("worker", "c")
        both = (self.listener, second)
        accepted = {server: [server.submit({"steps": []}) for _ in range(MANY)] for server in both}
        for server in both:
            server.until(lambda: self.warnings(server), "it does not say that another store is there")  # noqa: B023
            self.assertIn("another process with a store of its own", self.warnings(server)[0])
        for server, ids in accepted.items():
            documents = self.documents(ids, server)
            self.assertEqual({(each["status"], each["attempt"]) for each in documents}, {("COMPLETED", 1)})
            for id, steps in self.histories(ids, server).items():
                self.assertEqual((steps[0], steps[-1], steps.count("completed")), ("pending", "completed", 1), id)
            depths = server.ask("GET", "/metrics")[2].decode()
            self.assertIn('openhqm_queue_depth{queue="openhqm-dlq",state="ready"} 0.0', depths)
        self.assertGreaterEqual(worker.log().count("another process with a store of its own"), len(both))
        self.assertEqual([worker.stop(), second.stop()], [0, 0])

    def test_listeners(self) -> None:
        """Two that only accept, and a worker without a store."""
        self.check("listener")

    def test_whole_ones(self) -> None:
        """Two that work as well."""
        self.check("all")
