"""The queue over Event Hubs keeps the same promises as every other backend, on a Kafka in the place of the service."""

from __future__ import annotations

import random

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openhqm.event_hubs.broker import EventHubsBroker
from openhqm.event_hubs.settings import LARGEST_MESSAGE, EventHubsSettings
from openhqm.policy.channels import Channels
from openhqm.runtime.deferreds import deferred
from openhqm.testing import REQUESTS, backend_contract
from tests.kafka.backend_bench import Reading, RedisAndKafka, SqliteAndKafka
from tests.kafka.programs import Programs
from tests.kafka.server import EMULATOR, KafkaServer, shared_kafka


class ObservedHubs(Reading, EventHubsBroker):
    """The adapter. ``name`` is that of the test."""

    def __init__(self, server: KafkaServer, name: str) -> None:
        settings = EventHubsSettings(connection_string=EMULATOR, endpoint=f"127.0.0.1:{server.sasl_port}")
        super().__init__(settings.properties, reactor, random.random, group=name, seconds=10.0, largest=LARGEST_MESSAGE)


def provide(name: str) -> None:
    """Make the hubs, as an operator does."""
    channels = Channels(REQUESTS)
    names = [each for queue in (REQUESTS, f"{REQUESTS}.billing") for each in channels.names(queue)]
    Programs(shared_kafka(), f"{name}.").topics(*names)


class SqliteAndHubs(SqliteAndKafka):
    """One process, with the ledger in the embedded file."""

    adapter = ObservedHubs


class RedisAndHubs(RedisAndKafka):
    """One process, with the ledger in Redis."""

    adapter = ObservedHubs


@deferred
async def sqlite_and_hubs(case: TestCase | SynchronousTestCase) -> SqliteAndHubs:
    """For `openhqm.testing.backend_contract`."""
    bench = SqliteAndHubs(shared_kafka())
    await deferToThread(provide, bench.name)
    await bench.broker.read_by(bench.queue, bench.clock)
    return bench


@deferred
async def redis_and_hubs(case: TestCase | SynchronousTestCase) -> RedisAndHubs:
    """For `openhqm.testing.backend_contract`."""
    bench = RedisAndHubs(shared_kafka())
    await deferToThread(provide, bench.name)
    await bench.open()
    return bench


class SqliteLedgerContract(backend_contract(sqlite_and_hubs)):  # type: ignore[misc]
    """The ledger in the embedded file."""

    timeout = 240


class RedisLedgerContract(backend_contract(redis_and_hubs)):  # type: ignore[misc]
    """The ledger in Redis."""

    timeout = 240


del backend_contract
