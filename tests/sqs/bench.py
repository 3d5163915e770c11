"""SQS on the bench of the contract: an ElasticMQ that tests share, and a network of its own for each client."""

from __future__ import annotations

import random
from itertools import count
from typing import Any

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from openhqm.sqs.broker import SqsBroker
from tests.networked import NetworkedBench
from tests.sqs.server import SqsServer, new_session, shared_elasticmq, shared_moto

LEASE = 1.7
"""SQS counts a lease in whole seconds, and ours ends before: this one is two seconds there."""
_tests = count(1)


class SqsBench(NetworkedBench):
    """Standard queues: ElasticMQ delivers about in the order of publishing, and SQS promises none."""

    fifo = False
    ordered = False
    cannot = {"restart": "the server keeps messages in memory, and SQS is never restarted"}

    def __init__(self, server: SqsServer) -> None:
        super().__init__(server)
        self.prefix = f"bench{next(_tests)}."
        self._operator = server.client()

    def client(self, port: int) -> SqsBroker:
        return SqsBroker(
            reactor,
            random.random,
            endpoint_url=f"http://127.0.0.1:{port}",
            seconds=3.0,
            fifo=self.fifo,
            wait=1,
            lease=LEASE,
            probe_seconds=0.5,
            make_session=new_session,
        )

    def channel(self, name: str) -> str:
        return self.prefix + name

    async def delete(self, channel: str) -> None:
        await deferToThread(self._delete, channel)

    def _delete(self, channel: str) -> None:
        name = channel.replace(".", "--") + (".fifo" if self.fifo else "")
        self._operator.delete_queue(QueueUrl=self._operator.get_queue_url(QueueName=name)["QueueUrl"])

    async def disconnect(self, broker: Any) -> None:
        """Requests have no connection that could be lost: the network is gone until the client has met that."""
        network = self.networks[broker]
        await network.refuse()
        while broker.unavailable_reason is None:
            await self.pass_time(0.01)
        network.accept()

    async def close(self) -> None:
        for broker in self.networks:
            await broker.stop()
        await self.away()


class FifoBench(SqsBench):
    """FIFO queues: messages of one key are delivered in their order."""

    fifo = True
    ordered = True


def sqs_bench(case: TestCase) -> Any:
    """For `openhqm.testing.broker_contract`."""
    return SqsBench(shared_elasticmq())


def fifo_bench(case: TestCase) -> Any:
    """For `openhqm.testing.broker_contract`."""
    return FifoBench(shared_elasticmq())


def moto_bench(case: TestCase) -> Any:
    """For `openhqm.testing.broker_contract`."""
    return SqsBench(shared_moto())
