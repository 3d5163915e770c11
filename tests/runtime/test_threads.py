"""Threads apart from the reactor's pool, on a real reactor."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from openhqm.runtime.threads import SerialThread, Threads


def alive(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if name in thread.name]


class Gate:
    """A function that runs until the test opens it."""

    def __init__(self) -> None:
        self.entered, self._open = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.entered.set()
        assert self._open.wait(10)
        return "through"

    def open(self) -> None:
        self._open.set()


class RunInThreadMixin:
    """What `Threads` and `SerialThread` have in common"""

    timeout = 20
    run_in_thread: Callable[..., Deferred[Any]]

    async def test_results(self) -> None:
        """The function runs in another thread, and its result is delivered in the reactor's."""
        worker, result = await self.run_in_thread(lambda: (threading.current_thread(), [1, None]))
        self.assertIsNot(worker, threading.current_thread())
        self.assertIs(threading.current_thread(), threading.main_thread())
        self.assertEqual(result, [1, None])

    async def test_failures(self) -> None:
        """Any exception of the function is the failure, and the next function runs."""

        def broken() -> None:
            raise KeyError("k")

        def exiting() -> None:
            raise SystemExit(3)

        for function, kind in ((broken, KeyError), (exiting, SystemExit)):
            await self.assertFailure(self.run_in_thread(function), kind)
        self.assertEqual(await self.run_in_thread(lambda: 1), 1)

    async def test_cannot_be_cancelled(self) -> None:
        """Cancelling does nothing: the Deferred fires with the function's result when it has returned."""
        gate = Gate()
        done = self.run_in_thread(gate)
        self.assertTrue(gate.entered.wait(10))
        done.cancel()
        self.assertFalse(done.called)
        gate.open()
        self.assertEqual(await done, "through")


class ThreadsTests(RunInThreadMixin, TestCase):
    """`Threads`"""

    def setUp(self) -> None:
        self.name = f"pool-{self.id()}"
        self.threads = Threads(reactor, self.name, 2)
        self.threads.start()
        self.addCleanup(self.threads.stop)
        self.run_in_thread = self.threads.run

    async def test_at_most(self) -> None:
        """At most as many functions run at once as there are threads; the others wait."""
        gates = [Gate() for _ in range(3)]
        done = [self.threads.run(gate) for gate in gates]
        for gate in gates[:2]:
            self.assertTrue(gate.entered.wait(10))
        self.assertEqual((gates[2].entered.is_set(), len(alive(self.name))), (False, 2))
        gates[0].open()
        await done[0]
        self.assertTrue(gates[2].entered.wait(10))
        for gate in gates:
            gate.open()
        await gatherResults(done)

    async def test_stop(self) -> None:
        """No thread is left after stopping, also right after the last result."""
        for _ in range(300):
            threads = Threads(reactor, "to-be-stopped", 2)
            threads.start()
            await gatherResults([threads.run(lambda: 1) for _ in range(4)])
            self.assertNotEqual(alive("to-be-stopped"), [])
            threads.stop()
            self.assertEqual(alive("to-be-stopped"), [])

    async def test_stop_with_work_under_way(self) -> None:
        """A function that does not return delays neither stopping nor the end of the process."""
        gate = Gate()
        done = self.threads.run(gate)
        self.assertTrue(gate.entered.wait(10))
        self.threads.stop()
        self.assertTrue(all(thread.daemon for thread in alive(self.name)))
        gate.open()
        await done


class SerialThreadTests(RunInThreadMixin, TestCase):
    """`SerialThread`"""

    def setUp(self) -> None:
        self.name = f"serial-{self.id()}"
        self.serial = SerialThread(reactor, self.name)
        self.addCleanup(self.serial.stop)
        self.run_in_thread = self.serial.run

    async def test_one_after_the_other(self) -> None:
        """Functions run and deliver their results in order, and never overlap."""
        steps: list[tuple[str, int]] = []
        delivered: list[int] = []

        def job(number: int) -> int:
            steps.append(("begin", number))
            steps.append(("end", number))
            return number

        done = [
            self.serial.run(lambda number=number: job(number)).addCallback(delivered.append) for number in range(200)
        ]
        self.assertEqual(len(alive(self.name)), 1)
        await gatherResults(done)
        self.assertEqual(steps, [(what, number) for number in range(200) for what in ("begin", "end")])
        self.assertEqual(delivered, list(range(200)))

    async def test_stop(self) -> None:
        """Stopping runs the functions passed before, delivers their results, and leaves no thread."""
        steps: list[int] = []
        done = [self.serial.run(lambda number=number: steps.append(number)) for number in range(20)]
        self.serial.stop()
        self.assertEqual(steps, list(range(20)))
        self.assertEqual(alive(self.name), [])
        await gatherResults(done)

    async def test_stop_without_work(self) -> None:
        """A SerialThread that never ran anything has no thread. It can be stopped, even twice."""
        self.assertEqual(alive(self.name), [])
        self.serial.stop()
        self.serial.stop()
