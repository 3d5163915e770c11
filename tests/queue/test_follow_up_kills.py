"""The process is killed at any step of a request with a follow-up: it ends once, and its reply has one follow-up.

Each ending is told once for every step in it: a commit of the file, a script in Redis, or something that changes the
broker. The process dies before that step, or after it and before it has learnt of it. The caller repeats what was not
answered, under the same key, and another process goes on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.trial.unittest import TestCase

from openhqm.brokered.losses import LOOK_SECONDS, PURGED_LOOKS
from openhqm.interfaces import DepthKind
from openhqm.messages import Acceptance, IdempotencyClaim, Reply, Status, Submission
from openhqm.policy.limits import NO_LIMITS, Limits
from openhqm.testing import REQUESTS, FakeServer
from tests.benches import brokered_bench, memory_bench, sqlite_bench
from tests.redis.bench import brokered_redis_bench, redis_bench

FOLLOW_UPS = f"{REQUESTS}.billing"
CLAIM, OTHER_CLAIM = IdempotencyClaim("key", b"print"), IdempotencyClaim("other", b"print")
LATER = Submission(b"2", endpoint="billing")
MOST_STEPS = 60
LOOKS = frozenset(
    (
        *("find", "history", "overdue", "repair", "depth", "greet", "probe", "ledger_count", "ledger_channels"),
        *("oldest", "index_open", "children_take"),  # what these change is of no request of these stories
    )
)
CLAIM_ENTRIES = "ledger_take_due"
KNOWN = 2.0
"""By then the ledger knows what the broker has."""
NOTICED = (PURGED_LOOKS[DepthKind.EXACT] + 2) * LOOK_SECONDS
LONG = 1000.0


class Life:
    """A process that dies at its ``last`` step: before that happened, or ``after``. Then none of its steps happens."""

    def __init__(self, bench: Any, last: int, after: bool) -> None:
        self.died: Deferred[None] = Deferred()
        self.steps: list[str] = []
        self._bench = bench
        self._last = last
        self._after = after
        if hasattr(bench, "run_commit"):
            commit = bench.run_commit
            bench.run_commit = lambda call: self.step("commit", lambda: commit(call))
        else:
            run = bench.instance.redis.run

            def run_step(name: str, *values: Any) -> Deferred[Any]:
                if name in LOOKS:
                    return run(name, *values)
                if name == CLAIM_ENTRIES:
                    return run(name, *values).addCallback(self._claimed)
                return self.step(name, lambda: run(name, *values))

            bench.instance.redis.run = run_step
        broker = getattr(bench, "broker", None) or getattr(getattr(bench, "instance", None), "broker", None)
        if broker is not None:
            broker.step = self.step

    async def lived(self, doing: Coroutine[Any, Any, None]) -> bool:
        """Whether the process had done this before its last step. It is gone then, in any case."""
        told = Deferred.fromCoroutine(doing)
        await DeferredList([told, self.died], fireOnOneCallback=True, fireOnOneErrback=True)
        done = not self.died.called
        told.addErrback(lambda failure: None)
        told.cancel()
        if hasattr(self._bench, "run_commit"):
            del self._bench.run_commit
        await maybeDeferred(self._bench.crash)
        if hasattr(self._bench, "instance"):  # the turn of a process that is gone ends by Redis's clock, which stands
            redis = self._bench.instance.redis
            await redis.command("DEL", f"{redis.prefix}recovering")
        return done

    def _claimed(self, answer: Any) -> Any:
        """A look at the outbox, which is a step where it has found something."""
        if not answer[0] or self.died.called:
            return answer
        self.steps.append(CLAIM_ENTRIES)
        if len(self.steps) < self._last:
            return answer
        self.died.callback(None)
        return Deferred()

    def step(self, name: str, act: Callable[[], Deferred[Any]]) -> Deferred[Any]:
        if self.died.called:
            return Deferred()
        self.steps.append(name)
        if len(self.steps) < self._last:
            return act()
        acted = maybeDeferred(act) if self._after else Deferred()
        if self._after:
            acted.addBoth(lambda _: self.died.called or self.died.callback(None))
        else:
            self.died.callback(None)
        return Deferred()


class World:
    """What a caller and the handlers see, in both lives."""

    def __init__(self, bench: Any, seconds: float) -> None:
        self.bench = bench
        self._seconds = seconds
        self.told: Acceptance | None = None
        self.followed: list[Submission] = []

    async def do(self, deferred: Deferred[Any]) -> Any:
        return await self.bench.done(deferred)

    async def accept(self) -> None:
        self.told = await self.do(self.bench.queue.accept(Submission(b"1", timeout=self._seconds), CLAIM, [LATER]))

    async def receive(self, queue: str) -> Any:
        """A delivery, or None where there is none within a claim on an outbox entry and a lease."""
        waiting = self.bench.queue.receive(queue, 1)
        for _ in range(8):
            await self.bench.pass_time(9)
            if waiting.called:
                (delivery,) = await self.do(waiting)
                return delivery
        waiting.cancel()
        waiting.addErrback(lambda failure: None)
        return None

    @property
    def server(self) -> FakeServer:
        """The broker's."""
        server: FakeServer = getattr(self.bench, "server" if hasattr(self.bench, "run_commit") else "messages")
        return server

    def reply(self, delivery: Any, status: Status) -> Reply:
        id = delivery.request.correlation_id
        return Reply(id, status, self.bench.now(), result=b"1", attempt=delivery.attempt)

    async def status(self) -> Status:
        assert self.told is not None
        status: Status = (await self.do(self.bench.store.find(self.told.correlation_id))).status
        return status

    async def work_off(self) -> None:
        """Every follow-up that is there, by a handler that completes it."""
        while (delivery := await self.receive(FOLLOW_UPS)) is not None:
            self.followed.append(delivery.request.submission)
            await self.do(delivery.settle(self.reply(delivery, Status.COMPLETED)))


async def settled(world: World) -> None:
    delivery = await world.receive(REQUESTS)
    if delivery is not None:
        await world.do(delivery.settle(world.reply(delivery, Status.COMPLETED)))


async def dead_letter(world: World) -> None:
    delivery = await world.receive(REQUESTS)
    if delivery is not None:
        await world.do(delivery.dead_letter("rejected", world.reply(delivery, Status.FAILED)))


async def poison(world: World) -> None:
    for _ in range(2):
        delivery = await world.receive(REQUESTS)
        if delivery is not None and delivery.attempt > 1:
            await world.do(delivery.dead_letter("poison", world.reply(delivery, Status.FAILED)))
            return


async def lost(world: World) -> None:
    await world.bench.pass_time(KNOWN)
    world.server.lose_everything()
    await world.bench.pass_time(NOTICED)
    await settled(world)


async def purged(world: World) -> None:
    await world.bench.pass_time(KNOWN)
    if REQUESTS in world.server.channels:
        world.server.purge(REQUESTS)
    await world.bench.pass_time(NOTICED)
    await settled(world)


async def cancelled_waiting(world: World) -> None:
    assert world.told is not None
    await world.do(world.bench.store.cancel(world.told.correlation_id))


async def cancelled_processing(world: World) -> None:
    await world.receive(REQUESTS)
    await cancelled_waiting(world)


async def late(world: World) -> None:
    await world.bench.pass_time(101)


async def late_processing(world: World) -> None:
    await world.receive(REQUESTS)
    await late(world)


async def dropped(world: World) -> None:
    failed: list[Any] = []
    accepted = world.bench.queue.accept(Submission(b"3"), OTHER_CLAIM).addErrback(failed.append)
    await world.bench.pass_time(KNOWN)  # a channel may have to be made first
    await world.do(accepted)
    if failed:
        failed[0].raiseException()


class Endings:
    """The promises, for one backend."""

    make: Callable[[Any], Any]
    limits = NO_LIMITS
    seconds = 100.0
    """The request's time."""

    async def every_step(self, end: Callable[[World], Awaitable[None]], *statuses: Status) -> None:
        """Tell the story for each step in it. ``statuses`` are those that it may end with."""
        raise NotImplementedError

    async def _opened(self) -> World:
        bench = await maybeDeferred(type(self).make, self)
        if self.limits.any:
            bench.limits = self.limits
            await maybeDeferred(bench.crash)  # they hold from the next start on
        bench.step = 20.0  # each look at what has expired is a step, too
        return World(bench, self.seconds)

    async def _ends(self, world: World, end: Callable[[World], Awaitable[None]], statuses: Sequence[Status]) -> None:
        case: Any = self
        before = world.told
        await world.accept()
        if before is not None:
            case.assertEqual(world.told and world.told.correlation_id, before.correlation_id)
        if not (await world.status()).ended:
            await end(world)
        await world.work_off()
        assert world.told is not None
        record = await world.do(world.bench.store.find(world.told.correlation_id))
        case.assertIn(record.status, statuses)
        case.assertEqual([each.parent_reply for each in world.followed], [record.reply])

    async def test_settled(self) -> None:
        """A handler's reply."""
        await self.every_step(settled, Status.COMPLETED)

    async def test_dead_letter(self) -> None:
        """Rejected, into the dead letters."""
        await self.every_step(dead_letter, Status.FAILED)

    async def test_cancelled_waiting(self) -> None:
        """Cancelled before it began."""
        await self.every_step(cancelled_waiting, Status.CANCELLED)

    async def test_cancelled_processing(self) -> None:
        """Cancelled while a handler works."""
        await self.every_step(cancelled_processing, Status.CANCELLED)

    async def test_deadline_waiting(self) -> None:
        """Past its deadline before it began."""
        await self.every_step(late, Status.TIMEOUT)

    async def test_deadline_processing(self) -> None:
        """Past its deadline while a handler works."""
        await self.every_step(late_processing, Status.TIMEOUT)

    async def test_poison(self) -> None:
        """Its first attempt never ended, and a worker rejects it before the second one."""
        self.seconds = LONG
        await self.every_step(poison, Status.FAILED)

    async def test_dropped(self) -> None:
        """The oldest that waits, where the queue is full: it and its follow-up are two."""
        self.limits = Limits(requests=2, drop_oldest=True)
        await self.every_step(dropped, Status.FAILED)


class Killed(Endings):
    """The process is killed."""

    async def every_step(self, end: Callable[[World], Awaitable[None]], *statuses: Status) -> None:
        for last in range(1, MOST_STEPS):
            alive = [await self._one_life(end, statuses, last, after) for after in (False, True)]
            if all(alive):
                return
        raise AssertionError(f"there are more than {MOST_STEPS} steps")

    async def _one_life(
        self, end: Callable[[World], Awaitable[None]], statuses: Sequence[Status], last: int, after: bool
    ) -> bool:
        """Whether the process was done before its last step."""
        world = await self._opened()
        bench = world.bench
        try:
            life = Life(bench, last, after)

            async def live() -> None:
                await world.accept()
                await end(world)

            done = await life.lived(live())
            try:
                await self._ends(world, end, statuses)
            except Exception as error:
                raise AssertionError(f"killed {'after' if after else 'before'} {life.steps}: {error!r}") from error
            return done
        finally:
            await maybeDeferred(bench.close)


class Lost(Killed):
    """Over a broker: what it has lost, the ledger in the file publishes again, and that in Redis ends."""

    lost = (Status.COMPLETED,)

    async def test_lost(self) -> None:
        """The broker has lost everything."""
        self.seconds = LONG
        await self.every_step(lost, *self.lost)

    async def test_purged(self) -> None:
        """Another program has emptied the channel."""
        self.seconds = LONG
        await self.every_step(purged, *self.lost)


class MemoryTests(Endings, TestCase):
    """The queue in memory, of which a kill leaves nothing."""

    make = staticmethod(memory_bench)

    async def every_step(self, end: Callable[[World], Awaitable[None]], *statuses: Status) -> None:
        """There is none to be killed at."""
        await self._ends(await self._opened(), end, statuses)


class SqliteTests(Killed, TestCase):
    """The embedded queue."""

    make = staticmethod(sqlite_bench)


class BrokeredTests(Lost, TestCase):
    """A queue over a broker, with the ledger in the embedded file."""

    make = staticmethod(brokered_bench)


class RedisTests(Killed, TestCase):
    """The queue in Redis."""

    make = staticmethod(redis_bench)


class BrokeredRedisTests(Lost, TestCase):
    """A queue over a broker, with the ledger in Redis."""

    make = staticmethod(brokered_redis_bench)
    lost = (Status.FAILED, Status.COMPLETED)  # it keeps the content until the broker has confirmed it


del Endings, Killed, Lost
