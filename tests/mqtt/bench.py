"""Mosquitto on the bench of the contract: a real server that tests share, and a network of its own for each client."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from itertools import count
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from openhqm.interfaces import IBroker
from openhqm.mqtt.address import Address
from openhqm.mqtt.broker import MQTTBroker
from openhqm.mqtt.client import Client
from openhqm.mqtt.marks import MADE
from openhqm.testing import BrokerBench
from tests.brokers import Mosquitto, shared_mosquitto
from tests.rabbitmq.bench import Network

KEEPS = 1000
"""As many as Mosquitto keeps for a session by default."""
_tests = count(1)


class MQTTBench(BrokerBench):
    """``server`` is one that several tests share: the topics of each have names of their own. ``seconds`` is how long a
    PUBACK may take.
    """

    quiet = 0.3
    keepalive = 10

    def __init__(self, server: Mosquitto, protocol: int = 5, seconds: float = 10.0) -> None:
        self.server = server
        self.protocol = protocol
        self.prefix = f"bench{next(_tests)}/"
        self._seconds = seconds
        self._networks: dict[MQTTBroker, Network] = {}
        self._away = False
        self._channels: set[str] = set()

    @property
    def client_id(self) -> str:
        """The client id of all clients of one test."""
        return f"openhqm-{self.prefix[:-1]}"

    @property
    def address(self) -> Address:
        """The server itself."""
        return Address("127.0.0.1", self.server.port, protocol=self.protocol)

    def new(self) -> MQTTBroker:
        network = Network(self.server.port)
        if not self._away:
            network.accept()
        broker = MQTTBroker(
            Address("127.0.0.1", network.own_port, protocol=self.protocol, keepalive=self.keepalive),
            self.client_id,
            reactor,
            random.random,
            seconds=self._seconds,
            keeps=KEEPS,
        )
        self._networks[broker] = network
        return broker

    async def make(self) -> MQTTBroker:
        broker = self.new()
        await broker.start()
        await broker.when_probed()
        assert broker.unavailable_reason is None, broker.unavailable_reason
        return broker

    def channel(self, name: str) -> str:
        self._channels.add(self.prefix + name)
        return self.prefix + name

    async def delete(self, channel: str) -> None:
        """Begin the session again without anything, let it end, and take the mark away."""
        operator = await self.operator(f"{self.client_id}/{channel}")
        await operator.publish(channel + MADE, b"", retain=True)
        operator.close()
        await operator.lost

    async def operator(self, client_id: str = "operator", received: Callable[[Any], None] = print) -> Client:
        """A connection of another program, with a clean session."""
        client = Client(self.address, client_id, reactor, received)
        return await client.connect(deferToThread, 10)

    async def session_of(self, channel: str) -> Client:
        """A connection of another program that takes over the session of a channel."""
        client_id = f"{self.client_id}/{channel}"
        client = Client(self.address, client_id, reactor, lambda message: None, session=True)
        return await client.connect(deferToThread, 10)

    def pass_time(self, seconds: float) -> Deferred[None]:
        return deferLater(reactor, seconds)  # type: ignore[arg-type]

    async def disconnect(self, broker: IBroker) -> None:
        assert isinstance(broker, MQTTBroker)
        self._networks[broker].cut()

    async def away(self) -> None:
        self._away = True
        for network in self._networks.values():
            await network.refuse()

    async def back(self) -> None:
        for network in self._networks.values():
            network.accept()
        self._away = False

    async def restart(self) -> None:
        await self.away()
        self.server.kill(signal.SIGTERM)
        self.server.start()
        while not all(broker.unavailable_reason for broker in self._networks):
            await self.pass_time(0.01)
        await self.back()

    async def close(self) -> None:
        for broker in self._networks:
            await broker.stop()
        await self.away()
        if self.server is shared_mosquitto():
            for channel in self._channels:
                await self.delete(channel)


def bench_on(protocol: int) -> Callable[[TestCase], MQTTBench]:
    """For `openhqm.testing.broker_contract`."""
    return lambda case: MQTTBench(shared_mosquitto(), protocol)
