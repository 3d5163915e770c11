"""Coroutines as Deferreds: `deferred`, `Running` and `shielded`."""

from __future__ import annotations

from collections.abc import Coroutine

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from openhqm.runtime.deferreds import Running, deferred, shielded


class DeferredTests(SynchronousTestCase):
    """`deferred`"""

    def test_starts_when_called(self) -> None:
        """The call starts the coroutine, without an ``await``, and returns a Deferred of its result."""
        gate: Deferred[int] = Deferred()
        steps: list[object] = []

        @deferred
        async def work(first: int, *, second: int) -> int:
            """A docstring."""
            steps.append((first, second))
            return await gate + first

        result = work(1, second=2)
        self.assertEqual(steps, [(1, 2)])
        self.assertNoResult(result)
        gate.callback(40)
        self.assertEqual(self.successResultOf(result), 41)
        self.assertEqual((work.__name__, work.__doc__), ("work", "A docstring."))

    def test_failures(self) -> None:
        """An exception of the coroutine is the Deferred's failure, and is not raised by the call."""

        @deferred
        async def work() -> None:
            raise KeyError("k")

        self.failureResultOf(work(), KeyError)

    def test_cancelling(self) -> None:
        """Cancelling cancels what the coroutine waits for, and its ``finally`` runs."""
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


class RunningTests(SynchronousTestCase):
    """`Running`"""

    def setUp(self) -> None:
        self.done: list[object] = []
        self.failed: list[Failure] = []

    def start(self, coroutine: Coroutine[object, object, object]) -> Running[object]:
        return Running(coroutine, self.done.append, self.failed.append)

    def test_at_once(self) -> None:
        """A coroutine that waits for nothing has ended when the constructor returns."""

        async def work() -> int:
            return await succeed(1) + 1

        self.assertTrue(self.start(work()).over)
        self.assertEqual((self.done, self.failed), ([2], []))

    def test_waits(self) -> None:
        """The coroutine resumes with each result and each failure that it waits for."""
        first: Deferred[int] = Deferred()
        second: Deferred[int] = Deferred()

        async def work() -> object:
            try:
                return await second
            except KeyError as error:
                return [error.args[0], await first]

        running = self.start(work())
        self.assertFalse(running.over)
        second.errback(KeyError("k"))
        self.assertEqual(self.done, [])
        first.callback(3)
        self.assertEqual((self.done, self.failed, running.over), ([["k", 3]], [], True))

    def test_fails(self) -> None:
        """``failed`` is called with an exception of the coroutine, at once or later."""
        gate: Deferred[None] = Deferred()

        async def work(gate: Deferred[None]) -> None:
            await gate
            raise KeyError("k")

        self.start(work(succeed(None)))
        self.start(work(gate))
        gate.callback(None)
        self.assertEqual([failure.type for failure in self.failed], [KeyError, KeyError])

    def test_cancel(self) -> None:
        """Cancelling cancels what the coroutine waits for, and its ``finally`` runs."""
        tidied = []

        async def work() -> None:
            try:
                await Deferred()
            finally:
                tidied.append(True)

        self.start(work()).cancel()
        self.assertEqual(([failure.type for failure in self.failed], tidied), ([CancelledError], [True]))


class ShieldedTests(SynchronousTestCase):
    """`shielded`"""

    def test_outcome(self) -> None:
        """The call starts the coroutine, and the Deferred fires with its result or failure."""
        gate: Deferred[int] = Deferred()

        async def work() -> int:
            return await gate + 1

        async def broken() -> None:
            raise KeyError("k")

        result = shielded(work())
        self.assertNoResult(result)
        gate.callback(41)
        self.assertEqual(self.successResultOf(result), 42)
        self.failureResultOf(shielded(broken()), KeyError)

    def test_cancelling(self) -> None:
        """Cancelling leaves the coroutine running. Its later result or failure is dropped, and not logged."""
        for end in (lambda gate: gate.callback(None), lambda gate: gate.errback(KeyError("k"))):
            gate: Deferred[None] = Deferred()
            ends: list[str] = []

            async def work(gate: Deferred[None] = gate, ends: list[str] = ends) -> None:
                try:
                    await gate
                finally:
                    ends.append("ended")

            result = shielded(work())
            result.cancel()
            self.failureResultOf(result, CancelledError)
            self.assertEqual(ends, [])
            end(gate)
            self.assertEqual(ends, ["ended"])
            self.assertEqual(self.flushLoggedErrors(), [])
