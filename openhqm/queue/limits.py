# -*- test-case-name: tests.queue.test_contracts -*-
"""Accepting within `Limits`, alike in every store."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from openhqm.errors import MessageTooLarge, QueueFull
from openhqm.policy.limits import Limits
from openhqm.runtime.deferreds import deferred

T = TypeVar("T")
MOST_TRIES = 20
"""Others accept at the same time, and may take the room that was made."""
_log = Logger()


@deferred
async def accept_within(
    limits: Limits,
    size: int,
    accept: Callable[[], Deferred[T | QueueFull]],
    drop: Callable[[int], Deferred[int | None]],
) -> T:
    """What ``accept`` fires with; `QueueFull` where there is no room for ``size`` bytes.

    `MessageTooLarge`: there would be none in an empty queue.

    ``drop`` makes room: it ends what has waited longest, and fires with how many requests that were. None: it cannot.
    """
    if limits.bytes is not None and size > limits.bytes:
        raise MessageTooLarge(size, limits.bytes)
    tries = MOST_TRIES if limits.drop_oldest else 1
    while True:
        accepted = await accept()
        tries -= 1
        if not isinstance(accepted, QueueFull):
            return accepted
        if not tries:
            raise accepted
        count = await drop(size)
        if count is None:
            raise accepted
        if count:
            text = "{count} requests that had waited longest were dropped: {reason}"
            _log.warn(text, count=count, reason=accepted.reason)
