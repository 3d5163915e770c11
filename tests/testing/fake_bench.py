"""The fake broker on a bench: time is a `Clock`, and every client leaves it without a timer."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from openhqm.interfaces import BrokerTraits, IBroker
from openhqm.testing import BrokerBench, FakeBroker, FakeServer


class FakeBench(BrokerBench):
    """A server in memory that behaves as ``traits`` say."""

    longest_wait = float("inf")

    def __init__(self, traits: BrokerTraits) -> None:
        self.traits = traits
        self.clock = Clock()
        self.server = FakeServer(traits)
        self.brokers: list[FakeBroker] = []

    def new(self) -> FakeBroker:
        self.brokers.append(FakeBroker(self.server, self.clock, self.traits))
        return self.brokers[-1]

    async def make(self) -> FakeBroker:
        broker = self.new()
        await broker.start()
        return broker

    def channel(self, name: str) -> str:
        return f"fake-{name}"

    async def provide(self, channel: str) -> None:
        self.server.provide(channel)

    async def delete(self, channel: str) -> None:
        self.server.delete(channel)

    def pass_time(self, seconds: float) -> Deferred[None]:
        """From one timer to the next, so that each sees the time at which it is due."""
        end = self.clock.seconds() + seconds
        while (due := min((call.getTime() for call in self.clock.getDelayedCalls()), default=end)) <= end:
            self.clock.advance(max(0.0, due - self.clock.seconds()))
            if due == end:
                break
        self.clock.advance(max(0.0, end - self.clock.seconds()))
        return succeed(None)

    async def disconnect(self, broker: IBroker) -> None:
        assert isinstance(broker, FakeBroker)
        broker.lose_connection()
        broker.come_back()

    async def away(self) -> None:
        self.server.go_away()

    async def back(self) -> None:
        self.server.come_back()

    async def restart(self) -> None:
        self.server.restart()

    async def close(self) -> None:
        for broker in self.brokers:
            await broker.stop()
        left = [str(call) for call in self.clock.getDelayedCalls()]
        assert not left, f"timers are left when all clients are stopped: {left}"
