"""RabbitMQ on the bench of the contract: a real server that tests share, and a network of its own for each client."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pika
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.protocols.portforward import ProxyFactory
from twisted.trial.unittest import TestCase

from openhqm.interfaces import IBroker
from openhqm.rabbitmq.address import parse_address
from openhqm.rabbitmq.broker import RabbitMQBroker
from openhqm.rabbitmq.connecting import check_installed
from openhqm.testing import BrokerBench
from tests.brokers import RabbitMQServer, shared_rabbitmq
from tests.servers import free_port

CONSUMER_TIMEOUT = 1800.0
_tests = count(1)


class Network(ProxyFactory):
    """What lies between one client and the server."""

    noisy = False

    def __init__(self, server_port: int) -> None:
        super().__init__("127.0.0.1", server_port)
        self.own_port = free_port()
        self._connections: list[Any] = []
        self._listening: Any = None

    def buildProtocol(self, addr: Any) -> Any:
        made = super().buildProtocol(addr)
        self._connections.append(made)
        return made

    def accept(self) -> None:
        """From now on connections can be made."""
        self._listening = reactor.listenTCP(self.own_port, self, interface="127.0.0.1")  # type: ignore[attr-defined]

    def cut(self) -> None:
        """Every connection ends."""
        connections, self._connections = self._connections, []
        for connection in connections:
            for end in (connection, connection.peer):
                if end is not None and end.transport is not None:
                    end.transport.abortConnection()

    async def refuse(self) -> None:
        """Every connection ends, and none can be made."""
        listening, self._listening = self._listening, None
        if listening is not None:
            await listening.stopListening()
        self.cut()


class RabbitMQBench(BrokerBench):
    """``server`` is one that several tests share: the queues of each have names of their own. ``seconds`` is how long a
    confirmation may take.
    """

    quiet = 0.3

    def __init__(self, server: RabbitMQServer, seconds: float = 10.0) -> None:
        check_installed()
        self.server = server
        self._seconds = seconds
        self._prefix = f"bench{next(_tests)}."
        self._networks: dict[RabbitMQBroker, Network] = {}
        self._others: list[RabbitMQBroker] = []
        self._away = False
        self._queues: set[str] = set()

    def new(self) -> RabbitMQBroker:
        network = Network(self.server.port)
        if not self._away:
            network.accept()
        address = parse_address(f"amqp://guest:guest@127.0.0.1:{network.own_port}/")
        broker = RabbitMQBroker(
            address,
            reactor,
            random.random,
            seconds=self._seconds,
            consumer_timeout=CONSUMER_TIMEOUT,
        )
        self._networks[broker] = network
        return broker

    def new_at(self, url: str) -> RabbitMQBroker:
        """A client that connects by the URL itself, started."""
        broker = RabbitMQBroker(
            parse_address(url), reactor, random.random, seconds=self._seconds, consumer_timeout=CONSUMER_TIMEOUT
        )
        self._others.append(broker)
        broker.start()
        return broker

    async def make(self) -> RabbitMQBroker:
        broker = self.new()
        await broker.start()
        await broker.when_probed()
        assert broker.unavailable_reason is None, broker.unavailable_reason
        return broker

    def channel(self, name: str) -> str:
        self._queues.add(self._prefix + name)
        return self._prefix + name

    async def delete(self, channel: str) -> None:
        self.as_operator(lambda operator: operator.queue_delete(channel))

    def pass_time(self, seconds: float) -> Deferred[None]:
        return deferLater(reactor, seconds)  # type: ignore[arg-type]

    async def disconnect(self, broker: IBroker) -> None:
        assert isinstance(broker, RabbitMQBroker)
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
        self.server.know_its_queues()
        await self.away()
        self.server.kill()
        self.server.start()
        while not all(broker.unavailable_reason for broker in self._networks):
            await self.pass_time(0.01)
        await self.back()

    async def close(self) -> None:
        for broker in (*self._networks, *self._others):
            await broker.stop()
        await self.away()
        self.as_operator(lambda operator: [operator.queue_delete(queue) for queue in self._queues])

    def as_operator(self, do: Callable[[Any], object]) -> None:
        """Do it over an AMQP channel of another program."""
        connection = pika.BlockingConnection(pika.URLParameters(self.server.url))
        try:
            do(connection.channel())
        finally:
            connection.close()


def bench_on(root: str | None = None, seconds: float = 10.0) -> Callable[[TestCase], RabbitMQBench]:
    """For `openhqm.testing.broker_contract`: on the server that is installed, or on the one under ``root``."""
    return lambda case: RabbitMQBench(shared_rabbitmq(None if root is None else Path(root)), seconds)
