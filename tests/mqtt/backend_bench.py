"""The queue over MQTT on the bench of the backend contract, with the ledger in the embedded file.

Mosquitto is a real server and answers in real time. What waits for its time waits in the outbox, by the bench's clock.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import count

from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openhqm.brokered.queue import BrokeredQueue
from openhqm.interfaces import IMessageQueue
from openhqm.messages import Acceptance, Child, IdempotencyClaim, Submission
from openhqm.mqtt.address import Address
from openhqm.mqtt.broker import MQTTBroker
from openhqm.policy.channels import Channels
from openhqm.queue.ledger import window_of
from openhqm.runtime.deferreds import deferred
from openhqm.sqlite.ledger import SqliteLedger
from openhqm.testing import DEAD_LETTERS, LEASE, REQUESTS
from tests.brokered_bench import TURN_SECONDS, Observed, SqliteBesideABroker, pause
from tests.brokers import Mosquitto, shared_mosquitto
from tests.mqtt.bench import KEEPS

_tests = count(1)


class ObservedBroker(Observed, MQTTBroker):
    """The adapter, and how many of its calls the broker has not answered."""

    def __init__(self, server: Mosquitto, name: str, protocol: int, keeps: int) -> None:
        address = Address("127.0.0.1", server.port, protocol=protocol)
        super().__init__(address, name, reactor, random.random, seconds=10.0, keeps=keeps)

    @property
    def sessions(self) -> list[str]:
        """The channels that are consumed from, and are there."""
        return [channel for channel, session in self._sessions.items() if session.warning is None]

    @property
    def busy(self) -> bool:
        """Whether a call is not answered, or a session that is consumed from not connected."""
        return super().busy or bool(self.warnings)


class Journaled(BrokeredQueue):
    """It says that a request is accepted once its message can be delivered: the tests look at what comes then."""

    broker: ObservedBroker

    @deferred
    async def accept(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        follow_ups: Sequence[Submission] = (),
        children: Sequence[Child] = (),
    ) -> Acceptance:
        accepted = await super().accept(submission, claim, follow_ups, children)
        await pause(3 * TURN_SECONDS)
        await self.broker.quiet()
        await pause(3 * TURN_SECONDS)
        return accepted


class SqliteAndMQTT(SqliteBesideABroker):
    """One process, with the ledger in the embedded file."""

    def __init__(self, server: Mosquitto, protocol: int, keeps: int = KEEPS) -> None:
        self.server = server
        self.keeps = keeps
        self.protocol = protocol
        self.name = f"backend{protocol}-{next(_tests)}"
        super().__init__()

    def make_queue(self) -> IMessageQueue:
        self.broker = ObservedBroker(self.server, self.name, self.protocol, self.keeps)
        channels = Channels(REQUESTS, f"{self.name}/")
        window = window_of(self.keeps)
        ledger = SqliteLedger(self.file, self.store, self.clock, channels=channels, limits=self.limits, window=window)
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
            await pause(TURN_SECONDS)
        await self.broker.quiet()
        waiting.addErrback(lambda failure: failure.trap(CancelledError))
        waiting.cancel()


@deferred
async def sqlite_and_mqtt(case: TestCase | SynchronousTestCase, protocol: int) -> SqliteAndMQTT:
    """For `openhqm.testing.backend_contract`."""
    bench = SqliteAndMQTT(shared_mosquitto(), protocol)
    await bench.begin()
    return bench
