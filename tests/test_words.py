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
# Folders and modules that still have such words. An entry is removed once its last one is gone.
NOT_YET = (
    "docs/decisions",
    "docs/journey.md",
    "docs/rabbitmq.md",
    "docs/redis.md",
    "openhqm/__init__.py",
    "openhqm/backends.py",
    "openhqm/brokered",
    "openhqm/config/contradictions.py",
    "openhqm/config/model.py",
    "openhqm/interfaces",
    "openhqm/memory",
    "openhqm/queue",
    "openhqm/rabbitmq",
    "openhqm/redis",
    "openhqm/sqlite",
    "openhqm/testing",
)


def texts() -> Iterator[Path]:
    """The modules of the package and the pages of the documentation, as paths in the repository."""
    for found in (ROOT.glob("openhqm/**/*.py"), ROOT.glob("docs/**/*.md")):
        for path in found:
            yield path.relative_to(ROOT)


def is_checked(path: Path) -> bool:
    """Whether a path is neither listed in `NOT_YET` nor below a folder that is."""
    return not any(path == Path(entry) or Path(entry) in path.parents for entry in NOT_YET)


class WordsTests(SynchronousTestCase):
    """Modules of ``openhqm`` and pages of ``docs``"""

    def test_actors_are_named(self) -> None:
        """No sentence is about whoever, nobody or somebody, and nothing is done anew."""
        found = [
            f"{path}:{number}: {match[0]}"
            for path in texts()
            if is_checked(path)
            for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), 1)
            for match in BANNED.finditer(line)
        ]
        self.assertEqual(found, [])

    def test_most_modules_are_checked(self) -> None:
        """The package is found, and the list of exceptions does not cover it."""
        checked = {path.parts[1] for path in texts() if is_checked(path)}
        self.assertLessEqual({"config", "delivery", "http1", "policy", "runtime"}, checked)
