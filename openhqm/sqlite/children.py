# -*- test-case-name: tests.queue.test_contracts -*-
"""Requests that consist of steps, in the embedded file: what follows from the ending of a step is in its transaction.

A request that consists of steps is its record, and nothing else. So is each of its steps until it begins. All of this
runs inside an operation of `SqliteFile.write`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import apsw
from msgspec.structs import replace
from twisted.internet.interfaces import IReactorTime

from openhqm.codec import decode_reply, decode_request, encode_reply
from openhqm.messages import Child, ChildState, Reply, Request, Status
from openhqm.policy import children as policy
from openhqm.policy.children import places_of
from openhqm.sqlite.childless import Childless
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.held import Held
from openhqm.sqlite.results import SqliteResults
from openhqm.sqlite.sql import fetch_all, fetch_one

HELD = "HELD"


class Children(Childless):
    """``held`` lets a step begin that was held back. Where no request consists of steps, no ending looks for them."""

    def __init__(self, file: SqliteFile, store: SqliteResults, clock: IReactorTime, held: Held) -> None:
        self._file = file
        self._store = store
        self._clock = clock
        self._held = held
        store.children = self
        self._any = False

    def start(self) -> None:
        """The file is open."""
        self._any = fetch_one(self._file.reader, "SELECT 1 FROM children LIMIT 1") is not None

    def add(self, connection: apsw.Connection, parent: int, children: Sequence[tuple[int, Child]]) -> None:
        """The request ``parent`` consists of ``children``, each with its key; all of them are recorded already."""
        self._any = True
        connection.executemany(
            "INSERT INTO children VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
            [
                (parent, place, key, child.stage, child.name, child.joined, HELD)
                for place, (key, child) in enumerate(children)
            ],
        )
        self._go_on(connection, parent)

    def states(self, connection: apsw.Connection, parent: int) -> tuple[ChildState, ...]:
        """The steps of a request."""
        return tuple(state for _, state in self._rows(connection, parent)) if self._any else ()

    def forget(self, connection: apsw.Connection, key: int) -> None:
        """The record of the request is gone."""
        if self._any:
            connection.execute("DELETE FROM children WHERE parent = ?", (key,))

    def happened(self, connection: apsw.Connection, key: int, type: str, detail: dict[str, Any], at: float) -> None:
        """An attempt at a step begins, or is to be repeated."""
        if (found := self._find(connection, key)) is not None:
            parent, place = found
            self._note(connection, parent, place, Status.PROCESSING, None)
            self._tell(connection, parent, place, type, detail, at)

    def ended(self, connection: apsw.Connection, key: int, reply: Reply) -> None:
        """A request has ended: what follows where it is a step, or consists of some."""
        if not self._any:
            return
        self._end_all(connection, key, reply.status)
        found = self._find(connection, key)
        if found is None:
            return
        parent, place = found
        if self._store.has_ended(connection, parent):
            self._note(connection, parent, place, reply.status, None)
            return
        self._note(connection, parent, place, reply.status, reply)
        detail = {"step_status": reply.status.value}
        self._tell(connection, parent, place, "progress", detail, self._clock.seconds())
        self._go_on(connection, parent)

    def _find(self, connection: apsw.Connection, key: int) -> tuple[int, int] | None:
        """The request that ``key`` is a step of, and its place there."""
        if not self._any:
            return None
        row = fetch_one(connection, "SELECT parent, place FROM children WHERE key = ?", (key,))
        return None if row is None else (row[0], row[1])

    def _rows(self, connection: apsw.Connection, parent: int) -> list[tuple[int, ChildState]]:
        """The key and the state of each step, in order."""
        rows = fetch_all(
            connection,
            "SELECT key, stage, name, joined, status FROM children WHERE parent = ? ORDER BY place",
            (parent,),
        )
        found = []
        for key, stage, name, joined, text in rows:
            status = Status.PENDING if text == HELD else Status(text)
            state = ChildState(self._file.ids.issue(key), stage, name, status, bool(joined), text != HELD)
            found.append((key, state))
        return found

    def _note(self, connection: apsw.Connection, parent: int, place: int, status: Status, reply: Reply | None) -> None:
        connection.execute(
            "UPDATE children SET status = ?, reply = ? WHERE parent = ? AND place = ?",
            (status.value, None if reply is None else encode_reply(reply), parent, place),
        )

    def _tell(
        self, connection: apsw.Connection, parent: int, place: int, type: str, detail: dict[str, Any], at: float
    ) -> None:
        if not self._store.has_ended(connection, parent):
            states = self.states(connection, parent)
            self._store.note_step(connection, parent, type, {**policy.about(states, place), **detail}, at)

    def _end_all(self, connection: apsw.Connection, parent: int, status: Status) -> None:
        """The request has ended: so does each of its steps."""
        now, id = self._clock.seconds(), self._file.ids.issue(parent)
        for key, state in self._rows(connection, parent):
            if not state.status.ended:
                attempt = self._store.attempts(connection, key)
                reply = policy.ended_with_parent(state.correlation_id, id, status, now, attempt)
                self._store.note_ending(connection, key, reply)
        connection.execute("UPDATE children SET reply = NULL WHERE parent = ?", (parent,))

    def _go_on(self, connection: apsw.Connection, parent: int) -> None:
        rows = self._rows(connection, parent)
        states, now = [state for _, state in rows], self._clock.seconds()
        following = policy.what_is_next(self._with_sizes(connection, parent, states))
        if following.failed is not None:
            (reply,) = self._replies(connection, parent, [following.failed])
            request = self._request(connection, parent)
            ending = policy.failed(request.correlation_id, request.submitted_at, states, following.failed, reply, now)
            self._store.note_ending(connection, parent, ending)
        elif following.too_large is not None:
            self._too_large(connection, parent, states, following.too_large)
        elif following.completed:
            self._completed(connection, parent, states, states[-1].stage, 1)
        elif following.begin:
            stage = states[following.begin[0]].stage
            before = None
            if stage > 1:
                before = self._completed(connection, parent, states, stage - 1, len(following.begin))
            if stage == 1 or before is not None:
                self._begin(connection, parent, [(place, rows[place][0]) for place in following.begin], before)

    def _completed(
        self, connection: apsw.Connection, parent: int, states: Sequence[ChildState], stage: int, copies: int
    ) -> Reply | None:
        """What a stage has resulted in, which is the ending where it is the last; None where that is too much."""
        request, now = self._request(connection, parent), self._clock.seconds()
        places = places_of(states, stage)
        reply = policy.outcome(request.correlation_id, states, stage, self._replies(connection, parent, places), now)
        if policy.is_too_large(reply, copies):
            self._too_large(connection, parent, states, stage)
            return None
        connection.execute("UPDATE children SET reply = NULL WHERE parent = ? AND stage = ?", (parent, stage))
        if stage == states[-1].stage:
            ending = policy.completed(request.correlation_id, request.submitted_at, reply, now)
            self._store.note_ending(connection, parent, ending)
        return reply

    def _too_large(self, connection: apsw.Connection, parent: int, states: Sequence[ChildState], stage: int) -> None:
        request, now = self._request(connection, parent), self._clock.seconds()
        ending = policy.too_large(request.correlation_id, request.submitted_at, states, stage, now)
        self._store.note_ending(connection, parent, ending)

    def _with_sizes(
        self, connection: apsw.Connection, parent: int, states: Sequence[ChildState]
    ) -> Sequence[ChildState]:
        """The same, with the sizes of the replies that are kept."""
        kept = "SELECT place, length(reply) FROM children WHERE parent = ? AND reply IS NOT NULL"
        sizes = dict(fetch_all(connection, kept, (parent,)))
        return [replace(state, size=sizes.get(place, 0)) for place, state in enumerate(states)]

    def _begin(
        self, connection: apsw.Connection, parent: int, begin: Sequence[tuple[int, int]], before: Reply | None
    ) -> None:
        request, now = self._request(connection, parent), self._clock.seconds()
        due = max(request.submission.not_before or now, now) if before is None else now
        change = partial(policy.bounded, before=before, deadline=request.deadline, now=now)
        for place, key in begin:
            self._note(connection, parent, place, Status.PENDING, None)
            self._held.let_go(connection, key, change, due)

    def _replies(self, connection: apsw.Connection, parent: int, places: Sequence[int]) -> list[Reply]:
        found = []
        for place in places:
            row = fetch_one(connection, "SELECT reply FROM children WHERE parent = ? AND place = ?", (parent, place))
            found.append(decode_reply(row[0]))
        return found

    def _request(self, connection: apsw.Connection, parent: int) -> Request:
        return decode_request(fetch_one(connection, "SELECT body FROM messages WHERE key = ?", (parent,))[0])
