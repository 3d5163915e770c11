"""Where each kind of handler runs, what holds the reactor, and what does not fit."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openhqm.workers.executors import AwaitsDeferred, Executors, ReturnedDeferred, is_async, returns_deferred
from openhqm.workers.handlers import Handlers, Work
from openhqm.workers.holding import HoldWatch, NeedsAsyncio, in_reactor
from tests.workers.test_handlers import wait_for, work

HERE = threading.main_thread().name


def where() -> str:
    return threading.current_thread().name


def plain(_: Work) -> str:
    return where()


async def coroutine(_: Work) -> str:
    return where()


def annotated(_: Work) -> Deferred[str]:
    return succeed(where())


@inlineCallbacks
def inline(_: Work) -> Generator[Any, Any, str]:
    yield succeed(None)
    return where()


class Callable_:
    async def __call__(self, work: Work) -> str:
        return where()


class Deferring:
    def __call__(self, work: Work) -> Deferred[str]:
        return succeed(where())


def later(_: Work) -> Any:
    return coroutine(_)


ASYNC = (coroutine, functools.partial(coroutine), Callable_())
DEFERRED = (annotated, inline, functools.partial(annotated), Deferring())
PLAIN = (plain, functools.partial(plain), lambda _: where(), Callable_)


class KindsTests(SynchronousTestCase):
    def test_kinds(self) -> None:
        """Each kind of callable is known by what it says of itself."""
        for handlers, kind in ((ASYNC, (True, False)), (DEFERRED, (False, True)), (PLAIN, (False, False))):
            for handler in handlers:
                self.assertEqual((is_async(handler), returns_deferred(handler)), kind, handler)


class ExecutorsTests(TestCase):
    """`Executors`"""

    timeout = 240

    def setUp(self) -> None:
        self.executors = Executors(reactor, 2, 10_000)
        self.executors.start()
        self.addCleanup(self.executors.stop)
        self.addCleanup(self.executors.close)

    def run_with(self, handler: Callable[[Work], Any], executor: str | None = None) -> Deferred[Any]:
        return Handlers(self.executors.bind("jobs:handle", handler, executor), {}).run(work())

    async def test_where(self) -> None:
        """By default plain functions run in threads, coroutines and Deferreds in the reactor; and as it is said."""
        for executor, of_async, of_deferred, of_plain in (
            (None, HERE, HERE, "openhqm-handlers"),
            ("thread", HERE, "openhqm-handlers", "openhqm-handlers"),
            ("reactor", HERE, HERE, HERE),
            ("asyncio", "openhqm-asyncio", HERE, "openhqm-handlers"),
        ):
            for handlers, expected in ((ASYNC, of_async), (DEFERRED, of_deferred), (PLAIN[:3], of_plain)):
                for handler in handlers:
                    self.assertIn(expected, await self.run_with(handler, executor), (executor, handler))

    async def test_coroutine_from_a_thread(self) -> None:
        """A coroutine that a plain function returns has not begun, and runs where coroutines run."""
        self.assertEqual(await self.run_with(later), HERE)
        self.assertEqual(await self.run_with(later, "asyncio"), "openhqm-asyncio")

    async def test_deferred_from_a_thread(self) -> None:
        """A Deferred that has fired is an answer. One that has not is an error, with the cure."""
        self.assertEqual(await self.run_with(lambda _: succeed("now")), "now")
        failure = await self.assertFailure(self.run_with(lambda _: Deferred()), ReturnedDeferred)
        self.assertIn("set worker.executor: reactor", str(failure))

    async def test_blocking(self) -> None:
        """As many plain functions as there are slots block beside each other, and the reactor goes on."""
        gate, entered = threading.Event(), []

        def block(_: Work) -> str:
            entered.append(1)
            return "open" if gate.wait(20) else "closed"

        answers = [self.run_with(block) for _ in range(2)]
        while len(entered) < 2:
            await deferLater(reactor, 0.01)
        gate.set()
        self.assertEqual([await answer for answer in answers], ["open", "open"])

    async def test_asyncio(self) -> None:
        """With ``asyncio`` a coroutine uses asyncio; elsewhere it fails with the cure, and cleans up."""

        async def sleep(_: Work) -> str:
            await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            return "slept"

        async def current(_: Work) -> Any:
            return asyncio.get_running_loop()

        cleaned: list[str] = []

        async def future(_: Work) -> Any:
            loop = asyncio.new_event_loop()
            try:
                await loop.create_future()
            finally:
                loop.close()
                cleaned.append("cleaned up")

        self.assertEqual(await self.run_with(sleep, "asyncio"), "slept")
        for handler in (sleep, current, future):
            for executor in (None, "reactor", "thread"):
                error = await self.assertFailure(self.run_with(handler, executor), NeedsAsyncio)
                self.assertIn("Set worker.executor: asyncio", str(error))
        self.assertEqual(cleaned, ["cleaned up"] * 3)

    async def test_deferreds_in_asyncio(self) -> None:
        """A coroutine that awaits a Deferred in asyncio fails with the cure, and does not hang."""

        async def wrong(_: Work) -> Any:
            return await Deferred()

        error = await self.assertFailure(self.run_with(wrong, "asyncio"), AwaitsDeferred)
        self.assertIn("set worker.executor: reactor", str(error))


class HoldWatchTests(SynchronousTestCase):
    """`HoldWatch` and `in_reactor`"""

    def setUp(self) -> None:
        self.now = 0.0
        self.watch = HoldWatch(lambda: self.now)
        self.warnings: list[Any] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: Any) -> None:
        if event.get("log_namespace") == "openhqm.workers.holding.HoldWatch":
            self.warnings.append((event["handler"], event["seconds"], event["count"]))

    def hold(self, seconds: float) -> None:
        self.now += seconds

    def call(self, handler: Callable[[Work], Any]) -> Any:
        return Handlers(in_reactor(handler, "jobs:handle", self.watch), {}).run(work())

    def test_named(self) -> None:
        """A plain function, one that raises, and each part of a coroutine that holds the reactor for over a second."""

        def broken(_: Work) -> None:
            self.hold(2)
            raise KeyError

        gate: Deferred[None] = Deferred()

        async def second_part(_: Work) -> str:
            await gate
            self.hold(3)
            return "done"

        for handler, seconds in ((lambda _: self.hold(1.5), 1.5), (broken, 2.0)):
            self.call(handler).addErrback(lambda failure: failure.trap(KeyError))
            self.assertEqual(self.warnings, [("jobs:handle", seconds, 1)])
            self.warnings.clear()
            self.now += 60
        answer = self.call(second_part)
        self.now += 100  # while it waits it holds nothing
        self.assertEqual(self.warnings, [])
        gate.callback(None)
        self.assertEqual(self.successResultOf(answer), "done")
        self.assertEqual(self.warnings, [("jobs:handle", 3.0, 1)])

    def test_not_named(self) -> None:
        """What takes a second or less is not worth a line."""
        self.call(lambda _: self.hold(1.0))
        self.successResultOf(self.call(lambda _: wait_for(succeed(1))))
        self.assertEqual(self.warnings, [])

    def test_once_a_minute(self) -> None:
        """Of each handler there is one warning a minute; the next one has the count and the longest time."""
        for seconds in (2, 5, 3):
            self.call(lambda _, seconds=seconds: self.hold(seconds))
        self.watch.note("jobs:other", self.now - 4)
        self.assertEqual(self.warnings, [("jobs:handle", 2.0, 1), ("jobs:other", 4.0, 1)])
        self.now += 60
        self.call(lambda _: self.hold(2))
        self.assertEqual(self.warnings[2:], [("jobs:handle", 5.0, 3)])

    def test_cancelled(self) -> None:
        """A coroutine is cancelled through the watch, and may wait for its own cleaning up."""
        steps: list[str] = []
        cleaning: Deferred[None] = Deferred()

        async def handle(_: Work) -> None:
            try:
                await Deferred()
            finally:
                await cleaning
                steps.append("cleaned up")

        answer = self.call(handle)
        answer.cancel()
        self.assertEqual(steps, [])
        cleaning.callback(None)
        self.failureResultOf(answer)
        self.assertEqual(steps, ["cleaned up"])

    def test_real_time(self) -> None:
        """Without another clock it measures the time that passes."""
        began = HoldWatch().seconds()
        self.assertLessEqual(began, time.monotonic())
