"""The header map of the documentation is that of the code."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.bridges.header_map import BEGIN, END, table
from tests.servers import ROOT


class HeaderMapTests(SynchronousTestCase):
    def test_documented(self) -> None:
        """The table in docs/bridges.md is what ``python -m tests.bridges.header_map`` prints."""
        text = (ROOT / "docs" / "bridges.md").read_text(encoding="utf-8")
        self.assertEqual(text.partition(BEGIN)[2].partition(END)[0].strip(), table())
