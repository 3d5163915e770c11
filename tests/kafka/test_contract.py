"""Kafka keeps the contract of a broker, on a real one."""

from __future__ import annotations

from openhqm.testing import broker_contract
from tests.kafka.bench import kafka_bench


class KafkaContract(broker_contract(kafka_bench)):  # type: ignore[misc]
    """A real Kafka"""


del broker_contract
