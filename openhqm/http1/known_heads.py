# -*- test-case-name: tests.http1.test_known_heads -*-
"""Heads that were read before, by their bytes: clients mostly say the same again, and it means the same again."""

from __future__ import annotations

from openhqm.http1.rules import Head

MOST_KNOWN = 256
LONGEST_KNOWN = 1024
_END = b"\r\n\r\n"
_SECRET = {b"authorization", b"cookie", b"proxy-authorization"}


class KnownHeads:
    """The heads that a server has seen lately, of requests that came in one piece and left the connection as it was.

    When there are too many, all are forgotten. What shows who somebody is is not kept at all.
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}

    def find(self, data: bytes) -> tuple[Head, bytes] | None:
        """The head and the body, where ``data`` is one whole request and its head is known."""
        end = data.find(_END, 0, LONGEST_KNOWN) + len(_END)
        head = self._heads.get(data[:end])
        if head is None or len(data) - end != head.length:
            return None
        return head, data[end:]

    def note(self, data: bytes, head: Head) -> None:
        """``data`` was read, from between two requests to between two requests; the last one had ``head``."""
        end = data.find(_END, 0, LONGEST_KNOWN) + len(_END)
        # Only of one request alone is the length that of its body and what stands before the first empty line.
        alone = len(data) - end == head.length and not head.expects_continue
        if alone and not any(name in _SECRET for name, _ in head.headers):
            if len(self._heads) >= MOST_KNOWN:
                self._heads.clear()
            self._heads[data[:end]] = head
