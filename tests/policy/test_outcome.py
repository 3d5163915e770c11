"""The outcome of an attempt by the target's response, and when the next attempt may begin."""

from __future__ import annotations

import os
import time
from email.utils import formatdate

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.outcome import LONGEST_RETRY_AFTER, RETRY_ON, Outcome, Verdict, judge, read_statuses, seconds_of
from tests import hypothesis_profile  # noqa: F401

NOW = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110, section 5.6.7
DONE, FAILED = Outcome(Verdict.DONE), Outcome(Verdict.FAILED)


class VerdictTests(SynchronousTestCase):
    """`judge`"""

    def test_by_class(self) -> None:
        """2xx is done. The seven status codes of `RETRY_ON` are retried. Redirects and all other codes are final."""
        again = {408, 425, 429, 500, 502, 503, 504}
        self.assertEqual(again, RETRY_ON)
        for status in range(200, 600):
            verdict = judge(status, RETRY_ON, None, None, NOW).verdict
            expected = Verdict.DONE if status < 300 else Verdict.RETRY if status in again else Verdict.FAILED
            self.assertIs(verdict, expected, status)

    def test_own_retry_on(self) -> None:
        """An endpoint's own ``retry_on`` replaces the default. A success is a success whatever it lists."""
        self.assertIs(judge(404, {404, 200}, None, None, NOW).verdict, Verdict.RETRY)
        self.assertEqual(judge(503, {404, 200}, None, None, NOW), FAILED)
        self.assertEqual(judge(200, {404, 200}, None, None, NOW), DONE)

    def test_failures(self) -> None:
        """What is neither a failure nor retried is an answer. What is retried is a failure in any case."""
        failures = read_statuses(["500-599", 422])
        for status, verdict in (
            (304, Verdict.DONE),
            (404, Verdict.DONE),
            (422, Verdict.FAILED),
            (429, Verdict.RETRY),
            (501, Verdict.FAILED),
            (503, Verdict.RETRY),
        ):
            self.assertIs(judge(status, RETRY_ON, None, None, NOW, failures).verdict, verdict, status)
        self.assertEqual(judge(429, RETRY_ON, None, "never", NOW, failures), FAILED)

    def test_read_statuses(self) -> None:
        """Status codes are numbers or ranges of them."""
        self.assertEqual(read_statuses([404, "410", "500-502"]), {404, 410, 500, 501, 502})
        self.assertEqual(read_statuses([]), frozenset())
        for bad in (200, 600, "4xx", "500-", "599-500", "500 - 599", True, ""):
            self.assertRaises(ValueError, read_statuses, [bad])

    def test_never(self) -> None:
        """``OpenHQM-Retry: never`` overrides the status code and ``Retry-After``. Any other value means nothing."""
        for word in ("never", "NEVER", " Never "):
            self.assertEqual(judge(503, RETRY_ON, "5", word, NOW), FAILED)
            self.assertEqual(judge(200, RETRY_ON, None, word, NOW), DONE)
        for word in ("", "always", "nevermore"):
            self.assertEqual(judge(503, RETRY_ON, "5", word, NOW), Outcome(Verdict.RETRY, 5.0))

    def test_retry_after_without_retry(self) -> None:
        """``Retry-After`` does not cause a retry by itself."""
        self.assertEqual(judge(404, RETRY_ON, "5", None, NOW), FAILED)
        self.assertEqual(judge(301, RETRY_ON, "5", None, NOW), FAILED)


class RetryAfterTests(SynchronousTestCase):
    """`seconds_of`"""

    def test_seconds(self) -> None:
        """Seconds are accepted (RFC 9110, section 10.2.3), up to an hour."""
        for text, seconds in (("120", 120), ("0", 0), (" 7 ", 7), ("3600", 3600), ("3601", 3600), ("9" * 400, 3600)):
            self.assertEqual(seconds_of(text, NOW), seconds, text)

    def test_dates(self) -> None:
        """The three date formats of RFC 9110, section 5.6.7 are accepted, all in GMT. A past date is 0; an hour is the
        most.
        """
        for text in ("Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"):
            self.assertEqual(seconds_of(text, NOW - 90), 90, text)
            self.assertEqual(seconds_of(text, NOW + 90), 0, text)
            self.assertEqual(seconds_of(text, NOW - 86400), LONGEST_RETRY_AFTER, text)

    def test_local_time_zone(self) -> None:
        """A date without a zone is GMT, in whatever time zone the process runs."""
        before = os.environ.get("TZ")

        def restore() -> None:
            os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
            time.tzset()

        self.addCleanup(restore)
        os.environ["TZ"] = "Asia/Tokyo"
        time.tzset()
        self.assertEqual(seconds_of("Sun Nov  6 08:49:37 1994", NOW - 90), 90)

    @given(st.text() | st.none() | st.builds("{}, {} {} {} {}".format, *[st.text(max_size=8)] * 5))
    @example("Mon, 01 Jan 0000 00:00:00 GMT")
    @example("Mon, 01 Jan 9999 00:00:00 -9999")
    @example("٣")
    @example("1.5")
    @example("-1")
    @example("inf")
    def test_any_text(self, text: str | None) -> None:
        """Any text gives between 0 seconds and an hour."""
        self.assertTrue(0 <= seconds_of(text, NOW) <= LONGEST_RETRY_AFTER)

    @given(st.integers(0, 2**31))
    def test_round_trip(self, at: int) -> None:
        """A date that the standard library formats is parsed to the second."""
        self.assertEqual(seconds_of(formatdate(at, usegmt=True), at - 60), 60)
