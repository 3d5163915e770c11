"""The stored layout: its number stands for its tables, and it has room for records that no message belongs to."""

from __future__ import annotations

import re
from hashlib import sha256

import apsw
from twisted.trial.unittest import SynchronousTestCase

from openhqm.codec import encode_request
from openhqm.messages import Reply, Request, Status, Submission
from openhqm.sqlite.queue_rows import QueueRows
from openhqm.sqlite.schema import DELAYED, TABLES, VERSION
from openhqm.testing import REQUESTS, TTL
from tests.benches import BrokeredBench, SqliteBench

KNOWN = {3: "9436bbc1eae06425", 4: "41b146286dd94ec9", 5: "41b146286dd94ec9"}
"""The tables of each layout, without comments and white space."""
ADDED_BY_4 = "children"


class LayoutTests(SynchronousTestCase):
    def test_number(self) -> None:
        """Other tables are another layout, for a process of before would read them wrongly."""
        statements = re.sub(r"\s+", "", re.sub(r"--.*", "", TABLES))
        self.assertEqual(sha256(statements.encode()).hexdigest()[:16], KNOWN[VERSION])

    def test_step_up(self) -> None:
        """A file of layout 3 becomes one of today, with the tables of one, and keeps what it has."""
        bench = SqliteBench()
        self.addCleanup(bench.close)
        fresh = self._tables(bench.file.connection)
        id = self.successResultOf(bench.done(bench.queue.accept(Submission(b"1"), None))).correlation_id
        bench.file.connection.execute(f"DROP TABLE {ADDED_BY_4}; PRAGMA user_version = 3")
        bench.crash()
        self.assertEqual(self._tables(bench.file.connection), fresh)
        self.assertEqual(bench.file.connection.execute("PRAGMA user_version").fetchone(), (VERSION,))
        (delivery,) = self.successResultOf(bench.done(bench.queue.receive(REQUESTS, 1)))
        self.assertEqual(delivery.request.correlation_id, id)

    def test_journaled(self) -> None:
        """One of layout 4 is one of layout 5: what was accepted for later has its outbox entry, and is published."""
        bench = BrokeredBench(journaled=True)
        self.addCleanup(lambda: bench.close())
        bench.server.go_away()
        id = self.successResultOf(bench.done(bench.queue.accept(Submission(b"1"), None))).correlation_id
        bench.file.connection.execute("DELETE FROM queues WHERE name LIKE 'journal of %'; PRAGMA user_version = 4")
        bench.crash()
        self.assertEqual(bench.file.connection.execute("PRAGMA user_version").fetchone(), (VERSION,))
        bench.server.come_back()
        bench.pass_time(6)
        (delivery,) = self.successResultOf(bench.done(bench.queue.receive(REQUESTS, 1)))
        self.assertEqual(delivery.request.correlation_id, id)

    def _tables(self, connection: apsw.Connection) -> dict[str, str]:
        """What each table and index is made by."""
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        return {name: re.sub(r"\s+", "", sql) for name, sql in rows}

    def test_parent_record(self) -> None:
        """A record without a message is known, is never delivered, survives a kill, and ends once (decision 48)."""
        bench = SqliteBench()
        self.addCleanup(bench.close)
        rows = QueueRows(bench.file, bench.store, REQUESTS)
        key = rows.next_key(DELAYED)
        id, at = bench.file.ids.issue(key), bench.now()

        def add(connection: apsw.Connection) -> None:
            rows.add(connection, key, at, encode_request(Request(id, at, Submission(b"null"))))

        self.successResultOf(bench.done(bench.file.write(add)))
        bench.crash()
        self.assertNoResult(bench.queue.receive(REQUESTS, 1))
        bench.pass_time(100 * TTL)
        self.assertEqual(self.successResultOf(bench.store.find(id)).status, Status.PENDING)
        self.assertEqual(self.successResultOf(bench.queue.depth(REQUESTS)).ready, 0)
        reply = Reply(id, Status.COMPLETED, bench.now(), b"[1, 2]")

        def end(connection: apsw.Connection) -> bool:
            return bench.store.note_ending(connection, key, reply)

        for first in (True, False):
            self.assertEqual(self.successResultOf(bench.done(bench.file.write(end))), first)
        self.assertEqual(self.successResultOf(bench.store.find(id)).reply, reply)
        events = self.successResultOf(bench.store.history(id, 0))
        self.assertEqual([event.type for event in events], ["pending", "completed"])
