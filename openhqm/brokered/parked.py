# -*- test-case-name: tests.brokered.test_brokered -*-
"""Copies that are kept unacknowledged until their retry is due, so that nothing of their queue overtakes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.interfaces import IReactorTime

from openhqm.interfaces.legacy import IBrokerDelivery


@attrs.define(eq=False)
class _Entry:
    copy: IBrokerDelivery
    timer: Any
    due: bool = False


class Held:
    """By the number of the request. ``due`` is called when one may go."""

    def __init__(self, clock: IReactorTime, due: Callable[[], None]) -> None:
        self._clock = clock
        self._due = due
        self._entries: dict[int, _Entry] = {}

    def __iter__(self) -> Any:
        return iter(list(self._entries))

    def add(self, number: int, copy: IBrokerDelivery, delay: float) -> None:
        """Keep ``copy`` for ``delay`` seconds, or until the broker takes it back."""

        def ring() -> None:
            entry.due = True
            self._due()

        entry = self._entries[number] = _Entry(copy, self._clock.callLater(max(0.0, delay), ring))

        def taken_back(reason: str) -> str:
            if self._entries.get(number) is entry:
                self.remove(number)
            return reason

        copy.taken_back.addCallback(taken_back)

    def get(self, number: int) -> IBrokerDelivery | None:
        """The copy that is held, or None."""
        entry = self._entries.get(number)
        return None if entry is None else entry.copy

    def take(self) -> IBrokerDelivery | None:
        """One that is due; it is held no more."""
        for number, entry in self._entries.items():
            if entry.due:
                return self.remove(number)
        return None

    def remove(self, number: int) -> IBrokerDelivery | None:
        """Hold it no more, if it was held."""
        entry = self._entries.pop(number, None)
        if entry is None:
            return None
        if entry.timer.active():
            entry.timer.cancel()
        return entry.copy

    def stop(self) -> None:
        """Hold nothing more: what was held goes back with the connection."""
        for number in self:
            self.remove(number)
