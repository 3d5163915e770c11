# -*- test-case-name: tests.http1.test_pipeline -*-
"""What was read behind the request that a connection is serving: in order, and bounded in number and in bytes."""

from __future__ import annotations

from collections import deque

from openhqm.http1.messages import FullRequest
from openhqm.http1.pass_through import Relay
from openhqm.http1.rules import Head, Refusal

MOST_PIPELINED = 32
MOST_PIPELINED_BYTES = 1024 * 1024
# What Python's objects take in memory, measured with tracemalloc under CPython 3.11.
_REQUEST_BYTES = 700
_FIELD_BYTES = 130


def head_bytes(head: Head) -> int:
    """About the bytes that the head of a request takes in memory."""
    return _REQUEST_BYTES + sum(_FIELD_BYTES + len(name) + len(value) for name, value in head.headers)


class Pipeline:
    """The requests of one connection that wait for the one before them, and the refusal behind them.

    ``size`` is about the bytes that they take in memory.
    """

    __slots__ = ("_items", "size")

    def __init__(self) -> None:
        self._items: deque[tuple[FullRequest | Relay | Refusal, int]] = deque()
        self.size = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def full(self) -> bool:
        """Whether no further request may be read."""
        return len(self._items) >= MOST_PIPELINED or self.size >= MOST_PIPELINED_BYTES

    def append(self, item: FullRequest | Relay | Refusal, waits: bool = True) -> None:
        """Add ``item`` at the end. ``waits``: it is not served at once, so that its head counts, too."""
        size = 0
        if type(item) is FullRequest:
            size = len(item.body)
            if waits:
                size += head_bytes(item.head)
        self.size += size
        self._items.append((item, size))

    def popleft(self) -> FullRequest | Relay | Refusal:
        """Take the first."""
        item, size = self._items.popleft()
        self.size -= size
        return item

    def remove(self, relay: Relay) -> None:
        """Take out ``relay``."""
        self._items.remove((relay, 0))

    def clear(self) -> None:
        """Drop all."""
        self._items.clear()
        self.size = 0
