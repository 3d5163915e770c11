"""The gate before a target: which calls may begin, when, and in which order."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from openhqm.messages import Request, Submission
from openhqm.policy.breaker import FIRST_PAUSE, NEVER, UNREACHABLE_CALLS, Breaker, BreakerPolicy, State
from openhqm.policy.pacing import AdaptiveLimit, Pace
from openhqm.policy.queue_names import BACKLOG
from openhqm.workers.gate import Call, Gate, GateClosed
from tests import hypothesis_profile  # noqa: F401

POLICY = BreakerPolicy(failure_ratio=0.5, minimum_calls=2, window_seconds=10, open_seconds=30)


class Rig:
    """A gate, and the calls that it has admitted, in order."""

    def __init__(self, policy: BreakerPolicy = POLICY, **settings: Any) -> None:
        self.clock = Clock()
        self.gate = Gate(self.clock, Breaker(policy), **settings)
        self.inside: dict[int, Call] = {}
        self.order: list[int] = []
        self.times: list[float] = []
        self.turned_away: list[int] = []
        self.asked = 0

    def ask(self) -> Any:
        number, self.asked = self.asked, self.asked + 1

        def entered(call: Call) -> None:
            self.inside[number] = call
            self.order.append(number)
            self.times.append(self.clock.seconds())

        def refused(failure: Any) -> None:
            failure.trap(GateClosed, CancelledError)
            self.turned_away.append(number)

        return self.gate.enter().addCallbacks(entered, refused)

    def end(self, success: bool | None, number: int | None = None) -> None:
        self.inside.pop(min(self.inside) if number is None else number).end(success)

    def open(self) -> None:
        for _ in range(2):
            self.ask()
            self.end(False)


class LimitTests(SynchronousTestCase):
    def test_limit(self) -> None:
        """No more calls are under way than the limit. The next begins when one ends, in the order of asking."""
        rig = Rig(limit=2)
        for _ in range(4):
            rig.ask()
        self.assertEqual((rig.order, rig.gate.under_way), ([0, 1], 2))
        rig.end(True, 1)
        self.assertEqual(rig.order, [0, 1, 2])
        rig.end(None, 0)
        self.assertEqual((rig.order, rig.gate.under_way), ([0, 1, 2, 3], 2))

    def test_gives_up_its_place(self) -> None:
        """A call that gives up waiting lets the others move up."""
        rig = Rig(limit=1)
        rig.ask()
        second = rig.ask()
        rig.ask()
        second.cancel()
        rig.end(True)
        self.assertEqual((rig.order, rig.turned_away), ([0, 2], [1]))

    def test_pace(self) -> None:
        """Calls begin as far apart as the rate says."""
        rig = Rig(pace=Pace(2, 1))
        for _ in range(4):
            rig.ask()
        rig.clock.pump([0.25] * 8)
        self.assertEqual(rig.times, [0, 0.5, 1.0, 1.5])

    def test_adaptive(self) -> None:
        """A target that fails is called by fewer calls at once, and one that answers by more."""
        rig = Rig(NEVER, limit=8, adaptive=AdaptiveLimit(8))
        for _ in range(20):
            rig.ask()
        self.assertEqual(rig.gate.under_way, 4)
        for _ in range(4):
            rig.end(True)
        self.assertEqual(rig.gate.under_way, 5)
        rig.end(False)
        self.assertEqual(rig.gate.under_way, 4)
        rig.end(True)
        self.assertEqual(rig.gate.under_way, 3)

    def test_many_that_end_at_once(self) -> None:
        """Ten thousand calls before a target that refuses at once need no deep stack, and leave at most one timer."""
        rig = Rig(NEVER, limit=1, pace=Pace(1_000_000, 0.001))
        rig.ask()
        ended = []
        for _ in range(10_000):
            rig.gate.enter().addCallback(lambda call: ended.append(call.end(False)))
        rig.end(True)
        while len(ended) < 10_000:
            rig.clock.advance(0.001)
            self.assertLessEqual(len(rig.clock.getDelayedCalls()), 1)


class BreakerTests(SynchronousTestCase):
    def test_opens(self) -> None:
        """When the breaker opens, waiting calls fail with GateClosed, and so do calls that come then."""
        rig = Rig(limit=2)
        for _ in range(4):
            rig.ask()
        rig.end(False)
        rig.end(False)
        self.assertIs(rig.gate.state, State.OPEN)
        rig.ask()
        self.assertEqual((rig.order, rig.turned_away), ([0, 1, 2], [3, 4]))

    def test_cancelled_while_closing(self) -> None:
        """A call that fails with GateClosed may cancel another that waits: both have their answer."""
        rig = Rig(limit=2)
        rig.ask()
        rig.ask()
        third = rig.gate.enter()
        fourth = rig.ask()
        third.addErrback(lambda failure: fourth.cancel())
        fifth = rig.ask()
        rig.inside[0].end(False)
        rig.inside[1].end(False)
        self.assertIsNone(self.successResultOf(fifth))
        self.assertEqual(rig.gate.state, State.OPEN)

    def test_passable(self) -> None:
        """`passable` fires at once while the breaker is closed, and after the pause when it is open.

        It can be cancelled.
        """
        rig = Rig()
        self.successResultOf(rig.gate.passable())
        rig.open()
        waiting, given_up = rig.gate.passable(), rig.gate.passable()
        given_up.cancel()
        self.failureResultOf(given_up, CancelledError)
        self.assertEqual(len(rig.clock.getDelayedCalls()), 1)
        rig.clock.advance(29.9)
        self.assertNoResult(waiting)
        rig.clock.advance(0.1)
        self.successResultOf(waiting)

    def test_no_timer_without_waiters(self) -> None:
        """Where all calls have given up waiting, no timer is left."""
        rig = Rig()
        rig.open()
        rig.gate.passable().addErrback(lambda failure: failure.trap(CancelledError)).cancel()
        self.assertEqual(rig.clock.getDelayedCalls(), [])
        rig = Rig(pace=Pace(1, 60))
        rig.ask()
        rig.ask().cancel()
        self.assertEqual((rig.turned_away, rig.clock.getDelayedCalls()), ([1], []))

    def test_probe(self) -> None:
        """A half-open breaker admits one probe. Its success admits the others; its failure fails them."""
        for success in (True, False):
            rig = Rig(limit=5)
            rig.open()
            rig.clock.advance(30)
            for _ in range(3):
                rig.ask()
            outside = rig.gate.passable()
            self.assertEqual(rig.order, [0, 1, 2])
            self.assertNoResult(outside)
            rig.end(success)
            self.assertEqual((rig.order, rig.turned_away), ([0, 1, 2, 3, 4], []) if success else ([0, 1, 2], [3, 4]))
            if not success:
                rig.clock.advance(30)
            self.successResultOf(outside)

    def test_probe_given_up(self) -> None:
        """A probe whose outcome says nothing about the target is followed by another."""
        rig = Rig(limit=5)
        rig.open()
        rig.clock.advance(30)
        rig.ask()
        rig.ask()
        rig.end(None)
        self.assertEqual((rig.order, rig.gate.state), ([0, 1, 2, 3], State.HALF_OPEN))

    def test_counts(self) -> None:
        """Calls are counted by what their outcome said about the target."""
        rig = Rig(NEVER)
        for success in (True, True, False, None):
            rig.ask()
            rig.end(success)
        self.assertEqual(rig.gate.ended_calls, {True: 2, False: 1, None: 1})


class AnyOrderTests(SynchronousTestCase):
    @given(
        st.integers(1, 4),
        st.none() | st.sampled_from((1.0, 5.0, 50.0)),
        st.booleans(),
        st.lists(st.one_of(st.just("ask"), st.booleans(), st.none(), st.floats(0.01, 20)), max_size=60),
    )
    def test_promises(self, limit: int, rate: float | None, adaptive: bool, steps: list[Any]) -> None:
        """Whatever happens, no more calls are under way than the limit, and the order of asking is kept.

        Once the target answers, no call waits for ever.
        """
        rig = Rig(
            limit=limit,
            pace=Pace(rate, 1) if rate is not None else None,
            adaptive=AdaptiveLimit(limit) if adaptive else None,
        )
        for step in steps:
            if step == "ask":
                rig.ask()
            elif isinstance(step, float):
                rig.clock.advance(step)
            elif rig.inside:
                rig.end(step)
            self.assertLessEqual(rig.gate.under_way, limit)
            self.assertEqual(rig.order, sorted(rig.order))
            self.assertLessEqual(len(rig.clock.getDelayedCalls()), 1)
        for _ in range(2 * rig.asked + 40):
            while rig.inside:
                rig.end(True)
            rig.clock.advance(1.01)
        self.assertEqual(sorted(rig.order + rig.turned_away), list(range(rig.asked)))
        self.assertEqual(rig.gate.under_way, 0)


class ProbeTests(SynchronousTestCase):
    """A gate whose breaker is open for want of a connection"""

    def setUp(self) -> None:
        self.rig = Rig(BreakerPolicy())
        self.probes: list[Deferred[None]] = []
        self.rig.gate.probe = self.probe
        for _ in range(UNREACHABLE_CALLS):
            self.rig.ask()
            self.rig.inside.popitem()[1].end(False, reached=False)
        self.rig.order.clear()

    def probe(self) -> Deferred[None]:
        self.probes.append(Deferred())
        return self.probes[-1]

    def test_probes(self) -> None:
        """The gate probes for what waits; no call is admitted before that has succeeded, and then all are."""
        passable = self.rig.gate.passable()
        self.rig.clock.advance(FIRST_PAUSE)
        self.assertEqual(len(self.probes), 1)
        self.rig.ask()
        self.probes[0].errback(ConnectionRefusedError())
        self.assertEqual(self.rig.turned_away, [UNREACHABLE_CALLS])
        self.rig.clock.advance(2 * FIRST_PAUSE)
        self.assertNoResult(passable)
        self.probes[1].callback(None)
        self.successResultOf(passable)
        self.rig.ask()
        self.rig.ask()
        self.assertEqual(len(self.rig.order), 2)

    def test_hanging_probe(self) -> None:
        """A probe that hangs is given up, and counted from its beginning: the next follows at once."""
        self.rig.gate.passable()
        for _ in range(10):
            self.rig.clock.pump([0.5] * 10)
        times = len(self.probes)
        self.assertGreaterEqual(times, 10)
        self.assertTrue(self.probes[0].called)

    def test_idle(self) -> None:
        """Where nothing waits, nothing is probed; and what comes later is preceded by a probe."""
        self.rig.clock.advance(1000)
        self.assertEqual((self.probes, self.rig.clock.getDelayedCalls()), ([], []))
        self.rig.ask()
        self.assertEqual((len(self.probes), self.rig.order), (1, []))
        self.probes[0].callback(None)
        self.assertEqual(len(self.rig.order), 1)

    def test_at_once(self) -> None:
        """A probe may succeed at once."""
        self.rig.gate.probe = lambda: succeed(None)
        self.rig.clock.advance(FIRST_PAUSE)
        self.successResultOf(self.rig.gate.passable())


def bridged(submitted_at: float, bridge: Any = "plant", partition: int | None = 3) -> Request:
    """A request of a bridge."""
    return Request("7f9c", submitted_at, Submission(b"1", metadata={"bridge": bridge}, partition=partition))


class ReplayTests(SynchronousTestCase):
    """A target was away for a hundred seconds, and what came in that time goes at a rate of its own."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.gate = Gate(self.clock, Breaker(POLICY), limit=4, replay_rates={"plant": 2.0, "other": 1.0})
        self.clock.advance(1)
        self.begun: list[tuple[str, float, bool]] = []
        for _ in range(2):
            call = self.gate.enter_now(bridged(self.clock.seconds()))
            assert call is not None
            self.assertFalse(call.replayed)
            call.end(False)
        self.assertEqual(self.gate.state, State.OPEN)
        self.clock.advance(99)

    def ask(self, name: str, request: Request) -> Deferred[None]:
        """Ask for a call, which ends as soon as it has begun, and well."""

        def entered(call: Call) -> None:
            self.begun.append((name, self.clock.seconds(), call.replayed))
            call.end(True)

        def refused(failure: Any) -> None:
            failure.trap(GateClosed, CancelledError)
            self.begun.append((name, self.clock.seconds(), False))

        return self.gate.enter(request).addCallbacks(entered, refused)

    def recover(self) -> None:
        """The first request of the backlog finds that the target is back, at 100 s."""
        self.ask("first", bridged(50.0))
        self.assertEqual(self.begun, [("first", 100.0, True)])
        self.assertEqual(self.gate.state, State.CLOSED)
        self.begun.clear()

    def test_at_its_rate(self) -> None:
        """The backlog goes at its rate, in order, and is marked."""
        self.recover()
        for number in range(4):
            self.ask(f"{number}", bridged(60.0 + number))
        self.clock.pump([0.125] * 20)
        self.assertEqual(
            [(name, replayed) for name, _, replayed in self.begun], [(f"{each}", True) for each in range(4)]
        )
        self.assertEqual([at for _, at, _ in self.begun], [100.5, 101.0, 101.5, 102.0])

    def test_live_first(self) -> None:
        """What comes now, or from elsewhere, waits for no backlog; neither does the backlog of another bridge."""
        self.recover()
        for number in range(4):
            self.ask(f"{number}", bridged(60.0))
        self.ask("live", bridged(100.0))
        self.ask("caller", Request("7f9c", 60.0, Submission(b"1")))
        self.ask("unhashable", bridged(60.0, []))
        self.ask("of no bridge", bridged(60.0, "unknown"))
        self.ask("elsewhere", bridged(60.0, "other"))
        expected = [("live", False), ("caller", False), ("unhashable", False), ("of no bridge", False)]
        self.assertEqual([(name, replayed) for name, _, replayed in self.begun], [*expected, ("elsewhere", True)])

    def test_in_no_partition(self) -> None:
        """What shares its queue with what comes now is marked, and does not hold that up; what waits apart has a rate,
        whatever the clock said when it was accepted."""
        self.recover()
        for number in range(3):
            self.ask(f"{number}", bridged(60.0, partition=None))
        self.ask("apart", bridged(60.0, partition=BACKLOG))
        self.ask("later", bridged(5000.0, partition=BACKLOG))
        self.assertEqual(self.begun, [(f"{number}", 100.0, True) for number in range(3)])
        self.clock.pump([0.25] * 4)
        self.assertEqual(self.begun[3:], [("apart", 100.5, True), ("later", 101.0, True)])

    def test_while_it_is_away(self) -> None:
        """What asks while the target is away is backlog once it is back, also where it came a moment before."""
        probing = self.gate.enter_now(bridged(99.0))
        assert probing is not None
        self.assertTrue(probing.replayed)
        for name in ("a", "b"):
            self.ask(name, bridged(100.0))
        self.assertEqual(self.begun, [])
        probing.end(True)
        self.clock.pump([0.125] * 8)
        self.assertEqual([(name, replayed) for name, _, replayed in self.begun], [("a", True), ("b", True)])

    def test_fails_again(self) -> None:
        """Where the target goes away again, the backlog that waits is turned away, and no timer is left."""
        self.recover()
        for name in ("a", "b"):
            self.ask(name, bridged(60.0))
        for _ in range(2):
            call = self.gate.enter_now(bridged(100.0))
            assert call is not None
            call.end(False)
        self.assertEqual([name for name, _, _ in self.begun], ["a", "b"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_gives_up_its_place(self) -> None:
        """A call that gives up waiting lets the others move up."""
        self.recover()
        waiting = [self.ask(name, bridged(60.0)) for name in "abc"]
        waiting[0].cancel()
        self.clock.advance(0.5)
        self.assertEqual([(name, at) for name, at, _ in self.begun], [("a", 100.0), ("b", 100.5)])
        waiting[2].cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_before_the_start(self) -> None:
        """What was accepted before this process began is backlog, too: it may have begun because power is back."""
        gate = Gate(self.clock, Breaker(NEVER), replay_rates={"plant": 2.0})
        found = gate.enter_now(bridged(99.0)), gate.enter_now(bridged(99.0)), gate.enter_now(bridged(100.0))
        self.assertEqual([call and call.replayed for call in found], [True, None, False])


class ToldTests(SynchronousTestCase):
    """What a person is told of a breaker"""

    def setUp(self) -> None:
        self.rig = Rig(name="billing")

    def test_failures(self) -> None:
        """One line when it opens, none when its probe fails, one when it closes. Till then there is a warning."""
        self.assertEqual(self.rig.gate.warnings, [])
        with capturedLogs() as told:
            self.rig.open()
            self.rig.clock.advance(30)
            (warning,) = self.rig.gate.warnings
            self.assertEqual(self.rig.gate.state, State.HALF_OPEN)
            self.rig.ask()
            self.rig.end(False)
            self.rig.clock.advance(30)
            self.assertIn("for 60 s now", self.rig.gate.warnings[0])
            self.rig.ask()
            self.rig.end(True)
        then = "One call tries it again after a pause. What else is for it waits, and spends no attempt"
        self.assertEqual(warning, f"endpoint billing: too many of its calls failed, for 30 s now. {then}")
        self.assertEqual(self.rig.gate.warnings, [])
        self.assertEqual(
            [(event["log_level"].name, formatEvent(event)) for event in told],
            [
                ("warn", f"the breaker of endpoint billing opened: too many of its calls failed. {then}"),
                ("info", "the breaker of endpoint billing is closed again: it was open for 60 s"),
            ],
        )

    def test_unreachable(self) -> None:
        """Without a connection the warning says that, and that OpenHQM tries to connect."""
        self.rig.gate.probe = lambda: succeed(None)
        for _ in range(UNREACHABLE_CALLS):
            self.rig.gate.enter_now().end(False, reached=False)  # type: ignore[union-attr]
            if self.rig.gate.warnings:
                break
        (warning,) = self.rig.gate.warnings
        self.assertIn("there is no connection to it, for 0 s now. OpenHQM tries to connect after a pause", warning)
        self.rig.gate.passable()
        with capturedLogs() as told:
            self.rig.clock.advance(FIRST_PAUSE)
        self.assertEqual((self.rig.gate.warnings, len(told)), ([], 1))

    def test_never(self) -> None:
        """A breaker that never opens is never told of."""
        self.rig = Rig(NEVER, name="billing")
        with capturedLogs() as told:
            for _ in range(30):
                self.rig.gate.enter_now().end(False, reached=False)  # type: ignore[union-attr]
        self.assertEqual((self.rig.gate.warnings, told), ([], []))
