# -*- test-case-name: tests.sqlite.test_entries,tests.brokered.test_brokered -*-
"""Requests over a broker that need no more than a record and an outbox entry, added while others wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import apsw
from twisted.internet.defer import Deferred

from openhqm.messages import Acceptance
from openhqm.queue.ledger import CLAIM_SECONDS, Outgoing
from openhqm.sqlite.appends import Appends
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.waiting import Refused
from openhqm.sqlite.window import DUE

_INSERT = f"INSERT INTO outbox (key, state, due, channel, generation, claimed, told) VALUES (?, {DUE}, ?, ?, 0, 1, 0)"


class EntryAppends(Appends):
    """As `Appends`. Each has an entry, which this process publishes now."""

    __slots__ = ("_entries",)

    def __init__(self, file: SqliteFile, added: Callable[[int], None]) -> None:
        self._entries: list[tuple[int, float, str]] = []
        super().__init__(file, added)

    def record(self, outgoing: Outgoing, now: float) -> Deferred[Outgoing]:
        """One more. Fires with ``outgoing`` once it is on disk; `NotDurable`."""
        self._entries.append((outgoing.number, now + CLAIM_SECONDS, outgoing.channel))
        return self.add((outgoing.number, now, outgoing.body), outgoing, None)

    def _add_all(self, connection: apsw.Connection) -> Mapping[int, Acceptance | Refused]:
        connection.executemany(_INSERT, self._entries)
        return super()._add_all(connection)

    def _let_go(self) -> list[tuple[Deferred[Any], int, Any]]:
        self._entries = []
        return super()._let_go()
