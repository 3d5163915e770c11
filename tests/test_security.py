"""The page of security: every promise on it links to a test that exists."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.guarantees import dangling
from tests.servers import ROOT

PAGE = ROOT / "docs" / "security.md"


def promises(text: str) -> list[str]:
    """The rows of the tables under "What is promised"."""
    part = text.partition("\n## What is promised\n")[2].partition("\n## ")[0]
    return [row for row in part.splitlines() if re.match(r"\| (?!promise |-)", row) and "| shown by |" not in row]


class PageTests(SynchronousTestCase):
    """docs/security.md"""

    def test_every_promise(self) -> None:
        """Each promise links to a module of tests or a test in it, and each of those is there."""
        text = PAGE.read_text(encoding="utf-8")
        found = promises(text)
        self.assertGreater(len(found), 30)
        for row in found:
            self.assertRegex(row.split(" | ")[-1], r"\]\(\.\./tests/", row)
        self.assertEqual(dangling(text), [])

    def test_found(self) -> None:
        """A promise without a test, and one whose test is gone, are found."""
        text = PAGE.read_text(encoding="utf-8")
        self.assertEqual(len(dangling(text.replace("DeadlineTests.test_slow_head", "DeadlineTests.test_no"))), 1)
        self.assertEqual(
            promises("\n## What is promised\n\n| promise | shown by |\n|---|---|\n| x | y |\n"), ["| x | y |"]
        )

    def test_reports(self) -> None:
        """The page and the file that says how to report are reached from each other."""
        self.assertIn("(../SECURITY.md)", PAGE.read_text(encoding="utf-8"))
        self.assertIn("(docs/security.md)", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
