"""What is due in the file stays due, whatever happens to the clock of the machine between two processes."""

from __future__ import annotations

from typing import Any

import apsw
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.runtime.steady_time import SteadyTime
from openhqm.sqlite.timeline import Timeline, boot_id
from tests.runtime.test_steady_time import Machine


class Process:
    """A process on ``machine``, with a clock of its own."""

    def __init__(self, machine: Machine) -> None:
        self.seconds = self.steady_time = SteadyTime(lambda: machine.day, lambda: machine.elapsed)
        self.delayed: list[Any] = []

    def getDelayedCalls(self) -> list[Any]:
        return self.delayed


class TimelineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.machine = Machine()
        self.connection = apsw.Connection(":memory:")
        self.connection.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID")
        self.boot = "one"

    def start(self) -> tuple[Process, Timeline]:
        process = Process(self.machine)
        timeline = Timeline(process, self.boot)
        timeline.resume(self.connection)
        return process, timeline

    def restart_machine(self, seconds: float) -> None:
        """The machine is off for so long, and its clock runs on."""
        self.machine.day += seconds
        self.machine.elapsed, self.boot = 0.0, "two"

    def test_not_set(self) -> None:
        """A clock that was not set is that of every process, after a restart of the machine, too."""
        process, _ = self.start()
        due = process.seconds() + 1000
        self.machine.run(300)
        process, _ = self.start()
        self.assertAlmostEqual(due - process.seconds(), 700, 3)
        self.restart_machine(200)
        process, _ = self.start()
        self.assertAlmostEqual(due - process.seconds(), 500, 3)
        self.assertEqual(process.steady_time.ahead(), 0.0)

    def test_set(self) -> None:
        """It was set while a process ran, or while none did: what is due stays due, and the time of day is shown."""
        for step in (3600.0, -3600.0, 86400.0 * 1000):
            for running in (True, False):
                self.setUp()
                process, _ = self.start()
                due = process.seconds() + 1000
                self.machine.run(100)
                if not running:
                    del process
                self.machine.day += step
                self.machine.run(200)  # and is killed, so that it writes nothing more
                for _ in range(3):  # the second one finds what the first one has written
                    process, _ = self.start()
                    self.assertAlmostEqual(due - process.seconds(), 700, 2)
                    self.assertAlmostEqual(process.steady_time.ahead(), step, 2)

    def test_machine_restarted(self) -> None:
        """It was set while a process ran, and the machine was restarted after the process had noticed."""
        for step in (3600.0, -3600.0):
            self.setUp()
            process, timeline = self.start()
            due = process.seconds() + 1000
            self.machine.day += step
            self.machine.run(100)
            self.assertEqual(timeline.note(self.connection, process.seconds()), 0)
            self.restart_machine(200)
            process, _ = self.start()
            self.assertAlmostEqual(due - process.seconds(), 700, 2)

    def test_delayed_calls(self) -> None:
        """What the process has begun to wait for, before it opens the file, takes as long as it would have."""
        self.start()
        self.machine.day += 3600
        process = Process(self.machine)
        timers = Clock()
        timers.seconds = process.seconds  # type: ignore[method-assign]
        call = timers.callLater(5, lambda: None)
        process.delayed = [call]
        Timeline(process, self.boot).resume(self.connection)
        self.assertAlmostEqual(call.getTime() - process.seconds(), 5, 2)

    def test_other_clocks(self) -> None:
        """A clock that does not keep steady time is left alone."""
        Timeline(Clock()).resume(self.connection)
        self.assertEqual(self.connection.execute("SELECT * FROM meta").fetchall(), [])

    def test_boot_id(self) -> None:
        """A start of the machine has one id."""
        self.assertEqual(boot_id(), boot_id())
