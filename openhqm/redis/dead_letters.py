# -*- test-case-name: tests.redis.test_contract -*-
"""The dead letters in Redis: a stream, whose entries have the numbers of the letters for ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace
from twisted.logger import Logger

from openhqm.codec import decode_dead_letter
from openhqm.errors import UnknownRequest
from openhqm.interfaces import DEAD_LETTER_PAGE_BYTES
from openhqm.messages import DeadLetter, Depth
from openhqm.policy.limits import NO_LIMITS, Limits
from openhqm.redis.connection import Redis
from openhqm.runtime.deferreds import deferred

MOST_TRIMMED = 200
LARGEST_NUMBER = 2**64 - 1  # the first part of an entry's id holds no more


class DeadLetters:
    """Those of the dead letter queue ``name``. The scripts add to them at ``key``.

    ``limits`` says how many are kept, and for how long. It may be changed.
    """

    _log = Logger()

    def __init__(self, redis: Redis, name: str, limits: Limits = NO_LIMITS) -> None:
        self._redis = redis
        self.limits = limits
        self.key = f"{redis.prefix}dead:{name}"

    @deferred
    async def listed(self, after: int, most: int) -> Sequence[tuple[int, DeadLetter]]:
        """Those numbered above ``after``, in order: see `IMessageQueue.dead_letters`."""
        if after >= LARGEST_NUMBER:
            return []
        found = await self._redis.run("dead_letters", self.key, max(after, 0) + 1, most, DEAD_LETTER_PAGE_BYTES)
        return [(int(entry[0].partition(b"-")[0]), _letter(entry)) for entry in found]

    @deferred
    async def last(self) -> int:
        """The highest number that one was given."""
        return int(await self._redis.command("GET", f"{self.key}:last") or 0)

    @deferred
    async def find(self, number: int) -> tuple[DeadLetter, tuple[str, str]]:
        """The one with this number, and where it stands: stream and entry. `UnknownRequest`."""
        if not 0 < number <= LARGEST_NUMBER:
            raise UnknownRequest(f"dead letter {number}")
        entry = f"{number}-0"
        found = await self._redis.command("XRANGE", self.key, entry, entry)
        if not found:
            raise UnknownRequest(f"dead letter {number}")
        return _letter(found[0]), (self.key, entry)

    @deferred
    async def drop(self, number: int) -> None:
        """Remove one. `UnknownRequest`."""
        _, (key, entry) = await self.find(number)
        if not await self._redis.command("XDEL", key, entry):
            raise UnknownRequest(f"dead letter {number}")

    @deferred
    async def trim(self) -> bool:
        """Remove some that are too many or too old; whether there may be more of them."""
        if not self.limits.trims:
            return False
        most, seconds = self.limits.dead_letters, self.limits.dead_letter_seconds
        values = ("" if limit is None else repr(limit) for limit in (most, seconds))
        removed, more = await self._redis.run("trim", self.key, *values, MOST_TRIMMED)
        if removed:
            text = "{count} dead letters were removed: queue.limits keeps no more of them, or not for so long"
            self._log.warn(text, count=removed)
        return bool(more)

    @deferred
    async def depth(self) -> Depth:
        """How many there are, and since when."""
        count = await self._redis.command("XLEN", self.key)
        first = await self._redis.command("XRANGE", self.key, "-", "+", "COUNT", 1)
        return Depth(count, 0, 0, float(_fields(first[0])[b"at"]) if first else None)


def _letter(entry: list[Any]) -> DeadLetter:
    """The one in an entry. The times of its attempts stand beside it, where the script knew them."""
    fields = _fields(entry)
    letter = decode_dead_letter(fields[b"letter"])
    if b"first" not in fields and b"last" not in fields:
        return letter
    first, last = (float(fields[name]) if name in fields else None for name in (b"first", b"last"))
    return replace(letter, first_attempt_at=first, last_attempt_at=last)


def _fields(entry: list[Any]) -> dict[bytes, bytes]:
    names = entry[1]
    return dict(zip(names[::2], names[1::2], strict=True))
