# -*- test-case-name: tests.queue.test_contracts -*-
"""Records and replies in memory: for trying things out, and gone with the process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import msgspec
from msgspec.structs import replace
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from openhqm.errors import AlreadyEnded, ExpiredRequest, UnknownRequest
from openhqm.interfaces import IResultStore
from openhqm.memory.children import Children
from openhqm.memory.claims import Claims
from openhqm.memory.ending_log import MemoryEndingLog
from openhqm.messages import DeadLetter, Event, IdempotencyClaim, Record, Reply, Status
from openhqm.policy.history import PIECE_EVENTS, check_progress
from openhqm.policy.ids import CorrelationIds
from openhqm.queue.endings import cancelled, past_deadline
from openhqm.queue.watchers import Watchers
from openhqm.runtime.timer_queue import TimerQueue


@attrs.define
class _Entry:
    events: list[Event]
    tenant: str | None
    expires: float | None = None
    tags: tuple[str, ...] | None = ()

    @property
    def reply(self) -> Reply | None:
        return self.events[-1].reply


@implementer(IResultStore)
class MemoryResults:
    """The store half of the memory backend. Endings are kept for ``ttl`` seconds."""

    def __init__(self, clock: IReactorTime, ids: CorrelationIds, ttl: float) -> None:
        self._clock = clock
        self._ids = ids
        self.completion_token = ids.completion_token
        self._ttl = ttl
        self._timers = TimerQueue(clock)
        self.claims = Claims(clock, self._timers)
        self._watchers = Watchers()
        self._entries: dict[int, _Entry] = {}
        self._newest = 0
        self.log = MemoryEndingLog(clock)
        self._held: dict[int, list[Callable[[Reply], None]]] = {}
        self.children: Children | None = None
        self.on_ending: list[Callable[[int, str], None]] = []

    def __len__(self) -> int:
        return len(self._entries)

    # IResultStore

    def find(self, correlation_id: str) -> Deferred[Record]:
        return maybeDeferred(self._find, correlation_id)

    def history(self, correlation_id: str, after: int) -> Deferred[Sequence[Event]]:
        # The events are in memory as they are, so that their bytes need not be counted.
        return maybeDeferred(lambda: self._entry(correlation_id).events[max(0, after) :][:PIECE_EVENTS])

    def watch(self, correlation_id: str, listener: Callable[[Event], None]) -> Callable[[], None]:
        return self._watchers.add(correlation_id, listener)

    def cancel(self, correlation_id: str) -> Deferred[Record]:
        return maybeDeferred(self._cancel, correlation_id)

    def end(self, correlation_id: str, reply: Reply) -> Deferred[None]:
        return maybeDeferred(self._end, correlation_id, reply)

    def progress(self, correlation_id: str, detail: dict[str, Any]) -> Deferred[None]:
        return maybeDeferred(self._progress, correlation_id, detail)

    def let_expire(self, claims: Sequence[IdempotencyClaim]) -> Deferred[None]:
        return maybeDeferred(self.claims.let_expire, claims)

    def start(self) -> None:
        """Nothing is left from an earlier process."""

    def stop(self) -> None:
        """Keep no more deadlines."""
        self._timers.stop()

    # For the queue in memory, as part of its own steps

    def note_request(
        self, key: int, now: float, deadline: float | None, tenant: str | None, tags: tuple[str, ...] | None
    ) -> None:
        """A request was accepted. ``tags``: see `openhqm.policy.tags.logged_tags`."""
        self._newest = max(self._newest, key)
        self._entries[key] = _Entry([Event(1, "pending", now)], tenant, tags=tags)
        if deadline is not None:
            self._timers.at(deadline, lambda: self._overdue(key))

    def note_held(self, parent: int, due: Callable[[Reply], None]) -> None:
        """Call ``due`` with the reply once ``parent`` has ended."""
        self._held.setdefault(parent, []).append(due)

    def note_due(self, key: int, now: float, deadline: float | None) -> None:
        """A request that was held back is one of this time."""
        self._entries[key].events[0] = Event(1, "pending", now)
        if deadline is not None:
            self._timers.at(deadline, lambda: self._overdue(key))

    def note_event(self, key: int, type: str, detail: dict[str, Any]) -> None:
        """Add an event to the history; `ValueError` past its limits."""
        entry = self._entries[key]
        number = len(entry.events) + 1
        if type == "progress":
            check_progress(number, msgspec.json.encode(detail))
        self._add(key, entry, Event(number, type, self._clock.seconds(), detail))
        if self.children is not None and type != "progress":
            self.children.happened(key, type, detail)

    def note_step(self, key: int, type: str, detail: dict[str, Any]) -> None:
        """Add what has happened to one of its steps to the history of a request."""
        entry = self._entries[key]
        self._add(key, entry, Event(len(entry.events) + 1, type, self._clock.seconds(), detail))

    def note_ending(self, key: int, reply: Reply) -> bool:
        """Record the ending unless there is one; whether it was recorded."""
        entry = self._entries.get(key)
        if entry is None or entry.reply is not None:
            return False
        entry.expires = reply.completed_at + self._ttl
        self._timers.at(entry.expires, lambda: self._expire(key))
        event = Event(len(entry.events) + 1, reply.status.value.lower(), reply.completed_at, reply=reply)
        self._add(key, entry, event)
        self.log.note(reply.correlation_id, reply.status, entry.tags, entry.tenant)
        for due in self._held.pop(key, ()):
            due(reply)
        if self.children is not None:
            self.children.ended(key, reply)
        for call in self.on_ending:
            call(key, reply.status.value)
        return True

    def with_attempts(self, key: int, letter: DeadLetter) -> DeadLetter:
        """The dead letter of a request, with the times of its attempts."""
        times = [event.at for event in self._entries[key].events if event.type == "processing"]
        return replace(letter, first_attempt_at=min(times), last_attempt_at=max(times)) if times else letter

    def has_ended(self, key: int) -> bool:
        """Whether there is an ending, or was one that expired."""
        entry = self._entries.get(key)
        return entry is None or entry.reply is not None

    def _add(self, key: int, entry: _Entry, event: Event) -> None:
        entry.events.append(event)
        if self._watchers:
            self._watchers.tell(self._ids.issue(key), event)

    def _entry(self, correlation_id: str) -> _Entry:
        key = self._ids.number(correlation_id)
        if key is None or key > self._newest:
            raise UnknownRequest(correlation_id)
        if key not in self._entries:
            raise ExpiredRequest(correlation_id)
        return self._entries[key]

    def _find(self, correlation_id: str) -> Record:
        entry = self._entry(correlation_id)
        correlation_id = correlation_id.lower()  # as it was given out
        key = self._ids.number(correlation_id)
        children = () if self.children is None or key is None else self.children.states(key)
        submitted_at = entry.events[0].at
        steps = [event for event in entry.events if event.type != "progress"]
        last = steps[-1]
        if last.reply is not None:
            reply = last.reply
            return Record(
                correlation_id,
                reply.status,
                submitted_at,
                last.at,
                reply.attempt,
                None,
                reply,
                entry.expires,
                entry.tenant,
                children,
            )
        status = Status.PENDING if last.number == 1 else Status.PROCESSING
        return Record(
            correlation_id,
            status,
            submitted_at,
            last.at,
            last.detail.get("attempt", 0),
            last.detail.get("next_attempt_at"),
            tenant=entry.tenant,
            children=children,
        )

    def _cancel(self, correlation_id: str) -> Record:
        before = self._find(correlation_id)
        self._end(correlation_id, cancelled(before.correlation_id, self._clock.seconds(), before.attempt))
        return before

    def _end(self, correlation_id: str, reply: Reply) -> None:
        self.note_ending(self._open(correlation_id), reply)

    def _progress(self, correlation_id: str, detail: dict[str, Any]) -> None:
        self.note_event(self._open(correlation_id), "progress", detail)

    def _open(self, correlation_id: str) -> int:
        before = self._find(correlation_id)
        key = self._ids.number(correlation_id)
        if key is None or before.reply is not None:
            raise AlreadyEnded(before.correlation_id, before.status.value)
        return key

    def _expire(self, key: int) -> None:
        del self._entries[key]
        if self.children is not None:
            self.children.forget(key)

    def _overdue(self, key: int) -> None:
        if not self.has_ended(key):
            correlation_id = self._ids.issue(key)
            attempt = self._find(correlation_id).attempt
            self.note_ending(key, past_deadline(correlation_id, self._clock.seconds(), attempt))
