# -*- test-case-name: tests.http1.test_access -*-
"""What the access log learns of each request on a connection. Without an access log, none of this is made."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.interfaces import IReactorTime

from openhqm.http1.rules import Head


@attrs.frozen
class AccessRecord:
    """One request and the response that it got.

    ``path`` is the request target without its query, because secrets may stand in a query.
    """

    method: str
    path: str
    status: int
    """The status code of the response; 0 where the connection was lost before the response was complete."""
    size: int
    """The bytes of the response's body that were written."""
    seconds: float
    """From when the connection began to serve the request until its response was written.

    The time for which a pipelined request waited behind earlier ones does not count.
    """
    location: bytes | None
    """The ``Location`` field of the response."""


AccessLog = Callable[[AccessRecord], object]
"""Called with the record of each request, once its response was written or its connection was lost."""


class AccessRecorder:
    """Makes the access records of one connection, which serves one request after the other."""

    def __init__(self, access_log: AccessLog, clock: IReactorTime) -> None:
        self._access_log = access_log
        self._clock = clock
        self._head: Head | None = None
        self._began_at = 0.0

    def begin(self, head: Head) -> None:
        """The connection begins to serve the request with this head."""
        self._head = head
        self._began_at = self._clock.seconds()

    def end(self, status: int, size: int, location: bytes | None = None) -> None:
        """The response was written. Does nothing where no request is being served."""
        head, self._head = self._head, None
        if head is not None:
            path = head.target.partition(b"?")[0].decode("ascii")
            seconds = self._clock.seconds() - self._began_at
            self._access_log(AccessRecord(head.method.decode("ascii"), path, status, size, seconds, location))

    def refused(self, status: int) -> None:
        """The connection refused a malformed or incomplete request. Its bytes do not go into the log."""
        self._access_log(AccessRecord("-", "-", status, 0, 0.0, None))

    def lost(self) -> None:
        """The connection was lost: the request that it served, if any, gets no response."""
        self.end(0, 0)
