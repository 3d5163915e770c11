"""The queue over Pub/Sub keeps the same promises as every other backend, on Google's in-memory server."""

from __future__ import annotations

from openhqm.testing import backend_contract
from tests.pubsub.backend_bench import redis_and_pubsub, sqlite_and_pubsub


class SqliteLedgerContract(backend_contract(sqlite_and_pubsub)):  # type: ignore[misc]
    """The ledger in the embedded file."""

    timeout = 240


class RedisLedgerContract(backend_contract(redis_and_pubsub)):  # type: ignore[misc]
    """The ledger in Redis."""

    timeout = 240


del backend_contract
