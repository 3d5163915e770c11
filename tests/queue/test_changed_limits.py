"""Limits that change while the process runs, on every backend of this build."""

from __future__ import annotations

from tests.benches import BrokeredBench, MemoryBench, SqliteBench
from tests.queue.changing_limits import suite
from tests.redis.bench import brokered_redis_bench, redis_bench

MemoryTests = suite("MemoryTests", __name__, lambda case: MemoryBench())
SqliteTests = suite("SqliteTests", __name__, lambda case: SqliteBench())
BrokeredTests = suite("BrokeredTests", __name__, lambda case: BrokeredBench())
RedisTests = suite("RedisTests", __name__, redis_bench)
# Over a broker Redis knows what waits from the acceptance under the limit on.
BrokeredRedisTests = suite("BrokeredRedisTests", __name__, brokered_redis_bench, knows_what_waits=False)
