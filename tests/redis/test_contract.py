"""Redis keeps the same promises as every other backend, on a real server."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from openhqm.testing import backend_contract
from openhqm.testing.crashing import Crashing
from tests.queue.single_product import SingleProduct
from tests.redis.bench import RedisBench, redis_bench


class RedisContract(backend_contract(redis_bench), SingleProduct):  # type: ignore[misc]
    """The Redis backend."""

    timeout = 240


class RedisKilledContract(Crashing):
    """The same after a crash of Redis itself, kill -9, together with the process that used it."""

    timeout = 240

    def make_bench(self) -> Deferred[RedisBench]:
        return redis_bench(self, kills=True)


del backend_contract, Crashing, SingleProduct
