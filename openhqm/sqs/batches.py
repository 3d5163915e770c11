# -*- test-case-name: tests.sqs.test_batches -*-
"""Entries of one kind for one queue, ten of them in a request, each with an outcome of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from openhqm.errors import NotDurable
from openhqm.sqs.errors import entry_error
from openhqm.sqs.messages import MOST_BYTES

MOST_ENTRIES = 10
Send = Callable[[Sequence[dict[str, Any]]], Deferred[Any]]
"""Sends the entries of a batch, and fires with the answer: ``Successful`` and ``Failed``."""


@attrs.define(eq=False)
class _Entry:
    fields: dict[str, Any]
    size: int
    outcome: Deferred[None]


class Batches:
    """What is to be sent to one queue by ``send``. At most ``most`` batches are under way: 1 keeps their order.

    What is added in one turn of the reactor goes together, and so does what comes while others are under way. ``idle``
    is called when there is no more.
    """

    def __init__(
        self, channel: str, send: Send, clock: IReactorTime, most: int, idle: Callable[[], object] = lambda: None
    ) -> None:
        self._channel = channel
        self._send = send
        self._clock = clock
        self._most = most
        self._idle = idle
        self._waiting: deque[_Entry] = deque()
        self._under_way = 0
        self._turn: Any = None

    def add(self, fields: dict[str, Any], size: int = 0) -> Deferred[None]:
        """Send an entry, without ``Id``. Fires once SQS has done it; `NotDurable`. Cancelled before, it is not sent."""
        entry = _Entry(fields, size, Deferred())
        self._waiting.append(entry)
        if self._turn is None:
            self._turn = self._clock.callLater(0, self._begin)
        return entry.outcome

    def _begin(self) -> None:
        self._turn = None
        while self._waiting and self._under_way < self._most:
            batch = self._take()
            if batch:
                self._under_way += 1
                entries = [{"Id": str(number), **each.fields} for number, each in enumerate(batch)]
                sending = self._send(entries).addCallback(_told, batch, self._channel)
                sending.addErrback(_not_told, batch).addBoth(self._ended)
        if not self._waiting and not self._under_way:
            self._idle()

    def _ended(self, result: Any) -> None:
        self._under_way -= 1
        self._begin()

    def _take(self) -> list[_Entry]:
        batch: list[_Entry] = []
        size = 0
        while self._waiting and len(batch) < MOST_ENTRIES:
            entry = self._waiting[0]
            if entry.outcome.called:  # its caller has given up
                self._waiting.popleft()
            elif batch and size + entry.size > MOST_BYTES:
                break
            else:
                batch.append(self._waiting.popleft())
                size += entry.size
        return batch


def _told(answer: Any, batch: Sequence[_Entry], channel: str) -> None:
    done = {each.get("Id") for each in answer.get("Successful") or ()}
    failed = {each.get("Id"): each for each in answer.get("Failed") or ()}
    for number, entry in enumerate(batch):
        id = str(number)
        if entry.outcome.called:
            continue
        if id in failed:
            entry.outcome.errback(entry_error(failed[id], channel))
        elif id in done:
            entry.outcome.callback(None)
        else:
            entry.outcome.errback(NotDurable("SQS said nothing of the message", maybe_done=True))


def _not_told(failure: Failure, batch: Sequence[_Entry]) -> None:
    for entry in batch:
        if not entry.outcome.called:
            entry.outcome.errback(failure.value)
