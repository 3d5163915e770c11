"""Kafka on the bench of the contract: a real server that tests share, and a network of its own for each client."""

from __future__ import annotations

import random
import signal
from itertools import count
from typing import Any

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from openhqm.kafka.broker import KafkaBroker
from openhqm.kafka.settings import LARGEST_MESSAGE
from tests.kafka.server import KafkaServer, shared_kafka
from tests.networked import Network, NetworkedBench

PARTITIONS = 3
_tests = count(1)


class KafkaBench(NetworkedBench):
    """``server`` is one that several tests share: the topics of each have names of their own."""

    def __init__(self, server: KafkaServer) -> None:
        super().__init__(server)
        self.prefix = f"bench{next(_tests)}."
        self._listeners = iter(server.networked)

    def network(self) -> Network:
        listens, told = next(self._listeners)
        return Network(listens, told)

    def client(self, port: int) -> KafkaBroker:
        return KafkaBroker(
            {"bootstrap.servers": f"127.0.0.1:{port}"},
            reactor,
            random.random,
            group=f"{self.prefix}workers",
            seconds=10.0,
            largest=LARGEST_MESSAGE,
            partitions=PARTITIONS,
            replication=1,
        )

    def stop_server(self) -> None:
        self.server.kill(signal.SIGTERM)

    def channel(self, name: str) -> str:
        return self.prefix + name

    async def delete(self, channel: str) -> None:
        await deferToThread(self._delete, channel)

    def _delete(self, channel: str) -> None:
        from confluent_kafka.admin import AdminClient

        operator = AdminClient({"bootstrap.servers": self.server.bootstrap})
        operator.delete_topics([channel], operation_timeout=10)[channel].result(20)

    async def close(self) -> None:
        for broker in self.networks:
            await broker.stop()
        await self.away()


def kafka_bench(case: TestCase) -> Any:
    """For `openhqm.testing.broker_contract`."""
    return KafkaBench(shared_kafka())
