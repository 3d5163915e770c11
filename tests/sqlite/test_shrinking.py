"""The embedded file gives back to the disk what a day without a line has made it take."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import apsw
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openhqm.messages import Status, Submission
from openhqm.sqlite.shrinking import MOST_FREE, PORTION
from openhqm.sqlite.sql import fetch_all, fetch_one
from tests.benches import SqliteBench

BATCH, BATCHES, TTL = 200, 10, 5.0
PAGE = 4096
SMALL = MOST_FREE + 100


class ShrinkingTests(SynchronousTestCase):
    """30 MB of requests come and end"""

    def setUp(self) -> None:
        self.bench = SqliteBench(TTL)
        self.bench.step = 0.05
        self.addCleanup(self.bench.close)
        self.fill()

    def fill(self) -> None:
        """Accept 30 MB, and end them."""
        for _ in range(BATCHES):
            accepted = [self.bench.queue.accept(Submission(b'"%b"' % (b"x" * 15_000)), None) for _ in range(BATCH)]
            self.bench.turn()
            for each in accepted:
                self.bench.store.cancel(self.successResultOf(each).correlation_id)
            self.bench.turn()
        self.assertGreater(self.pages(), BATCH * BATCHES * 15_000 / PAGE)

    def pages(self) -> int:
        """How many pages the file has."""
        count: int = fetch_one(self.bench.file.connection, "PRAGMA page_count")[0]
        return count

    def check(self) -> None:
        """The file is sound."""
        self.assertEqual(fetch_all(self.bench.file.connection, "PRAGMA integrity_check"), [("ok",)])

    def test_shrinks(self) -> None:
        """Once they have expired, each commit gives a few pages back; what came since is still there."""
        kept = self.bench.queue.accept(Submission(b"7"), None)
        self.bench.turn()
        pages = [self.pages()]
        run_commit = self.bench.run_commit

        def counting(commit: Callable[[], None]) -> Deferred[None]:
            done = run_commit(commit)
            pages.append(self.pages())
            return done

        self.bench.run_commit = counting  # type: ignore[method-assign]
        self.bench.pass_time(TTL + 60)
        self.assertLess(self.pages(), SMALL)
        most = PORTION + 1  # and one of SQLite's own, which says where the others belong
        self.assertLessEqual(max(before - after for before, after in pairwise(pages)), most)
        fetch_all(self.bench.file.connection, "PRAGMA wal_checkpoint(TRUNCATE)")
        self.assertLess(self.bench.file.size, SMALL * PAGE)
        record = self.successResultOf(self.bench.store.find(self.successResultOf(kept).correlation_id))
        self.assertEqual(record.status, Status.PENDING)
        self.check()

    def test_while_they_come(self) -> None:
        """A file that is filled again at once keeps the pages that it needs: they are not given back in vain."""
        before = self.pages()
        self.fill()
        self.bench.pass_time(1.0)
        self.assertGreaterEqual(self.pages(), before)
        self.check()

    def test_older(self) -> None:
        """A file that was made without this keeps its size, and goes on as ever."""
        self.bench.forget()
        old = apsw.Connection(f"{self.bench.directory}/openhqm.db")
        fetch_all(old, "PRAGMA auto_vacuum = NONE")
        old.execute("VACUUM")
        old.close()
        self.bench.open()
        before = self.pages()
        self.bench.pass_time(TTL + 60)
        self.assertGreaterEqual(self.pages(), before)
        self.check()
