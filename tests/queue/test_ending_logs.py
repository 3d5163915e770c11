"""The logs of endings in memory and in the embedded file keep the same promises."""

from __future__ import annotations

from collections import deque

from twisted.trial.unittest import SynchronousTestCase

from openhqm.messages import LogPage
from tests.benches import brokered_bench, memory_bench, sqlite_bench
from tests.queue.ending_log_contract import ending_log_contract


class MemoryEndingLogTests(ending_log_contract(memory_bench)):  # type: ignore[misc]
    """The memory backend."""

    async def test_bounded(self) -> None:
        """Of more endings than the log may have, the newest are kept, and a reader can tell."""
        self.log._endings = deque(maxlen=3)
        await super().test_bounded()


class SqliteEndingLogTests(ending_log_contract(sqlite_bench)):  # type: ignore[misc]
    """The embedded file."""

    async def test_nothing_in_the_file(self) -> None:
        """A file that no stream was ever read from has no table for the log."""
        await self.end()
        tables = self.bench.file.reader.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall()
        self.assertNotIn(("ending_log",), tables)


class BrokeredEndingLogTests(ending_log_contract(brokered_bench)):  # type: ignore[misc]
    """The embedded file as the store beside a broker."""


class PageTests(SynchronousTestCase):
    def test_follows(self) -> None:
        """A reader that knows the log by its name has missed nothing from before its oldest to its newest."""
        page = LogPage("a", 5, 9)
        for name, after, follows in (
            ("a", 4, True),
            ("a", 9, True),
            ("a", 3, False),
            ("a", 10, False),
            ("b", 5, False),
            ("", 5, False),
        ):
            self.assertEqual(page.follows(name, after), follows, (name, after))
        self.assertFalse(LogPage("", 1, 0).follows("", 0))


del ending_log_contract
