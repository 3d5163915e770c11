# -*- test-case-name: tests.brokered.test_brokered -*-
"""What the ledger in the embedded file records and publishes nothing of: see `Ledger.record`.

Follow-ups and steps are such until they are due, and requests that consist of steps always.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import apsw
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from openhqm.errors import QueueFull
from openhqm.messages import Acceptance, Child, IdempotencyClaim, Submission
from openhqm.queue.ledger import Outgoing
from openhqm.sqlite.children import Children
from openhqm.sqlite.claims import drop_claim, take_claim
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.held import Held
from openhqm.sqlite.journal import Journal
from openhqm.sqlite.load import SqliteLoad
from openhqm.sqlite.queue_rows import QueueRows
from openhqm.sqlite.results import SqliteResults
from openhqm.sqlite.unbegun import Unbegun

New = Callable[[Submission, float], Outgoing]


class LedgerChildren:
    """``new`` makes a request of a submission and a time; ``rows`` are those of the ledger, once it has started."""

    rows: QueueRows

    def __init__(
        self,
        file: SqliteFile,
        store: SqliteResults,
        clock: IReactorTime,
        load: SqliteLoad,
        journal: Journal,
        held: Held,
        unbegun: Unbegun,
        new: New,
    ) -> None:
        self._file = file
        self._store = store
        self._clock = clock
        self._load = load
        self._journal = journal
        self._held = held
        self._unbegun = unbegun
        self._new = new
        self._children = Children(file, store, clock, held)

    def start(self, rows: QueueRows) -> None:
        """The file is open."""
        self.rows = rows
        self._children.start()

    def keep(self, connection: apsw.Connection, each: Outgoing) -> int:
        """Within an operation of the file: record a request of which nothing is published now; its key."""
        self._journal.note_queue(connection, each.request.submission)
        self._load.add(connection, len(each.body))
        self.rows.add(connection, each.number, each.request.submitted_at, each.body)
        return each.number

    def record(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        follow_ups: Sequence[Submission],
        children: Sequence[Child],
    ) -> Deferred[Acceptance | QueueFull]:
        """Record a request that consists of steps, unless it is a repeat. `IdempotencyConflict`."""
        now = self._clock.seconds()
        parent = self._new(submission, now)
        key, request = parent.number, parent.request
        held = [self._new(each, now) for each in follow_ups]
        steps = [(self._new(each.submission, now), each) for each in children]
        size = sum((len(step.body) for step, _ in steps), len(parent.body))
        ids = tuple(each.request.correlation_id for each in held)
        acceptance = Acceptance(request.correlation_id, now, follow_ups=ids)

        def add(connection: apsw.Connection) -> Any:
            if claim is not None:
                earlier = take_claim(connection, self._file.ids, claim, key, now)
                if earlier is not None:
                    return earlier
            refusal = self._load.refusal(connection, size, self._unbegun.oldest)
            if refusal is not None:
                if claim is not None:
                    drop_claim(connection, claim, key)
                return refusal
            self.keep(connection, parent)
            if request.deadline is not None:
                self._store.note_deadline(connection, key, request.deadline)
            for each in held:
                self._held.add(connection, key, self.keep(connection, each))
            self._children.add(connection, key, [(self.keep(connection, step), child) for step, child in steps])
            return acceptance

        return self._file.write(add)
