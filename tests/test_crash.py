"""kill -9: what a 202 was given for is neither lost nor done wrong. ``python -m tests.crash`` does it 200 times."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests import crash


class Kill(SynchronousTestCase):
    def run_quietly(self, rounds: int, rule: str = "", patience: float = 60.0) -> dict[str, int]:
        return crash.run(rounds, seed=20260207, rule=rule, patience=patience, say=lambda line: None)

    def test_nothing_is_lost(self) -> None:
        """Twelve kills at random moments: every accepted request is known, and ends once, with its own result."""
        done = self.run_quietly(12)
        self.assertEqual(done["kills"], 12)
        self.assertGreater(done["accepted"], 500)

    def test_sees_answers_before_the_commit(self) -> None:
        """A server that answers before the request is written is caught."""
        self.assertRaises(crash.Broken, self.run_quietly, 6, "answer-first")

    def test_sees_acknowledging_first(self) -> None:
        """A server that takes a request out of the books before it is done is caught."""
        caught = self.assertRaises(crash.Broken, self.run_quietly, 4, "ack-first", 5.0)
        self.assertIn("has not ended", str(caught))
