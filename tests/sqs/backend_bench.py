"""The queue over SQS on the bench of the backend contract, with the ledger in the embedded file or in Redis."""

from __future__ import annotations

import random

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openhqm.errors import NotDurable
from openhqm.runtime.deferreds import deferred
from openhqm.sqs.broker import SqsBroker
from tests.brokered_bench import pause
from tests.pulled_bench import ObservedPulled, RedisAndPulled, SqliteAndPulled, redis_beside, sqlite_beside
from tests.sqs.server import new_session, shared_elasticmq

COUNTS = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
LEASE = 10.0
"""Seconds of real time: what a process had that was killed comes after that."""
TRIES = 20
"""How often it is looked whether what was given out has come."""


class ObservedBroker(ObservedPulled, SqsBroker):
    """The adapter, and how many of its calls ElasticMQ has not answered."""

    reads_on = True

    def __init__(self) -> None:
        super().__init__(
            reactor,
            random.random,
            endpoint_url=shared_elasticmq().url,
            seconds=10.0,
            lease=LEASE,
            make_session=new_session,
        )

    @deferred
    async def delivered(self) -> None:
        """Until every queue that is asked has nothing that can be delivered, and what it has given out is here."""
        for subscription in self._subscriptions:
            tries = TRIES
            while subscription.asks and tries:
                waits, given_out = await self._counts(subscription.channel)
                if not waits and given_out <= len(subscription._out):
                    break
                if not waits:  # on its way; or a process that was killed has it, for as long as its lease
                    tries -= 1
                await pause(0.01)
        await pause(0.01)

    async def _counts(self, channel: str) -> tuple[int, int]:
        """How many messages of a queue wait, and how many are given out."""
        try:
            url = await self._product.url(channel)
            answer = await self._calls.call("get_queue_attributes", channel, QueueUrl=url, AttributeNames=COUNTS)
        except NotDurable:  # the queue is gone
            return 0, 0
        waits, given_out = (int(answer["Attributes"][name]) for name in COUNTS)
        return waits, given_out


def sqlite_and_sqs(case: TestCase | SynchronousTestCase) -> Deferred[SqliteAndPulled]:
    """For `openhqm.testing.backend_contract`."""
    return sqlite_beside(ObservedBroker)


def redis_and_sqs(case: TestCase | SynchronousTestCase) -> Deferred[RedisAndPulled]:
    """The same, with the ledger in Redis."""
    return redis_beside(ObservedBroker)
