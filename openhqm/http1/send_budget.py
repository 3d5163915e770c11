# -*- test-case-name: tests.http1.test_send_budget -*-
"""A bound on the bytes of responses that wait in memory for slow readers, over all connections of a site."""

from __future__ import annotations

from typing import Protocol

from openhqm.http1.backpressure import LATE_SECONDS

SMALL = 64 * 1024  # a response up to this size fits into the buffer that each connection has anyway
SENDING = "the server holds as many bytes of unsent answers as it can; try again later"


class _Connection(Protocol):
    waiting: int

    @property
    def late(self) -> float:
        """For how many seconds the peer is behind the rate at which it has to read."""

    def cut_off(self) -> object:
        """Close the connection now: its peer reads too slowly."""


class SendBudget:
    """Counts what waits in the full buffers of connections: at most about ``most`` bytes.

    Where more is to be sent, the memory of connections is taken whose peers read too slowly (`LATE_SECONDS`). Where
    none does, `has_room` says no, and the response has to be given another time. A single response is always sent,
    however large.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.waiting = 0
        self._connections: set[_Connection] = set()

    def count(self, connection: _Connection, waiting: int) -> None:
        """``waiting`` bytes wait on ``connection``, whose buffer is full. 0: it is not full, or the connection is lost.

        What exceeds the bound without having been asked for ends connections, too, where their peers are late.
        """
        if waiting == connection.waiting:
            return
        self.waiting += waiting - connection.waiting
        grown = waiting > connection.waiting
        connection.waiting = waiting
        if waiting:
            self._connections.add(connection)
            if grown:
                self._make_room(0)
        else:
            self._connections.discard(connection)

    def has_room(self, size: int) -> bool:
        """Whether a response of ``size`` bytes may be sent. This may cut off other connections."""
        return size <= SMALL or self._make_room(size)

    def _make_room(self, size: int) -> bool:
        while self.waiting and self.waiting + size > self.most:
            latest = max(self._connections, key=lambda connection: connection.late)
            if latest.late < LATE_SECONDS:
                return False
            self.count(latest, 0)
            latest.cut_off()
        return True
