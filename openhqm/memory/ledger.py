# -*- test-case-name: tests.queue.test_contracts -*-
"""What the memory queue asks of the result store beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from openhqm.messages import Reply


class Ledger(Protocol):
    """The store's half for the queue: each call is one step with the queue's own."""

    on_ending: list[Callable[[int, str], None]]
    """Called with key and status at each ending, whoever caused it."""

    def __len__(self) -> int:
        """How many requests are on record."""

    def note_request(self, key: int, now: float, deadline: float | None) -> None:
        """A request was accepted; it ends with TIMEOUT when ``deadline`` comes first."""

    def note_event(self, key: int, type: str, detail: dict[str, Any]) -> None:
        """Add an event to the request's history; `ValueError` past its limits."""

    def note_ending(self, key: int, reply: Reply) -> bool:
        """Record the ending unless there is one; whether it was recorded."""

    def has_ended(self, key: int) -> bool:
        """Whether there is an ending, or was one that expired."""
