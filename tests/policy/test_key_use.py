"""When API keys were used last: the file of it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.key_use import read_use, write_use


class UseTests(SynchronousTestCase):
    def test_later(self) -> None:
        """The later time stands, whoever wrote it, and nothing is kept of keys that are gone."""
        text = write_use({"a": 5, "b": 9, "gone": 1}, {"a": 7, "b": 8, "new": 3, "other": 4}, ["a", "b", "new"])
        self.assertEqual(read_use(text), {"a": 7, "b": 9, "new": 3})

    def test_what_is_no_file_of_it(self) -> None:
        """What cannot be read is as if it were not there: it opens nothing, and closes nothing."""
        bad = (b"", b"{", b"[]", b'{"used": 3}', b'{"used": []}', b"\xff", b"[" * 100_000, b'{"used": null}')
        for text in bad:
            self.assertEqual(read_use(text), {})
        self.assertEqual(read_use(b'{"used": {"a": "5", "b": -1, "c": 1e400, "d": true, "e": 6}}'), {"e": 6})
