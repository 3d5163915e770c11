"""The log of why submissions are not accepted."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from openhqm.ingress.unavailable import MOST_REASONS, PAUSE_SECONDS, Unavailable


class UnavailableTests(SynchronousTestCase):
    """`Unavailable`"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.unavailable = Unavailable(self.clock)
        self.said: list[str] = []
        globalLogPublisher.addObserver(self.hear)
        self.addCleanup(globalLogPublisher.removeObserver, self.hear)

    def hear(self, event: dict[str, object]) -> None:
        if "not accepted" in str(event.get("log_format")):
            self.said.append(str(event["reason"]))

    def test_each_reason(self) -> None:
        """Each reason is logged once, and not again for each of thousands of requests."""
        for _ in range(1000):
            self.unavailable.note("disk full")
            self.unavailable.note("no broker")
            self.clock.advance(PAUSE_SECONDS / 2000)
        self.assertEqual(self.said, ["disk full", "no broker"])

    def test_goes_on(self) -> None:
        """A reason that goes on is logged again after some time."""
        for _ in range(30):
            self.unavailable.note("disk full")
            self.clock.advance(PAUSE_SECONDS / 10)
        self.assertEqual(self.said, ["disk full"] * 3)

    def test_bounded(self) -> None:
        """An endless number of reasons fills neither memory nor log, and old ones make room."""
        for number in range(10 * MOST_REASONS):
            self.unavailable.note(f"reason {number}")
        self.assertEqual(len(self.said), MOST_REASONS)
        self.clock.advance(PAUSE_SECONDS)
        self.unavailable.note("another")
        self.assertEqual(self.said[-1], "another")
