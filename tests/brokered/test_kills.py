"""The process is killed between any two steps of a request's life, and nothing is lost, forgotten or ended twice.

Each story is told once for every step in it (a commit of the file, or a word to the broker): the process dies before
that step, or after it and before it has learnt of it. Another process goes on, and then the promises are looked at.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openhqm.messages import Acceptance, IdempotencyClaim, Reply, Status, Submission
from openhqm.sqlite.sql import fetch_one
from openhqm.testing import DEAD_LETTERS, REQUESTS
from tests.benches import BrokeredBench

CLAIM = IdempotencyClaim("key", b"print")
MOST_STEPS = 40


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
    """What was seen of it from outside, in both lives."""

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

    async def lent(self, queue: str = REQUESTS, in_order: bool = False) -> Any:
        (loan,) = await self.do(self.bench.queue.receive(queue, 1, in_order=in_order))
        self.started.append(loan.attempt)
        return loan

    def reply(self, loan: Any, status: Status = Status.COMPLETED) -> Reply:
        return Reply(loan.request.correlation_id, status, self.bench.now(), result=b"1", attempt=loan.attempt)


Story = Callable[[World], Awaitable[None]]


async def straight(world: World) -> None:
    await world.accept()
    loan = await world.lent()
    await world.do(loan.settle(world.reply(loan)))
    world.bench.pass_time(2)


async def noted_before(world: World) -> None:
    await world.accept()
    world.bench.pass_time(2)  # the mark is gone
    loan = await world.lent()
    await world.do(loan.settle(world.reply(loan)))
    world.bench.pass_time(2)


async def retried(world: World) -> None:
    await world.accept()
    for _ in range(2):
        loan = await world.lent()
        await world.do(loan.retry(10, "no luck"))
        world.bench.pass_time(11)
    loan = await world.lent()
    await world.do(loan.settle(world.reply(loan)))
    world.bench.pass_time(2)


async def retried_in_order(world: World) -> None:
    await world.accept(partition=0)
    loan = await world.lent(f"{REQUESTS}._0", in_order=True)
    await world.do(loan.retry(10, "no luck"))
    world.bench.pass_time(11)
    loan = await world.lent(f"{REQUESTS}._0", in_order=True)
    await world.do(loan.settle(world.reply(loan)))
    world.bench.pass_time(2)


async def given_back(world: World) -> None:
    await world.accept()
    loan = await world.lent()
    world.started.pop()  # the attempt is not one
    await world.do(loan.release())
    loan = await world.lent()
    await world.do(loan.settle(world.reply(loan)))
    world.bench.pass_time(2)


async def delayed(world: World) -> None:
    await world.accept(not_before=world.bench.now() + 20)
    world.bench.pass_time(21)
    loan = await world.lent()
    await world.do(loan.settle(world.reply(loan)))
    world.bench.pass_time(2)


async def buried(world: World) -> None:
    await world.accept()
    loan = await world.lent()
    await world.do(loan.dead_letter("gave up", world.reply(loan, Status.FAILED)))
    world.bench.pass_time(2)


class Killed(SynchronousTestCase):
    """The embedded file as the store."""

    def every_step(self, story: Story, ending: Status = Status.COMPLETED, queue: str = REQUESTS) -> None:
        """Tell the story with a death at each of its steps, and look at the world after each."""
        told_to_the_end = 0
        for last in range(1, MOST_STEPS):
            for after in (False, True):
                bench = BrokeredBench()
                try:
                    world, life = World(bench), Life(bench, last, after)
                    told = Deferred.fromCoroutine(story(world))  # type: ignore[arg-type]
                    bench.turn()
                    if not life.dead:
                        self.successResultOf(told)
                        told_to_the_end += 1
                    with_words = f"{story.__name__}, killed {'after' if after else 'before'} {life.steps}"
                    try:
                        self.another_life(world, ending, queue)
                    except Exception as error:
                        raise AssertionError(f"{with_words}: {error}") from error
                finally:
                    bench.close()
            if told_to_the_end:
                return
        raise AssertionError("the story has more steps than anybody counted on")

    def another_life(self, world: World, ending: Status, queue: str) -> None:
        bench = world.bench
        del bench.run_commit
        bench.crash()
        world.listen()
        lent: list[Any] = []

        def take(found: Any) -> None:
            lent.extend(found)
            bench.queue.receive(queue, 1, in_order=queue != REQUESTS).addCallback(take)

        def work() -> None:
            bench.pass_time(30)
            while lent:
                loan = lent.pop()
                world.started.append(loan.attempt)
                if ending is Status.FAILED:
                    loan.dead_letter("gave up", world.reply(loan, ending))
                else:
                    loan.settle(world.reply(loan))
                bench.pass_time(2)

        bench.queue.receive(queue, 1, in_order=queue != REQUESTS).addCallback(take)
        work()
        # Who was not answered asks again, under the same key; who was answered has the same answer.
        again = self.successResultOf(
            bench.done(bench.queue.accept(Submission(b"1", partition=None if queue == REQUESTS else 0), CLAIM))
        )
        if world.told is not None:
            self.assertEqual(again.correlation_id, world.told.correlation_id)
            self.assertTrue(again.replayed)
        work()
        record = self.successResultOf(bench.done(bench.store.find(again.correlation_id)))
        self.assertEqual(record.status, ending)
        history = self.successResultOf(bench.done(bench.store.history(again.correlation_id, 0)))
        self.assertEqual([event.number for event in history], [*range(1, len(history) + 1)])
        self.assertEqual([event.reply is not None for event in history].count(True), 1)
        # Every attempt has a number of its own, and at most one was counted that nobody saw.
        self.assertEqual(sorted(set(world.started)), sorted(world.started))
        self.assertLessEqual(max(world.started), len(world.started) + 1)
        # Nothing is left anywhere, and of the letters there is one where there should be.
        self.assertEqual([len(messages) for messages in bench.server.queues.values()], [0])
        for table in ("unpublished", "copies", "inflight"):
            self.assertEqual(fetch_one(bench.file.reader, f"SELECT count(*) FROM {table}"), (0,), table)
        letters = self.successResultOf(bench.done(bench.queue.depth(DEAD_LETTERS))).ready
        self.assertEqual(letters, 1 if ending is Status.FAILED else 0)

    def test_straight(self) -> None:
        """Accepted, lent, settled."""
        self.every_step(straight)

    def test_noted_before(self) -> None:
        """The same with the mark taken away before it is lent."""
        self.every_step(noted_before)

    def test_retried(self) -> None:
        """Two retries, each with a copy of its own."""
        self.every_step(retried)

    def test_retried_in_order(self) -> None:
        """A retry that keeps its place."""
        self.every_step(retried_in_order, queue=f"{REQUESTS}._0")

    def test_given_back(self) -> None:
        """Given back, and lent again."""
        self.every_step(given_back)

    def test_delayed(self) -> None:
        """Not before its time."""
        self.every_step(delayed)

    def test_buried(self) -> None:
        """Ended as a dead letter."""
        self.every_step(buried, Status.FAILED)
