# -*- test-case-name: tests.redis.test_rate_limits -*-
"""Counts in Redis what all processes together let their callers take of rate limits, by Redis's time."""

from __future__ import annotations

from collections.abc import Sequence

from openhqm.redis.connection import Redis
from openhqm.runtime.deferreds import deferred

SILENT_SECONDS = 10.0
"""A process that has said nothing for so long keeps no limits any more."""


class Taken:
    """See `openhqm.queue.backend.CountTaken`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    @deferred
    async def __call__(self, taken: Sequence[tuple[bytes, float]]) -> tuple[int, Sequence[float]]:
        values = [value for name, seconds in taken for value in (name, repr(seconds))]
        processes, *owed = await self._redis.run("taken", self._redis.process, SILENT_SECONDS, *values)
        return int(processes), [float(each) for each in owed]
