"""kill -9: what a 202 was given for is neither lost nor done wrong. ``python -m tests.crash`` does it 200 times."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests import crash, crash_rabbitmq, crash_redis


class Kill(SynchronousTestCase):
    def run_quietly(self, rounds: int, rule: str = "", patience: float = 60.0) -> dict[str, int]:
        return crash.run(rounds, seed=20260207, rule=rule, patience=patience, say=lambda line: None)

    def test_nothing_is_lost(self) -> None:
        """Twelve kills at random moments: every accepted request is known, and ends once, with its own result."""
        done = self.run_quietly(12)
        self.assertEqual(done["kills"], 12)
        self.assertGreater(done["accepted"], 500)

    def test_nothing_is_lost_on_redis(self) -> None:
        """Ten kills, of the listener, the worker and Redis in turn: nothing is lost, each request ends once."""
        done = crash_redis.run(10, seed=20260207, say=lambda line: None)
        self.assertEqual(done["kills"], 10)
        self.assertGreater(done["accepted"], 200)

    def test_nothing_is_lost_on_rabbitmq(self) -> None:
        """Ten kills, of listener, worker, Redis and RabbitMQ in turn: nothing is lost, each request ends once."""
        install = crash_rabbitmq.RabbitMQInstallation
        done = crash_redis.run(10, seed=20260207, say=lambda line: None, install=install)
        self.assertEqual(done["kills"], 10)
        self.assertGreater(done["accepted"], 200)

    def test_sees_answers_before_the_commit(self) -> None:
        """A server that answers before the request is written is caught."""
        self.assertRaises(crash.Broken, self.run_quietly, 6, "answer-first")

    def test_sees_acknowledging_first(self) -> None:
        """A server that takes a request out of the books before it is done is caught."""
        caught = self.assertRaises(crash.Broken, self.run_quietly, 4, "ack-first", 5.0)
        self.assertIn("has not ended", str(caught))

    def test_sees_a_redis_that_keeps_nothing(self) -> None:
        """A Redis without an append-only file, killed, is caught."""
        self.assertRaises(crash.Broken, crash_redis.run, 3, 1, lambda line: None, appendonly="no")

    def test_sees_acknowledging_first_on_redis(self) -> None:
        """A worker that takes a request out of the books before it is done is caught."""
        before = "from tests import broken_rules; broken_rules.redis_ack_first()"
        self.assertRaises(crash.Broken, crash_redis.run, 2, 1, lambda line: None, patience=5.0, before=before)
