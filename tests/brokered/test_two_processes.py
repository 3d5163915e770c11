"""Two processes with one ledger in Redis: what one of them ends, the other one stops to work on."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from openhqm.messages import Submission
from openhqm.testing import REQUESTS
from tests.redis.bench import brokered_redis_bench


class TwoProcessesTests(TestCase):
    """A broker in memory, and Redis"""

    timeout = 60

    async def test_cancelled_by_the_other_one(self) -> None:
        """A handler is told that its request was cancelled, whether or not the request has a partition."""
        bench = await brokered_redis_bench(self)
        self.addCleanup(bench.close)
        worker = bench.make_instance()
        await worker.start()
        self.addCleanup(worker.stop)
        for partition, queue in ((None, REQUESTS), (3, f"{REQUESTS}._3")):
            accepted = await bench.done(bench.queue.accept(Submission(b"1", partition=partition), None))
            (delivery,) = await bench.done(worker.queue.receive(queue, 1))
            self.assertEqual(delivery.request.correlation_id, accepted.correlation_id)
            await bench.done(bench.store.cancel(accepted.correlation_id))
            self.assertEqual(await bench.done(delivery.revoked), "CANCELLED")
