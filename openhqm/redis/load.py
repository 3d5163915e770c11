# -*- test-case-name: tests.redis.test_contract -*-
"""How much of a Redis has not ended, and the limits on it, which the scripts that accept look at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from openhqm.codec import encode_reply
from openhqm.errors import QueueFull
from openhqm.messages import Load
from openhqm.policy.foreign import reply_fields
from openhqm.policy.limits import Limits
from openhqm.queue.endings import dropped
from openhqm.queue.limits import RoomMaker, accept_within
from openhqm.redis.connection import Redis
from openhqm.runtime.deferreds import deferred

T = TypeVar("T")
MOST_DROPPED = 1000


class RedisLoad:
    """What is open in ``redis``, for all processes that share it, kept within ``limits``."""

    def __init__(self, redis: Redis, ttl: float, limits: Limits) -> None:
        self.limits = limits
        limited = (_optional(limits.requests), _optional(limits.bytes))
        self.values = (*limited, "")
        """For the scripts that accept."""
        self.exempt = (*limited, "1")
        """The same for what counts, and is never refused."""
        self._redis = redis
        self._ttl = ttl
        self._room = RoomMaker(self._make_room)

    @deferred
    async def read(self) -> Load | None:
        """See `IMessageQueue.load`."""
        if not self.limits.any:
            return None
        found = await self._redis.command("HMGET", f"{self._redis.prefix}load", "requests", "bytes")
        return Load(*(int(value or 0) for value in found))

    def refusal(self, answer: Any) -> QueueFull:
        """What the answer of a script that found no room says."""
        load = Load(int(answer[1]), int(answer[2]))
        return self.limits.refusal(load, self.limits.bytes or 0) or QueueFull("queue.limits")

    def accept(self, size: int, accept: Callable[[], Deferred[T | QueueFull]]) -> Deferred[T]:
        """What ``accept`` fires with, within the limits; see `accept_within`."""
        if not self.limits.drop_oldest:
            return accept_within(self.limits, size, accept)
        return accept_within(self.limits, size, lambda: self._room.accept(size, accept))

    @deferred
    async def _make_room(self, size: int) -> int | None:
        """End what has waited longest until there is room for ``size`` bytes; how many requests that were.

        None: nothing waits that could be dropped. Another process may take the room that was made.
        """
        count = 0
        while count < MOST_DROPPED:
            load = await self.read()
            if load is None or self.limits.refusal(load, size) is None:
                return count
            number = int(await self._redis.run("oldest") or 0)
            if not number:
                return count or None
            count += await self._drop(number)
        return count

    async def _drop(self, number: int) -> bool:
        reply = dropped(self._redis.ids.issue(number), self._redis.clock_now())
        status = reply.status.value
        values = (number, status, encode_reply(reply), self._ttl, *reply_fields(reply))
        answer: bytes = await self._redis.run("drop", *values)
        if not answer.startswith(b"1"):
            return False
        self._redis.not_answered(answer, reply.correlation_id)
        self._redis.tell_ending(number, status)
        return True


def _optional(limit: int | None) -> str:
    return "" if limit is None else str(limit)
