# -*- test-case-name: tests.http1.test_pipeline -*-
"""What was read behind the request that a connection is serving: in order, and bounded in number and in bytes."""

from __future__ import annotations

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


class Pipeline(list[FullRequest | Relay | Refusal]):
    """The requests of one connection that wait for the one before them, and the refusal behind them.

    ``size`` is about the bytes that they take in memory. It is kept by the methods that are defined here. It is a list,
    which takes a tenth of a deque while it is empty, as it is on most connections.
    """

    __slots__ = ("size",)

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def full(self) -> bool:
        """Whether no further request may be read."""
        return len(self) >= MOST_PIPELINED or self.size >= MOST_PIPELINED_BYTES

    def add(self, request: FullRequest | Relay, waits: bool) -> None:
        """Add ``request`` at the end. ``waits``: it is not served at once, so that its head counts, too."""
        if type(request) is FullRequest:
            request.size = len(request.body)
            if waits:
                request.size += head_bytes(request.head)
            self.size += request.size
        self.append(request)

    def popleft(self) -> FullRequest | Relay | Refusal:
        """Take the first."""
        item = list.pop(self, 0)  # super() costs more than the rest
        if type(item) is FullRequest:
            self.size -= item.size
        return item

    def clear(self) -> None:
        """Drop all."""
        super().clear()
        self.size = 0
