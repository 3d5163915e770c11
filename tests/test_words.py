"""Sentences in code and documentation name their actor: the worker, the broker, the caller."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import openhqm

ROOT = Path(openhqm.__file__).parent.parent
# Words that hide the actor of a sentence; and "anew", which the documentation of other projects calls "again".
BANNED = re.compile(r"\b(?:whoever|nobody|somebody|anew)\b", re.IGNORECASE)


def texts() -> Iterator[Path]:
    """The modules of the package and the pages of the documentation, as paths in the repository."""
    for found in (ROOT.glob("openhqm/**/*.py"), ROOT.glob("docs/**/*.md")):
        for path in found:
            yield path.relative_to(ROOT)


class WordsTests(SynchronousTestCase):
    """Modules of ``openhqm`` and pages of ``docs``"""

    def test_actors_are_named(self) -> None:
        """No sentence is about whoever, nobody or somebody, and nothing is done anew."""
        found = [
            f"{path}:{number}: {match[0]}"
            for path in texts()
            for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), 1)
            for match in BANNED.finditer(line)
        ]
        self.assertEqual(found, [])

    def test_found(self) -> None:
        """Package and documentation are found."""
        found = {path.parts[1] for path in texts()}
        self.assertLessEqual({"brokered", "config", "delivery", "http1", "policy", "redis", "decisions"}, found)
