"""A toy adapter keeps the contract of a broker, on the real reactor: what the author of another one has to write."""

from __future__ import annotations

from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from openhqm.interfaces import IBroker
from openhqm.pulled.broker import PulledBroker
from openhqm.testing import BrokerBench, broker_contract
from tests.testing.directory_broker import directory_broker

LEASE = 0.8


class DirectoryBench(BrokerBench):
    """A directory, which is away while it has another name."""

    quiet = 0.1

    def __init__(self, test: TestCase) -> None:
        from twisted.internet import reactor

        self.reactor = reactor
        self.parent = Path(mkdtemp(prefix="openhqm-"))
        self.root = self.parent / "broker"
        self.root.mkdir()
        self.brokers: list[PulledBroker] = []

    def new(self) -> PulledBroker:
        self.brokers.append(directory_broker(self.root, self.reactor, LEASE))  # type: ignore[arg-type]
        return self.brokers[-1]

    async def make(self) -> PulledBroker:
        broker = self.new()
        await broker.start()
        return broker

    def channel(self, name: str) -> str:
        return name

    async def delete(self, channel: str) -> None:
        rmtree(self.root / channel)

    def pass_time(self, seconds: float) -> Deferred[None]:
        return deferLater(self.reactor, seconds)  # type: ignore[arg-type]

    async def disconnect(self, broker: IBroker) -> None:
        await self.restart()

    async def restart(self) -> None:
        """There is no server to start again: every client loses the directory, and finds it again."""
        await self.away()
        while any(each.unavailable_reason is None for each in self.brokers):
            await self.pass_time(0.01)
        await self.back()

    async def away(self) -> None:
        self.root.rename(self.parent / "away")

    async def back(self) -> None:
        (self.parent / "away").rename(self.root)

    async def close(self) -> None:
        for broker in self.brokers:
            await broker.stop()
        rmtree(self.parent)


class DirectoryTests(broker_contract(DirectoryBench)):  # type: ignore[misc]
    """A directory of files."""


del broker_contract
