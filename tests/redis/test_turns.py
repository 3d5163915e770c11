"""One script for all that ask for it in a turn of the reactor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import NotDurable
from openhqm.redis.connection import Redis
from openhqm.redis.turns import MANY_BYTES, MOST, TurnScript


class Scripts:
    """Takes the place of a Redis: it notes which scripts run, and the test answers."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.ran: list[tuple[Any, ...]] = []
        self.answers: list[Deferred[Any]] = []

    def run(self, *arguments: Any) -> Deferred[Any]:
        self.ran.append(arguments)
        self.answers.append(Deferred())
        return self.answers[-1]

    def at_end_of_turn(self, call: Callable[[], object]) -> None:
        self.clock.callLater(0, call)

    def end_turn(self) -> list[tuple[Any, ...]]:
        """What ran in this turn."""
        self.clock.advance(0)
        ran, self.ran = self.ran, []
        return ran


class TurnScriptTests(SynchronousTestCase):
    """`TurnScript`"""

    def setUp(self) -> None:
        self.scripts = Scripts()

    def script(self, **options: Any) -> TurnScript:
        return TurnScript(cast(Redis, self.scripts), "settle", **options)

    def busy(self, **options: Any) -> TurnScript:
        """One that is being run for another, which Redis has not answered."""
        script = self.script(**options)
        script.run(1, "other")
        self.scripts.ran.clear()
        return script

    def test_alone(self) -> None:
        """One that asks while nothing is under way waits for no other: it is asked for in its own turn."""
        script = self.script()
        asked = script.run(1, "a", 7)
        self.assertEqual(self.scripts.ran, [("settle", "a", 7)])
        self.scripts.answers[0].callback(b"1")
        self.assertEqual(self.successResultOf(asked), b"1")
        script.run(1, "b")
        self.assertEqual(self.scripts.end_turn(), [("settle", "a", 7), ("settle", "b")])

    def test_together(self) -> None:
        """Several of a turn are one script, in their order, and each has its own answer; the next turn has its own."""
        script = self.busy(last=("",))
        first, second = script.run(1, "a"), script.run(1, "b", "c")
        self.assertEqual(self.scripts.end_turn(), [("settle_many", 2, "a", "", 3, "b", "c", "")])
        third = script.run(1, "d")
        self.assertEqual(self.scripts.end_turn(), [("settle", "d")])
        self.scripts.answers[1].callback([b"1", b"2"])
        self.assertEqual([self.successResultOf(each) for each in (first, second)], [b"1", b"2"])
        self.assertNoResult(third)

    def test_bounded(self) -> None:
        """A step has a bound on how many there are in it and on their bytes: what is beyond is another step."""
        script = self.busy()
        for number in range(MOST + 2):
            script.run(1, number)
        self.assertEqual([len(ran) // 2 for ran in self.scripts.end_turn()], [MOST, 2])
        for _ in range(3):
            script.run(MANY_BYTES // 2, "large")
        self.assertEqual([ran[0] for ran in self.scripts.end_turn()], ["settle_many", "settle"])

    def test_without_waiting(self) -> None:
        """What was asked for is run at once where that is wanted, as before the connection is closed; and once."""
        script = self.busy()
        script.run(1, "a")
        script.flush()
        self.assertEqual(self.scripts.ran, [("settle", "a")])
        self.assertEqual(self.scripts.end_turn(), [("settle", "a")])

    def test_refused(self) -> None:
        """Where Redis refuses several, each is asked for by itself: one that it cannot do keeps no other from it."""
        script = self.busy(repeatable=True)
        bad, good = script.run(1, "bad"), script.run(1, "good")
        self.scripts.end_turn()
        self.scripts.answers[1].errback(NotDurable("refused"))
        self.assertEqual(self.scripts.end_turn(), [("settle", "bad"), ("settle", "good")])
        self.scripts.answers[2].errback(NotDurable("refused"))
        self.scripts.answers[3].callback(b"1")
        self.failureResultOf(bad, NotDurable)
        self.assertEqual(self.successResultOf(good), b"1")

    def test_not_repeated(self) -> None:
        """Nothing is asked for again where it may have been done, or what it does would be done twice."""
        for repeatable, maybe_done in ((True, True), (False, False)):
            script = self.busy(repeatable=repeatable)
            asked = [script.run(1, name) for name in "ab"]
            self.scripts.end_turn()
            self.scripts.answers[-1].errback(Failure(NotDurable("lost", maybe_done=maybe_done)))
            self.assertEqual(self.scripts.end_turn(), [])
            for each in asked:
                self.failureResultOf(each, NotDurable)
