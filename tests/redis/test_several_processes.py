"""Several processes share one Redis: what one does, the others are told."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import DeferredList

from openhqm.errors import QueueFull
from openhqm.messages import Event, Status, Submission
from openhqm.policy.limits import Limits
from openhqm.redis.turns import MOST
from openhqm.testing import REQUESTS
from tests.redis.real_server import PATIENCE, RealRedisTestCase


class SeveralProcessesTests(RealRedisTestCase):
    """Instances as different processes have them"""

    async def test_told_elsewhere(self) -> None:
        """A listener on B is told the events of a request that A accepted and C works on, with the reply."""
        server = await self.server()
        a, b, c = [await self.instance(server.url) for _ in range(3)]
        accepted = await a.queue.accept(Submission(b"1"), None)
        heard: list[Event] = []
        stop = b.store.watch(accepted.correlation_id, heard.append)
        await b.quiet()
        (delivery,) = await c.queue.receive(REQUESTS, 1)
        await delivery.progress({"percent": 50})
        reply = self.reply(delivery)
        self.assertTrue(await delivery.settle(reply))
        await self.until(lambda: heard and heard[-1].reply, "the ending was not told")
        self.assertEqual([event.type for event in heard], ["processing", "progress", "completed"])
        self.assertEqual(heard[-1].reply, reply)
        self.assertEqual(heard, await b.store.history(accepted.correlation_id, 1))
        self.assertEqual((await b.store.find(accepted.correlation_id)).reply, reply)
        stop()

    async def test_told_after_a_failover(self) -> None:
        """A listener is told the ending also where Redis has forgotten events that it was told: its number is lower."""
        server = await self.server()
        a, b = [await self.instance(server.url) for _ in range(2)]
        accepted = await a.queue.accept(Submission(b"1"), None)
        heard: list[Event] = []
        self.addCleanup(b.store.watch(accepted.correlation_id, heard.append))
        await b.quiet()
        (delivery,) = await a.queue.receive(REQUESTS, 1)
        for percent in range(5):
            await delivery.progress({"percent": percent})
        await self.until(lambda: len(heard) == 6, "the progress was not told")
        record = f"t:r:{b.redis.ids.number(accepted.correlation_id)}"
        server.say("HSET", record, "last", "2")  # as a replica has it that did not get the rest
        server.say("HDEL", record, *(f"e{number}" for number in range(3, 8)))
        reply = self.reply(delivery)
        self.assertTrue(await delivery.settle(reply))
        await self.until(lambda: heard[-1].reply, "the ending was not told")
        self.assertEqual((heard[-1].reply, heard[-1].number), (reply, 3))

    async def test_full_over_processes(self) -> None:
        """Of what three processes are asked for at once, exactly as much is accepted as there is room for."""
        server = await self.server()
        several = [await self.instance(server.url, limits=Limits(requests=20)) for _ in range(3)]
        asked = [each.queue.accept(Submission(b"1"), None) for _ in range(20) for each in several]
        outcomes: Any = await DeferredList(asked, consumeErrors=True)
        refused = [failure for success, failure in outcomes if not success]
        self.assertEqual(len(refused), 40)
        self.assertTrue(all(failure.check(QueueFull) for failure in refused))
        self.assertEqual({(await each.queue.load()).requests for each in several}, {20})

    async def test_dropped_elsewhere(self) -> None:
        """A listener on B is told that its request made room for one that A accepted."""
        server = await self.server()
        limits = Limits(requests=1, drop_oldest=True)
        a, b = [await self.instance(server.url, limits=limits) for _ in range(2)]
        accepted = await b.queue.accept(Submission(b"1"), None)
        heard: list[Event] = []
        self.addCleanup(b.store.watch(accepted.correlation_id, heard.append))
        await b.quiet()
        await a.queue.accept(Submission(b"2"), None)
        await self.until(lambda: heard, "the ending was not told")
        reply = heard[-1].reply
        assert reply is not None
        self.assertEqual((reply.correlation_id, reply.reason_class), (accepted.correlation_id, "overflow"))

    async def test_woken_elsewhere(self) -> None:
        """A receiver on B gets a request that A accepts, at once."""
        server = await self.server()
        a, b = [await self.instance(server.url) for _ in range(2)]
        waiting = b.queue.receive(REQUESTS, 1)
        await b.quiet()
        self.assertFalse(waiting.called)
        accepted = await a.queue.accept(Submission(b"1"), None)
        (delivery,) = await waiting
        self.assertEqual(delivery.request.correlation_id, accepted.correlation_id)
        self.assertEqual(delivery.request.submitted_at, accepted.submitted_at)

    async def test_cancelled_elsewhere(self) -> None:
        """The worker on B is told that its request was cancelled on A."""
        server = await self.server()
        a, b = [await self.instance(server.url) for _ in range(2)]
        accepted = await a.queue.accept(Submission(b"1"), None)
        (delivery,) = await b.queue.receive(REQUESTS, 1)
        await b.quiet()
        await a.store.cancel(accepted.correlation_id)
        self.assertEqual(await delivery.revoked, "CANCELLED")

    async def test_in_order_over_processes(self) -> None:
        """In order: while A works on a request of a queue, B gets none of it; it does when A has settled."""
        server = await self.server()
        a, b = [await self.instance(server.url) for _ in range(2)]
        for number in (b"1", b"2"):
            await a.queue.accept(Submission(number, partition=0), None)
        name = f"{REQUESTS}._0"
        (first,) = await a.queue.receive(name, 5, in_order=True)
        waiting = b.queue.receive(name, 5, in_order=True)
        await b.quiet()
        self.assertFalse(waiting.called)
        await first.settle(self.reply(first))
        (second,) = await waiting
        self.assertEqual(second.request.submission.payload, b"2")

    async def test_pipelined(self) -> None:
        """What is asked for is sent in its turn of the reactor, and waits for no answer to what went before."""
        server = await self.server()
        one = await self.instance(server.url)
        await one.quiet()
        server.freeze()
        accepting = [one.queue.accept(Submission(b"%d" % number), None) for number in range(500)]
        self.assertGreaterEqual(one.redis.link.unanswered, 500 // MOST)
        server.thaw()
        ids = [(await each).correlation_id for each in accepting]
        deliveries = await one.queue.receive(REQUESTS, 500)
        self.assertEqual([each.request.correlation_id for each in deliveries], ids)

    async def test_blocking_read_of_its_own(self) -> None:
        """A blocking read has a connection of its own: no other command waits behind it."""
        server = await self.server()
        one = await self.instance(server.url)
        link = one.redis.own_link(PATIENCE)
        self.addCleanup(link.stop)
        link.start()
        await link.when_probed()
        blocked = link.ask("XREAD", "BLOCK", int(PATIENCE * 1000), "STREAMS", "inbox", "$")
        await self.until(lambda: b"blocked_clients:1" in server.say("INFO", "clients"), "it does not block")
        accepted = await one.queue.accept(Submission(b"1"), None)
        self.assertEqual((await one.store.find(accepted.correlation_id)).status, Status.PENDING)
        self.assertFalse(blocked.called)
        await one.redis.command("XADD", "inbox", "*", "a", "1")
        self.assertTrue(await blocked)

    async def test_unix_socket(self) -> None:
        """A socket in the file system leads to the same Redis."""
        server = await self.server()
        a = await self.instance(server.url)
        b = await self.instance(f"unix://{server.socket}")
        accepted = await a.queue.accept(Submission(b"1"), None)
        self.assertEqual((await b.store.find(accepted.correlation_id)).status, Status.PENDING)
