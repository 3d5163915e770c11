"""What a queue and a bridge keep, and the reason in words."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.interfaces import QueueTraits
from openhqm.policy.guarantees import (
    AT_LEAST_ONCE,
    OF_A_BRIDGE,
    OF_A_QUEUE,
    ORDERED,
    ORDERED_PER_KEY,
    Answer,
    describe,
    of_bridge,
    of_queue,
)

KEPT = QueueTraits(durable=True, ordered=True, atomic_settle=True)
LOST = QueueTraits(durable=False, ordered=True, atomic_settle=True)
NATIVE = QueueTraits(durable=True, ordered=False, atomic_settle=False)


class QueueTests(SynchronousTestCase):
    """`of_queue`"""

    def kept(self, traits: QueueTraits, *, partitioned: bool) -> set[str]:
        answers = of_queue("p", traits, partitioned=partitioned)
        self.assertEqual(tuple(answers), OF_A_QUEUE)
        return {name for name, answer in answers.items() if answer.kept}

    def test_kept(self) -> None:
        """Order needs what is kept at all; within a key it needs partitions, and within a priority a product for it."""
        self.assertEqual(self.kept(KEPT, partitioned=True), {AT_LEAST_ONCE, ORDERED_PER_KEY, ORDERED})
        self.assertEqual(self.kept(KEPT, partitioned=False), {AT_LEAST_ONCE, ORDERED})
        self.assertEqual(self.kept(NATIVE, partitioned=True), {AT_LEAST_ONCE, ORDERED_PER_KEY})
        self.assertEqual(self.kept(LOST, partitioned=True), set())

    def test_why(self) -> None:
        """A line names what it is about and the reason."""
        self.assertEqual(
            describe("the queue", {AT_LEAST_ONCE: Answer(False, "what waits is lost")}),
            ["the queue is not at-least-once: what waits is lost"],
        )


class BridgeTests(SynchronousTestCase):
    """`of_bridge`"""

    def answers(self, traits: QueueTraits = KEPT, *, partitioned: bool = True, **about: bool) -> Any:
        queue = of_queue("p", traits, partitioned=partitioned)
        answers = of_bridge("b", queue, **{"ending": False, "in_order": True, "keyed": True, **about})
        self.assertEqual(tuple(answers), OF_A_BRIDGE)
        return answers

    def test_nothing_without_the_queue(self) -> None:
        """A bridge into a queue that loses requests keeps nothing."""
        self.assertEqual([each.kept for each in self.answers(LOST).values()], [False, False])

    def test_nothing_rests(self) -> None:
        """Where a message stays in its broker until everything is done, a queue may forget; the order is not kept."""
        answers = self.answers(LOST, ending=True, rests=False)
        self.assertEqual([each.kept for each in answers.values()], [True, False])

    def test_when_it_is_told(self) -> None:
        """The reason says whether the broker is told after the acceptance or after the ending."""
        self.assertIn("durable here", self.answers()[AT_LEAST_ONCE].why)
        self.assertIn("has ended", self.answers(ending=True)[AT_LEAST_ONCE].why)

    def test_order(self) -> None:
        """Order needs a product that delivers in order, a key, and partitions; the reason says which one is missing."""
        self.assertTrue(self.answers()[ORDERED_PER_KEY].kept)
        for answers, why in (
            (self.answers(partitioned=False), "partitioning.enabled"),
            (self.answers(in_order=False), "b does not promise"),
            (self.answers(keyed=False), "partition_key"),
        ):
            self.assertFalse(answers[ORDERED_PER_KEY].kept)
            self.assertIn(why, answers[ORDERED_PER_KEY].why)
