# -*- test-case-name: tests.http1.test_head_cache,tests.http1.test_upstream -*-
"""A cache of heads by their bytes: a client or a server mostly sends the same one again, and it is not parsed again."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

MOST_CACHED = 1024
LONGEST_CACHED = 2048
MOST_SEEN = 4096
_END = b"\r\n\r\n"


class Announcing(Protocol):
    """A head that announces the length of its body."""

    @property
    def length(self) -> int | None:
        """In bytes."""


T = TypeVar("T", bound=Announcing)


class HeadCache(Generic[T]):
    """The heads of up to ``most`` recent messages that came in one piece, each alone, and left their connection open.

    A head is cached when it has come twice: where all of a client's heads differ, as with guessed credentials, they
    take the place of no others. A full cache is emptied. A head is found by all its bytes, so that one with a
    credential stands for no other credential. Whether that is good is not cached here: each request asks.
    """

    def __init__(self, most: int = MOST_CACHED) -> None:
        self._most = most
        self._heads: dict[bytes, T] = {}
        self._seen: set[int] = set()  # hashes of heads that have come once

    def find(self, data: bytes) -> tuple[T, bytes] | None:
        """The head and the body of the message, where ``data`` is one complete message whose head is cached."""
        end = data.find(_END, 0, LONGEST_CACHED) + 4
        head = self._heads.get(data[:end])
        if head is None or len(data) - end != head.length:
            return None
        return head, data[end:]

    def add(self, data: bytes, head: T) -> None:
        """Cache ``head``, where ``data`` is exactly one complete message with this head.

        ``data`` begins and ends between two messages; ``head`` is that of the last message in it.
        """
        end = data.find(_END, 0, LONGEST_CACHED) + 4
        # Only where data is one message alone does the body have the length of what follows the first empty line.
        if len(data) - end != head.length:
            return
        found = data[:end]
        mark = hash(found)
        if mark not in self._seen:
            if len(self._seen) >= MOST_SEEN:
                self._seen.clear()
            self._seen.add(mark)
            return
        if len(self._heads) >= self._most:
            self._heads.clear()
        self._heads[found] = head
