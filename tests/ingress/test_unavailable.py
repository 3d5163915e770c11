"""Why submissions are not accepted, as the log says it."""

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
        """Each reason is said when it comes up, and not again for each of thousands of requests."""
        for _ in range(1000):
            self.unavailable.note("disk full")
            self.unavailable.note("no broker")
            self.clock.advance(PAUSE_SECONDS / 2000)
        self.assertEqual(self.said, ["disk full", "no broker"])

    def test_goes_on(self) -> None:
        """While it goes on, it is said now and then."""
        for _ in range(30):
            self.unavailable.note("disk full")
            self.clock.advance(PAUSE_SECONDS / 10)
        self.assertEqual(self.said, ["disk full"] * 3)

    def test_bounded(self) -> None:
        """Reasons without end fill neither the memory nor the log; old ones make room."""
        for number in range(10 * MOST_REASONS):
            self.unavailable.note(f"reason {number}")
        self.assertEqual(len(self.said), MOST_REASONS)
        self.clock.advance(PAUSE_SECONDS)
        self.unavailable.note("another")
        self.assertEqual(self.said[-1], "another")
