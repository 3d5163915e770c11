# -*- test-case-name: tests.brokered.test_brokered -*-
"""Counting messages that a broker has delivered again although their work had begun, or had ended, before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from openhqm.errors import NotDurable
from openhqm.messages import Status
from openhqm.queue.ledger import Attempt, Incoming, Ledger
from openhqm.runtime.deferreds import shielded

_BY_ITSELF = (Status.CANCELLED.value, Status.TIMEOUT.value)
"""How a request ends whose message may come for the first time after that."""


class Redeliveries:
    """``on_redelivered`` are functions without arguments, called for each such message."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.on_redelivered: list[Callable[[], object]] = []

    def begun(self, incoming: Incoming, attempt: Attempt) -> None:
        """Each decision to publish a message allows one attempt: a later one has begun the same message again."""
        if attempt.attempt > incoming.generation + 1:
            self.count()

    def worth_nothing(self, incoming: Incoming) -> None:
        """The ledger had no use for a message. It is counted, unless its request has ended while it waited."""
        if self.on_redelivered:
            shielded(self._look(incoming.number)).addErrback(_not_told)

    async def _look(self, number: int) -> None:
        if await self._ledger.ending(number) not in _BY_ITSELF:
            self.count()

    def count(self) -> None:
        """One was delivered again."""
        for call in self.on_redelivered:
            call()


def _not_told(failure: Any) -> None:
    """It is not counted where the ledger cannot be asked."""
    failure.trap(NotDurable)
