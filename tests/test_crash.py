"""kill -9: no accepted request is lost, and none is done wrong. ``python -m tests.crash`` does it 200 times."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests import crash, crash_redis


class KillTests(SynchronousTestCase):
    def run_quietly(self, rounds: int, fault: str = "", patience: float = 60.0) -> dict[str, int]:
        return crash.run(rounds, seed=20260207, fault=fault, patience=patience, say=lambda line: None)

    def test_nothing_is_lost(self) -> None:
        """Twelve kills at random moments: every accepted request is known, and ends once with its own result."""
        done = self.run_quietly(12)
        self.assertEqual(done["kills"], 12)
        self.assertGreater(done["accepted"], 500)

    def test_nothing_is_lost_on_redis(self) -> None:
        """Ten kills of listener, worker and Redis in turn: no request is lost, and each ends once."""
        done = crash_redis.run(10, seed=20260207, say=lambda line: None)
        self.assertEqual(done["kills"], 10)
        self.assertGreater(done["accepted"], 200)

    def test_finds_answers_before_the_commit(self) -> None:
        """A server that answers before the request is written is found."""
        self.assertRaises(crash.Broken, self.run_quietly, 6, "answer-first")

    def test_finds_early_acks(self) -> None:
        """A server that removes a request from the queue before it is done is found."""
        caught = self.assertRaises(crash.Broken, self.run_quietly, 4, "ack-first", 5.0)
        self.assertIn("has not ended", str(caught))

    def test_finds_a_redis_without_persistence(self) -> None:
        """A Redis without an append-only file that is killed is found."""
        self.assertRaises(crash.Broken, crash_redis.run, 3, 1, lambda line: None, appendonly="no")

    def test_finds_early_acks_on_redis(self) -> None:
        """A worker that removes a request from Redis before it is done is found."""
        before = "from tests import fault_injection; fault_injection.redis_ack_first()"
        self.assertRaises(crash.Broken, crash_redis.run, 2, 1, lambda line: None, patience=5.0, before=before)
