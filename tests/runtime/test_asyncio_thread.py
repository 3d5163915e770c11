"""A loop of asyncio in a thread of its own, on a real reactor."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from openhqm.runtime.asyncio_thread import AsyncioThread


class AsyncioThreadTests(TestCase):
    """`AsyncioThread`"""

    timeout = 20

    def setUp(self) -> None:
        self.thread = AsyncioThread(reactor, "asyncio-under-test")
        self.addCleanup(self.thread.stop)

    async def test_result(self) -> None:
        """Coroutines run beside each other in one other thread, and use what asyncio has."""

        async def sleep(seconds: float) -> tuple[str, str]:
            await asyncio.wait_for(asyncio.sleep(seconds), 10)
            return threading.current_thread().name, await asyncio.to_thread(lambda: "from a thread")

        first, second = self.thread.run(lambda: sleep(0.05)), self.thread.run(lambda: sleep(0.01))
        for answer in (first, second):
            self.assertEqual(await answer, ("asyncio-under-test", "from a thread"))
        self.assertIs(threading.current_thread(), threading.main_thread())

    async def test_failures(self) -> None:
        """What the coroutine raises is the failure, whatever it is: also where it is made."""

        async def broken(error: BaseException) -> None:
            raise error

        for error in (KeyError("k"), asyncio.CancelledError(), GeneratorExit()):
            await self.assertFailure(self.thread.run(lambda error=error: broken(error)), type(error))

        def make() -> Any:
            raise ZeroDivisionError

        await self.assertFailure(self.thread.run(make), ZeroDivisionError)

    async def test_cancelled(self) -> None:
        """Cancelling cancels the task, and the Deferred fires once that has ended."""
        steps: list[str] = []
        begun: Deferred[None] = Deferred()

        async def hang() -> None:
            reactor.callFromThread(begun.callback, None)  # type: ignore[attr-defined]
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.01)
                steps.append("cleaned up")

        answer = self.thread.run(hang)
        await begun
        answer.cancel()
        self.assertFalse(answer.called)
        await self.assertFailure(answer, CancelledError)
        self.assertEqual(steps, ["cleaned up"])

    async def test_cancelled_before_it_began(self) -> None:
        """A coroutine that is cancelled at once is not begun, or is cancelled where it first waits."""
        ran: list[int] = []

        async def run() -> None:
            await asyncio.sleep(60)
            ran.append(1)

        answer = self.thread.run(run)
        answer.cancel()
        await self.assertFailure(answer, CancelledError)
        self.assertEqual(ran, [])

    async def test_swallowed(self) -> None:
        """A coroutine that swallows its cancellation is waited for."""
        begun: Deferred[None] = Deferred()

        async def stubborn() -> str:
            reactor.callFromThread(begun.callback, None)  # type: ignore[attr-defined]
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return "late"
            return "never"

        answer = self.thread.run(stubborn)
        await begun
        answer.cancel()
        self.assertEqual(await answer, "late")

    async def test_stop(self) -> None:
        """Stopping ends the thread, also where a task is at work; and does nothing where none has begun."""
        AsyncioThread(reactor, "never-begun").stop()
        begun: Deferred[None] = Deferred()

        async def hang() -> None:
            reactor.callFromThread(begun.callback, None)  # type: ignore[attr-defined]
            await asyncio.sleep(60)

        answer = self.thread.run(hang)
        answer.addErrback(lambda _: None)
        await begun
        self.thread.stop()
        self.assertNotIn("asyncio-under-test", [thread.name for thread in threading.enumerate()])
