# -*- test-case-name: tests.redis.test_contract -*-
"""How much of a Redis has not ended, and the limits on it, which the scripts that accept look at."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, gatherResults

from openhqm.codec import encode_reply
from openhqm.errors import QueueFull
from openhqm.messages import Load, Reply
from openhqm.policy.foreign import reply_fields
from openhqm.policy.limits import Limits
from openhqm.queue.endings import dropped, expired
from openhqm.queue.limits import LOWERED, RoomMaker, accept_within, tell_dropped, tell_expired
from openhqm.redis.connection import Redis
from openhqm.runtime.deferreds import deferred

T = TypeVar("T")
MOST_DROPPED = 1000
MOST_ENDED = 100
MOST_LOOKED_AT = 250


class RedisLoad:
    """What is open in ``redis``, for all processes that share it, kept within ``limits``."""

    def __init__(self, redis: Redis, ttl: float, limits: Limits) -> None:
        self._redis = redis
        self._behind: int | None  # up to where `index_open.lua` has looked; None: at everything
        self._ttl = ttl
        self._room = RoomMaker(self._make_room)
        self.limit(limits)

    def limit(self, limits: Limits) -> None:
        """Other limits hold from now on.

        ``values`` are the limits for the scripts that accept, and ``exempt`` those for what counts, and is never
        refused.
        """
        self.limits = limits
        self.values, self.exempt = self._values(""), self._values("1")
        self._behind = 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """What an operator should know of the limits."""
        most, largest = self.limits.bytes, self._redis.promises.largest
        if most is None or largest is None or most <= largest:
            return ()
        return (f"queue.limits.bytes is {most}, and Redis holds {largest} (maxmemory): it is full before the queue is",)

    def _values(self, exempt: str) -> tuple[str, ...]:
        limits = self.limits
        ordered = "1" if limits.ends_what_waits else ""
        return _optional(limits.requests), _optional(limits.bytes), exempt, ordered

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

        None: nothing waits that could be dropped, or the limits are so much lower than they were that `end_some` has to
        go on first. Another process may take the room that was made.
        """
        count = 0
        while count < MOST_DROPPED:
            load = await self.read()
            if load is None or self.limits.refusal(load, size) is None:
                return count
            if self.limits.excess(load, 1, size) > MOST_DROPPED:
                return count or None
            dropped_now = await self._drop_oldest(0.0, 1, dropped)
            if dropped_now is None and not await self._look_through():
                return count or None
            count += dropped_now or 0
        return count

    @deferred
    async def end_some(self) -> bool:
        """End some of what waits for too long, or is too much; whether there may be more of it.

        There is too much where the limits are lower than they were; what comes makes room for itself.
        """
        more = await self._look_through()
        limits = self.limits
        age = limits.age_seconds
        if age is not None:
            found = await self._drop_oldest(age, MOST_ENDED, partial(expired, seconds=age))
            tell_expired(found or 0, age)
            more = more or found is not None
        load = await self.read() if limits.drop_oldest else None
        excess = 0 if load is None else limits.excess(load)
        if excess:
            found = await self._drop_oldest(0.0, min(excess, MOST_ENDED), dropped)
            tell_dropped(found or 0, LOWERED)
            more = more or found is not None
        return more

    async def _look_through(self) -> bool:
        """Look at some of what was accepted where nothing was limited; whether there was some left."""
        limits = self.limits
        if self._behind is None or not (limits.any or limits.ends_what_waits):
            return False
        asked = ("1" if limits.any else "", "1" if limits.ends_what_waits else "")
        self._behind = int(await self._redis.run("index_open", self._behind, MOST_LOOKED_AT, *asked) or 0) or None
        return True

    async def _drop_oldest(self, seconds: float, most: int, ending: Callable[[str, float], Reply]) -> int | None:
        """End up to ``most`` requests that have waited for so long; how many these are. None: there are none."""
        numbers = [int(number) for number in await self._redis.run("oldest", seconds, most)]
        if not numbers:
            return None
        now = self._redis.clock_now()
        return sum(
            await gatherResults(
                [self._drop(number, ending(self._redis.ids.issue(number), now)) for number in numbers],
                consumeErrors=True,
            )
        )

    @deferred
    async def _drop(self, number: int, reply: Reply) -> bool:
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
