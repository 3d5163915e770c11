"""Whose request goes next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from openhqm.interfaces import IShares
from openhqm.policy.fair_shares import LEAST_WEIGHT, MOST_RESERVED, FairShares, Name, Share
from tests import hypothesis_profile  # noqa: F401

NAMES = ("a", "b", "c", None)
weights = st.dictionaries(st.sampled_from(NAMES), st.floats(LEAST_WEIGHT, 100), min_size=2)
waits = st.lists(st.tuples(st.sets(st.sampled_from(NAMES), min_size=1), st.integers(1, 12)), min_size=1, max_size=60)


def take(shares: FairShares, waiting: Mapping[Name, int], most: int) -> list[Name]:
    """What is taken where so many requests of each wait."""
    chosen = shares.choose([name for name, count in waiting.items() if count], most, {})
    taken = {name: min(count, waiting[name]) for name, count in chosen.items()}
    shares.charge(taken)
    return [name for name, count in taken.items() for _ in range(count)]


class FairSharesTests(SynchronousTestCase):
    def test_interface(self) -> None:
        """It is what a queue asks."""
        verifyObject(IShares, FairShares({}, 5))

    @given(weights, waits)
    def test_proportions(self, weights: dict[Name, float], turns: list[tuple[set[Name], int]]) -> None:
        """Of two that wait all the time, each has its weight's part, to within one request of each; whoever comes and
        goes beside them, and however many are taken at a time (Goyal, Vin and Cheng, theorem 1).
        """
        shares = FairShares({name: Share(weight) for name, weight in weights.items()}, 5)
        first, second = list(weights)[:2]
        served: Counter[Name] = Counter()
        for others, most in turns:
            for name in take(shares, dict.fromkeys({first, second, *others}, 1000), most):
                served[name] += 1
            apart = served[first] / weights[first] - served[second] / weights[second]
            self.assertLessEqual(abs(apart), 1 / weights[first] + 1 / weights[second] + 1e-6)

    @given(weights, st.integers(1, 20))
    def test_one_at_a_time(self, weights: dict[Name, float], most: int) -> None:
        """Many taken at once are those that would have been taken one by one."""
        table = {name: Share(weight) for name, weight in weights.items()}
        waiting: dict[Name, int] = dict.fromkeys(weights, 1000)
        single, together = FairShares(table, 5), FairShares(table, 5)
        one_by_one = [name for _ in range(most) for name in take(single, waiting, 1)]
        self.assertEqual(Counter(take(together, waiting, most)), Counter(one_by_one))

    @given(st.integers(1, 10_000), st.floats(LEAST_WEIGHT, 100), st.floats(LEAST_WEIGHT, 100))
    def test_comes_late(self, served: int, heavy: float, light: float) -> None:
        """A request of a tenant that had none waiting goes next, before 100,000 that wait, whatever the weights."""
        shares = FairShares({"heavy": Share(heavy), "light": Share(light)}, 5)
        shares.charge({"heavy": served})
        self.assertEqual(take(shares, {"heavy": 100_000, "light": 1}, 1), ["light"])

    def test_no_credit(self) -> None:
        """Nothing is saved up: one that was away for long has its part from when it comes back."""
        shares = FairShares({"a": Share(), "b": Share()}, 5)
        for _ in range(1000):
            take(shares, {"a": 1000}, 1)
        found = [name for _ in range(100) for name in take(shares, {"a": 1000, "b": 1000}, 1)]
        self.assertLessEqual(abs(found.count("a") - found.count("b")), 2)

    def test_no_gain_by_going(self) -> None:
        """Nor does one gain that waits with one request at a time, and comes back at once."""
        shares = FairShares({"a": Share(), "b": Share()}, 5)
        found: list[Name] = []
        for turn in range(200):
            found += take(shares, {"a": 1000, "b": turn % 2}, 1)
        self.assertLessEqual(found.count("b"), 101)

    @given(st.lists(st.floats(0, MOST_RESERVED), min_size=1, max_size=3), st.integers(1, 50))
    def test_reserved(self, parts: list[float], slots: int) -> None:
        """One that floods takes no slot that is reserved for another, and each gets its own; one is for all."""
        total = sum(parts)
        scale = min(1.0, MOST_RESERVED / total) if total else 1.0
        table: dict[Name, Share] = {f"r{number}": Share(1, part * scale) for number, part in enumerate(parts)}
        shares = FairShares({**table, "flood": Share(100)}, slots)
        in_hand: Counter[Name] = Counter()

        def work(*waiting: str) -> None:
            for name, count in shares.choose(waiting, slots - in_hand.total(), {}).items():
                in_hand[name] += count
                for _ in range(count):
                    shares.taken(name)

        work("flood")
        self.assertGreaterEqual(in_hand["flood"], 1)
        free = slots - in_hand["flood"]
        for name, share in table.items():
            self.assertLessEqual(int(share.reserved * slots), free)
            work(str(name))
            self.assertGreaterEqual(in_hand[name], int(share.reserved * slots), name)
            free -= int(share.reserved * slots)
        self.assertLessEqual(in_hand.total(), slots)

    def test_told(self) -> None:
        """Where slots are reserved, each slot that is freed may let another one in, and so may a new name."""
        told: list[int] = []
        for reserved, times in ((0.5, 1), (0.0, 0)):
            shares = FairShares({"a": Share(1, reserved)}, 4)
            shares.on_change = lambda: told.append(1)
            shares.taken(None)
            shares.freed(None)
            self.assertEqual(len(told), times)
            told.clear()
        shares.add("b")
        shares.add("b")
        self.assertEqual((len(told), shares.names), (1, [None, "a", "b"]))
        self.assertEqual([shares.name_of(name) for name in ("b", "x", None)], ["b", None, None])
