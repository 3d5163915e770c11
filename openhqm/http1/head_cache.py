# -*- test-case-name: tests.http1.test_head_cache -*-
"""A cache of request heads by their bytes: clients mostly send the same head again, and need not be parsed again."""

from __future__ import annotations

from openhqm.http1.rules import Head

MOST_CACHED = 1024
LONGEST_CACHED = 2048
MOST_SEEN = 4096
_END = b"\r\n\r\n"


class HeadCache:
    """Heads of recent requests that came in one piece, each alone, and left their connection open.

    A head is cached when it has come twice: where all of a client's heads differ, as with guessed credentials, they
    take the place of no others. A full cache is emptied. A head is found by all its bytes, so that one with a
    credential stands for no other credential. Whether that is good is not cached here: each request asks.
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}
        self._seen: set[int] = set()  # hashes of heads that have come once

    def find(self, data: bytes) -> tuple[Head, bytes] | None:
        """The head and the body of the request, where ``data`` is one complete request whose head is cached."""
        end = data.find(_END, 0, LONGEST_CACHED) + 4
        head = self._heads.get(data[:end])
        if head is None or len(data) - end != head.length:
            return None
        return head, data[end:]

    def add(self, data: bytes, head: Head) -> None:
        """Cache ``head``, where ``data`` is exactly one complete request with this head.

        ``data`` begins and ends between two requests; ``head`` is that of the last request in it.
        """
        end = data.find(_END, 0, LONGEST_CACHED) + 4
        # Only where data is one request alone does the body have the length of what follows the first empty line.
        if len(data) - end != head.length or head.expects_continue:
            return
        found = data[:end]
        mark = hash(found)
        if mark not in self._seen:
            if len(self._seen) >= MOST_SEEN:
                self._seen.clear()
            self._seen.add(mark)
            return
        if len(self._heads) >= MOST_CACHED:
            self._heads.clear()
        self._heads[found] = head
