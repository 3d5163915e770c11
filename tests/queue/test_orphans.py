"""Orphaned queues: each is named in a warning for as long as it holds requests."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import NotDurable
from openhqm.messages import Submission
from openhqm.queue.orphans import LOOK_SECONDS, RETRY_SECONDS, Orphans
from openhqm.testing import REQUESTS
from tests.benches import MemoryBench
from tests.brokers import RedisServer
from tests.servers import Server


class OrphansTests(SynchronousTestCase):
    """`Orphans`"""

    def setUp(self) -> None:
        self.bench = MemoryBench()
        self.orphans = Orphans(self.bench.queue, REQUESTS, [REQUESTS, f"{REQUESTS}._0"], self.bench.clock)
        self.addCleanup(self.orphans.stop)

    def accept(self, endpoint: str | None = None, partition: int | None = None) -> str:
        accepted = self.bench.queue.accept(Submission(b"1", endpoint=endpoint, partition=partition), None)
        correlation_id: str = self.successResultOf(accepted).correlation_id
        return correlation_id

    def test_none(self) -> None:
        """Requests in queues that have workers cause no warning."""
        self.accept()
        self.accept(partition=0)
        self.orphans.start()
        self.assertEqual(self.orphans.warnings, ())

    def test_worked(self) -> None:
        """What would wait in a queue without workers is known, also after the names were exchanged."""
        billing, third = Submission(b"1", endpoint="billing"), Submission(b"1", partition=3)
        for submission, before, after in (
            (Submission(b"1"), True, True),
            (Submission(b"1", partition=0), True, False),
            (third, False, False),
            (billing, False, True),
        ):
            self.assertIs(self.orphans.is_worked(submission), before, submission)
            self.orphans.exchange([REQUESTS, f"{REQUESTS}.billing"])
            self.assertIs(self.orphans.is_worked(submission), after, submission)
            self.orphans.exchange([REQUESTS, f"{REQUESTS}._0"])

    def test_shares(self) -> None:
        """A queue of a tenant beside one that has workers is no orphan: they are told of those they do not know."""
        told: list[str] = []
        worked = [REQUESTS, f"{REQUESTS}.@known"]
        orphans = Orphans(self.bench.queue, REQUESTS, worked, self.bench.clock, told.append)
        self.addCleanup(orphans.stop)
        for share, endpoint in (("known", None), ("gone", None), ("gone", "billing")):
            submission = Submission(b"1", tenant=share, share=share, endpoint=endpoint)
            self.successResultOf(self.bench.queue.accept(submission, None))
            self.assertIs(orphans.is_worked(submission), endpoint is None)
        orphans.start()
        self.assertEqual(told, [f"{REQUESTS}.@gone"])
        (warning,) = orphans.warnings
        self.assertIn("no workers for endpoint billing", warning)

    def test_logged_once(self) -> None:
        """Each queue is logged once, with the number of requests and what they are for.

        Its warning stays until it is empty.
        """
        with capturedLogs() as events:
            self.accept("billing")
            last = self.accept("billing")
            self.accept("billing", 3)
            self.orphans.start()
            self.bench.pass_time(LOOK_SECONDS + 1)
        first, second = self.orphans.warnings
        self.assertIn(f"2 requests wait in {REQUESTS}.billing, ", first)
        self.assertIn("endpoint billing:", first)
        self.assertIn(f"1 requests wait in {REQUESTS}.billing._3, ", second)
        self.assertIn("endpoint billing, partition 3:", second)
        told = [event["queue"] for event in events if event["log_namespace"] == "openhqm.queue.orphans.Orphans"]
        self.assertEqual(told, [f"{REQUESTS}.billing", f"{REQUESTS}.billing._3"])
        (delivery,) = self.successResultOf(self.bench.queue.receive(f"{REQUESTS}.billing._3", 1))
        self.successResultOf(delivery.ack())
        self.bench.pass_time(LOOK_SECONDS + 1)
        self.assertEqual(self.orphans.warnings, (first,))
        self.assertTrue(last)

    def test_queue_unavailable(self) -> None:
        """While the queue cannot be asked it is asked again, and then the warning appears."""
        self.accept("billing")
        queues = self.bench.queue.queues
        self.bench.queue.queues = lambda: fail(NotDurable("away"))
        self.orphans.start()
        self.bench.queue.queues = queues
        self.assertEqual(self.orphans.warnings, ())
        self.bench.pass_time(RETRY_SECONDS)
        self.assertEqual(len(self.orphans.warnings), 1)

    def test_stopped(self) -> None:
        """After `stop` no call is pending, not even after a late answer."""
        asked: Deferred[Any] = Deferred()
        self.bench.queue.queues = lambda: asked
        self.orphans.start()
        self.orphans.stop()
        asked.callback([])
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])


class ServerTests(SynchronousTestCase):
    """Two starts of a real server, with different configurations."""

    PARTITIONS = {"OPENHQM_PARTITIONING__ENABLED": "true", "OPENHQM_PARTITIONING__PARTITION_COUNT": "256"}

    def leave_requests(self, **settings: str) -> None:
        """Accept requests in partitions that the second configuration does not have, and expect the warning."""
        directory = Path(self.mktemp())
        directory.mkdir()
        first = Server(directory, **settings, **self.PARTITIONS)
        self.addCleanup(lambda: first.process and first.process.poll() is None and first.kill())
        first.start("--role", "listener")
        first.submit(1, partition_key="a")
        self.assertEqual(first.stop(), 0)
        second = Server(directory, **settings)
        self.addCleanup(lambda: second.process and second.process.poll() is None and second.kill())
        second.start()
        expected = "1 requests wait in openhqm-requests._"
        warning = self.warning(second, expected)
        self.assertIn("cancel", warning)
        self.assertEqual(second.stop(), 0)
        self.assertEqual(second.log().count(expected), 1)
        code, said, _ = second.run("--check")
        self.assertEqual(code, 0)
        self.assertIn(warning, said)

    def warning(self, server: Server, expected: str) -> str:
        """The warning that contains ``expected``, once there is one."""
        deadline = time.monotonic() + 30
        while True:
            warnings: list[str] = json.loads(server.ask("GET", "/health")[2])["warnings"]
            for warning in warnings:
                if expected in warning:
                    return warning
            self.assertLess(time.monotonic(), deadline, f"not among the warnings: {warnings}")
            time.sleep(0.02)

    def test_sqlite(self) -> None:
        """The warning appears with SQLite."""
        self.leave_requests()

    def test_redis(self) -> None:
        """The warning appears with Redis."""
        redis = RedisServer().start()
        self.addCleanup(redis.close)
        self.leave_requests(OPENHQM_QUEUE__TYPE="redis", OPENHQM_QUEUE__REDIS_URL=redis.url)
