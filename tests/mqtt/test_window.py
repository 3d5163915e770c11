"""A Mosquitto that keeps little, confirms what it drops, and is never given more than it keeps."""

from __future__ import annotations

from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from openhqm.brokered.queue import BrokeredQueue
from openhqm.messages import Reply, Status, Submission
from openhqm.testing import REQUESTS
from tests.brokered_bench import pause
from tests.brokers import Mosquitto
from tests.mqtt.backend_bench import SqliteAndMQTT

KEEPS = 20
MANY = 150


class WindowTests(TestCase):
    """The embedded file beside a Mosquitto whose ``max_queued_messages`` is 20"""

    timeout = 240

    async def test_many_more_than_it_keeps(self) -> None:
        """All that was accepted while no worker was there is delivered, once and in order, and nothing was dropped."""
        server = Mosquitto(max_queued_messages=str(KEEPS), max_inflight_messages=str(KEEPS)).start()
        self.addCleanup(server.close)
        bench = SqliteAndMQTT(server, 5, KEEPS)
        self.addCleanup(bench.close)
        await bench.broker.when_probed()
        accepting = [BrokeredQueue.accept(bench.queue, Submission(b"1"), None) for _ in range(MANY)]
        accepted = [found.correlation_id for found in await gatherResults(accepting)]
        await pause(0.5)
        await bench.broker.quiet()
        done: list[str] = []
        while len(done) < MANY:
            # The bench's clock stands still: nothing is published again because it did not come.
            (delivery,) = await bench.queue.receive(REQUESTS, 1)
            id = delivery.request.correlation_id
            await delivery.settle(Reply(id, Status.COMPLETED, bench.now(), b"1"))
            done.append(id)
        self.assertEqual(done, accepted)
        self.assertEqual({(await bench.store.find(id)).status for id in accepted}, {Status.COMPLETED})
