"""Lines that repeat: written once a minute, with a count, whatever breaks thousands of times a second."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import LogEvent, Logger, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from openhqm.runtime.repeats import MOST_TEXTS, SECONDS, Repeats


class RepeatsTests(SynchronousTestCase):
    """`Repeats`"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.written: list[LogEvent] = []
        self.repeats = Repeats(self.written.append, self.clock.seconds)
        self.log = Logger("openhqm.somewhere", observer=self.repeats)

    def lines(self) -> list[str]:
        lines = [formatEvent(event) for event in self.written]
        self.written.clear()
        return lines

    def test_once_a_minute(self) -> None:
        """A line that comes 50 times a second for three minutes is written three times, each time with its count."""
        for _ in range(9000):
            self.log.error("cannot settle yet: {reason}", reason="disk full")
            self.clock.advance(0.02)
        self.repeats.tell(at_once=True)
        lines = self.lines()
        self.assertEqual(lines.count("cannot settle yet: disk full"), 3)
        counted = [
            int(line.split()[0]) for line in lines if line.endswith("this one in 60 s: cannot settle yet: disk full")
        ]
        self.assertEqual((len(counted), sum(counted) + 3), (3, 9000))

    def test_different(self) -> None:
        """Lines that tell of different requests are all written, up to a bound; what is beyond it is counted."""
        for number in range(MOST_TEXTS + 50):
            self.log.warn("attempt failed", correlation_id=f"id {number}")
        self.assertEqual(len(self.lines()), MOST_TEXTS)
        self.clock.advance(SECONDS)
        self.log.info("something else")
        self.assertEqual(self.lines(), ["50 more lines like this one in 60 s: attempt failed", "something else"])

    def test_information(self) -> None:
        """What is no warning, as a line of the access log, is written each time."""
        for _ in range(500):
            self.log.info("GET /health")
        self.assertEqual(len(self.lines()), 500)

    def test_critical(self) -> None:
        """A critical line is written each time: no dead letter may name the request that it tells of."""
        for number in range(500):
            self.log.critical("request {number} is lost", number=number)
        self.assertEqual(len(self.lines()), 500)

    def test_told_without_another_event(self) -> None:
        """The count is told when the minute is over, also where nothing else is logged. A line alone has no count."""
        self.log.error("once")
        for _ in range(3):
            self.log.error("again")
        self.repeats.tell()
        self.assertEqual(self.lines(), ["once", "again"])
        self.clock.advance(SECONDS)
        self.repeats.tell()
        self.repeats.tell()
        self.assertEqual(self.lines(), ["2 more lines like this one in 60 s: again"])
