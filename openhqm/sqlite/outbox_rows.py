# -*- test-case-name: tests.brokered.test_brokered -*-
"""The outbox of the embedded file: which message of a request is to be published, and when.

An entry is a row of ``outbox`` from the acceptance to the first attempt, and again from a retry to the next one. What
was accepted for later gets its row when it is to be published (`openhqm.sqlite.journal`). The requests of a partition
stand in ``line``: one of them has a message in the broker, the others wait behind it.

Everything here runs inside an operation of `SqliteFile.write`, but for what only reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import apsw
from twisted.internet.interfaces import IReactorTime

from openhqm.codec import decode_request
from openhqm.messages import Reply, Request, Submission
from openhqm.policy.channels import Channels, group_of
from openhqm.policy.limits import Limits
from openhqm.queue.ledger import CLAIM_SECONDS, MOST_COUNTED, Outgoing
from openhqm.sqlite.file import SqliteFile
from openhqm.sqlite.journal import Journal, is_plain
from openhqm.sqlite.results import SqliteResults
from openhqm.sqlite.sql import fetch_all, fetch_one
from openhqm.sqlite.unbegun import Unbegun
from openhqm.sqlite.window import BEHIND, CROWDED, DUE, PUBLISHED, STALE, Window

MOST_RECOVERED = 500


_ENTRIES = (
    "SELECT o.key, channel, generation, claimed, body, coalesce(attempt, 0) FROM outbox o"
    " JOIN messages m ON m.key = o.key LEFT JOIN inflight i ON i.key = o.key WHERE "
)


class OutboxRows:
    """``fell_due`` is called with a time at which an entry falls due, once that is on disk.

    ``window`` is how many messages that were not begun a channel may have; None: as many as come.
    """

    def __init__(
        self,
        file: SqliteFile,
        store: SqliteResults,
        clock: IReactorTime,
        channels: Channels,
        fell_due: Callable[[float], None],
        unbegun: Unbegun,
        journal: Journal,
        window: int | None = None,
    ) -> None:
        self._file = file
        self._store = store
        self._clock = clock
        self._channels = channels
        self._fell_due = fell_due
        self._unbegun = unbegun
        self._journal = journal
        self._window = Window(file, window, lambda pause: fell_due(clock.seconds() + pause))
        self._queue = -1

    def start(self, queue: int) -> None:
        """After a start: what the process before had claimed, or was working on, is not any more.

        What workers without a store have begun they still work on.

        ``queue`` is the number of the queue whose requests wait in the broker.
        """
        self._queue = queue
        self._journal.start()
        self._file.write_now(self._window.start)
        self._file.write_now(self._start)

    def _start(self, connection: apsw.Connection) -> None:
        with connection:
            connection.execute("UPDATE outbox SET due = 0 WHERE state = ? AND claimed = 1", (DUE,))
            for key, body in fetch_all(
                connection,
                "SELECT i.key, body FROM inflight i JOIN messages m ON m.key = i.key"
                " WHERE queue = ? AND i.key NOT IN (SELECT key FROM outbox) AND i.key NOT IN (SELECT key FROM steps)",
                (self._queue,),
            ):
                generation = self.generation(connection, key)
                self._put(connection, key, PUBLISHED, self._clock.seconds(), self._channel(body), generation)

    # From the acceptance to the broker

    def adds_at_once(self, submission: Submission, follow_ups: Sequence[Submission], limits: Limits) -> bool:
        """Whether a submission without a claim needs no more than its record and an entry, which is published now."""
        known = self._window.size is None and self._journal.knows_queue(submission)
        return known and is_plain(submission, follow_ups, limits)

    def add(self, connection: apsw.Connection, outgoing: Outgoing, now: float, told: bool, at_once: bool) -> bool:
        """An entry for a new request. True: the outbox publishes it later. Else the caller does."""
        submission = outgoing.request.submission
        state, due, claimed = DUE, now + CLAIM_SECONDS, True
        not_before = max(submission.not_before or now, now)
        if not_before <= now and not self._joins(connection, outgoing.number, self._channels.line(submission)):
            state, claimed = BEHIND, False
        elif not_before > now or not at_once:
            due, claimed = not_before, False
            self._file.after_commit(lambda: self._fell_due(due))
        elif not self._window.has_room(connection, outgoing.channel):
            state, due, claimed = CROWDED, now, False
            self._window.waits()
        connection.execute(
            "INSERT INTO outbox (key, state, due, channel, generation, claimed, told) VALUES (?, ?, ?, ?, 0, ?, ?)",
            (outgoing.number, state, due, outgoing.channel, claimed, told),
        )
        self._unbegun.add(connection, outgoing.number, not_before)
        return not claimed

    def published(self, connection: apsw.Connection, entries: Sequence[tuple[int, int]]) -> None:
        """The broker has these messages."""
        now = self._clock.seconds()
        connection.executemany(
            "UPDATE outbox SET state = ?, due = ? WHERE key = ? AND generation = ? AND state = ?",
            [(PUBLISHED, now, key, generation, DUE) for key, generation in entries],
        )

    def not_published(self, connection: apsw.Connection, entries: Sequence[tuple[int, int]]) -> None:
        """The claims on these are over: they are due, and keep the room that they have."""
        now = self._clock.seconds()
        connection.executemany(
            f"UPDATE outbox SET due = ? WHERE key = ? AND generation = ? AND state = {DUE} AND claimed = 1",
            [(now, key, generation) for key, generation in entries],
        )

    def take_due(self, connection: apsw.Connection, most: int) -> Sequence[Outgoing]:
        """Claim what is due, and what there is room for by now."""
        self._journal.adopt(connection, most)
        taken = self._take_crowded(connection, most)
        # A literal: for a value that is bound SQLite does not use the index on what is due.
        due = f"state = {DUE} AND o.due <= ? ORDER BY o.due LIMIT ?"
        for key, channel, generation, claimed, body, attempt in fetch_all(
            connection, _ENTRIES + due, (self._clock.seconds(), most - len(taken))
        ):
            request = decode_request(body)
            if not claimed and not self._joins(connection, key, self._channels.line(request.submission)):
                connection.execute("UPDATE outbox SET state = ? WHERE key = ?", (BEHIND, key))
            elif not claimed and not self._window.has_room(connection, channel):
                connection.execute("UPDATE outbox SET state = ? WHERE key = ?", (CROWDED, key))
                self._window.waits()
            else:
                if claimed:  # it may have been published, and this is another decision
                    generation += 1
                    self._raise_generation(connection, key, generation)
                taken.append(self._claim(connection, Outgoing(key, request, channel, body, generation, attempt)))
        return taken

    def _take_crowded(self, connection: apsw.Connection, most: int) -> list[Outgoing]:
        """Claim what waited for room, of each channel that has some: what waited longest goes first."""
        taken: list[Outgoing] = []
        channel = ""
        while self._window.size is not None and len(taken) < most:
            row = fetch_one(
                connection,
                f"SELECT channel FROM outbox WHERE state = {CROWDED} AND channel > ? ORDER BY channel LIMIT 1",
                (channel,),
            )
            if row is None:
                break
            (channel,) = row
            room = max(0, min(self._window.free(connection, channel), most - len(taken)))
            crowded = f"state = {CROWDED} AND channel = ? ORDER BY o.due, o.key LIMIT ?"
            for key, _, generation, _, body, attempt in fetch_all(connection, _ENTRIES + crowded, (channel, room)):
                entry = Outgoing(key, decode_request(body), channel, body, generation, attempt)
                taken.append(self._claim(connection, entry))
        if not channel:
            self._window.none_wait()
        return taken

    def _claim(self, connection: apsw.Connection, entry: Outgoing) -> Outgoing:
        """This process publishes it now."""
        connection.execute(
            f"UPDATE outbox SET state = {DUE}, due = ?, claimed = 1, generation = ?, told = 1 WHERE key = ?",
            (self._clock.seconds() + CLAIM_SECONDS, entry.generation, entry.number),
        )
        return entry

    def next_due(self) -> float | None:
        """In how many seconds the next entry falls due."""
        if self._journal.holds:
            return 0.0
        row = fetch_one(self._file.reader, "SELECT min(due) FROM outbox WHERE state = 0")
        return None if row[0] is None else max(0.0, row[0] - self._clock.seconds())

    def is_unknown(self, connection: apsw.Connection, key: int) -> bool:
        """Whether neither a caller nor a worker knows of the request."""
        row = fetch_one(connection, "SELECT told FROM outbox WHERE key = ?", (key,))
        return row is not None and not row[0]

    # From one attempt to the next

    def generation(self, connection: apsw.Connection, key: int) -> int:
        """The generation of the message that counts."""
        row = fetch_one(connection, "SELECT generation FROM generations WHERE key = ?", (key,))
        return row[0] if row else 0

    def publish_again(self, connection: apsw.Connection, key: int, delay: float) -> None:
        """A new message counts from now on, and is due in ``delay`` seconds."""
        (body,) = fetch_one(connection, "SELECT body FROM messages WHERE key = ?", (key,))
        generation = self.generation(connection, key) + 1
        self._raise_generation(connection, key, generation)
        due = self._clock.seconds() + delay
        self._put(connection, key, DUE, due, self._channel(body), generation)
        self._file.after_commit(lambda: self._fell_due(due))

    def begun(self, connection: apsw.Connection, key: int) -> None:
        """An attempt is under way: nothing of it is to be published."""
        self._window.begins(connection, key)
        connection.execute("DELETE FROM outbox WHERE key = ?", (key,))
        self._window.freed()

    def passed_over(self, connection: apsw.Connection, key: int) -> None:
        """A worker has got a message that is worth nothing."""
        self._window.passed_over(connection, key)

    def returned(self, connection: apsw.Connection, key: int) -> None:
        """The message waits in its channel again."""
        (body,) = fetch_one(connection, "SELECT body FROM messages WHERE key = ?", (key,))
        generation = self.generation(connection, key)
        self._put(connection, key, PUBLISHED, self._clock.seconds(), self._channel(body), generation)

    def make_due(self, connection: apsw.Connection, key: int, request: Request, due: float) -> None:
        """A request that was held back is to be published, from ``due`` on."""
        self._put(connection, key, DUE, due, self._channels.of(request.submission))
        self._unbegun.add(connection, key, due)
        self._file.after_commit(lambda: self._fell_due(due))

    def ended(self, connection: apsw.Connection, key: int, reply: Reply | None = None) -> None:
        """The request has ended, by whatever cause: nothing of it is to be published; the next of its line may go."""
        connection.execute("DELETE FROM inflight WHERE key = ?", (key,))
        self._window.ended(connection, key)
        self.forget(connection, key)

    def forget(self, connection: apsw.Connection, key: int) -> None:
        """Drop its entry, unless that is stale."""
        self._unbegun.remove(connection, key)
        connection.execute(f"DELETE FROM outbox WHERE key = ? AND state <> {STALE}", (key,))
        for table in ("generations", "steps"):
            connection.execute(f"DELETE FROM {table} WHERE key = ?", (key,))
        self._window.freed()
        row = fetch_one(connection, "SELECT name, out FROM line WHERE key = ?", (key,))
        if row is None:
            return
        name, out = row
        connection.execute("DELETE FROM line WHERE key = ?", (key,))
        if out:
            self._let_next_go(connection, name)

    def count(self, queue: str) -> tuple[int, int]:
        """See `openhqm.queue.ledger.Ledger.count`."""
        if group_of(queue) != queue:
            in_line = "line l JOIN outbox o ON o.key = l.key WHERE name = ?"  # without an entry it is being worked on
            waiting = self._count(f"{in_line} AND state = 0 AND claimed = 0", queue)
            return self._count(in_line, queue) - waiting, waiting
        published = waiting = 0
        for channel in self._channels.names(queue):
            published += self._count("outbox WHERE state = 1 AND channel = ?", channel)
            published += self._count("outbox WHERE state = 0 AND claimed = 1 AND channel = ?", channel)
            if self._window.size is not None:
                published += self._count(f"outbox WHERE state = {CROWDED} AND channel = ?", channel)
            waiting += self._count("outbox WHERE state = 0 AND claimed = 0 AND channel = ?", channel)
            waiting += self._journal.count(channel)
        return published, waiting

    def _count(self, rows: str, name: str) -> int:
        statement = f"SELECT count(*) FROM (SELECT 1 FROM {rows} LIMIT ?)"
        return int(fetch_one(self._file.reader, statement, (name, MOST_COUNTED))[0])

    # What the broker has lost

    def open_channels(self) -> Mapping[str, float]:
        """Since when the oldest message waits in each channel. It costs one look a channel, however many wait."""
        found = self._oldest_in_each(PUBLISHED)
        if self._window.size is not None:
            for channel, since in self._oldest_in_each(STALE).items():
                found[channel] = min(since, found.get(channel, since))
        return found

    def _oldest_in_each(self, state: int) -> dict[str, float]:
        found: dict[str, float] = {}
        # Literals, or SQLite does not use the index.
        next_one = (
            f"SELECT channel, due FROM outbox WHERE state = {state} AND channel > ? ORDER BY channel, due LIMIT 1"
        )
        channel = ""
        while (row := fetch_one(self._file.reader, next_one, (channel,))) is not None:
            channel, found[row[0]] = row
        return found

    def recover(self, connection: apsw.Connection, channel: str) -> int:
        """Publish some of what waited in the channel once more; how many these are."""
        self._window.lost(connection, channel)
        keys = fetch_all(
            connection,
            "SELECT key FROM outbox WHERE state = 1 AND channel = ? ORDER BY due LIMIT ?",
            (channel, MOST_RECOVERED),
        )
        for (key,) in keys:
            self._publish_lost(connection, key)
        return len(keys)

    def recover_begun(self, connection: apsw.Connection, channel: str | None) -> int:
        """The same for what was being worked on: its messages are gone, too.

        None: it is the channel in which workers without a store report, and may have said how their work ended.
        """
        rows = fetch_all(
            connection,
            "SELECT i.key, body FROM inflight i JOIN messages m ON m.key = i.key"
            " WHERE queue = ? AND i.key NOT IN (SELECT key FROM outbox)",
            (self._queue,),
        )
        reported = {key for (key,) in fetch_all(connection, "SELECT DISTINCT key FROM steps")}
        lost = [key for key, body in rows if (key in reported if channel is None else channel == self._channel(body))]
        for key in lost:
            self._publish_lost(connection, key)
        return len(lost)

    def _publish_lost(self, connection: apsw.Connection, key: int) -> None:
        if self._store.has_ended(connection, key):
            self.ended(connection, key)
        else:
            self.publish_again(connection, key, 0.0)

    # Rows

    def _put(
        self,
        connection: apsw.Connection,
        key: int,
        state: int,
        due: float,
        channel: str,
        generation: int = 0,
    ) -> None:
        connection.execute(
            "INSERT INTO outbox (key, state, due, channel, generation, claimed, told) VALUES (?, ?, ?, ?, ?, 0, 1)"
            " ON CONFLICT (key) DO UPDATE SET state = excluded.state, due = excluded.due, channel = excluded.channel,"
            " generation = excluded.generation, claimed = 0, told = 1",
            (key, state, due, channel, generation),
        )
        self._window.freed()

    def _raise_generation(self, connection: apsw.Connection, key: int, generation: int) -> None:
        connection.execute("INSERT OR REPLACE INTO generations VALUES (?, ?)", (key, generation))

    def _joins(self, connection: apsw.Connection, key: int, name: str | None) -> bool:
        """Whether the request may have a message in the broker now; where another one of its line has, it waits."""
        if name is None or fetch_one(connection, "SELECT 1 FROM line WHERE key = ?", (key,)) is not None:
            return True
        free = fetch_one(connection, "SELECT 1 FROM line WHERE name = ? LIMIT 1", (name,)) is None
        connection.execute("INSERT INTO line (key, name, out) VALUES (?, ?, ?)", (key, name, free))
        return free

    def _let_next_go(self, connection: apsw.Connection, name: str) -> None:
        (key,) = fetch_one(connection, "SELECT min(key) FROM line WHERE name = ?", (name,))
        if key is None:
            return
        now = self._clock.seconds()
        connection.execute("UPDATE line SET out = 1 WHERE key = ?", (key,))
        connection.execute("UPDATE outbox SET state = ?, due = ? WHERE key = ?", (DUE, now, key))
        self._file.after_commit(lambda: self._fell_due(now))

    def _channel(self, body: bytes) -> str:
        return self._channels.of(decode_request(body).submission)
