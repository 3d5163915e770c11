"""The runner of external corpora reports requests that the server wrongly serves or refuses."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.http1 import request_corpus
from tests.http1.request_cases import REFUSED, SERVED


class RequestCorpusTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="openhqm-corpus-"))
        self.addCleanup(shutil.rmtree, self.directory)
        (self.directory / "valid").mkdir()
        (self.directory / "invalid").mkdir()

    def test_escaped_form(self) -> None:
        """A case may be stored as bytes or in escaped form."""
        (self.directory / "valid" / "a.http").write_bytes(SERVED["body"])
        (self.directory / "valid" / "b.http").write_text("GET / HTTP/1.1\\r\\n\nHost: x\\r\\n\n\\r\\n\n")
        (self.directory / "invalid" / "c.http").write_text("GET / HTTP/1.1\\r\\n\nA : b\\r\\n\n\\r\\n\n")
        self.assertEqual(request_corpus.run(self.directory), [])

    def test_failures_are_reported(self) -> None:
        """A valid request that is refused, and an invalid one that is served, are reported."""
        (self.directory / "valid" / "a.http").write_bytes(REFUSED["no host"][1])
        (self.directory / "invalid" / "b.http").write_bytes(SERVED["plain"])
        self.assertEqual(len(request_corpus.run(self.directory)), 2)
