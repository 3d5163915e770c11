"""RabbitMQ on the bench of the contract: a real server that tests share, and a network of its own for each client."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pika
from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from openhqm.rabbitmq.address import parse_address
from openhqm.rabbitmq.broker import RabbitMQBroker
from openhqm.rabbitmq.connecting import check_installed
from tests.brokers import RabbitMQServer, shared_rabbitmq
from tests.networked import NetworkedBench

CONSUMER_TIMEOUT = 1800.0
_tests = count(1)


class RabbitMQBench(NetworkedBench):
    """``server`` is one that several tests share: the queues of each have names of their own. ``seconds`` is how long a
    confirmation may take.
    """

    def __init__(self, server: RabbitMQServer, seconds: float = 10.0) -> None:
        check_installed()
        super().__init__(server)
        self._seconds = seconds
        self._prefix = f"bench{next(_tests)}."
        self._others: list[RabbitMQBroker] = []
        self._queues: set[str] = set()

    def client(self, port: int) -> RabbitMQBroker:
        address = parse_address(f"amqp://guest:guest@127.0.0.1:{port}/")
        return RabbitMQBroker(
            address,
            reactor,
            random.random,
            seconds=self._seconds,
            consumer_timeout=CONSUMER_TIMEOUT,
        )

    def stop_server(self) -> None:
        self.server.know_its_queues()
        super().stop_server()

    def new_at(self, url: str) -> RabbitMQBroker:
        """A client that connects by the URL itself, started."""
        broker = RabbitMQBroker(
            parse_address(url), reactor, random.random, seconds=self._seconds, consumer_timeout=CONSUMER_TIMEOUT
        )
        self._others.append(broker)
        broker.start()
        return broker

    def channel(self, name: str) -> str:
        self._queues.add(self._prefix + name)
        return self._prefix + name

    async def delete(self, channel: str) -> None:
        self.as_operator(lambda operator: operator.queue_delete(channel))

    async def close(self) -> None:
        for broker in (*self.networks, *self._others):
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
