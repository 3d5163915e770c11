"""The process is killed between any two steps of a request's life, and nothing is lost, forgotten or ended twice.

Each story is told once for every step in it: a commit of the file, or something that changes the broker. The process
dies before that step, or after it and before it has learnt of it. Another process goes on, and the promises hold.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openhqm.interfaces import BrokerTraits
from openhqm.messages import Acceptance, IdempotencyClaim, Reply, Status, Submission
from openhqm.sqlite.sql import fetch_one
from openhqm.testing import DEAD_LETTERS, FORMS, REQUESTS
from tests.benches import BrokeredBench

CLAIM = IdempotencyClaim("key", b"print")
PARTITION = f"{REQUESTS}._0"
MOST_STEPS = 100


class Life:
    """A process that dies at its ``last`` step: before that happened, or ``after``."""

    def __init__(self, bench: BrokeredBench, last: int, after: bool) -> None:
        self.steps: list[str] = []
        self.dead = False
        self._last = last
        self._after = after
        commit = bench.run_commit
        bench.run_commit = lambda call: self.step("commit", lambda: commit(call))  # type: ignore[method-assign]
        bench.broker.step = self.step

    def step(self, name: str, act: Callable[[], Deferred[Any]]) -> Deferred[Any]:
        if self.dead:
            return Deferred()
        self.steps.append(name)
        if len(self.steps) < self._last:
            return act()
        self.dead = True
        if self._after:
            act().addErrback(lambda failure: None)
        return Deferred()


class World:
    """What callers and handlers have seen, in both lives."""

    def __init__(self, bench: BrokeredBench) -> None:
        self.bench = bench
        self.told: Acceptance | None = None
        self.started: list[int] = []
        self.endings: list[str] = []
        self.listen()

    def listen(self) -> None:
        self.bench.store.on_ending.append(lambda key, status: self.endings.append(status))

    async def do(self, deferred: Deferred[Any]) -> Any:
        return await self.bench.done(deferred)

    async def accept(self, **fields: Any) -> None:
        self.told = await self.do(self.bench.queue.accept(Submission(b"1", **fields), CLAIM))

    async def received(self, queue: str = REQUESTS) -> Any:
        (delivery,) = await self.do(self.bench.queue.receive(queue, 1, in_order=queue == PARTITION))
        self.started.append(delivery.attempt)
        return delivery

    def reply(self, delivery: Any, status: Status = Status.COMPLETED) -> Reply:
        id = delivery.request.correlation_id
        return Reply(id, status, self.bench.now(), result=b"1", attempt=delivery.attempt)


Story = Callable[[World], Awaitable[None]]


async def straight(world: World) -> None:
    await world.accept()
    delivery = await world.received()
    await world.do(delivery.settle(world.reply(delivery)))
    world.bench.pass_time(2)


async def noted_before(world: World) -> None:
    await world.accept()
    world.bench.pass_time(2)  # the ledger knows by now that it was published
    delivery = await world.received()
    await world.do(delivery.settle(world.reply(delivery)))
    world.bench.pass_time(2)


async def retried(world: World) -> None:
    await world.accept()
    for _ in range(2):
        delivery = await world.received()
        await world.do(delivery.retry(10, "no luck"))
        world.bench.pass_time(11)
    delivery = await world.received()
    await world.do(delivery.settle(world.reply(delivery)))
    world.bench.pass_time(2)


async def retried_in_order(world: World) -> None:
    await world.accept(partition=0)
    delivery = await world.received(PARTITION)
    await world.do(delivery.retry(10, "no luck"))
    world.bench.pass_time(11)
    delivery = await world.received(PARTITION)
    await world.do(delivery.settle(world.reply(delivery)))
    world.bench.pass_time(2)


async def released(world: World) -> None:
    await world.accept()
    delivery = await world.received()
    world.started.pop()  # the attempt does not count
    await world.do(delivery.release())
    delivery = await world.received()
    await world.do(delivery.settle(world.reply(delivery)))
    world.bench.pass_time(2)


async def delayed(world: World) -> None:
    await world.accept(not_before=world.bench.now() + 20)
    world.bench.pass_time(21)
    delivery = await world.received()
    await world.do(delivery.settle(world.reply(delivery)))
    world.bench.pass_time(2)


async def dead_lettered(world: World) -> None:
    await world.accept()
    delivery = await world.received()
    await world.do(delivery.dead_letter("gave up", world.reply(delivery, Status.FAILED)))
    world.bench.pass_time(2)


class KilledTests:
    """The embedded file as the ledger, and a broker with ``traits``."""

    traits: BrokerTraits
    journaled = False

    def every_step(self, story: Story, ending: Status = Status.COMPLETED, queue: str = REQUESTS) -> None:
        """Tell the story with a death at each of its steps, and check the promises after each."""
        for last in range(1, MOST_STEPS):
            over = []
            for after in (False, True):
                bench = BrokeredBench(self.traits, journaled=self.journaled)
                try:
                    world, life = World(bench), Life(bench, last, after)
                    told = Deferred.fromCoroutine(story(world))  # type: ignore[arg-type]
                    bench.turn()
                    if not life.dead:
                        self.successResultOf(told)  # type: ignore[attr-defined]
                    over.append(not life.dead)
                    when = f"{story.__name__}, killed {'after' if after else 'before'} {life.steps}"
                    try:
                        self.another_life(world, ending, queue)
                    except Exception as error:
                        raise AssertionError(f"{when}: {error}") from error
                finally:
                    bench.close()
            if all(over):
                return
        raise AssertionError(f"the story has more than {MOST_STEPS} steps")

    def another_life(self, world: World, ending: Status, queue: str) -> None:
        bench, case = world.bench, self
        assert isinstance(case, SynchronousTestCase)
        del bench.run_commit
        bench.crash()
        world.listen()
        received: list[Any] = []

        def take(found: Any) -> None:
            received.extend(found)
            bench.queue.receive(queue, 1, in_order=queue == PARTITION).addCallback(take)

        def work() -> None:
            bench.pass_time(35)  # longer than a lease of the broker, and than a claim on an outbox entry
            while received:
                delivery = received.pop()
                world.started.append(delivery.attempt)
                if ending is Status.FAILED:
                    delivery.dead_letter("gave up", world.reply(delivery, ending))
                else:
                    delivery.settle(world.reply(delivery))
                bench.pass_time(2)

        bench.queue.receive(queue, 1, in_order=queue == PARTITION).addCallback(take)
        work()
        # A caller that was not answered asks again, under the same key; one that was answered gets the same answer.
        partition = 0 if queue == PARTITION else None
        asked = bench.done(bench.queue.accept(Submission(b"1", partition=partition), CLAIM))
        again = case.successResultOf(asked)
        if world.told is not None:
            case.assertEqual(again.correlation_id, world.told.correlation_id)
            case.assertTrue(again.replayed)
        work()
        record = case.successResultOf(bench.done(bench.store.find(again.correlation_id)))
        case.assertEqual(record.status, ending)
        history = case.successResultOf(bench.done(bench.store.history(again.correlation_id, 0)))
        case.assertEqual([event.number for event in history], [*range(1, len(history) + 1)])
        case.assertEqual([event.reply is not None for event in history].count(True), 1)
        # Every attempt has a number of its own, and at most one was counted that no handler saw.
        case.assertEqual(sorted(set(world.started)), sorted(world.started))
        case.assertLessEqual(max(world.started), len(world.started) + 1)
        # Nothing is left anywhere, and of dead letters there is one where there should be.
        work()
        case.assertEqual(
            [len(bench.server.messages(name)) for name in bench.server.channels if bench.server.messages(name)], []
        )
        for table in ("outbox", "generations", "line", "inflight"):
            case.assertEqual(fetch_one(bench.file.reader, f"SELECT count(*) FROM {table}"), (0,), table)
        letters = case.successResultOf(bench.done(bench.queue.depth(DEAD_LETTERS))).ready
        case.assertEqual(letters, 1 if ending is Status.FAILED else 0)

    def test_straight(self) -> None:
        """Accepted, received, settled."""
        self.every_step(straight)

    def test_noted_before(self) -> None:
        """The same where the ledger knows that the message was published before it is received."""
        self.every_step(noted_before)

    def test_retried(self) -> None:
        """Two retries, each with a message of its own."""
        self.every_step(retried)

    def test_retried_in_order(self) -> None:
        """A retry in a partition."""
        self.every_step(retried_in_order, queue=PARTITION)

    def test_released(self) -> None:
        """Released, and received again."""
        self.every_step(released)

    def test_delayed(self) -> None:
        """Not before its time."""
        self.every_step(delayed)

    def test_dead_lettered(self) -> None:
        """Ended as a dead letter."""
        self.every_step(dead_lettered, Status.FAILED)


class AmqpKilledTests(KilledTests, SynchronousTestCase):
    """A broker that acknowledges each message and requeues."""

    traits = FORMS["amqp"]


class SqsKilledTests(KilledTests, SynchronousTestCase):
    """A broker that leases messages, for 30 s."""

    traits = FORMS["sqs"]


class KafkaKilledTests(KilledTests, SynchronousTestCase):
    """A broker that acknowledges by prefix."""

    traits = FORMS["kafka"]


class MqttKilledTests(KilledTests, SynchronousTestCase):
    """A broker that acknowledges in order."""

    traits = evolve(FORMS["mqtt"])


class JournaledKilledTests(KilledTests, SynchronousTestCase):
    """A request is accepted before the broker has it."""

    traits = FORMS["amqp"]
    journaled = True
