"""Targets that finish a request later: what the worker tells them, and what becomes of the request until then."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openhqm.messages import Reply, Status
from openhqm.workers.attempt import FINISH_SECONDS
from tests.workers.test_egress import JSON, Answer, Rig

LATER = Answer(202, b"", {"OpenHQM-Finish": "later"})


class FinishingTests(SynchronousTestCase):
    def rig(self, *answers: Any) -> Rig:
        return Rig(*answers, tokens=True)

    def end(self, rig: Rig, result: bytes = b'"late"') -> None:
        store = rig.bench.backend.store
        reply = Reply(rig.id, Status.COMPLETED, rig.bench.backend.now(), result, attempt=1)
        ended: Deferred[None] = store.end(rig.id, reply)
        rig.bench.backend.turn()
        self.successResultOf(ended)

    def test_told(self) -> None:
        """The target is given the token of the request, the same in every attempt."""
        rig = self.rig(Answer(503), Answer(200, b"1"))
        rig.done()
        token = rig.bench.backend.store.completion_token(rig.id)
        self.assertEqual([call[2]["openhqm-complete-token"] for call in rig.client.calls], [token, token])

    def test_later(self) -> None:
        """A request whose target says so is PROCESSING until it is ended, and is not called for again."""
        rig = self.rig(LATER)
        self.assertIs(rig.done(seconds=3600).status, Status.PROCESSING)
        self.end(rig)
        record = rig.bench.record(rig.id)
        self.assertEqual((record.status, record.reply.result), (Status.COMPLETED, b'"late"'))
        rig.bench.pass_time(2 * FINISH_SECONDS)
        self.assertEqual(len(rig.client.calls), 1)

    def test_no_slot(self) -> None:
        """Meanwhile the worker does other work: what is finished later takes no slot."""
        rig = self.rig(*[LATER] * 5, Answer(200, b"1"))
        for _ in range(5):
            rig.done()
        self.assertIs(rig.done().status, Status.COMPLETED)

    def test_deadline(self) -> None:
        """Where it is not ended by its deadline, it ends with TIMEOUT."""
        rig = self.rig(LATER)
        self.assertIs(rig.done(seconds=99, timeout=100.0).status, Status.PROCESSING)
        rig.bench.pass_time(2)
        self.assertIs(rig.bench.record(rig.id).status, Status.TIMEOUT)
        rig.bench.pass_time(FINISH_SECONDS)
        self.assertEqual(len(rig.client.calls), 1)

    def test_never_finished(self) -> None:
        """Without a deadline the target is called again after a day, as long as there are attempts."""
        rig = self.rig(LATER, Answer(200, b"2"))
        rig.bench.backend.step = 600.0
        rig.done(seconds=FINISH_SECONDS - 60)
        self.assertEqual(len(rig.client.calls), 1)
        rig.bench.pass_time(120)
        record = rig.bench.record(rig.id)
        self.assertEqual((record.status, record.reply.attempt, record.reply.result), (Status.COMPLETED, 2, b"2"))

    def test_last_attempt(self) -> None:
        """Also the last attempt may be finished later; where it is not, the request is a dead letter."""
        rig = self.rig(LATER)
        rig.bench.backend.step = 600.0
        rig.done(seconds=3.5 * FINISH_SECONDS)
        self.assertEqual(len(rig.client.calls), 4)
        self.assertIs(rig.bench.record(rig.id).status, Status.PROCESSING)
        rig.bench.pass_time(FINISH_SECONDS / 2 + 300)
        record = rig.bench.record(rig.id)
        self.assertEqual((record.status, len(rig.client.calls)), (Status.FAILED, 4))
        self.assertIn("or the target did not finish one", record.reply.error)

    def test_ended_at_once(self) -> None:
        """A target may end the request before it has answered."""
        rig = self.rig(None)
        rig.done(seconds=1)
        self.end(rig)
        self.assertEqual((rig.client.cancelled, rig.bench.record(rig.id).status), (1, Status.COMPLETED))
        rig.bench.pass_time(600)
        self.assertEqual(len(rig.client.calls), 1)

    def test_other_answers(self) -> None:
        """Any other answer means what it always does: 202 alone, another word or status; or no token was given."""
        later = {**JSON, "OpenHQM-Finish": "later"}
        for rig in (
            self.rig(Answer(202, b"1")),
            self.rig(Answer(202, b"1", {**JSON, "OpenHQM-Finish": "soon"})),
            self.rig(Answer(200, b"1", later)),
            Rig(Answer(202, b"1", later)),
        ):
            record = rig.done()
            self.assertEqual((record.status, record.reply.result), (Status.COMPLETED, b"1"))
        failing = self.rig(Answer(400, b"1", later))
        self.assertIs(failing.done().status, Status.FAILED)
