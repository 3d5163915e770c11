"""A ledger in Redis, which several processes share: the promises that are kept by its scripts."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from openhqm.brokered.outbox import MOST_AT_ONCE
from openhqm.messages import Submission
from openhqm.testing import FORMS, REQUESTS
from tests.redis.bench import brokered_redis_bench


class TwoProcessesTests(TestCase):
    """A broker in memory, and Redis"""

    timeout = 240

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

    async def test_in_order_behind_a_backlog(self) -> None:
        """What a partition accepts when the broker is back goes behind its backlog, however long that is."""
        bench = await brokered_redis_bench(self, FORMS["amqp"], journaled=True)
        self.addCleanup(bench.close)
        bench.messages.go_away()

        async def accept(**fields: Any) -> str:
            return str((await bench.done(bench.queue.accept(Submission(b"1", **fields), None))).correlation_id)

        for _ in range(3 * MOST_AT_ONCE):
            await accept()
        first = await accept(partition=0)
        bench.messages.come_back()
        second = await accept(partition=0)
        await bench.pass_time(10)
        bodies = [message.body for message in bench.messages.messages(REQUESTS)]
        self.assertEqual([id for id in (first, second) if any(id.encode() in body for body in bodies)], [first])
