# -*- test-case-name: tests.http1.test_access -*-
"""What one connection has to tell of each of its requests, where anybody wants to know: off, none of this is made."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.interfaces import IReactorTime

from openhqm.http1.rules import Head


@attrs.frozen
class Served:
    """One request and what it got. ``path`` is the target without its query, in which secrets may stand."""

    method: str
    path: str
    status: int
    """0 where the connection ended before the answer did."""
    size: int
    """The bytes of the answer's body that were written."""
    seconds: float
    """From its turn, which is when it has come and all before it were answered, until its answer was written."""
    location: bytes | None


Access = Callable[[Served], object]


class Accesses:
    """The requests of one connection, one after the other."""

    def __init__(self, access: Access, clock: IReactorTime) -> None:
        self._access = access
        self._clock = clock
        self._head: Head | None = None
        self._began_at = 0.0

    def begin(self, head: Head) -> None:
        """Its turn has come."""
        self._head = head
        self._began_at = self._clock.seconds()

    def end(self, status: int, size: int, location: bytes | None = None) -> None:
        """Its answer was written."""
        head, self._head = self._head, None
        if head is not None:
            path = head.target.partition(b"?")[0].decode("ascii")
            seconds = self._clock.seconds() - self._began_at
            self._access(Served(head.method.decode("ascii"), path, status, size, seconds, location))

    def refused(self, status: int) -> None:
        """What was no request, or was one in part: none of what was sent is told."""
        self._access(Served("-", "-", status, 0, 0.0, None))

    def lost(self) -> None:
        """Whoever asked has gone."""
        self.end(0, 0)
