"""The queue over a product that has to be asked, on the bench of the backend contract, with either ledger.

The server answers in real time. What waits for its time waits in the outbox, by the bench's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock, LoopingCall

from openhqm.brokered.queue import BrokeredQueue
from openhqm.interfaces import IMessageQueue
from openhqm.messages import Acceptance, Child, IdempotencyClaim, Submission
from openhqm.policy.channels import Channels
from openhqm.policy.limits import Limits
from openhqm.redis.ledger import RedisLedger
from openhqm.runtime.deferreds import deferred
from openhqm.sqlite.ledger import SqliteLedger
from openhqm.testing import DEAD_LETTERS, LEASE, REQUESTS, TTL
from tests.brokered_bench import TURN_SECONDS, Observed, SqliteBesideABroker, pause, pause_for_deliveries
from tests.redis.bench import Instance, RedisBench

PRIORITIES = 3
_tests = count(1)


class ObservedPulled(Observed):
    """Beside a `PulledBroker`: it can be read by a queue, as in a process that works.

    After ``pulled_seconds``, a message that was published has been pulled and delivered.
    """

    pulled_seconds = 0.1
    reads_on = False
    """Whether every channel is asked all the time: where several are asked anew, any of them may answer first."""

    @deferred
    async def delivered(self) -> None:
        """Until what was published has been delivered, as far as there is credit for it."""
        await pause_for_deliveries(self.pulled_seconds)

    @deferred
    async def read_by(self, queue: IMessageQueue, clock: Clock) -> None:
        """Let the queue begin to consume: a process that works has done that long ago, and every channel is there."""
        await self.when_probed()  # type: ignore[attr-defined]
        for channel in queue._channels.names(REQUESTS):  # type: ignore[attr-defined]
            await self.ensure(channel)
        # Of a partition, which no test has messages in: what is delivered here would be missing there.
        waiting = queue.receive(f"{REQUESTS}._99", 5)
        waiting.addErrback(lambda failure: failure.trap(CancelledError))
        while sum(each.asks or bool(each._out) for each in self._subscriptions) < PRIORITIES:  # type: ignore[attr-defined]
            await pause(0.005)
            clock.advance(0.05)
        await self.quiet()
        if not self.reads_on:
            waiting.cancel()


MakeBroker = Callable[[], Any]
"""Makes the adapter of one process, which is an `ObservedPulled`."""


class Delivered(BrokeredQueue):
    """It says that a request is accepted once its message was delivered: the tests look at what is there then."""

    @deferred
    async def accept(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        follow_ups: Sequence[Submission] = (),
        children: Sequence[Child] = (),
    ) -> Acceptance:
        accepted = await super().accept(submission, claim, follow_ups, children)
        await self._broker.delivered()  # type: ignore[attr-defined]
        return accepted


class SqliteAndPulled(SqliteBesideABroker):
    """One process, with the ledger in the embedded file."""

    def __init__(self, make_broker: MakeBroker) -> None:
        self._make_broker = make_broker
        self.channels = Channels(REQUESTS, f"backend{next(_tests)}.")
        super().__init__()

    def make_queue(self) -> IMessageQueue:
        self.broker = self._make_broker()
        ledger = SqliteLedger(self.file, self.store, self.clock, channels=self.channels, limits=self.limits)
        return Delivered(
            self.broker, ledger, self.clock, channels=self.channels, dead_letters=DEAD_LETTERS, lease=LEASE
        )

    @deferred
    async def pass_time(self, seconds: float) -> None:  # type: ignore[override]
        end = self.clock.seconds() + seconds
        await self.broker.delivered()
        while self.clock.seconds() < end:
            await self.broker.quiet()
            self.clock.advance(min(self.step, end - self.clock.seconds()))
        await self.broker.quiet()
        await self.broker.delivered()

    @deferred
    async def crash(self) -> None:  # type: ignore[override]
        await super().crash()
        await self.broker.read_by(self.queue, self.clock)


class PulledInstance(Instance):
    """What one process holds, with the ledger in Redis."""

    def __init__(self, broker: Any, channels: Channels, url: str, prefix: str, clock: Clock, limits: Limits) -> None:
        self.broker = broker
        self.channels = channels
        super().__init__(url, prefix, clock, LEASE, limits)

    def make_queue(self, lease: float) -> IMessageQueue:
        clock = self.redis.clock
        ledger = self.ledger = RedisLedger(
            self.redis, channels=self.channels, dead_letters=DEAD_LETTERS, ttl=TTL, limits=self.limits
        )
        return Delivered(self.broker, ledger, clock, channels=self.channels, dead_letters=DEAD_LETTERS, lease=lease)

    @deferred
    async def start(self) -> None:
        await super().start()
        await self.broker.read_by(self.queue, self.redis.clock)

    @property
    def waits(self) -> bool:
        return super().waits or self.broker.busy

    @deferred
    async def quiet(self) -> None:
        await super().quiet()
        await self.broker.quiet()
        await super().quiet()


class RedisAndPulled(RedisBench):
    """One process, with the ledger in Redis."""

    def __init__(self, make_broker: MakeBroker) -> None:
        self._make_broker = make_broker
        self.channels = Channels(REQUESTS, f"backend{next(_tests)}.")
        super().__init__()
        self._turning = LoopingCall(lambda: self.clock.advance(0))
        self._turning.start(TURN_SECONDS, now=False)

    def make_instance(self) -> Instance:
        return PulledInstance(self._make_broker(), self.channels, self.server.url, self.prefix, self.clock, self.limits)

    @deferred
    async def pass_time(self, seconds: float) -> None:
        await self.instance.broker.delivered()
        await super().pass_time(seconds)
        await self.instance.quiet()
        await self.instance.broker.delivered()

    @deferred
    async def crash(self) -> None:
        instance = self.instance
        assert isinstance(instance, PulledInstance)
        await pause(0)
        await instance.broker.stop()  # a process that is gone has no connections
        await super().crash()

    @deferred
    async def close(self) -> None:
        self._turning.stop()
        await super().close()


@deferred
async def sqlite_beside(make_broker: MakeBroker) -> SqliteAndPulled:
    """For `openhqm.testing.backend_contract`."""
    bench = SqliteAndPulled(make_broker)
    await bench.broker.read_by(bench.queue, bench.clock)
    return bench


@deferred
async def redis_beside(make_broker: MakeBroker) -> RedisAndPulled:
    """The same, with the ledger in Redis."""
    bench = RedisAndPulled(make_broker)
    await bench.open()
    return bench
