# -*- test-case-name: tests.pubsub.test_contract -*-
"""What many callers ask for in one turn of the reactor, as one request; and publishes, one request after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

MOST_IDS = 1000
"""In one request: https://cloud.google.com/pubsub/quotas#resource_limits has 512 KiB for all of them."""


class Gathered:
    """Ids that are told to Pub/Sub together. ``tell`` sends them."""

    def __init__(self, clock: IReactorTime, tell: Callable[[Sequence[str]], Deferred[Any]]) -> None:
        self._clock = clock
        self._tell = tell
        self._ids: list[tuple[str, Deferred[None]]] = []

    def add(self, id: str) -> Deferred[None]:
        """Fires once it was told, or fails as ``tell`` does."""
        told: Deferred[None] = Deferred()
        if not self._ids:
            self._clock.callLater(0, self._send)
        self._ids.append((id, told))
        return told

    def _send(self) -> None:
        ids, self._ids = self._ids, []
        for start in range(0, len(ids), MOST_IDS):
            some = ids[start : start + MOST_IDS]
            telling = self._tell([id for id, _ in some])
            waiting = [told for _, told in some]
            telling.addCallbacks(_each_done, _each_failed, (waiting,), {}, (waiting,))


def _each_done(result: object, waiting: Sequence[Deferred[None]]) -> None:
    for told in waiting:
        if not told.called:
            told.callback(None)


def _each_failed(failure: Failure, waiting: Sequence[Deferred[None]]) -> None:
    for told in waiting:
        if not told.called:
            told.errback(failure)


@attrs.frozen(eq=False)
class _Waiting:
    content: bytes
    size: int
    sent: Deferred[None]


class InOrder:
    """Messages of one topic, sent in batches, one after the other, so that they lie in the order in which they came.

    ``send`` sends the contents of a batch, of at most ``most`` messages and ``most_bytes``, one message at least.
    """

    def __init__(self, send: Callable[[Sequence[bytes]], Deferred[Any]], most: int, most_bytes: int) -> None:
        self._send = send
        self._most = most
        self._most_bytes = most_bytes
        self._waiting: deque[_Waiting] = deque()
        self._sending = False

    @property
    def idle(self) -> bool:
        """Whether there is nothing to send."""
        return not self._sending and not self._waiting

    def add(self, content: bytes) -> Deferred[None]:
        """Fires once it was sent, or fails as ``send`` does. One that is cancelled before is never sent."""
        entry = _Waiting(content, len(content), Deferred())
        self._waiting.append(entry)
        return entry.sent

    def flush(self) -> None:
        """Begin to send what was added, unless a batch is on its way: then it goes with the next."""
        batch: list[_Waiting] = []
        size = 0
        while not self._sending and self._waiting and len(batch) < self._most:
            if self._waiting[0].sent.called:  # it was given up
                self._waiting.popleft()
                continue
            size += self._waiting[0].size
            if batch and size > self._most_bytes:
                break
            batch.append(self._waiting.popleft())
        if not batch:
            return
        self._sending = True
        waiting = [each.sent for each in batch]
        sending = self._send([each.content for each in batch])
        sending.addCallbacks(_each_done, _each_failed, (waiting,), {}, (waiting,)).addBoth(self._next)

    def _next(self, result: object) -> None:
        self._sending = False
        self.flush()
