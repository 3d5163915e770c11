"""The books in Redis, which many processes write into, and a broker beside it."""

from __future__ import annotations

from openhqm.testing import backend_contract
from tests.redis_bench import brokered_redis_bench


class BrokeredRedisContract(backend_contract(brokered_redis_bench)):  # type: ignore[misc]
    """A broker in memory, and the books in Redis."""

    timeout = 60


del backend_contract
