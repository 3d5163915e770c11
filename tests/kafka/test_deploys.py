"""Workers on Kafka that join, leave and are killed: what is delivered again is counted, and is what was in hand."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.brokers import RedisServer
from tests.kafka.server import shared_kafka
from tests.servers import Server

SLOTS = 4
IN_HAND = 2 * SLOTS
"""What a worker has taken from Kafka, and not ended: the requests that are worked on, and as many that are next."""


class DeployTests(SynchronousTestCase):
    """Two processes that listen and work, on one Kafka and one Redis"""

    def process(self, name: str) -> Server:
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        server = Server(
            directory,
            OPENHQM_QUEUE__TYPE="kafka",
            OPENHQM_QUEUE__CONNECTION__KAFKA__BOOTSTRAP_SERVERS=f'["{shared_kafka().bootstrap}"]',
            OPENHQM_QUEUE__CONNECTION__KAFKA__PREFIX="deploys.",
            OPENHQM_QUEUE__CONNECTION__KAFKA__PARTITIONS="4",
            OPENHQM_CACHE__TYPE="redis",
            OPENHQM_CACHE__REDIS_URL=self.redis.url,
            OPENHQM_QUEUE__LEASE_SECONDS="2",
            OPENHQM_WORKER__HANDLER="tests.kafka.slow_handler:handle",
            OPENHQM_WORKER__COUNT=str(SLOTS),
        )
        server.start()
        self.addCleanup(server.stop)
        return server

    def metric(self, server: Server, name: bytes) -> int:
        """The value of a counter."""
        found = re.search(rb"^%b ([0-9.]+)" % name, server.ask("GET", "/metrics")[2], re.MULTILINE)
        assert found is not None, name
        return int(float(found[1]))

    def redelivered(self, server: Server) -> int:
        return self.metric(server, b"openhqm_redelivered_total")

    def submit_until_it_works(self, first: Server, other: Server) -> list[str]:
        """Submit to the first process until the other one has its share of the work; the ids."""
        ids: list[str] = []

        def works() -> bool:
            ids.extend(first.submit({"n": number}) for number in range(10))
            return self.metric(other, b"openhqm_processing_duration_seconds_count") >= SLOTS

        first.until(works, "the other process has no work", 60)
        return ids

    def all_done(self, server: Server, ids: list[str]) -> None:
        """Each has ended well."""
        for id in ids:
            self.assertEqual(server.response(id, 60)["status"], "COMPLETED")

    def test_joined_left_and_killed(self) -> None:
        """Over a join and a leave no more is delivered again than was in hand, and so over a kill; nothing is lost."""
        self.redis = RedisServer().start()
        self.addCleanup(self.redis.close)
        first = self.process("first")
        second = self.process("second")
        ids = self.submit_until_it_works(first, second)
        left = self.redelivered(second)
        self.assertEqual(second.stop(), 0)
        self.all_done(first, ids)
        self.assertLessEqual(left + self.redelivered(first), IN_HAND)
        before = self.redelivered(first)
        third = self.process("third")
        ids = self.submit_until_it_works(first, third)
        third.kill()
        self.all_done(first, ids)
        self.assertLessEqual(self.redelivered(first) - before, IN_HAND)
