"""The runner for other people's cases tells good from bad."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.http1 import corpus
from tests.http1.strictness import REFUSED, SERVED


class Corpus(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="openhqm-corpus-"))
        self.addCleanup(shutil.rmtree, self.directory)
        (self.directory / "valid").mkdir()
        (self.directory / "invalid").mkdir()

    def test_written_out(self) -> None:
        """A case may be bytes or written out."""
        (self.directory / "valid" / "a.http").write_bytes(SERVED["body"])
        (self.directory / "valid" / "b.http").write_text("GET / HTTP/1.1\\r\\n\nHost: x\\r\\n\n\\r\\n\n")
        (self.directory / "invalid" / "c.http").write_text("GET / HTTP/1.1\\r\\n\nA : b\\r\\n\n\\r\\n\n")
        self.assertEqual(corpus.run(self.directory), [])

    def test_notices(self) -> None:
        """A case that goes otherwise is told of."""
        (self.directory / "valid" / "a.http").write_bytes(REFUSED["no host"][1])
        (self.directory / "invalid" / "b.http").write_bytes(SERVED["plain"])
        self.assertEqual(len(corpus.run(self.directory)), 2)
