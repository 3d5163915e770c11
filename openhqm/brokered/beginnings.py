# -*- test-case-name: tests.brokered.test_brokered,tests.brokered.test_promises -*-
"""The messages whose attempts are being counted: the ledger was asked, and has not answered yet."""

from __future__ import annotations

from openhqm.brokered.prefetched import Prefetched


class Beginning:
    """``ended`` is the status with which the request has ended since the ledger was asked, if it has."""

    __slots__ = ("ended", "message")

    def __init__(self, message: Prefetched) -> None:
        self.message = message
        self.ended: str | None = None


class Beginnings:
    """By the number of the request. Several messages of one may be begun at once, of different generations."""

    def __init__(self) -> None:
        self._under_way: dict[int, list[Beginning]] = {}

    def add(self, message: Prefetched) -> Beginning:
        """The ledger is asked now."""
        beginning = Beginning(message)
        self._under_way.setdefault(message.incoming.number, []).append(beginning)
        return beginning

    def remove(self, beginning: Beginning) -> None:
        """The ledger has answered."""
        number = beginning.message.incoming.number
        self._under_way[number].remove(beginning)
        if not self._under_way[number]:
            del self._under_way[number]

    def ended(self, number: int, status: str) -> None:
        """The request has ended."""
        for beginning in self._under_way.get(number, ()):
            beginning.ended = status

    def messages(self, number: int) -> list[Prefetched]:
        """What is being begun of a request."""
        return [beginning.message for beginning in self._under_way.get(number, ())]
