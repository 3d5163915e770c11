"""RFC 3339 times: formatted and parsed."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.runtime.times import parse_rfc3339, rfc3339
from tests import hypothesis_profile  # noqa: F401

MILLISECONDS = st.integers(0, 253402300799999)  # to the end of the year 9999


class TimesTests(SynchronousTestCase):
    """`rfc3339` and `parse_rfc3339`"""

    @given(MILLISECONDS)
    @example(1_039_349)
    def test_formatted(self, milliseconds: int) -> None:
        """A time is formatted in UTC, to the millisecond, as the standard library formats it."""
        expected = datetime.fromtimestamp(milliseconds // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        self.assertEqual(rfc3339(milliseconds / 1000), f"{expected}.{milliseconds % 1000:03d}Z")

    @given(MILLISECONDS)
    @example(1_039_349)
    def test_round_trip(self, milliseconds: int) -> None:
        """A formatted time is parsed as the same time."""
        self.assertEqual(parse_rfc3339(rfc3339(milliseconds / 1000)), milliseconds / 1000)

    def test_examples_of_the_standard(self) -> None:
        """The examples of RFC 3339, section 5.8, and the spellings that section 5.6 allows, are parsed."""
        for text, utc in (
            ("1985-04-12T23:20:50.52Z", datetime(1985, 4, 12, 23, 20, 50, 520000, UTC)),
            ("1996-12-19T16:39:57-08:00", datetime(1996, 12, 20, 0, 39, 57, 0, UTC)),
            ("1937-01-01T12:00:27.87+00:20", datetime(1937, 1, 1, 11, 40, 27, 870000, UTC)),
            ("1985-04-12t23:20:50z", datetime(1985, 4, 12, 23, 20, 50, 0, UTC)),
            ("1985-04-12 23:20:50Z", datetime(1985, 4, 12, 23, 20, 50, 0, UTC)),
            ("1985-04-12T23:20:50-00:00", datetime(1985, 4, 12, 23, 20, 50, 0, UTC)),
            ("1985-04-12T23:20:50.123456789Z", datetime(1985, 4, 12, 23, 20, 50, 123456, UTC)),
        ):
            self.assertEqual(parse_rfc3339(text), utc.timestamp(), text)

    def test_refused(self) -> None:
        """A time without an offset, an impossible date, and spellings of other standards are `ValueError`."""
        for text in (
            "",
            "now",
            "2026-02-07",
            "2026-02-07T10:30:00",
            "2026-02-07T10:30Z",
            "2026-02-07T10:30:00 Z",
            "2026-02-07T10:30:00+0100",
            "2026-02-07T10:30:00+24:00",
            "2026-02-30T10:30:00Z",
            "2026-13-01T10:30:00Z",
            "2026-02-07T25:00:00Z",
            "20260207T103000Z",
            "2026-W06-6T10:30:00Z",
            "2026-02-07T10:30:00Z\n",
            "٢٠٢٦-02-07T10:30:00Z",
            "1770460200",
        ):
            self.assertRaises(ValueError, parse_rfc3339, text)

    @given(st.text(max_size=40) | st.from_regex(r"\A\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)\Z"))
    def test_any_text(self, text: str) -> None:
        """Any text is a time or a `ValueError`, and raises nothing else."""
        with contextlib.suppress(ValueError):
            self.assertIsInstance(parse_rfc3339(text), float)
