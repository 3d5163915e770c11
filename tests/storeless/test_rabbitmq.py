"""A listener with the embedded file, and workers without a store, in processes of their own on one RabbitMQ."""

from __future__ import annotations

import json

from twisted.internet.defer import gatherResults, succeed
from twisted.internet.task import Clock

from openhqm.brokered.queue import BrokeredQueue
from openhqm.codec import encode_request
from openhqm.messages import Request, Submission
from openhqm.storeless.ledger import StorelessLedger
from openhqm.testing import DEAD_LETTERS, LEASE, REQUESTS
from tests.brokered.broker_contract import publish
from tests.brokers import shared_rabbitmq
from tests.rabbitmq.test_rabbitmq import Real, new_broker
from tests.redis.test_roles import Roles

MANY = 30
RESPONSES = "answers"
ID = "00000000-0000-4000-8000-000000000000"


class FollowingTests(Roles):
    """One listener, and workers that come and go."""

    def setUp(self) -> None:
        super().setUp()
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

    def histories(self, ids: list[str]) -> dict[str, list[str]]:
        """What the stream of each tells from its beginning to its end."""
        found = {}
        for id in ids:
            text = self.stream(self.listener, id).read().decode()
            found[id] = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
        return found

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

    def test_killed_worker(self) -> None:
        """One of two workers is killed with work in its hands: every request ends once, with an answer."""
        first, second = (self.process("worker", name) for name in "bc")
        held = self.listener.submit({"steps": ["step1"]})
        self.assertEqual([self.event(self.stream(self.listener, held))[1]], ["pending"])
        ids = [self.listener.submit({"steps": ["step1"]}) for _ in range(MANY)]
        self.listener.until(lambda: self.processing(ids) >= 8, "the workers have not begun")
        first.kill()
        self.step(1)
        documents = [self.listener.response(id, wait=30) for id in [held, *ids]]
        self.assertEqual({document["status"] for document in documents}, {"COMPLETED"})
        for id, steps in self.histories([held, *ids]).items():
            self.assertEqual((steps[0], steps[-1], steps.count("completed")), ("pending", "completed", 1), id)
        attempts = [document["attempt"] for document in documents]
        self.assertEqual(attempts.count(1) + attempts.count(2), MANY + 1)
        self.assertIn(2, attempts)
        self.assertEqual(second.stop(), 0)

    def processing(self, ids: list[str]) -> int:
        found = [json.loads(self.listener.ask("GET", f"/api/v1/status/{id}")[2])["status"] for id in ids]
        return found.count("PROCESSING")

    def test_killed_listener(self) -> None:
        """The listener is killed, the workers go on, and it knows of all of it when it is back."""
        ids = [self.listener.submit({"steps": ["step1"]}) for _ in range(MANY)]
        worker = self.process("worker", "b")
        self.listener.until(lambda: self.processing(ids) >= 4, "the worker has not begun")
        self.listener.kill()
        self.step(1)
        self.listener.launch("--role", "listener")
        self.until_ready(self.listener)
        documents = [self.listener.response(id, wait=30) for id in ids]
        self.assertEqual({(each["status"], each["attempt"]) for each in documents}, {("COMPLETED", 1)})
        self.assertEqual({len(each) for each in self.histories(ids).values()}, {4})
        self.assertEqual(worker.stop(), 0)

    def test_steps_deleted(self) -> None:
        """An ending that somebody has deleted is missed, and the work done once more, whatever else was told since."""
        told = self.listener.submit({"steps": ["step1"]})
        worker = self.process("worker", "b")
        self.listener.until(lambda: self.processing([told]), "the worker has not begun")
        held = self.listener.submit({"steps": ["step2"]})
        self.listener.until(lambda: self.processing([told, held]) == 2, "the worker has not begun")
        self.assertEqual(self.listener.stop(), 0)  # what it has followed is done with
        self.step(1)
        worker.until(lambda: self.told() == 2, "the worker does not say that it has ended it")
        self.delete_steps()
        self.step(2)
        worker.until(lambda: self.told() or "nobody follows" in worker.log(), "the worker does not go on")
        self.listener.launch("--role", "listener")
        self.until_ready(self.listener)
        documents = [self.listener.response(id, wait=30) for id in (told, held)]
        self.assertEqual({document["status"] for document in documents}, {"COMPLETED"})
        self.assertIn("lost everything it had", self.listener.ask("GET", "/health")[2].decode())
        self.assertEqual(worker.stop(), 0)

    @property
    def steps(self) -> str:
        """The queue in which the worker tells."""
        return f"{self.id()}.openhqm-responses"

    def told(self) -> int:
        """How much lies there."""
        import pika

        with pika.BlockingConnection(pika.URLParameters(self.rabbitmq.url)) as connection:
            try:
                frame = connection.channel().queue_declare(self.steps, passive=True)
            except pika.exceptions.ChannelClosedByBroker:
                return 0
            count: int = frame.method.message_count
            return count

    def delete_steps(self) -> None:
        import pika

        with pika.BlockingConnection(pika.URLParameters(self.rabbitmq.url)) as connection:
            connection.channel().queue_delete(self.steps)

    def test_second_listener(self) -> None:
        """Another one with a file of its own is not ready, says why, and takes the place of the first when it ends."""
        second = self.process("listener", "b", OPENHQM_QUEUE__CONNECTION__SQLITE__PATH=str(self.directory / "other"))
        second.until(lambda: b"cache.type: redis" in second.ask("GET", "/health/ready")[2], "it does not say why")
        self.assertEqual(second.ask("GET", "/health/ready")[0], 503)
        status = second.ask("POST", "/api/v1/submit", {"payload": {}}, {"Idempotency-Key": "a"})[0]
        self.assertEqual(status, 503)
        self.listener.submit({"steps": []})
        self.listener.kill()
        self.until_ready(second)
        second.submit({"steps": []})

    def test_beside_a_whole_one(self) -> None:
        """Workers may be added to a process that works itself."""
        self.listener.stop()
        self.listener.launch("--role", "all")
        self.until_ready(self.listener)
        worker = self.process("worker", "b")
        assert worker.process is not None and self.listener.process is not None
        pids = {worker.process.pid, self.listener.process.pid}
        seen: set[int] = set()

        def both() -> bool:
            id = self.listener.submit({"steps": []})
            seen.add(self.listener.response(id)["result"]["by"])
            return seen == pids

        self.listener.until(both, "one of them does not work")


class AlarmTests(Real):
    """A worker without a store beside a RabbitMQ that takes nothing for a while."""

    async def test_memory(self) -> None:
        """What it cannot tell of it does not begin, and none of its attempts are used up by that."""
        server, clock = shared_rabbitmq(), Clock()
        follower = new_broker(self, server.url, steps=RESPONSES, on_lost=lambda queue, priority: succeed(False))
        broker = new_broker(self, server.url, seconds=1.0, patient=True, steps=RESPONSES)
        await gatherResults([follower.when_probed(), broker.when_probed()])
        followed = follower.receive(RESPONSES, 1)
        await self.patiently(lambda: publish(broker, b"junk", RESPONSES))
        await followed
        await publish(broker, encode_request(Request(ID, clock.seconds(), Submission(b"1"))), REQUESTS)
        ledger = StorelessLedger(broker, clock, requests=REQUESTS, responses=RESPONSES, name="a")
        queue = BrokeredQueue(broker, ledger, clock, requests=REQUESTS, dead_letters=DEAD_LETTERS, lease=LEASE)
        self.addCleanup(server.have_memory_again)
        server.run_out_of_memory()
        waiting = queue.receive(REQUESTS, 1)
        for _ in range(5):
            await self.until(clock.getDelayedCalls, "it is not tried to begin it")
            self.assertIn("low on memory", broker.unavailable_reason or "")
            clock.advance(1)
        server.have_memory_again()
        await self.until(lambda: clock.advance(1) or waiting.called, "it is not begun")
        (loan,) = await waiting
        self.assertEqual((loan.request.correlation_id, loan.attempt), (ID, 1))
