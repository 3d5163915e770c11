"""What workers report is written into the file once, whatever order it comes in, and however often."""

from __future__ import annotations

from itertools import permutations
from typing import Any

from attrs import evolve
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import UnknownRequest
from openhqm.messages import Reply, Status
from openhqm.policy.steps import ENDED, PROCESSING, PROGRESS, RELEASED, RETRYING, Step
from openhqm.sqlite.steps import SqliteSteps
from tests.storeless.bench import StorelessCase

ELSEWHERE = "00000000-0000-4000-8000-000000000000"
REPLY = Reply("id", Status.COMPLETED, 1.0, b"1")


class StepTests(SynchronousTestCase):
    """The value"""

    def test_refused(self) -> None:
        """A step without what belongs to its type, with what does not, or with numbers out of range is none."""
        step = Step("id", "a", PROGRESS, 1.0)
        ended = Step("id", "a", ENDED, 1.0, reply=REPLY)
        for base, wrong in (
            (step, {"type": "magic"}),
            (step, {"type": ENDED}),
            (step, {"reply": REPLY}),
            (step, {"attempt": -1}),
            (step, {"attempt": 2**40}),
            (step, {"delay": -1.0}),
            (step, {"delay": float("nan")}),
            (ended, {"reply": replace(REPLY, correlation_id="another")}),
        ):
            with self.assertRaises(ValueError, msg=wrong):
                evolve(base, **wrong)


class WritingTests(StorelessCase):
    """`SqliteSteps`, given one step after the other"""

    def setUp(self) -> None:
        super().setUp()
        self.do(self.worker.queue.stop())
        self.accepted = self.accept()
        self.bench.pass_time(2)
        self.steps = SqliteSteps(self.bench.file, self.bench.store, self.bench.ledger)
        self.published()

    def published(self) -> list[tuple[int, int]]:
        """Generation and attempts of each message that was published since the last call."""
        self.bench.pass_time(0.1)
        found = []
        for channel, message in self.bench.server.published:
            if channel == "contract-requests":
                headers = message.headers
                generation, attempts = headers.get("openhqm-generation", 0), headers.get("openhqm-attempts", 0)
                found.append((int(generation), int(attempts)))
        self.bench.server.published.clear()
        return found

    def step(self, type: str, attempt: int = 1, generation: int = 0, **fields: Any) -> Step:
        if type == ENDED:
            fields["reply"] = replace(REPLY, correlation_id=self.accepted)
        return Step(
            self.accepted, f"w.{generation}.{attempt} {type}", type, self.bench.now(), generation, attempt, **fields
        )

    def note(self, *steps: Step) -> None:
        for step in steps:
            self.do(self.steps.note(step))

    def test_twice(self) -> None:
        """Each step is written once, also in another life of the process."""
        steps = (
            self.step(PROCESSING),
            self.step(PROGRESS, detail={"percent": 1}),
            self.step(RETRYING, reason="no luck"),
            self.step(PROCESSING, 2, 1),
            self.step(ENDED, 2, 1),
        )
        for last in range(1, len(steps) + 1):
            self.note(*steps[:last], *steps[:last])
            self.restart_listener()
            self.steps = SqliteSteps(self.bench.file, self.bench.store, self.bench.ledger)
        self.assertEqual(
            self.types(self.accepted), ["pending", "processing", "progress", "retrying", "processing", "completed"]
        )
        self.assertEqual(self.endings, ["COMPLETED"])

    def test_any_order(self) -> None:
        """A retry counts the attempt, and publishes the next one, also where it comes before its attempt has begun."""
        steps = (self.step(PROCESSING), self.step(PROGRESS), self.step(RETRYING))
        for number, order in enumerate(permutations(steps)):
            if number:
                self.accepted = self.accept()
                self.bench.pass_time(2)
                self.published()
            self.note(*(evolve(step, correlation_id=self.accepted) for step in order))
            self.assertEqual(self.published(), [(1, 1)], order)

    def test_released(self) -> None:
        """A release takes its attempt back, and those before it count."""
        self.note(self.step(PROCESSING, 3), self.step(RELEASED, 3))
        self.assertEqual(self.published(), [(1, 2)])

    def test_released_below_another_attempt(self) -> None:
        """An attempt that is under way elsewhere is not taken back by a release of an earlier one."""
        self.note(self.step(PROCESSING, 1), self.step(PROCESSING, 2), self.step(RELEASED, 1))
        self.assertEqual(self.published(), [(1, 2)])

    def test_an_older_message(self) -> None:
        """A retry or a release of a message that counts no more publishes nothing; its beginning counts no attempt."""
        self.note(self.step(PROCESSING), self.step(RETRYING))
        self.assertEqual(self.published(), [(1, 1)])
        self.note(self.step(PROCESSING, 7), self.step(RETRYING, 7), self.step(RELEASED, 7))
        self.note(self.step(PROCESSING, 2, 1), self.step(RETRYING, 2, 1))
        self.assertEqual(self.published(), [(2, 2)])

    def test_an_ending_of_an_older_message(self) -> None:
        """It is an ending all the same, and the message that counts is not published any more."""
        self.note(self.step(PROCESSING), self.step(RETRYING, delay=10.0), self.step(ENDED, 2))
        self.assertEqual(self.record(self.accepted).status, Status.COMPLETED)
        self.bench.pass_time(20)
        self.assertEqual(self.published(), [])

    def test_clocks(self) -> None:
        """A worker whose clock is ahead delays no retry; while this process was down time has passed for it."""
        ahead = evolve(self.step(RETRYING, delay=10.0), at=self.bench.now() + 3600)
        self.note(ahead)
        self.assertEqual(self.record(self.accepted).next_attempt_at, self.bench.now() + 10)
        before = evolve(self.step(RETRYING, 2, 1, delay=10.0), at=self.bench.now() - 8)
        self.note(before)
        self.assertEqual(self.record(self.accepted).next_attempt_at, self.bench.now() + 2)

    def test_another_store(self) -> None:
        """A step of a request that this store has not given out is refused."""
        self.fails(self.steps.note(evolve(self.step(PROCESSING), correlation_id=ELSEWHERE)), UnknownRequest)
        self.fails(self.steps.note(evolve(self.step(PROCESSING), correlation_id="no id")), UnknownRequest)

    def test_nothing_is_kept(self) -> None:
        """Once a request has ended, only its record is left, whatever is reported of it later."""
        self.note(self.step(PROCESSING), self.step(RETRYING), self.step(ENDED, 2, 1))
        self.note(self.step(PROGRESS, 1), self.step(RELEASED, 2, 1))
        self.assertEqual(
            {table: self.bench.rows(table) for table in ("steps", "inflight", "outbox")},
            {
                "steps": 0,
                "inflight": 0,
                "outbox": 0,
            },
        )
