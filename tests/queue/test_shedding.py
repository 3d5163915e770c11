"""Load shedding: what waits in a queue keeps further requests out of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import DeadlineUnmet, NotDurable, QueueFull
from openhqm.memory.queue import MemoryQueue
from openhqm.memory.results import MemoryResults
from openhqm.messages import IdempotencyClaim, Priority, Submission, Waiting
from openhqm.policy.ids import CorrelationIds
from openhqm.policy.limits import NO_LIMITS, Limits
from openhqm.queue.backlogs import LOOK_SECONDS, STALE_SECONDS
from openhqm.queue.shedding import Shedding, count_shed

PLAIN = Submission(b"1")
CLAIM = IdempotencyClaim("key", b"print")


class SlowQueue(MemoryQueue):
    """A queue in memory that says how much waits in it when the test does."""

    asked: list[Deferred[Mapping[Priority, Waiting]]]

    def waiting(self, queue: str) -> Deferred[Mapping[Priority, Waiting]]:
        self.asked.append(Deferred())
        return self.asked[-1]


class SheddingTests(SynchronousTestCase):
    """`Shedding`"""

    def shedding(self, kind: type[MemoryQueue] = MemoryQueue, **limits: Any) -> Shedding:
        self.clock, ids = Clock(), CorrelationIds(b"k" * 16)
        self.clock.advance(1000)
        results = MemoryResults(self.clock, ids, ttl=600.0)
        self.queue = kind(results, self.clock, ids, requests="requests", dead_letters="dead")
        self.counts = count_shed(CollectorRegistry())
        return Shedding(self.queue, "requests", self.clock, Limits(**limits), self.counts)

    def refused(self, shedding: Shedding, submission: Submission = PLAIN, claim: Any = None) -> QueueFull:
        found = self.failureResultOf(shedding.accept(submission, claim)).value
        assert isinstance(found, QueueFull)
        return found

    def counted(self) -> list[int]:
        return [self.counts[each].value for each in ("waiting", "age", "deadline")]

    def test_off(self) -> None:
        """Without these limits the queue itself accepts: there is no step between."""
        shedding = self.shedding()
        self.assertEqual(shedding.accept, self.queue.accept)

    def test_waiting(self) -> None:
        """As many wait as the limit says, also of those that come at once; one that begins makes room."""
        shedding = self.shedding(shed_waiting=3)
        for _ in range(3):
            self.successResultOf(shedding.accept(PLAIN, None))
        self.assertIn("queue.limits.shed_waiting: 3 requests wait in requests", self.refused(shedding).reason)
        self.successResultOf(self.queue.receive("requests", 1))
        self.clock.advance(LOOK_SECONDS)
        self.successResultOf(shedding.accept(PLAIN, None))
        self.refused(shedding)
        self.assertEqual(self.counted(), [2, 0, 0])

    def test_each_queue(self) -> None:
        """One endpoint that is behind keeps no request for another one out."""
        shedding = self.shedding(shed_waiting=1)
        slow, other = Submission(b"1", endpoint="slow"), Submission(b"1", endpoint="other")
        self.successResultOf(shedding.accept(slow, None))
        self.refused(shedding, slow)
        self.successResultOf(shedding.accept(other, None))
        self.assertEqual(len(shedding.warnings), 2 - 1)
        self.assertIn("requests.slow", shedding.warnings[0])

    def test_age(self) -> None:
        """Behind a request that has waited for too long no further one is taken, and the caller is told until when."""
        shedding = self.shedding(shed_seconds=30.0)
        self.successResultOf(shedding.accept(PLAIN, None))
        self.clock.advance(30)
        self.successResultOf(shedding.accept(PLAIN, None))
        self.clock.advance(12)
        error = self.refused(shedding)
        self.assertIn("queue.limits.shed_seconds", error.reason)
        self.assertEqual(error.retry_after, 12)
        self.clock.advance(10_000)
        self.assertEqual(self.refused(shedding).retry_after, 60)
        self.successResultOf(self.queue.receive("requests", 2))
        self.clock.advance(LOOK_SECONDS)
        self.successResultOf(shedding.accept(PLAIN, None))
        self.assertEqual(self.counted(), [0, 2, 0])

    def test_deadline(self) -> None:
        """A request whose deadline would pass while it waits is refused, and one with more time is taken."""
        shedding = self.shedding(shed_seconds=60.0)
        self.successResultOf(shedding.accept(PLAIN, None))
        self.clock.advance(10)
        error = self.refused(shedding, Submission(b"1", timeout=5.0))
        assert isinstance(error, DeadlineUnmet)
        self.assertEqual((error.waited, error.timeout), (10.0, 5.0))
        self.successResultOf(shedding.accept(Submission(b"1", timeout=20.0), None))
        later = Submission(b"1", timeout=5.0, not_before=self.clock.seconds() + 100)
        self.successResultOf(shedding.accept(later, None))
        self.assertEqual(self.counted(), [0, 0, 1])

    def test_priorities(self) -> None:
        """A request is kept out by what goes before it, and not by what it overtakes."""
        shedding = self.shedding(shed_waiting=1, shed_seconds=10.0)
        low, normal, high = (Submission(b"1", priority=each) for each in reversed(Priority))
        self.successResultOf(shedding.accept(low, None))
        self.clock.advance(100)
        self.refused(shedding, low)
        self.successResultOf(shedding.accept(high, None))
        self.refused(shedding, high)
        self.refused(shedding, normal)

    def test_repeats(self) -> None:
        """A repeat is answered however much waits, and the key of what was refused is free."""
        shedding = self.shedding(shed_waiting=1)
        first = self.successResultOf(shedding.accept(PLAIN, CLAIM))
        again = self.successResultOf(shedding.accept(PLAIN, CLAIM))
        self.assertEqual((again.correlation_id, again.replayed), (first.correlation_id, True))
        other = replace(CLAIM, key="other")
        self.assertIn("shed_waiting", self.refused(shedding, PLAIN, other).reason)
        self.successResultOf(self.queue.receive("requests", 1))
        self.clock.advance(LOOK_SECONDS)
        self.assertFalse(self.successResultOf(shedding.accept(PLAIN, other)).replayed)
        self.assertEqual(self.counted(), [1, 0, 0])

    def test_slow_answers(self) -> None:
        """A queue is asked once at a time, nothing waits for its answer, and what came while it was asked counts."""
        shedding = self.shedding(SlowQueue, shed_waiting=3)
        asked = self.queue.asked = []  # type: ignore[attr-defined]
        for _ in range(2):
            self.successResultOf(shedding.accept(PLAIN, None))
            self.clock.advance(LOOK_SECONDS)
        self.assertEqual(len(asked), 1)
        asked[0].callback({Priority.NORMAL: Waiting(1)})
        self.refused(shedding)  # one that was counted, and two since it was asked

    def test_not_known(self) -> None:
        """Where a queue cannot say what waits, and where that was long ago, nothing is kept out."""
        shedding = self.shedding(SlowQueue, shed_waiting=1)
        asked = self.queue.asked = []  # type: ignore[attr-defined]
        self.successResultOf(shedding.accept(PLAIN, None))
        asked[0].callback({Priority.NORMAL: Waiting(5)})
        self.refused(shedding)
        self.clock.advance(LOOK_SECONDS)
        self.refused(shedding)
        asked[1].errback(NotDurable("away"))
        self.clock.advance(STALE_SECONDS + 1)
        self.successResultOf(shedding.accept(PLAIN, None))
        self.assertEqual(shedding.warnings, [])
        self.clock.advance(STALE_SECONDS + 1)  # it never answers
        self.successResultOf(shedding.accept(PLAIN, None))
        self.assertEqual(len(asked), 4)

    def test_breaks_down(self) -> None:
        """A fault of the queue is logged, and keeps nothing out."""
        shedding = self.shedding(shed_waiting=1)
        self.patch(self.queue, "waiting", lambda queue: fail(ZeroDivisionError()))
        self.successResultOf(shedding.accept(PLAIN, None))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_other_limits(self) -> None:
        """Other limits hold for the next request."""
        shedding = self.shedding(shed_waiting=1)
        self.successResultOf(shedding.accept(PLAIN, None))
        self.refused(shedding)
        shedding.limit(NO_LIMITS)
        self.successResultOf(shedding.accept(PLAIN, None))
        self.assertEqual(shedding.warnings, [])
        shedding.limit(Limits(shed_waiting=2))
        self.refused(shedding)
