"""Entries go in batches of ten, none is larger than SQS takes, and each has its own outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import NotDurable
from openhqm.sqs.batches import Batches
from openhqm.sqs.messages import MOST_BYTES


class BatchesTests(SynchronousTestCase):
    """`Batches`"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.sent: list[Sequence[dict[str, Any]]] = []
        self.answers: list[Deferred[Any]] = []

    def batches(self, most: int = 1) -> Batches:
        def send(entries: Sequence[dict[str, Any]]) -> Deferred[Any]:
            self.sent.append(entries)
            self.answers.append(Deferred())
            return self.answers[-1]

        return Batches("orders", send, self.clock, most)

    def answer(self, number: int, failed: Sequence[int] = ()) -> None:
        """Answer a batch."""
        done = [{"Id": each["Id"]} for each in self.sent[number] if int(each["Id"]) not in failed]
        refused = [{"Id": str(each), "Code": "InvalidMessageContents", "SenderFault": True} for each in failed]
        self.answers[number].callback({"Successful": done, "Failed": refused})

    def bodies(self) -> list[list[Any]]:
        return [[each["body"] for each in batch] for batch in self.sent]

    def test_together(self) -> None:
        """What is added in one turn goes together, at most ten; what comes while a batch is under way waits."""
        batches = self.batches()
        outcomes = [batches.add({"body": number}) for number in range(12)]
        self.assertEqual(self.sent, [])
        self.clock.advance(0)
        self.assertEqual(self.bodies(), [list(range(10))])
        self.answer(0)
        self.assertEqual(self.bodies()[1:], [[10, 11]])
        self.answer(1)
        self.assertEqual([self.successResultOf(each) for each in outcomes], [None] * 12)

    def test_three_fail(self) -> None:
        """Of a batch of which three entries fail, those three have failed, and no other."""
        batches = self.batches()
        outcomes = [batches.add({"body": number}) for number in range(10)]
        self.clock.advance(0)
        self.answer(0, (1, 4, 9))
        for number, outcome in enumerate(outcomes):
            if number in (1, 4, 9):
                self.failureResultOf(outcome, NotDurable)
            else:
                self.assertIsNone(self.successResultOf(outcome))

    def test_sizes(self) -> None:
        """A batch is no larger than SQS takes."""
        batches = self.batches(4)
        for number in range(3):
            batches.add({"body": number}, MOST_BYTES // 2)
        self.clock.advance(0)
        self.assertEqual(self.bodies(), [[0, 1], [2]])

    def test_failed(self) -> None:
        """Where the whole request fails, so does each entry. An entry of which nothing is said may have been done."""
        batches = self.batches(2)
        outcomes = [batches.add({"body": number}) for number in range(11)]
        self.clock.advance(0)
        self.answers[0].errback(NotDurable("away"))
        for outcome in outcomes[:10]:
            self.assertEqual(self.failureResultOf(outcome, NotDurable).value.reason, "away")
        self.answers[1].callback({})
        self.assertTrue(self.failureResultOf(outcomes[10], NotDurable).value.maybe_done)

    def test_idle(self) -> None:
        """It is said when nothing is left, also where the callers of all that waited have given up."""
        idle: list[None] = []
        batches = Batches("orders", self.batches()._send, self.clock, 1, lambda: idle.append(None))
        outcome = batches.add({"body": 1})
        self.clock.advance(0)
        self.assertEqual(idle, [])
        self.answer(0)
        self.successResultOf(outcome)
        self.assertEqual(idle, [None])
        batches.add({"body": 2}).addErrback(lambda failure: failure.trap(CancelledError)).cancel()
        self.clock.advance(0)
        self.assertEqual((len(idle), len(self.sent)), (2, 1))

    def test_given_up(self) -> None:
        """An entry that its caller has given up before it was sent is not sent; one under way has an end, too."""
        batches = self.batches()
        outcomes = [batches.add({"body": number}) for number in range(3)]
        outcomes[1].cancel()
        self.clock.advance(0)
        self.assertEqual(self.bodies(), [[0, 2]])
        outcomes[2].cancel()
        self.answer(0)
        for outcome in outcomes[1:]:
            self.failureResultOf(outcome, CancelledError)
        self.assertIsNone(self.successResultOf(outcomes[0]))
