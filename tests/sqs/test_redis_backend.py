"""The queue over SQS keeps the same promises as every other backend, on ElasticMQ, with Redis beside it."""

from __future__ import annotations

from openhqm.testing import backend_contract
from tests.sqs.backend_bench import redis_and_sqs


class RedisLedgerContract(backend_contract(redis_and_sqs)):  # type: ignore[misc]
    """The ledger in Redis."""

    timeout = 60


del backend_contract
