"""The adapter for Event Hubs keeps the contract of a broker, on a real Kafka whose listener takes a connection string.

The service itself is not reached. Its listener differs in TLS, which librdkafka does below all of this.
"""

from __future__ import annotations

import random
from typing import Any

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from openhqm.event_hubs.broker import EventHubsBroker
from openhqm.event_hubs.settings import LARGEST_MESSAGE, EventHubsSettings
from openhqm.testing import broker_contract
from tests.kafka.bench import PARTITIONS, KafkaBench
from tests.kafka.server import EMULATOR, shared_kafka
from tests.networked import Network


class EventHubsBench(KafkaBench):
    """Hubs are made as an operator makes them."""

    def network(self) -> Network:
        return Network(*next(self._sasl))

    def __init__(self, server: Any) -> None:
        super().__init__(server)
        self._sasl = iter(server.networked_sasl)

    def client(self, port: int) -> EventHubsBroker:
        return EventHubsBroker(
            EventHubsSettings(connection_string=EMULATOR, endpoint=f"127.0.0.1:{port}").properties,
            reactor,
            random.random,
            group=f"{self.prefix}workers",
            seconds=10.0,
            largest=LARGEST_MESSAGE,
        )

    async def provide(self, channel: str) -> None:
        await deferToThread(self._provide, channel)

    def _provide(self, channel: str) -> None:
        from confluent_kafka.admin import AdminClient, NewTopic

        operator = AdminClient({"bootstrap.servers": self.server.bootstrap})
        operator.create_topics([NewTopic(channel, PARTITIONS, 1)], operation_timeout=10)[channel].result(20)


def event_hubs_bench(case: TestCase) -> Any:
    """For `openhqm.testing.broker_contract`."""
    return EventHubsBench(shared_kafka())


class EventHubsContract(broker_contract(event_hubs_bench)):  # type: ignore[misc]
    """A real Kafka in the place of the service"""


del broker_contract
