"""The queue over a real broker on the bench of the backend contract: what is alike for every product.

The server answers in real time. What waits for its time waits in the outbox, by the bench's clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, LoopingCall, deferLater

from openhqm.interfaces import Message
from openhqm.runtime.deferreds import deferred
from tests.benches import SqliteBench

TURN_SECONDS = 0.002
DELIVERED_SECONDS = 0.1
"""What the server has and may deliver has come by then, on a machine with other work to do."""


PORTIONS = 10


def pause(seconds: float) -> Deferred[None]:
    """Let the server work for so long."""
    return deferLater(reactor, seconds)  # type: ignore[arg-type]


@deferred
async def pause_for_deliveries(seconds: float) -> None:
    """Let the server work for so long, and read what it has sent.

    A process that had no CPU for that time calls what is due before it reads anything. So it gets several turns.
    """
    for _ in range(PORTIONS):
        await pause(seconds / PORTIONS)


class Observed:
    """Beside an adapter: how many of its calls the server has not answered."""

    unanswered = 0

    def _observe(self, answer: Deferred[Any]) -> Deferred[Any]:
        def answered(result: Any) -> Any:
            self.unanswered -= 1
            return result

        self.unanswered += 1
        return answer.addBoth(answered)

    def publish(self, channel: str, messages: Sequence[Message]) -> Deferred[Any]:
        return self._observe(super().publish(channel, messages))  # type: ignore[misc]

    def ensure(self, channel: str) -> Deferred[None]:
        return self._observe(super().ensure(channel))  # type: ignore[misc]

    def exists(self, channel: str) -> Deferred[bool]:
        return self._observe(super().exists(channel))  # type: ignore[misc]

    def depth(self, channel: str) -> Deferred[int | None]:
        return self._observe(super().depth(channel))  # type: ignore[misc]

    @property
    def busy(self) -> bool:
        """Whether there is something to wait for."""
        return self.unanswered > 0

    @deferred
    async def quiet(self) -> None:
        """Until the adapter is not busy."""
        await pause(0)
        while self.busy:
            await pause(0.001)


class SqliteBesideABroker(SqliteBench):
    """One process, with the ledger in the embedded file. ``make_queue`` puts the adapter into ``broker``."""

    broker: Any

    def __init__(self) -> None:
        super().__init__()
        # What is published in one turn of the reactor is published together: the turns of the clock have to come.
        self._turning = LoopingCall(lambda: self.clock.advance(0))
        self._turning.start(TURN_SECONDS, now=False)

    def delivered(self) -> Deferred[None]:
        """Until what the server has and may deliver has come."""
        return pause_for_deliveries(DELIVERED_SECONDS)

    @deferred
    async def pass_time(self, seconds: float) -> None:  # type: ignore[override]
        end = self.clock.seconds() + seconds
        await self.delivered()
        while self.clock.seconds() < end:
            await self.broker.quiet()
            self.clock.advance(min(self.step, end - self.clock.seconds()))
        await self.broker.quiet()
        await self.delivered()

    @deferred
    async def crash(self) -> None:  # type: ignore[override]
        await pause(0)  # out of the turn of the clock that may have led here
        # Nothing of the old process may act any more: its calls die with it, the time goes on.
        now = self.clock.seconds()
        self.clock = Clock()
        self.clock.advance(now)
        outbox = self.queue._outbox
        outbox._stopped = True
        if outbox._sweeping is not None:
            outbox._sweeping.cancel()
        self.forget()
        await self.broker.stop()  # a process that is gone has no connections
        self.open()
        await self.broker.when_probed()

    @deferred
    async def close(self) -> None:  # type: ignore[override]
        await pause(0)  # as in crash: what else is due in that turn needs the file
        self._turning.stop()
        await self.broker.stop()
        await super().close()
