"""The dead letters over HTTP, on a real Redis: as the queue, and as the ledger beside a broker."""

from __future__ import annotations

from tests.ingress.dead_letter_contract import dead_letter_contract
from tests.redis.bench import brokered_redis_bench, redis_bench


class RedisTests(dead_letter_contract(redis_bench)):  # type: ignore[misc]
    """Over the Redis backend"""

    timeout = 240


class BrokeredTests(dead_letter_contract(brokered_redis_bench)):  # type: ignore[misc]
    """Over a broker with Redis as its ledger"""

    timeout = 240
