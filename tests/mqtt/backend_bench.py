"""The queue over MQTT on the bench of the backend contract, with the ledger in the embedded file.

Mosquitto is a real server and answers in real time. What waits for its time waits in the outbox, by the bench's clock.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import count
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, LoopingCall, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openhqm.brokered.queue import BrokeredQueue
from openhqm.interfaces import IMessageQueue, Message
from openhqm.messages import Acceptance, IdempotencyClaim, Submission
from openhqm.mqtt.address import Address
from openhqm.mqtt.broker import MQTTBroker
from openhqm.policy.channels import Channels
from openhqm.runtime.deferreds import deferred
from openhqm.sqlite.ledger import SqliteLedger
from openhqm.testing import DEAD_LETTERS, LEASE, REQUESTS
from tests.benches import SqliteBench
from tests.brokers import Mosquitto, shared_mosquitto
from tests.mqtt.bench import KEEPS

TURN_SECONDS = 0.002
DELIVERED_SECONDS = 0.1
"""What Mosquitto has and may deliver has come by then, on a machine with other work to do."""
_tests = count(1)


class ObservedBroker(MQTTBroker):
    """The adapter, and how many of its calls the broker has not answered."""

    def __init__(self, server: Mosquitto, name: str, protocol: int) -> None:
        address = Address("127.0.0.1", server.port, protocol=protocol)
        super().__init__(address, name, reactor, random.random, seconds=10.0, keeps=KEEPS)
        self.unanswered = 0

    @property
    def sessions(self) -> list[str]:
        """The channels that are consumed from, and are there."""
        return [channel for channel, session in self._sessions.items() if session.warning is None]

    def _observe(self, answer: Deferred[Any]) -> Deferred[Any]:
        def answered(result: Any) -> Any:
            self.unanswered -= 1
            return result

        self.unanswered += 1
        return answer.addBoth(answered)

    def publish(self, channel: str, messages: Sequence[Message]) -> Deferred[Any]:
        return self._observe(super().publish(channel, messages))

    def ensure(self, channel: str) -> Deferred[None]:
        return self._observe(super().ensure(channel))

    def exists(self, channel: str) -> Deferred[bool]:
        return self._observe(super().exists(channel))

    def depth(self, channel: str) -> Deferred[int | None]:
        return self._observe(super().depth(channel))

    @deferred
    async def quiet(self) -> None:
        """Until every call is answered, and every session that is consumed from is connected."""
        await _pause(0)
        while self.unanswered or self.warnings:
            await _pause(0.001)


class Journaled(BrokeredQueue):
    """It says that a request is accepted once its message can be delivered: the tests look at what comes then."""

    broker: ObservedBroker

    @deferred
    async def accept(
        self, submission: Submission, claim: IdempotencyClaim | None, follow_ups: Sequence[Submission] = ()
    ) -> Acceptance:
        accepted = await super().accept(submission, claim, follow_ups)
        await _pause(3 * TURN_SECONDS)
        await self.broker.quiet()
        await _pause(3 * TURN_SECONDS)
        return accepted


def _pause(seconds: float) -> Deferred[None]:
    return deferLater(reactor, seconds)  # type: ignore[arg-type]


class SqliteAndMQTT(SqliteBench):
    """One process, with the ledger in the embedded file."""

    def __init__(self, server: Mosquitto, protocol: int) -> None:
        self.server = server
        self.protocol = protocol
        self.name = f"backend{protocol}-{next(_tests)}"
        super().__init__()
        # What is published in one turn of the reactor is published together: the turns of the clock have to come.
        self._turning = LoopingCall(lambda: self.clock.advance(0))
        self._turning.start(TURN_SECONDS, now=False)

    def make_queue(self) -> IMessageQueue:
        self.broker = ObservedBroker(self.server, self.name, self.protocol)
        channels = Channels(REQUESTS, f"{self.name}/")
        ledger = SqliteLedger(self.file, self.store, self.clock, channels=channels, limits=self.limits)
        queue = Journaled(
            self.broker,
            ledger,
            self.clock,
            channels=channels,
            dead_letters=DEAD_LETTERS,
            lease=LEASE,
            journaled=True,
        )
        queue.broker = self.broker
        return queue

    @deferred
    async def begin(self) -> None:
        """Let it begin to consume: a process that works has done that long ago, and every channel is there."""
        await self.broker.when_probed()
        waiting = self.queue.receive(REQUESTS, 5)
        while len(self.broker.sessions) < 3:
            await _pause(TURN_SECONDS)
        await self.broker.quiet()
        waiting.addErrback(lambda failure: failure.trap(CancelledError))
        waiting.cancel()

    @deferred
    async def pass_time(self, seconds: float) -> None:  # type: ignore[override]
        end = self.clock.seconds() + seconds
        await _pause(DELIVERED_SECONDS)
        while self.clock.seconds() < end:
            await self.broker.quiet()
            self.clock.advance(min(self.step, end - self.clock.seconds()))
        await _pause(DELIVERED_SECONDS)

    @deferred
    async def crash(self) -> None:  # type: ignore[override]
        await _pause(0)  # out of the turn of the clock that may have led here
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
        self._turning.stop()
        await self.broker.stop()
        await super().close()


@deferred
async def sqlite_and_mqtt(case: TestCase | SynchronousTestCase, protocol: int) -> SqliteAndMQTT:
    """For `openhqm.testing.backend_contract`."""
    bench = SqliteAndMQTT(shared_mosquitto(), protocol)
    await bench.begin()
    return bench
