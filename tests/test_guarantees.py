"""The matrix of what is guaranteed is that of the code, and each cell links to a test that exists."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from openhqm.backends import TABLE
from tests.guarantees import BEGIN, END, PAGE, dangling, tables


class MatrixTests(SynchronousTestCase):
    """docs/QUEUE_BACKENDS.md"""

    def test_page(self) -> None:
        """The tables on the page are what ``python -m tests.guarantees`` writes."""
        page = PAGE.read_text(encoding="utf-8")
        self.assertEqual(page.partition(BEGIN)[2].partition(END)[0].strip(), tables().strip())

    def test_links(self) -> None:
        """Every cell of every row links to a test, and the test is there."""
        text = tables()
        self.assertEqual(dangling(text), [])
        rows = [row for row in text.splitlines() if re.match(r"\| (`|bridge|HTTP|a |an |publish)", row)]
        self.assertGreater(len(rows), 2 * len(TABLE))
        for row in rows:
            for cell in row.strip("| ").split(" | ")[1:]:
                self.assertRegex(cell, r"^(\[.*\]\(\.\./.*\)|with it|`\w+`)$", row)

    def test_dangling(self) -> None:
        """A module, a class or a method that does not exist is found."""
        known = '[yes](../tests/test_guarantees.py "MatrixTests.test_links")'
        self.assertEqual(dangling(known), [])
        for old, new in (("test_guarantees.py", "no.py"), ("MatrixTests", "NoTests"), ("test_links", "test_no")):
            self.assertEqual(len(dangling(known.replace(old, new))), 1)

    def test_products(self) -> None:
        """Every product has a row in the table of the page, with a page or a section of its own."""
        page = PAGE.read_text(encoding="utf-8").partition(BEGIN)[0]
        for row in TABLE:
            self.assertRegex(page, rf"(?m)^\| `{row.name}` \|.*\]\([\w-]+\.md[^)]*\) \|$")
