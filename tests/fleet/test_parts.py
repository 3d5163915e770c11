"""Several processes under one parent, in memory: what is added up, what is said, who is replaced and when."""

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

from openhqm.config.model import Server, Settings
from openhqm.errors import CannotStart
from openhqm.fleet.child import LAST_WORDS_SECONDS, PATIENCE_SECONDS, SILENT_SECONDS, Child
from openhqm.fleet.figures import added, figures_of, lasting, metrics_of
from openhqm.fleet.inheritance import HEARING, SPEAKING, VARIABLE, Inheritance, Source, bequest
from openhqm.fleet.parent import ANSWER_SECONDS, REPORT_SECONDS, Parent
from openhqm.fleet.protocol import (
    Everybody,
    Family,
    Leave,
    Pipe,
    Question,
    Report,
    Serve,
    Standing,
    Stop,
    speaking_by,
)
from openhqm.fleet.supervisor import BACK_OFF, START_SECONDS, YOUNG_SECONDS, Place, Supervisor
from tests import hypothesis_profile  # noqa: F401

DRAIN = 30.0


def counted(value: float) -> list[Family]:
    return [Family("seen", "counter", "Seen.", [("seen_total", {}, value)])]


def report(unavailable_reason: str | None = None, serving: bool = True, seen: float = 0) -> Report:
    return Report(Standing(unavailable_reason), counted(seen), serving)


def value(figures: list[Family], name: str, **labels: str) -> float:
    (found,) = [v for family in figures for n, each, v in family.samples if (n, each) == (name, labels)]
    return found


class AddingTests(SynchronousTestCase):
    """`added` and `lasting`"""

    def registry(self) -> CollectorRegistry:
        registry = CollectorRegistry()
        Counter("c", "C.", ["of"], registry=registry).labels("x").inc(2)
        Histogram("h", "H.", buckets=(1, 10), registry=registry).observe(5)
        Gauge("g", "G.", registry=registry).set(3)
        Gauge("openhqm_build_info", "B.", registry=registry).set(1)
        Gauge("process_start_time_seconds", "S.", registry=registry).set(100)
        return registry

    def test_added(self) -> None:
        """Counters, histograms and gauges are sums; what says the same of all is said once; the oldest start counts."""
        second = self.registry()
        Gauge("process_max_fds", "F.", registry=second).set(7)
        figures = added([figures_of(self.registry()), figures_of(second)])
        self.assertEqual(value(figures, "c_total", of="x"), 4)
        self.assertEqual(value(figures, "h_bucket", le="10.0"), 2)
        self.assertEqual(value(figures, "h_bucket", le="1.0"), 0)
        self.assertEqual(value(figures, "h_sum"), 10)
        self.assertEqual(value(figures, "g"), 6)
        self.assertEqual(value(figures, "openhqm_build_info"), 1)
        self.assertEqual(value(figures, "process_start_time_seconds"), 100)
        self.assertEqual(value(figures, "process_max_fds"), 7)

    def test_created(self) -> None:
        """When something was counted first is when the first process counted it."""
        first = [Family("c", "counter", "", [("c_created", {}, 5.0)])]
        second = [Family("c", "counter", "", [("c_created", {}, 4.0)])]
        self.assertEqual(value(added([first, second]), "c_created"), 4.0)

    def test_lasting(self) -> None:
        """What a process held ends with it; what it counted does not."""
        self.assertEqual({family.name for family in lasting(figures_of(self.registry()))}, {"c", "h"})

    def test_as_prometheus_has_it(self) -> None:
        """One process's figures, through the pipe and back, are what it would have shown itself."""
        registry = self.registry()
        there_and_back = metrics_of(added([figures_of(registry)]))
        self.assertEqual(
            [(metric.name, metric.type, metric.samples) for metric in there_and_back],
            [(metric.name, metric.type, metric.samples) for metric in registry.collect()],
        )


class PipeTests(SynchronousTestCase):
    """`Pipe`"""

    @given(st.lists(st.integers(1, 40), max_size=8))
    def test_in_pieces(self, cuts: list[int]) -> None:
        """Words arrive as they were said, however the pipe cuts them; infinity, too."""
        heard: list[Any] = []
        written: list[bytes] = []
        words = [report("no disk", seen=math.inf), Question(3, True), Leave(), Stop(), Serve()]
        speaking = speaking_by(Pipe(heard.append), written.append)
        for word in words:
            speaking.say(word)
        data = b"".join(written)
        hearing = speaking_by(Pipe(heard.append), written.append)
        for cut in cuts:
            hearing.dataReceived(data[:cut])
            data = data[cut:]
        hearing.dataReceived(data)
        self.assertEqual(heard, words)


class InheritanceTests(SynchronousTestCase):
    """`Inheritance`"""

    def test_none(self) -> None:
        """A process that nobody of ours started has no parent."""
        self.assertIsNone(Inheritance.take({}))

    def test_by_accident(self) -> None:
        """A variable that somebody set is refused in words, and so is a parent that is gone."""
        with self.assertRaisesRegex(CannotStart, f"{VARIABLE} is for processes that are started by another"):
            Inheritance.take({VARIABLE: "yes"})
        environment = {VARIABLE: "[1,0,false]" if os.getppid() != 1 else "[2,0,false]"}
        with self.assertRaisesRegex(CannotStart, "has ended"):
            Inheritance.take(environment)
        self.assertEqual(environment, {})

    def test_bequest(self) -> None:
        """The sockets come behind the two pipes and the configuration, which can be read from its beginning."""
        with bequest([7, 9], b"server: {}") as (descriptors, variables):
            self.assertEqual((descriptors[3], descriptors[4], descriptors[6], descriptors[7]), ("w", "r", 7, 9))
            self.assertEqual(os.read(descriptors[5], 100), b"server: {}")
            self.assertEqual(variables, {VARIABLE: f"[{os.getpid()},2,true]"})
        with bequest([7], None) as (descriptors, _):
            self.assertEqual(descriptors[5], 7)


@attrs.define
class ProcessTransport:
    """As much of a process as its parent sees."""

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
    """A roster of processes that do nothing but what the test has them do."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.spawned: list[Child] = []
        self.no_more: OSError | None = None
        settings = Settings(server=Server(workers=2, drain_seconds=DRAIN))
        self.source = Source(settings, None)
        self.roster = Supervisor(self.source, self.clock, lambda: 0.5, self.spawn)

    def spawn(self, child: Child, source: Source) -> None:
        if self.no_more is not None:
            raise self.no_more
        transport: Any = ProcessTransport(1000 + len(self.spawned))
        self.spawned.append(child)
        child.makeConnection(transport)

    def says(self, child: Child, word: Report | Question) -> None:
        speaking_by(Pipe(lambda word: None), lambda data: child.childDataReceived(SPEAKING, data)).say(word)

    def told(self, child: Child) -> list[Any]:
        heard: list[Any] = []
        hearing = speaking_by(Pipe(heard.append), lambda data: None)
        for data in child.transport.sent:
            hearing.dataReceived(data)
        return heard

    def dies(self, child: Child, code: int | None = None, number: int | None = 9) -> None:
        reason = Failure(ProcessTerminated(code, number))
        child.processExited(reason)
        child.processEnded(reason)

    def place(self) -> Place:
        """A place with a process that serves."""
        place = Place()
        self.roster.places.append(place)
        served = self.roster.fill(place)
        assert place.child is not None
        self.says(place.child, report(serving=False))
        self.says(place.child, report())
        self.assertTrue(self.successResultOf(served))
        return place

    def child(self) -> Child:
        child = self.place().child
        assert child is not None
        return child

    def ask(self, figures: bool = True) -> Everybody:
        """The answer to the first process's question."""
        child = self.spawned[-1]
        del child.transport.sent[:]
        self.says(child, Question(7, figures))
        (answer,) = self.told(child)
        assert isinstance(answer, Everybody)
        return answer


class ChildTests(FleetCase):
    """`Child`"""

    def test_nobody_serves_unasked(self) -> None:
        """A process that has started is told to serve, and is ready once it does."""
        place = Place()
        self.roster.places.append(place)
        served = self.roster.fill(place)
        (child,) = self.spawned
        self.assertEqual((child.state, self.told(child)), ("starting", []))
        self.says(child, report("not yet", serving=False))
        self.assertEqual((child.state, self.told(child)), ("starting", [Serve()]))
        self.assertNoResult(served)
        self.says(child, report())
        self.assertTrue(self.successResultOf(served))
        self.assertEqual(child.state, "ready")

    def test_never_starts(self) -> None:
        """A process that does not begin to serve is killed when its time is up."""
        place = Place()
        self.roster.places.append(place)
        served = self.roster.fill(place)
        (child,) = self.spawned
        self.clock.advance(START_SECONDS)
        self.assertFalse(self.successResultOf(served))
        self.assertEqual(child.transport.signals, ["KILL"])
        self.dies(child)
        self.clock.advance(BACK_OFF.max_seconds)
        self.assertEqual(len(self.spawned), 2)

    def test_sound(self) -> None:
        """It is sound once it could keep a 202, and not where it ends or says otherwise until its time is up."""
        child = self.child()
        self.says(child, report("no Redis"))
        sound, too_late, dead = child.sound(9), child.sound(5), child.sound(20)
        self.clock.advance(5)
        self.assertFalse(self.successResultOf(too_late))
        self.assertNoResult(sound)
        self.says(child, report())
        self.assertTrue(self.successResultOf(sound))
        self.assertTrue(self.successResultOf(dead))
        self.says(child, report("no Redis"))
        dead = child.sound(20)
        self.dies(child)
        self.assertFalse(self.successResultOf(dead))

    def test_silent(self) -> None:
        """Who says nothing is silent, and only a new process would help; until it speaks again."""
        child = self.child()
        self.clock.advance(SILENT_SECONDS)
        self.assertEqual(child.state, "ready")
        self.clock.advance(1)
        self.assertEqual(child.state, "silent")
        self.assertIn("has said nothing for 6 seconds", child.standing.stuck or "")
        self.says(child, report())
        self.assertEqual((child.state, child.standing), ("ready", Standing()))

    def test_will_not_end(self) -> None:
        """A process that is told to end and does not is killed, a little after it was to have drained."""
        child = self.child()
        ended = child.leave()
        self.assertEqual((self.told(child)[-1], child.state), (Leave(), "leaving"))
        self.clock.advance(DRAIN + PATIENCE_SECONDS - 1)
        self.assertEqual(child.transport.signals, [])
        self.clock.advance(1)
        self.assertEqual(child.transport.signals, ["KILL"])
        self.assertNoResult(ended)
        self.dies(child)
        self.successResultOf(ended)

    def test_pipes_that_stay_open(self) -> None:
        """A dead process whose pipes others hold is replaced once, after a while in which its last words are heard."""
        child = self.child()
        self.clock.advance(YOUNG_SECONDS)
        died = Failure(ProcessTerminated(None, 9))
        child.processExited(died)
        self.says(child, report(seen=7))
        self.assertEqual((child.over, len(self.spawned)), (False, 1))
        self.clock.advance(LAST_WORDS_SECONDS)
        self.assertEqual((child.over, child.how, len(self.spawned)), (True, "by signal 9", 2))
        self.assertEqual(child.transport.closed, {HEARING, SPEAKING})
        self.assertEqual(value(self.ask().figures or [], "seen_total"), 7)
        child.processEnded(died)
        self.clock.advance(BACK_OFF.max_seconds)
        self.assertEqual(len(self.spawned), 2)

    def test_told_to_end_first(self) -> None:
        """A process that was told to end before it had begun is not told to serve."""
        place = Place()
        self.roster.places.append(place)
        self.roster.fill(place)
        (child,) = self.spawned
        child.stop()
        self.says(child, report(serving=False))
        self.assertEqual(self.told(child), [Stop()])

    def test_deaf(self) -> None:
        """What is said to a process that has closed its pipe is not said, and nothing breaks."""
        child = self.child()
        child.childConnectionLost(3)
        before = len(child.transport.sent)
        ended = child.stop()
        self.assertEqual(len(child.transport.sent), before)
        self.dies(child, 0, None)
        self.successResultOf(ended)
        self.assertEqual(child.how, "with 0")


class RosterTests(FleetCase):
    """`Supervisor`"""

    def test_replaced_at_once(self) -> None:
        """A process that has lived for a while is replaced at once, also where it ended well."""
        place = self.place()
        self.clock.advance(YOUNG_SECONDS)
        before = place.child
        assert before is not None
        self.dies(before, 0, None)
        self.assertIsNot(place.child, before)
        self.assertEqual(len(self.roster.living), 1)

    def test_back_off(self) -> None:
        """Whoever dies young is replaced later and later, up to a bound, and at once again after a long life."""
        place = self.place()
        waited = []
        for _ in range(9):
            assert place.child is not None
            self.dies(place.child)
            (call,) = [call for call in self.clock.getDelayedCalls() if call.func == self.roster.fill]
            waited.append(call.getTime() - self.clock.seconds())
            self.clock.advance(waited[-1])
        self.assertEqual(waited, [0.5, 1, 2, 4, 8, 16, 30, 30, 30])
        self.says(self.spawned[-1], report(serving=False))
        self.says(self.spawned[-1], report())
        self.clock.advance(YOUNG_SECONDS)
        self.dies(self.spawned[-1])
        self.assertEqual(len(self.spawned), 11)

    def test_no_more_processes(self) -> None:
        """Where no process can be started now, it is tried again."""
        place = self.place()
        self.clock.advance(YOUNG_SECONDS)
        self.no_more = BlockingIOError("Resource temporarily unavailable")
        assert place.child is not None
        self.dies(place.child)
        self.assertIsNone(place.child)
        self.no_more = None
        self.clock.advance(BACK_OFF.base_seconds)
        self.assertIsNotNone(place.child)

    def test_successor(self) -> None:
        """A successor takes the place; who ends there afterwards is not replaced, and neither is who never had one."""
        place = self.place()
        before = place.child
        assert before is not None
        never = self.roster.new_child(self.source)
        self.dies(never)
        successor = self.roster.new_child(self.source)
        self.assertIs(self.roster.put(successor, place), before)
        before.leave()
        self.dies(before, 0, None)
        self.assertEqual((place.child, self.roster.living, len(self.spawned)), (successor, {successor}, 3))

    def test_successor_of_the_dead(self) -> None:
        """A successor that takes the place of one that died is not replaced once more by what was put off."""
        place = self.place()
        assert place.child is not None
        self.dies(place.child)
        self.assertIsNone(self.roster.put(self.roster.new_child(self.source), place))
        self.clock.advance(BACK_OFF.max_seconds)
        self.assertEqual(len(self.spawned), 2)

    def test_stopping(self) -> None:
        """When everything stops all are told, whoever died is not replaced, and it ends with the last of them."""
        first, second = self.place(), self.place()
        assert first.child is not None and second.child is not None
        self.dies(second.child)
        child = first.child
        ended = self.roster.stop()
        self.assertEqual(self.told(child)[-1], Stop())
        self.clock.advance(BACK_OFF.max_seconds)
        self.assertNoResult(ended)
        self.dies(child, 0, None)
        self.successResultOf(ended)
        self.assertEqual((len(self.spawned), self.roster.living), (2, set()))


class EverybodyTests(FleetCase):
    """What whoever asks is told of all"""

    def seen(self) -> float:
        figures = self.ask().figures
        assert figures is not None
        return value(figures, "seen_total")

    def test_never_backwards(self) -> None:
        """What a process had counted when it was last heard of stays counted when it is killed."""
        first, second = self.child(), self.child()
        self.says(first, report(seen=5))
        self.says(second, report(seen=7))
        self.assertEqual(self.seen(), 12)
        self.says(first, report(seen=6))
        self.dies(first)
        self.assertEqual(self.seen(), 13)
        self.clock.advance(BACK_OFF.max_seconds)
        self.says(self.spawned[-1], report(seen=1))
        self.assertEqual(self.seen(), 14)

    def test_who_there_is(self) -> None:
        """Each with its state; who is missing is counted, and so are the ends."""
        first, second = self.child(), self.child()
        first.leave()
        answer = self.ask()
        self.assertEqual({p.pid: p.state for p in answer.processes}, {first.pid: "leaving", second.pid: "ready"})
        self.assertEqual((answer.number, answer.missing), (7, 1))
        figures = answer.figures or []
        self.assertEqual(value(figures, "openhqm_processes", state="leaving"), 1)
        self.assertEqual(value(figures, "openhqm_processes", state="silent"), 0)
        self.dies(first, 0, None)
        self.child()
        figures = self.ask().figures or []
        self.assertEqual(value(figures, "openhqm_process_ends_total", reason="told"), 1)
        self.assertEqual(value(figures, "openhqm_process_ends_total", reason="died"), 0)
        self.assertIsNone(self.ask(figures=False).figures)


class ParentTests(SynchronousTestCase):
    """`Parent`, with pipes in memory"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.written: list[bytes] = []
        self.did: list[str] = []
        self.parent = Parent(
            self.clock,
            report,
            serve=self.serve,
            leave=lambda: self.did.append("leave"),
            stop=lambda: self.did.append("stop"),
        )
        self.pipe = speaking_by(self.parent.pipe, self.written.append)

    def serve(self) -> Deferred[None]:
        self.did.append("serve")
        return succeed(None)

    def heard(self) -> list[Any]:
        """What the parent heard since it was last asked for."""
        heard: list[Any] = []
        speaking_by(Pipe(heard.append), lambda data: None).dataReceived(b"".join(self.written))
        self.written.clear()
        return heard

    def says(self, word: Any) -> None:
        speaking_by(Pipe(lambda word: None), self.pipe.dataReceived).say(word)

    def test_reports(self) -> None:
        """Nothing before it has begun, then at once and every second; and at once when it serves."""
        self.clock.advance(5)
        self.assertEqual(self.heard(), [])
        self.parent.begin()
        self.assertEqual(self.heard(), [report()])
        self.clock.pump([REPORT_SECONDS] * 3)
        self.assertEqual(self.heard(), [report()] * 3)
        self.says(Serve())
        self.assertEqual((self.did, self.heard()), (["serve"], [report()]))

    def test_a_parent_that_does_not_read(self) -> None:
        """While the pipe is full nothing is put into it: what waits there stays within bounds."""
        self.parent.begin()
        self.heard()
        self.parent.pauseProducing()
        self.clock.pump([REPORT_SECONDS] * 10)
        self.failureResultOf(self.parent.ask(False), TimeoutError)
        self.assertEqual(self.heard(), [])
        self.parent.resumeProducing()
        self.clock.advance(REPORT_SECONDS)
        self.assertEqual(self.heard(), [report()])

    def test_question(self) -> None:
        """What this process knows now goes before its question; the answer is told from others by its number."""
        self.parent.begin()
        self.heard()
        first, second = self.parent.ask(True), self.parent.ask(False)
        self.assertEqual(self.heard(), [report(), Question(1, True), report(), Question(2, False)])
        self.says(Everybody(2, [], 0, None))
        self.assertEqual(self.successResultOf(second).number, 2)
        self.assertNoResult(first)
        self.clock.advance(ANSWER_SECONDS)
        self.failureResultOf(first, TimeoutError)
        self.says(Everybody(1, [], 0, None))  # too late, and nobody minds

    def test_told(self) -> None:
        """It does as it is told, and stops by itself when the parent is gone."""
        for word in (Leave(), Stop()):
            self.says(word)
        self.assertEqual(self.did, ["leave", "stop"])
        self.pipe.connectionLost()
        self.assertEqual(self.did, ["leave", "stop", "stop"])
        self.parent.begin()
        self.assertEqual(self.heard(), [])
