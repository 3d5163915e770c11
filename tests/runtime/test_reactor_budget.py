"""`ReactorBudget`: a few permits in each iteration of the reactor, in the order of asking."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.runtime.reactor_budget import ReactorBudget
from tests.benches import one_turn


class ReactorBudgetTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.budget = ReactorBudget(self.clock, 2)
        self.order: list[str] = []

    def acquire(self, name: str) -> Deferred[None]:
        return self.budget.acquire().addCallback(lambda _: self.order.append(name))

    def test_try_acquire(self) -> None:
        """Each iteration of the reactor has its number of permits."""
        for _ in range(2):
            self.assertEqual([self.budget.try_acquire() for _ in range(3)], [True, True, False])
            one_turn(self.clock)

    def test_in_order(self) -> None:
        """Waiting callers get permits in the order of asking, before callers that come later."""
        for name in "abcde":
            self.acquire(name)
        one_turn(self.clock)
        self.assertEqual((self.order, self.budget.try_acquire()), (["a", "b"], False))
        one_turn(self.clock)
        one_turn(self.clock)
        self.assertEqual((self.order, self.budget.try_acquire()), (list("abcde"), True))

    def test_acquire_again(self) -> None:
        """A caller that asks again is behind all others."""
        self.acquire("a").addCallback(lambda _: self.acquire("again"))
        for name in "bcd":
            self.acquire(name)
        for _ in range(3):
            one_turn(self.clock)
        self.assertEqual(self.order, ["a", "b", "c", "d", "again"])

    def test_cancelled(self) -> None:
        """The permit of a cancelled caller goes to the next one."""
        cancelled = self.acquire("a")
        self.acquire("b"), self.acquire("c")
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        one_turn(self.clock)
        self.assertEqual(self.order, ["b", "c"])

    def test_idle(self) -> None:
        """No delayed call is pending while no caller waits."""
        self.budget.try_acquire()
        self.acquire("a")
        for _ in range(3):
            one_turn(self.clock)
        self.assertEqual(self.clock.getDelayedCalls(), [])
