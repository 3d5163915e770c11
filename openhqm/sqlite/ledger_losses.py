# -*- test-case-name: tests.brokered.test_losses -*-
"""What a broker has lost, in the ledger of the embedded file: each request is published again."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import apsw
from twisted.internet.defer import Deferred, maybeDeferred

from openhqm.queue.ledger import Attempt, Recovered
from openhqm.runtime.deferreds import deferred
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.outbox_rows import OutboxRows
from openhqm.sqlite.sql import fetch_one


class LedgerLosses:
    """``reply_channel``: see `SqliteLedger`. ``fell_due`` is called when entries fell due."""

    def __init__(
        self, file: SqliteFile, outbox: OutboxRows, reply_channel: str | None, fell_due: Callable[[], None]
    ) -> None:
        self._file = file
        self._outbox = outbox
        self._reply_channel = reply_channel
        self._fell_due = fell_due

    def open_channels(self) -> Deferred[Mapping[str, float]]:
        """See `openhqm.queue.ledger.Ledger.open_channels`."""
        return maybeDeferred(self._outbox.open_channels)

    def returned(self, attempt: Attempt) -> None:
        """See `openhqm.queue.ledger.Ledger.returned`."""
        self._file.write(lambda connection: self._note_returned(connection, attempt)).addErrback(lambda failure: None)

    def _note_returned(self, connection: apsw.Connection, attempt: Attempt) -> None:
        row = fetch_one(connection, "SELECT attempt FROM inflight WHERE key = ?", (attempt.number,))
        if row is not None and row[0] == attempt.attempt:
            self._outbox.returned(connection, attempt.number)

    @deferred
    async def recover(
        self,
        channel: str,
        is_lost: Callable[[], Deferred[bool]],
        make: Callable[[], Deferred[None]] | None,
        sure: bool,
    ) -> Recovered:
        """See `openhqm.queue.ledger.Ledger.recover`."""
        if not await is_lost():
            return Recovered()
        count = 0
        portion = None
        while portion is None or portion:
            portion = await self._file.write(lambda connection: self._outbox.recover(connection, channel))
            count += portion
        if make is not None:
            begun_in = None if channel == self._reply_channel else channel

            def recover_begun(connection: apsw.Connection) -> int:
                return self._outbox.recover_begun(connection, begun_in)

            count += await self._file.write(recover_begun)
            await make()
        if count:
            self._fell_due()
        return Recovered(count)
