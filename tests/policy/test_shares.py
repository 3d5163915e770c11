"""Which line goes next: the most urgent one, and now and then the least urgent one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.shares import ONE_IN, Shares
from tests import hypothesis_profile  # noqa: F401


class SharesTests(SynchronousTestCase):
    """`Shares`, asked again and again"""

    def test_urgent_first(self) -> None:
        """Of the lines that have something, the most urgent one goes; each other one has one turn in ten."""
        shares = Shares(3)
        chosen = [shares.choose([True, True, True]) for _ in range(10 * ONE_IN)]
        self.assertEqual([chosen.count(line) for line in range(3)], [8 * ONE_IN, ONE_IN, ONE_IN])
        chosen = [shares.choose([True, False, True]) for _ in range(10 * ONE_IN)]
        self.assertEqual([chosen.count(line) for line in range(3)], [9 * ONE_IN, 0, ONE_IN])

    def test_none_starves(self) -> None:
        """However much the urgent lines have, each line has its turn within ten."""
        shares = Shares(3)
        for _ in range(5):
            self.assertEqual({shares.choose([True, True, True]) for _ in range(ONE_IN)}, {0, 1, 2})

    @given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3)))
    def test_only_what_has_something(self, fillings: list[list[bool]]) -> None:
        """A line without anything is never chosen, and None only where no line has anything."""
        shares = Shares(3)
        for filled in fillings:
            chosen = shares.choose(filled)
            self.assertEqual(chosen is None, not any(filled))
            if chosen is not None:
                self.assertTrue(filled[chosen])

    def test_no_choice_costs_no_turn(self) -> None:
        """A line that is alone does not use up the turns of the others."""
        shares = Shares(2)
        for _ in range(10 * ONE_IN):
            self.assertEqual(shares.choose([False, True]), 1)
        self.assertEqual([shares.choose([True, True]) for _ in range(ONE_IN)].count(1), 1)

    def test_divided(self) -> None:
        """Of many turns at once each line has its share first, and then what the others leave; one alone has all."""
        shares = Shares(3)
        self.assertEqual(shares.divide([False, True, False], 5), [(1, 5)])
        self.assertEqual(shares.divide([False, False, False], 5), [])
        both = [True, False, True]
        self.assertEqual(shares.divide(both, 9), [(0, 9), (0, 9), (2, 9)])
        self.assertEqual(shares.divide(both, 1), [(2, 1), (0, 1), (2, 1)])
        every = shares.divide([True, True, True], 20)
        self.assertEqual(every, [(0, 16), (1, 2), (2, 2), (0, 20), (1, 20), (2, 20)])
