"""The stored layout: its number stands for its tables, and it has room for records that no message belongs to."""

from __future__ import annotations

import re
from hashlib import sha256

import apsw
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from openhqm.codec import encode_request
from openhqm.errors import IdempotencyConflict, QueueFull
from openhqm.messages import IdempotencyClaim, Reply, Request, Status, Submission
from openhqm.sqlite.queue_rows import QueueRows
from openhqm.sqlite.schema import DELAYED, TABLES, VERSION
from openhqm.testing import REQUESTS, TTL
from tests.benches import BrokeredBench, SqliteBench

KNOWN = {3: "9436bbc1eae06425", **dict.fromkeys((4, 5, 6), "41b146286dd94ec9")}
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

    def test_claims(self) -> None:
        """In one of layout 5 a claim is known for as long as it holds, whatever its key; one of layout 6, too."""
        bench = SqliteBench()
        self.addCleanup(lambda: bench.close())
        claims = [IdempotencyClaim(key, b"print", 100.0) for key in ("7", "8-a", "65535-b", "9x", "a-1")]
        asked = [bench.done(bench.queue.accept(Submission(b"1"), claim)) for claim in claims]
        ids = [self.successResultOf(each).correlation_id for each in asked]
        bench.file.connection.execute("UPDATE claims SET digest = substr(digest, -16); PRAGMA user_version = 5")
        bench.crash()
        younger = IdempotencyClaim("10-b", b"print", 1000.0)
        new = self.successResultOf(bench.done(bench.queue.accept(Submission(b"2"), younger)))
        self.assertFalse(new.replayed)
        self.successResultOf(bench.done(bench.store.let_expire([replace(claims[0], lifetime=50.0)])))
        for seconds, known in ((0, claims), (60, claims[1:]), (60, [])):
            bench.pass_time(seconds)
            for claim, id in zip(claims, ids, strict=True):
                other = replace(claim, fingerprint=b"other", repeats_only=True)
                refused = self.failureResultOf(bench.done(bench.queue.accept(Submission(b"3"), other)))
                self.assertEqual(refused.type, IdempotencyConflict if claim in known else QueueFull, claim.key)
                if claim in known:
                    twice = [bench.queue.accept(Submission(b"1"), claim) for _ in range(2)]
                    bench.turn()
                    for each in twice:
                        again = self.successResultOf(each)
                        self.assertEqual((again.correlation_id, again.replayed), (id, True))
            again = self.successResultOf(bench.done(bench.queue.accept(Submission(b"2"), younger)))
            self.assertEqual((again.correlation_id, again.replayed), (new.correlation_id, True))

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
