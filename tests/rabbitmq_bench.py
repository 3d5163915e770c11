"""RabbitMQ on a bench: a real server, the books in the embedded file or in Redis, and a time that passes when told to.

What is due is due by the bench's clock, of which a second takes a few milliseconds in RabbitMQ: that is how long its
delay queues keep a message.
"""

from __future__ import annotations

from itertools import count
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openhqm.config.rabbitmq_address import parse_address
from openhqm.queues.brokered import BrokeredQueue
from openhqm.rabbitmq.broker import RabbitMQBroker
from openhqm.rabbitmq.wire import check_installed
from openhqm.results.sqlite_ledger import SqliteLedger
from openhqm.runtime.deferreds import deferred
from openhqm.testing import DEAD_LETTERS, LEASE, REQUESTS
from tests.benches import SqliteBench
from tests.brokers import shared_rabbitmq

SCALE = 0.003
TURN = 0.001
_prefixes = count(1)


def make_broker(clock: Any = None, prefix: str = "", seconds: float = 5.0, url: str = "") -> RabbitMQBroker:
    """A broker on the shared server, not yet started."""
    check_installed()
    address = parse_address(url or shared_rabbitmq().url)
    prefix = prefix or f"bench{next(_prefixes)}."
    scale = 1.0 if clock is None else SCALE
    return RabbitMQBroker(address, reactor, lambda: 0.5, prefix=prefix, seconds=seconds, clock=clock, scale=scale)


@deferred
async def delete_queues(broker: RabbitMQBroker) -> None:
    """Leave nothing behind on a server that others use."""
    protocol = broker._connected
    names = {*broker._topology._known, *broker._consumed._known}
    if protocol is not None:
        channel = await protocol.channel()
        for name in names:
            await channel.queue_delete(name)


class RabbitMQBench(SqliteBench):
    """The books in the embedded file."""

    def __init__(self) -> None:
        self.prefix = f"bench{next(_prefixes)}."
        super().__init__()

    def make_queue(self) -> Any:
        self.broker = make_broker(self.clock, self.prefix)
        self.ledger = SqliteLedger(self.file, self.store, self.clock, requests=REQUESTS, dead_letters=DEAD_LETTERS)
        return BrokeredQueue(
            self.broker, self.ledger, self.clock, requests=REQUESTS, dead_letters=DEAD_LETTERS, lease=LEASE
        )

    @deferred
    async def ready(self) -> None:
        """Until the server was reached."""
        await self.broker.first_try()
        assert self.broker.trouble is None, self.broker.trouble

    @deferred
    async def done(self, deferred: Deferred[Any]) -> Any:
        turning = LoopingCall(self.turn)
        turning.start(TURN)
        try:
            return await deferred
        finally:
            await self.quiet()
            turning.stop()

    @deferred
    async def quiet(self) -> None:
        """Until what was said has been heard: twice the same number of messages everywhere."""
        before: Any = None
        while True:
            counts = [await self.broker._consumed.declare(name) for name in sorted(self.broker._consumed._known)]
            now = (counts, [(place.arrived, place.on_loan) for place in self.broker._places.values()])
            if now == before:
                return
            before = now
            await deferLater(reactor, 5 * TURN)  # type: ignore[arg-type]

    @deferred
    async def pass_time(self, seconds: float) -> None:
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            step = min(1.0, end - self.clock.seconds())
            self.clock.advance(step)
            self.turn()
            await deferLater(reactor, step * SCALE)  # type: ignore[arg-type]
        turning = LoopingCall(self.turn)
        turning.start(TURN)
        await self.quiet()
        turning.stop()

    @deferred
    async def crash(self) -> None:
        old = self.broker
        await super().crash()
        await old.stop()
        await self.ready()

    @deferred
    async def close(self) -> None:
        self.queue._publishing.stop()
        await delete_queues(self.broker)
        await self.broker.stop()
        await super().close()


@deferred
async def rabbitmq_bench(case: TestCase | SynchronousTestCase) -> RabbitMQBench:
    bench = RabbitMQBench()
    await bench.ready()
    return bench
