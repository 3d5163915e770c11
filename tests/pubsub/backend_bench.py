"""The queue over Pub/Sub on the bench of the backend contract, with the ledger in the embedded file or in Redis."""

from __future__ import annotations

import atexit
import random

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openhqm.pubsub.broker import Address, PubSubBroker
from openhqm.pubsub.subscriptions import Wanted
from tests.pubsub.server import PROJECT, PubSubServer
from tests.pulled_bench import ObservedPulled, RedisAndPulled, SqliteAndPulled, redis_beside, sqlite_beside

SERVER_LEASE = 10.0
_shared: list[PubSubServer] = []


def shared_pubsub() -> PubSubServer:
    """One for all tests of this run: each has topics of its own in it."""
    if not _shared:
        _shared.append(PubSubServer().start())
        atexit.register(_shared[0].close)
    return _shared[0]


class ObservedBroker(ObservedPulled, PubSubBroker):
    """The adapter, and how many of its calls the server has not answered."""

    def __init__(self) -> None:
        address = Address(PROJECT, f"http://{shared_pubsub().host}", emulator=True)
        super().__init__(address, reactor, random.random, Wanted(SERVER_LEASE, dead_letters="dead"), seconds=10.0)


def sqlite_and_pubsub(case: TestCase | SynchronousTestCase) -> Deferred[SqliteAndPulled]:
    """For `openhqm.testing.backend_contract`."""
    return sqlite_beside(ObservedBroker)


def redis_and_pubsub(case: TestCase | SynchronousTestCase) -> Deferred[RedisAndPulled]:
    """The same, with the ledger in Redis."""
    return redis_beside(ObservedBroker)
