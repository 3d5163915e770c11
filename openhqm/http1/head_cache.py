# -*- test-case-name: tests.http1.test_head_cache -*-
"""A cache of request heads by their bytes: clients mostly send the same head again, and need not be parsed again."""

from __future__ import annotations

import re

import attrs

from openhqm.http1.rules import Head

MOST_CACHED = 256
LONGEST_CACHED = 1024
LONGEST_CREDENTIAL = 8 * 1024 + 64
_END = b"\r\n\r\n"
_SECRET = {b"authorization", b"cookie", b"proxy-authorization", b"openhqm-key"}
_CUT_OUT = {b"authorization", b"openhqm-key"}
# A line that every parser reads the same: visible characters, and one space in front of the value and within it.
_LINE = re.compile(rb"\r\n((?i:Authorization|OpenHQM-Key)): ((?:[!-~]+ )?[!-~]+)(?=\r\n)")


class HeadCache:
    """Heads of recent requests that came in one piece, each alone, and left their connection open.

    A full cache is emptied. Credentials are not kept: a head with one line of them is cached without that line, and is
    found for every credential that stands in the same place. Heads with several, or with others, are not cached.
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}
        self._without_credential: dict[bytes, Head] = {}

    def find(self, data: bytes) -> tuple[Head, bytes] | None:
        """The head and the body of the request, where ``data`` is one complete request whose head is cached."""
        end = data.find(_END, 0, LONGEST_CACHED + LONGEST_CREDENTIAL) + 4
        head = self._heads.get(data[:end])
        if head is None:
            if not self._without_credential or (line := _LINE.search(data, 0, end)) is None:
                return None
            first, last = line.span()
            head = self._without_credential.get(data[:first] + data[last:end])
            if head is None or len(data) - end != head.length:
                return None
            return _with(head, (line[1].lower(), line[2])), data[end:]
        if len(data) - end != head.length:
            return None
        return head, data[end:]

    def add(self, data: bytes, head: Head) -> None:
        """Cache ``head``, where ``data`` is exactly one complete request with this head.

        ``data`` begins and ends between two requests; ``head`` is that of the last request in it.
        """
        end = data.find(_END, 0, LONGEST_CACHED + LONGEST_CREDENTIAL) + len(_END)
        # Only where data is one request alone does the body have the length of what follows the first empty line.
        if len(data) - end != head.length or head.expects_continue:
            return
        secrets = [field for field in head.headers if field[0] in _SECRET]
        if not secrets:
            if end <= LONGEST_CACHED:
                self._make_room()
                self._heads[data[:end]] = head
            return
        line = _LINE.search(data, 0, end)
        if len(secrets) == 1 and secrets[0][0] in _CUT_OUT and line is not None:
            rest = data[: line.start()] + data[line.end() : end]
            if secrets[0] == (line[1].lower(), line[2]) and len(rest) <= LONGEST_CACHED:
                self._make_room()
                self._without_credential[rest] = attrs.evolve(
                    head, headers=[field for field in head.headers if field is not secrets[0]]
                )

    def _make_room(self) -> None:
        if len(self._heads) + len(self._without_credential) >= MOST_CACHED:
            self._heads.clear()
            self._without_credential.clear()


def _with(head: Head, field: tuple[bytes, bytes]) -> Head:
    """The head with one field more. Fields of different names have no order (RFC 9110, section 5.3)."""
    return Head(head.method, head.target, head.version, [*head.headers, field], head.length, head.expects_continue)
