"""Deferred at the seam, ``await`` inside."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from openhqm.runtime.deferreds import deferred


class DeferredTests(SynchronousTestCase):
    """`deferred`"""

    def test_starts_when_called(self) -> None:
        """Nobody has to wait for it: the call alone begins the work, and what it returns is the result."""
        gate: Deferred[int] = Deferred()
        steps: list[object] = []

        @deferred
        async def work(first: int, *, second: int) -> int:
            """Words."""
            steps.append((first, second))
            return await gate + first

        result = work(1, second=2)
        self.assertEqual(steps, [(1, 2)])
        self.assertNoResult(result)
        gate.callback(40)
        self.assertEqual(self.successResultOf(result), 41)
        self.assertEqual((work.__name__, work.__doc__), ("work", "Words."))

    def test_failures(self) -> None:
        """What it raises is the failure of the Deferred, never an exception at the call."""

        @deferred
        async def work() -> None:
            raise KeyError("k")

        self.failureResultOf(work(), KeyError)

    def test_cancelling(self) -> None:
        """Cancelling reaches what it waits for, and it may tidy up."""
        cancelled: list[str] = []

        @deferred
        async def work() -> None:
            try:
                await Deferred(lambda waiting: cancelled.append("waiting"))
            finally:
                cancelled.append("tidied up")

        result = work()
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual(cancelled, ["waiting", "tidied up"])
