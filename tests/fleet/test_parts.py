"""The parts of a fleet in memory: sums of metrics, messages, processes that are replaced, and when."""

from __future__ import annotations

import math
import os
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.internet.error import ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from openhqm.backends import PRODUCTS
from openhqm.config.loading import load
from openhqm.config.model import Server
from openhqm.errors import CannotStart
from openhqm.fleet.child import EXIT_GRACE_SECONDS, PIPES_OPEN_SECONDS, SILENT_SECONDS, Child
from openhqm.fleet.inheritance import FROM_PARENT, TO_PARENT, VARIABLE, Inheritance, Source, spawn_arguments
from openhqm.fleet.metric_families import add, cumulative, snapshot, to_prometheus
from openhqm.fleet.parent_connection import ANSWER_SECONDS, REPORT_SECONDS, ParentConnection
from openhqm.fleet.protocol import (
    FleetStatus,
    Leave,
    MetricFamily,
    Pipe,
    ProcessHealth,
    Report,
    Serve,
    StatusRequest,
    Stop,
    connect_pipe,
)
from openhqm.fleet.supervisor import BACK_OFF, EARLY_EXIT_SECONDS, START_SECONDS, Slot, Supervisor
from tests import hypothesis_profile  # noqa: F401

DRAIN = 30.0


def counted(value: float) -> list[MetricFamily]:
    return [MetricFamily("seen", "counter", "Seen.", [("seen_total", {}, value)])]


def report(unavailable_reason: str | None = None, serving: bool = True, seen: float = 0) -> Report:
    return Report(ProcessHealth(unavailable_reason), counted(seen), serving)


def value(metrics: list[MetricFamily], name: str, **labels: str) -> float:
    (found,) = [v for family in metrics for n, each, v in family.samples if (n, each) == (name, labels)]
    return found


class MetricFamiliesTests(SynchronousTestCase):
    """`add`, `cumulative` and `to_prometheus`"""

    def registry(self) -> CollectorRegistry:
        registry = CollectorRegistry()
        Counter("c", "C.", ["of"], registry=registry).labels("x").inc(2)
        Histogram("h", "H.", buckets=(1, 10), registry=registry).observe(5)
        Gauge("g", "G.", registry=registry).set(3)
        Gauge("openhqm_build_info", "B.", registry=registry).set(1)
        Gauge("process_start_time_seconds", "S.", registry=registry).set(100)
        return registry

    def test_sums(self) -> None:
        """Counters, histograms and gauges are added.

        Build info and limits are taken once, and the oldest start time counts.
        """
        second = self.registry()
        Gauge("process_max_fds", "F.", registry=second).set(7)
        metrics = add([snapshot(self.registry()), snapshot(second)])
        self.assertEqual(value(metrics, "c_total", of="x"), 4)
        self.assertEqual(value(metrics, "h_bucket", le="10.0"), 2)
        self.assertEqual(value(metrics, "h_bucket", le="1.0"), 0)
        self.assertEqual(value(metrics, "h_sum"), 10)
        self.assertEqual(value(metrics, "g"), 6)
        self.assertEqual(value(metrics, "openhqm_build_info"), 1)
        self.assertEqual(value(metrics, "process_start_time_seconds"), 100)
        self.assertEqual(value(metrics, "process_max_fds"), 7)

    def test_created(self) -> None:
        """The creation time of a counter is that of the process that counted first."""
        first = [MetricFamily("c", "counter", "", [("c_created", {}, 5.0)])]
        second = [MetricFamily("c", "counter", "", [("c_created", {}, 4.0)])]
        self.assertEqual(value(add([first, second]), "c_created"), 4.0)

    def test_cumulative(self) -> None:
        """Gauges end with their process; counters and histograms stay."""
        self.assertEqual({family.name for family in cumulative(snapshot(self.registry()))}, {"c", "h"})

    def test_round_trip(self) -> None:
        """The metrics of one process, sent to the parent and back, are those that it would have shown itself."""
        registry = self.registry()
        round_trip = to_prometheus(add([snapshot(registry)]))
        self.assertEqual(
            [(metric.name, metric.type, metric.samples) for metric in round_trip],
            [(metric.name, metric.type, metric.samples) for metric in registry.collect()],
        )


class PipeTests(SynchronousTestCase):
    """`Pipe`"""

    @given(st.lists(st.integers(1, 40), max_size=8))
    def test_in_pieces(self, cuts: list[int]) -> None:
        """Messages arrive as they were sent, however the pipe splits them. Infinity is kept."""
        received: list[Any] = []
        written: list[bytes] = []
        messages = [report("no disk", seen=math.inf), StatusRequest(3, True), Leave(), Stop(), Serve()]
        sender = connect_pipe(Pipe(received.append), written.append)
        for message in messages:
            sender.send(message)
        data = b"".join(written)
        receiver = connect_pipe(Pipe(received.append), written.append)
        for cut in cuts:
            receiver.dataReceived(data[:cut])
            data = data[cut:]
        receiver.dataReceived(data)
        self.assertEqual(received, messages)


class InheritanceTests(SynchronousTestCase):
    """`Inheritance`"""

    def test_none(self) -> None:
        """A process that was not started by a parent inherits nothing."""
        self.assertIsNone(Inheritance.take({}))

    def test_foreign_variable(self) -> None:
        """A variable that no parent has set is refused with a clear error, and so is a parent that has ended."""
        with self.assertRaisesRegex(CannotStart, f"{VARIABLE} is set by openhqm for the processes"):
            Inheritance.take({VARIABLE: "yes"})
        environment = {VARIABLE: "[1,0,false]" if os.getppid() != 1 else "[2,0,false]"}
        with self.assertRaisesRegex(CannotStart, "has ended"):
            Inheritance.take(environment)
        self.assertEqual(environment, {})

    def test_spawn_arguments(self) -> None:
        """The sockets follow the two pipes and the configuration, which is read from its beginning."""
        with spawn_arguments([7, 9], b"server: {}") as (descriptors, variables):
            self.assertEqual((descriptors[3], descriptors[4], descriptors[6], descriptors[7]), ("w", "r", 7, 9))
            self.assertEqual(os.read(descriptors[5], 100), b"server: {}")
            self.assertEqual(variables, {VARIABLE: f"[{os.getpid()},2,true]"})
        with spawn_arguments([7], None) as (descriptors, _):
            self.assertEqual(descriptors[5], 7)


@attrs.define
class ProcessTransport:
    """The part of a process transport that the parent uses."""

    pid: int
    sent: list[bytes] = attrs.Factory(list)
    signals: list[str] = attrs.Factory(list)
    closed: set[int] = attrs.Factory(set)

    def writeToChild(self, descriptor: int, data: bytes) -> None:
        self.sent.append(data)

    def signalProcess(self, name: str) -> None:
        self.signals.append(name)

    def closeChildFD(self, descriptor: int) -> None:
        self.closed.add(descriptor)


class FleetCase(SynchronousTestCase):
    """A supervisor of processes that do only what the test says."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.spawned: list[Child] = []
        self.spawn_error: OSError | None = None
        settings = attrs.evolve(load(None, {}, PRODUCTS), server=Server(workers=2, drain_seconds=DRAIN))
        self.source = Source(settings, None)
        self.supervisor = Supervisor(self.source, self.clock, lambda: 0.5, self.spawn)

    def spawn(self, child: Child, source: Source) -> None:
        if self.spawn_error is not None:
            raise self.spawn_error
        transport: Any = ProcessTransport(1000 + len(self.spawned))
        self.spawned.append(child)
        child.makeConnection(transport)

    def reports(self, child: Child, message: Report | StatusRequest) -> None:
        connect_pipe(Pipe(lambda message: None), lambda data: child.childDataReceived(TO_PARENT, data)).send(message)

    def told(self, child: Child) -> list[Any]:
        """The messages that the parent has sent to ``child``."""
        received: list[Any] = []
        pipe = connect_pipe(Pipe(received.append), lambda data: None)
        for data in child.transport.sent:
            pipe.dataReceived(data)
        return received

    def dies(self, child: Child, code: int | None = None, number: int | None = 9) -> None:
        reason = Failure(ProcessTerminated(code, number))
        child.processExited(reason)
        child.processEnded(reason)

    def slot(self) -> Slot:
        """A slot with a process that serves."""
        slot = Slot()
        self.supervisor.slots.append(slot)
        served = self.supervisor.fill(slot)
        assert slot.child is not None
        self.reports(slot.child, report(serving=False))
        self.reports(slot.child, report())
        self.assertTrue(self.successResultOf(served))
        return slot

    def child(self) -> Child:
        child = self.slot().child
        assert child is not None
        return child

    def ask(self, with_metrics: bool = True) -> FleetStatus:
        """The answer to a status request of the newest process."""
        child = self.spawned[-1]
        del child.transport.sent[:]
        self.reports(child, StatusRequest(7, with_metrics))
        (answer,) = self.told(child)
        assert isinstance(answer, FleetStatus)
        return answer


class ChildTests(FleetCase):
    """`Child`"""

    def test_serves_when_told(self) -> None:
        """A process that has started is told to serve, and is ready when it reports that it serves."""
        slot = Slot()
        self.supervisor.slots.append(slot)
        served = self.supervisor.fill(slot)
        (child,) = self.spawned
        self.assertEqual((child.state, self.told(child)), ("starting", []))
        self.reports(child, report("not yet", serving=False))
        self.assertEqual((child.state, self.told(child)), ("starting", [Serve()]))
        self.assertNoResult(served)
        self.reports(child, report())
        self.assertTrue(self.successResultOf(served))
        self.assertEqual(child.state, "ready")

    def test_never_starts(self) -> None:
        """A process that does not begin to serve within its time is killed."""
        slot = Slot()
        self.supervisor.slots.append(slot)
        served = self.supervisor.fill(slot)
        (child,) = self.spawned
        self.clock.advance(START_SECONDS)
        self.assertFalse(self.successResultOf(served))
        self.assertEqual(child.transport.signals, ["KILL"])
        self.dies(child)
        self.clock.advance(BACK_OFF.max_seconds)
        self.assertEqual(len(self.spawned), 2)

    def test_available(self) -> None:
        """A process is available once it reports no reason against it.

        False where it ends, or does not report so in time.
        """
        child = self.child()
        self.reports(child, report("no Redis"))
        available, too_late, dead = (
            child.wait_until_available(9),
            child.wait_until_available(5),
            child.wait_until_available(20),
        )
        self.clock.advance(5)
        self.assertFalse(self.successResultOf(too_late))
        self.assertNoResult(available)
        self.reports(child, report())
        self.assertTrue(self.successResultOf(available))
        self.assertTrue(self.successResultOf(dead))
        self.reports(child, report("no Redis"))
        dead = child.wait_until_available(20)
        self.dies(child)
        self.assertFalse(self.successResultOf(dead))

    def test_silent(self) -> None:
        """A process that does not report is silent and stuck, until it reports again."""
        child = self.child()
        self.clock.advance(SILENT_SECONDS)
        self.assertEqual(child.state, "ready")
        self.clock.advance(1)
        self.assertEqual(child.state, "silent")
        self.assertIn("has not reported for 6 seconds", child.health.stuck or "")
        self.reports(child, report())
        self.assertEqual((child.state, child.health), ("ready", ProcessHealth()))

    def test_will_not_end(self) -> None:
        """A process that is told to end and does not is killed some time after its drain limit."""
        child = self.child()
        ended = child.leave()
        self.assertEqual((self.told(child)[-1], child.state), (Leave(), "leaving"))
        self.clock.advance(DRAIN + EXIT_GRACE_SECONDS - 1)
        self.assertEqual(child.transport.signals, [])
        self.clock.advance(1)
        self.assertEqual(child.transport.signals, ["KILL"])
        self.assertNoResult(ended)
        self.dies(child)
        self.successResultOf(ended)

    def test_pipes_that_stay_open(self) -> None:
        """A dead process whose pipes another one keeps open is replaced once, and the report in its pipe is read
        before."""
        child = self.child()
        self.clock.advance(EARLY_EXIT_SECONDS)
        died = Failure(ProcessTerminated(None, 9))
        child.processExited(died)
        self.reports(child, report(seen=7))
        self.assertEqual((child.exited, len(self.spawned)), (False, 1))
        self.clock.advance(PIPES_OPEN_SECONDS)
        self.assertEqual((child.exited, child.exit_description, len(self.spawned)), (True, "by signal 9", 2))
        self.assertEqual(child.transport.closed, {FROM_PARENT, TO_PARENT})
        self.assertEqual(value(self.ask().metrics or [], "seen_total"), 7)
        child.processEnded(died)
        self.clock.advance(BACK_OFF.max_seconds)
        self.assertEqual(len(self.spawned), 2)

    def test_stopped_before_it_serves(self) -> None:
        """A process that was told to end before it had reported is not told to serve."""
        slot = Slot()
        self.supervisor.slots.append(slot)
        self.supervisor.fill(slot)
        (child,) = self.spawned
        child.stop()
        self.reports(child, report(serving=False))
        self.assertEqual(self.told(child), [Stop()])

    def test_closed_pipe(self) -> None:
        """A message to a process that has closed its pipe is dropped."""
        child = self.child()
        child.childConnectionLost(3)
        before = len(child.transport.sent)
        ended = child.stop()
        self.assertEqual(len(child.transport.sent), before)
        self.dies(child, 0, None)
        self.successResultOf(ended)
        self.assertEqual(child.exit_description, "with 0")


class SupervisorTests(FleetCase):
    """`Supervisor`"""

    def test_replaced_at_once(self) -> None:
        """A process that has run for a while is replaced at once, also where it ended with 0."""
        slot = self.slot()
        self.clock.advance(EARLY_EXIT_SECONDS)
        before = slot.child
        assert before is not None
        self.dies(before, 0, None)
        self.assertIsNot(slot.child, before)
        self.assertEqual(len(self.supervisor.running), 1)

    def test_back_off(self) -> None:
        """After early exits the pauses grow up to a bound. After a long run the next process is started at once."""
        slot = self.slot()
        waited = []
        for _ in range(9):
            assert slot.child is not None
            self.dies(slot.child)
            (call,) = [call for call in self.clock.getDelayedCalls() if call.func == self.supervisor.fill]
            waited.append(call.getTime() - self.clock.seconds())
            self.clock.advance(waited[-1])
        self.assertEqual(waited, [0.5, 1, 2, 4, 8, 16, 30, 30, 30])
        self.reports(self.spawned[-1], report(serving=False))
        self.reports(self.spawned[-1], report())
        self.clock.advance(EARLY_EXIT_SECONDS)
        self.dies(self.spawned[-1])
        self.assertEqual(len(self.spawned), 11)

    def test_no_more_processes(self) -> None:
        """Where the system cannot start a process now, it is tried again."""
        slot = self.slot()
        self.clock.advance(EARLY_EXIT_SECONDS)
        self.spawn_error = BlockingIOError("Resource temporarily unavailable")
        assert slot.child is not None
        self.dies(slot.child)
        self.assertIsNone(slot.child)
        self.spawn_error = None
        self.clock.advance(BACK_OFF.base_seconds)
        self.assertIsNotNone(slot.child)

    def test_successor(self) -> None:
        """A successor takes over the slot.

        The process before it is not replaced when it ends, nor is one without a slot.
        """
        slot = self.slot()
        before = slot.child
        assert before is not None
        never = self.supervisor.new_child(self.source)
        self.dies(never)
        successor = self.supervisor.new_child(self.source)
        self.assertIs(self.supervisor.put(successor, slot), before)
        before.leave()
        self.dies(before, 0, None)
        self.assertEqual((slot.child, self.supervisor.running, len(self.spawned)), (successor, {successor}, 3))

    def test_successor_of_the_dead(self) -> None:
        """Where a successor is put into the slot of a dead process, the pending restart is cancelled."""
        slot = self.slot()
        assert slot.child is not None
        self.dies(slot.child)
        self.assertIsNone(self.supervisor.put(self.supervisor.new_child(self.source), slot))
        self.clock.advance(BACK_OFF.max_seconds)
        self.assertEqual(len(self.spawned), 2)

    def test_stopping(self) -> None:
        """When the fleet stops, all processes are told, none is replaced, and it has stopped with the last of them."""
        first, second = self.slot(), self.slot()
        assert first.child is not None and second.child is not None
        self.dies(second.child)
        child = first.child
        ended = self.supervisor.stop()
        self.assertEqual(self.told(child)[-1], Stop())
        self.clock.advance(BACK_OFF.max_seconds)
        self.assertNoResult(ended)
        self.dies(child, 0, None)
        self.successResultOf(ended)
        self.assertEqual((len(self.spawned), self.supervisor.running), (2, set()))


class FleetStatusTests(FleetCase):
    """The parent's answer about the whole fleet"""

    def seen(self) -> float:
        metrics = self.ask().metrics
        assert metrics is not None
        return value(metrics, "seen_total")

    def test_counters_never_decrease(self) -> None:
        """The counters of a process that is killed stay in the sum."""
        first, second = self.child(), self.child()
        self.reports(first, report(seen=5))
        self.reports(second, report(seen=7))
        self.assertEqual(self.seen(), 12)
        self.reports(first, report(seen=6))
        self.dies(first)
        self.assertEqual(self.seen(), 13)
        self.clock.advance(BACK_OFF.max_seconds)
        self.reports(self.spawned[-1], report(seen=1))
        self.assertEqual(self.seen(), 14)

    def test_processes(self) -> None:
        """The answer holds the state of each process and how many are missing; the ends are counted by reason."""
        first, second = self.child(), self.child()
        first.leave()
        answer = self.ask()
        self.assertEqual({p.pid: p.state for p in answer.processes}, {first.pid: "leaving", second.pid: "ready"})
        self.assertEqual((answer.number, answer.missing), (7, 1))
        metrics = answer.metrics or []
        self.assertEqual(value(metrics, "openhqm_processes", state="leaving"), 1)
        self.assertEqual(value(metrics, "openhqm_processes", state="silent"), 0)
        self.dies(first, 0, None)
        self.child()
        metrics = self.ask().metrics or []
        self.assertEqual(value(metrics, "openhqm_process_ends_total", reason="told"), 1)
        self.assertEqual(value(metrics, "openhqm_process_ends_total", reason="died"), 0)
        self.assertIsNone(self.ask(with_metrics=False).metrics)


class ParentConnectionTests(SynchronousTestCase):
    """`Parent`, with pipes in memory"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.written: list[bytes] = []
        self.called: list[str] = []
        self.connection = ParentConnection(
            self.clock,
            report,
            serve=self.serve,
            leave=lambda: self.called.append("leave"),
            stop=lambda: self.called.append("stop"),
        )
        self.pipe = connect_pipe(self.connection.pipe, self.written.append)

    def serve(self) -> Deferred[None]:
        self.called.append("serve")
        return succeed(None)

    def received(self) -> list[Any]:
        """The messages that the parent has received since the last call."""
        received: list[Any] = []
        connect_pipe(Pipe(received.append), lambda data: None).dataReceived(b"".join(self.written))
        self.written.clear()
        return received

    def send(self, message: Any) -> None:
        """Send as the parent."""
        connect_pipe(Pipe(lambda message: None), self.pipe.dataReceived).send(message)

    def test_reports(self) -> None:
        """There is no report before the process has started.

        Then there is one at once and every second, and when it serves.
        """
        self.clock.advance(5)
        self.assertEqual(self.received(), [])
        self.connection.start_reporting()
        self.assertEqual(self.received(), [report()])
        self.clock.pump([REPORT_SECONDS] * 3)
        self.assertEqual(self.received(), [report()] * 3)
        self.send(Serve())
        self.assertEqual((self.called, self.received()), (["serve"], [report()]))

    def test_full_pipe(self) -> None:
        """While the pipe is full, nothing is written into it: its buffer stays bounded."""
        self.connection.start_reporting()
        self.received()
        self.connection.pauseProducing()
        self.clock.pump([REPORT_SECONDS] * 10)
        self.failureResultOf(self.connection.fleet_status(False), TimeoutError)
        self.assertEqual(self.received(), [])
        self.connection.resumeProducing()
        self.clock.advance(REPORT_SECONDS)
        self.assertEqual(self.received(), [report()])

    def test_question(self) -> None:
        """A report goes before each status request. Answers are matched by number."""
        self.connection.start_reporting()
        self.received()
        first, second = self.connection.fleet_status(True), self.connection.fleet_status(False)
        self.assertEqual(self.received(), [report(), StatusRequest(1, True), report(), StatusRequest(2, False)])
        self.send(FleetStatus(2, [], 0, None))
        self.assertEqual(self.successResultOf(second).number, 2)
        self.assertNoResult(first)
        self.clock.advance(ANSWER_SECONDS)
        self.failureResultOf(first, TimeoutError)
        self.send(FleetStatus(1, [], 0, None))  # too late, which is no error

    def test_messages(self) -> None:
        """Each message calls its function. `stop` is called also when the parent has ended."""
        for message in (Leave(), Stop()):
            self.send(message)
        self.assertEqual(self.called, ["leave", "stop"])
        self.pipe.connectionLost()
        self.assertEqual(self.called, ["leave", "stop", "stop"])
        self.connection.start_reporting()
        self.assertEqual(self.received(), [])
