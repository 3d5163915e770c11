"""A report fits into a message of the broker, and says what was left out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.brokered.rejects import unreadable
from openhqm.codec import decode_step, encode_step
from openhqm.messages import Reply, Status
from openhqm.policy.steps import ENDED, PROGRESS, REJECTED, Step
from openhqm.storeless.reporting import encode_within
from tests import hypothesis_profile  # noqa: F401

MOST = 2000
BODIES = st.builds(lambda part, times: part * times, st.binary(min_size=1, max_size=9), st.integers(0, 600))


class FittingTests(SynchronousTestCase):
    """Steps that are too long"""

    @given(BODIES, st.sampled_from(list(Status)[2:]), st.none() | st.text(max_size=50))
    def test_replies(self, body: bytes, status: Status, error: str | None) -> None:
        """A reply that fits is reported as it is; of any other the status is, and why the answer is missing."""
        reply = Reply("id", status, 1.0, body=body, error=error, attempt=3, processing_time_ms=4)
        step = Step("id", "a", ENDED, 1.0, reply=reply)
        data = encode_within(step, MOST)
        self.assertLessEqual(len(data), MOST)
        found = decode_step(data)
        if len(encode_step(step)) <= MOST:
            self.assertEqual(found, step)
            return
        assert found.reply is not None
        self.assertEqual((found.reply.attempt, found.reply.processing_time_ms, found.reply.body), (3, 4, None))
        self.assertEqual(found.reply.status, Status.FAILED if status is Status.COMPLETED else status)
        self.assertEqual(found.reason, "unusable answer")
        self.assertIn(error or "", found.reply.error or "")
        self.assertIn(f"{len(encode_step(step))} bytes", found.reply.error or "")

    @given(BODIES)
    def test_rejects(self, body: bytes) -> None:
        """Of a message that is no request, as many bytes are reported as fit, and at least half a message of them."""
        step = Step("id", "a", REJECTED, 1.0, letter=unreadable(body, "not JSON", 1.0))
        data = encode_within(step, MOST)
        self.assertLessEqual(len(data), MOST)
        letter = decode_step(data).letter
        assert letter is not None
        kept = letter.request.submission.body or b""
        self.assertTrue(body.startswith(kept))
        self.assertGreaterEqual(len(kept), min(len(body), MOST // 2))
        if kept != body:
            self.assertIn(f"the first {len(kept)} of its {len(body)} bytes", letter.reason)

    def test_others(self) -> None:
        """What is short by itself is never changed, and neither is anything where the broker has no limit."""
        step = Step("id", "a", PROGRESS, 1.0, detail={"step": "x" * 3000})
        self.assertEqual(encode_within(step, MOST), encode_step(step))
        step = Step("id", "a", ENDED, 1.0, reply=Reply("id", Status.COMPLETED, 1.0, body=b"x" * 5000))
        self.assertEqual(encode_within(step, None), encode_step(step))
