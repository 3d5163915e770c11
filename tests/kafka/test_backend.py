"""The queue over Kafka keeps the same promises as every other backend, on a real Kafka."""

from __future__ import annotations

from openhqm.testing import backend_contract
from tests.kafka.backend_bench import redis_and_kafka, sqlite_and_kafka


class SqliteLedgerContract(backend_contract(sqlite_and_kafka)):  # type: ignore[misc]
    """The ledger in the embedded file."""

    timeout = 240


class RedisLedgerContract(backend_contract(redis_and_kafka)):  # type: ignore[misc]
    """The ledger in Redis."""

    timeout = 240


del backend_contract
