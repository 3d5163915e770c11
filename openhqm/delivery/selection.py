# -*- test-case-name: tests.delivery.test_ending_streams -*-
"""What a stream of endings is asked for, and where in the log of endings it goes on."""

from __future__ import annotations

import re

import attrs

from openhqm.messages import LoggedEnding

MOST_IDS = 100
_CURSOR = re.compile(r"([0-9a-f]{16})-([0-9]{1,15})")


@attrs.frozen
class Selection:
    """The endings of the requests with these ids, or with one of these tags; with neither, those of all requests.

    With a ``tenant``, only those of its requests; None: the caller may read all requests.
    """

    ids: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    tenant: str | None = None

    def wants(self, ending: LoggedEnding) -> bool:
        """Whether ``ending`` is one of them."""
        if self.tenant is not None and ending.tenant != self.tenant:
            return False
        if self.ids:
            return ending.correlation_id in self.ids
        return not self.tags or any(tag in self.tags for tag in ending.tags)


@attrs.frozen
class Cursor:
    """All endings up to ``number`` in the log called ``name``."""

    name: str
    number: int

    def __bytes__(self) -> bytes:
        return b"%b-%d" % (self.name.encode(), self.number)


def read_cursor(text: str) -> Cursor | None:
    """The cursor that was given out as ``text``; None where it cannot have been."""
    found = _CURSOR.fullmatch(text)
    return None if found is None else Cursor(found[1], int(found[2]))
