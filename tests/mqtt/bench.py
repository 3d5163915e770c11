"""Mosquitto on the bench of the contract: a real server that tests share, and a network of its own for each client."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from itertools import count
from typing import Any

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from openhqm.mqtt.address import Address
from openhqm.mqtt.broker import MQTTBroker
from openhqm.mqtt.client import Client
from openhqm.mqtt.marks import MADE
from tests.brokers import Mosquitto, shared_mosquitto
from tests.networked import NetworkedBench

KEEPS = 1000
"""As many as Mosquitto keeps for a session by default."""
_tests = count(1)


class MQTTBench(NetworkedBench):
    """``server`` is one that several tests share: the topics of each have names of their own. ``seconds`` is how long a
    PUBACK may take.
    """

    keepalive = 10

    def __init__(self, server: Mosquitto, protocol: int = 5, seconds: float = 10.0) -> None:
        super().__init__(server)
        self.protocol = protocol
        self.prefix = f"bench{next(_tests)}/"
        self._seconds = seconds
        self._channels: set[str] = set()

    @property
    def client_id(self) -> str:
        """The client id of all clients of one test."""
        return f"openhqm-{self.prefix[:-1]}"

    @property
    def address(self) -> Address:
        """The server itself."""
        return Address("127.0.0.1", self.server.port, protocol=self.protocol)

    def client(self, port: int) -> MQTTBroker:
        return MQTTBroker(
            Address("127.0.0.1", port, protocol=self.protocol, keepalive=self.keepalive),
            self.client_id,
            reactor,
            random.random,
            seconds=self._seconds,
            keeps=KEEPS,
        )

    def stop_server(self) -> None:
        self.server.kill(signal.SIGTERM)

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

    async def close(self) -> None:
        for broker in self.networks:
            await broker.stop()
        await self.away()
        if self.server is shared_mosquitto():
            for channel in self._channels:
                await self.delete(channel)


def bench_on(protocol: int) -> Callable[[TestCase], MQTTBench]:
    """For `openhqm.testing.broker_contract`."""
    return lambda case: MQTTBench(shared_mosquitto(), protocol)
