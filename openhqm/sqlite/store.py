# -*- test-case-name: tests.queue.test_contracts -*-
"""What a queue in the embedded file asks of the result store in the same file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import apsw

from openhqm.messages import Reply


class Ledger(Protocol):
    """Every method runs inside an operation of `SqliteFile.write`, within the queue's own transaction."""

    on_ending: list[Callable[[int, str], None]]
    """Called with key and status once an ending is durable, whoever caused it."""

    def note_deadline(self, connection: apsw.Connection, key: int, due: float) -> None:
        """The request ends with TIMEOUT when ``due`` comes first."""

    def note_event(
        self, connection: apsw.Connection, key: int, type: str, detail: dict[str, Any], at: float | None = None
    ) -> None:
        """Add an event to the request's history; `ValueError` past its limits. ``at`` is when it was, if not now."""

    def note_ending(self, connection: apsw.Connection, key: int, reply: Reply) -> bool:
        """Record the ending unless there is one; whether it was recorded."""

    def has_ended(self, connection: apsw.Connection, key: int) -> bool:
        """Whether there is an ending."""
