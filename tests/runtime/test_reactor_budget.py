"""ReactorBudget: a few go on in each, nobody is passed over, and nobody waits for ever."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.runtime.reactor_budget import ReactorBudget
from tests.benches import one_turn


class Few(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.turns = ReactorBudget(self.clock, 2)
        self.order: list[str] = []

    def wait(self, name: str) -> Deferred[None]:
        return self.turns.wait().addCallback(lambda _: self.order.append(name))

    def test_share(self) -> None:
        """As many as may go on in a turn, and as many again in the next."""
        for _ in range(2):
            self.assertEqual([self.turns.free() for _ in range(3)], [True, True, False])
            one_turn(self.clock)

    def test_in_order(self) -> None:
        """Those who wait go on in the order of asking, before whoever comes meanwhile."""
        for name in "abcde":
            self.wait(name)
        one_turn(self.clock)
        self.assertEqual((self.order, self.turns.free()), (["a", "b"], False))
        one_turn(self.clock)
        one_turn(self.clock)
        self.assertEqual((self.order, self.turns.free()), (list("abcde"), True))

    def test_asking_again(self) -> None:
        """Whoever asks again on its turn is behind all others."""
        self.wait("a").addCallback(lambda _: self.wait("again"))
        for name in "bcd":
            self.wait(name)
        for _ in range(3):
            one_turn(self.clock)
        self.assertEqual(self.order, ["a", "b", "c", "d", "again"])

    def test_giving_up(self) -> None:
        """A place that is given up is taken by the next."""
        given_up = self.wait("a")
        self.wait("b"), self.wait("c")
        given_up.cancel()
        self.failureResultOf(given_up, CancelledError)
        one_turn(self.clock)
        self.assertEqual(self.order, ["b", "c"])

    def test_idle(self) -> None:
        """With nobody there, no timer runs."""
        self.turns.free()
        self.wait("a")
        for _ in range(3):
            one_turn(self.clock)
        self.assertEqual(self.clock.getDelayedCalls(), [])
