# -*- test-case-name: tests.queue.test_contracts -*-
"""Accepting within `Limits`, alike in every store."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from openhqm.errors import MessageTooLarge, QueueFull
from openhqm.policy.limits import Limits
from openhqm.runtime.deferreds import deferred

T = TypeVar("T")
MOST_TRIES = 20
"""Other processes accept at the same time, and may take the room that was made."""
LOWERED = "queue.limits is lower than what was open"
_log = Logger()


@deferred
async def accept_within(limits: Limits, size: int, accept: Callable[[], Deferred[T | QueueFull]]) -> T:
    """What ``accept`` fires with; `QueueFull` where there is no room for ``size`` bytes.

    `MessageTooLarge`: there would be none in an empty queue.
    """
    if limits.bytes is not None and size > limits.bytes:
        raise MessageTooLarge(size, limits.bytes)
    accepted = await accept()
    if isinstance(accepted, QueueFull):
        raise accepted
    return accepted


def no_repeat() -> QueueFull:
    """What a claim for repeats only is answered with, where its key is free."""
    return QueueFull("queue.limits: only repeats are accepted now")


class RoomMaker:
    """Drops what has waited longest, where a store cannot do so in the step that accepts.

    ``drop`` ends requests until there is room for so many bytes, and fires with how many; None: nothing can be dropped.

    One request after the other has room made for it, and what comes meanwhile waits behind it: else one would take the
    room that was made for another.
    """

    def __init__(self, drop: Callable[[int], Deferred[int | None]]) -> None:
        self._drop = drop
        self._turns = DeferredLock()

    @deferred
    async def accept(self, size: int, accept: Callable[[], Deferred[T | QueueFull]]) -> T | QueueFull:
        """What ``accept`` fires with, once there is room, or once there cannot be."""
        if not self._turns.locked:
            accepted = await accept()
            if not isinstance(accepted, QueueFull):
                return accepted
        await self._turns.acquire()
        try:
            for _ in range(MOST_TRIES):
                accepted = await accept()
                if not isinstance(accepted, QueueFull):
                    return accepted
                count = await self._drop(size)
                if count is None:
                    break
                tell_dropped(count, accepted.reason)
            return accepted
        finally:
            self._turns.release()


def tell_dropped(count: int, reason: str) -> None:
    """Log each of the requests that were dropped because of ``reason``. The log counts lines that repeat."""
    for _ in range(count):
        _log.warn("the request that had waited longest was dropped: {reason}", reason=reason)


def tell_expired(count: int, seconds: float) -> None:
    """Log each of the requests that have waited for longer than ``seconds``. The log counts lines that repeat."""
    for _ in range(count):
        _log.warn("a request waited for too long and has ended: queue.limits.age_seconds is {seconds}", seconds=seconds)
