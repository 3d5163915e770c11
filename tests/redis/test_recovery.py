"""The Redis backend loses nothing when Redis is killed, frozen, full, flushed or changed, and recovers by itself."""

from __future__ import annotations

import gc
import re
import time

from twisted.internet.defer import CancelledError

from openhqm.codec import encode_request
from openhqm.errors import AlreadyEnded, UnknownRequest
from openhqm.messages import Event, Request, Status, Submission
from openhqm.queue import waiters
from openhqm.redis import local_queue
from openhqm.testing import REQUESTS
from tests.brokers import RedisServer
from tests.redis.bench import Instance
from tests.redis.proxy import CuttingProxy
from tests.redis.real_server import RealRedisTestCase


class RecoveryTests(RealRedisTestCase):
    """One instance, on a Redis that something happens to"""

    async def test_down_at_the_start(self) -> None:
        """A Redis that is not there yet: not ready, refused at once; once it is there, all is well by itself."""
        server = RedisServer()
        self.addCleanup(server.close)
        one = await self.instance(server.url)
        self.assertIn("refused", one.queue.unavailable_reason or "")
        await self.refused(one.queue.accept(Submission(b"1"), None))
        waiting = one.queue.receive(REQUESTS, 1)
        server.start()
        await self.patiently(lambda: one.queue.accept(Submission(b"1"), None))
        self.assertIsNone(one.queue.unavailable_reason)
        self.assertTrue(one.queue.traits.durable)
        self.assertEqual(len(await waiting), 1)

    async def test_first_delivery(self) -> None:
        """What waits is delivered when Redis is connected, at first or again: not after a pause, nor by a signal."""
        self.patch(waiters, "RETRY_SECONDS", 3600.0)
        self.patch(local_queue, "SAFETY_SECONDS", 3600.0)
        server = await self.server()
        other = await self.instance(server.url)
        for number in range(2):
            await other.queue.accept(Submission(b"%d" % number), None)
        one = Instance(server.url, "t:", None)
        self.addCleanup(one.stop)
        self.patch(one.redis.listening.link, "start", lambda: None)
        waiting = one.queue.receive(REQUESTS, 1)
        await one.queue.start()
        (delivery,) = await self.soon(waiting)
        self.assertEqual(delivery.request.submission.payload, b"0")
        server.kill()
        await self.until(lambda: one.queue.unavailable_reason, "it was not noticed")
        waiting = one.queue.receive(REQUESTS, 1)
        server.start()
        (delivery,) = await waiting
        self.assertEqual(delivery.request.submission.payload, b"1")

    async def test_killed(self) -> None:
        """Redis killed and started again: nothing that was accepted is lost, waiting goes on, an ending is told."""
        server = await self.server()
        one = await self.instance(server.url)
        accepted = [await one.queue.accept(Submission(b"%d" % number), None) for number in range(20)]
        (first,) = await one.queue.receive(REQUESTS, 1)
        heard: list[Event] = []
        one.store.watch(accepted[0].correlation_id, heard.append)
        await one.quiet()
        server.kill()
        await self.until(lambda: one.queue.unavailable_reason, "it was not noticed")
        await self.refused(first.settle(self.reply(first)))
        server.start()
        self.assertTrue(await self.patiently(lambda: first.settle(self.reply(first))))
        await self.until(lambda: heard and heard[-1].reply, "the ending was not told")
        deliveries = await one.queue.receive(REQUESTS, 50)
        self.assertEqual(
            [delivery.request.correlation_id for delivery in deliveries], [each.correlation_id for each in accepted[1:]]
        )
        again = await one.queue.accept(Submission(b"new"), None)
        self.assertNotIn(again.correlation_id, [each.correlation_id for each in accepted])

    async def test_frozen(self) -> None:
        """A Redis that answers nothing: refused within two seconds, not ready; and well again when it goes on."""
        server = await self.server()
        one = await self.instance(server.url)
        server.freeze()
        await self.refused(one.queue.accept(Submission(b"1"), None))
        self.assertIsNotNone(one.queue.unavailable_reason)
        await self.refused(one.queue.accept(Submission(b"1"), None))
        server.thaw()
        await self.patiently(lambda: one.queue.accept(Submission(b"2"), None))
        self.assertIsNone(one.queue.unavailable_reason)

    async def test_stopped_while_it_fetches(self) -> None:
        """A queue that is stopped while it fetches a request releases it: at once, and uncounted."""
        server = await self.server()
        one, other = [await self.instance(server.url) for _ in range(2)]
        accepted = await other.queue.accept(Submission(b"1"), None)
        await one.quiet()
        server.freeze()
        waiting = one.queue.receive(REQUESTS, 1)
        waiting.addErrback(lambda failure: failure.trap(CancelledError)).cancel()
        stopped = one.stop()
        server.thaw()
        await stopped
        (delivery,) = await self.soon(other.queue.receive(REQUESTS, 1))
        self.assertEqual((delivery.request.correlation_id, delivery.attempt), (accepted.correlation_id, 1))
        begun = [event for event in await other.store.history(accepted.correlation_id, 1) if event.type == "processing"]
        self.assertEqual(len(begun), 2, "it was not delivered before")

    async def test_stopped_while_frozen(self) -> None:
        """Where Redis does not answer any more, the stop is over all the same; the lease brings the request back."""
        server = await self.server()
        one = await self.instance(server.url)
        await one.queue.accept(Submission(b"1"), None)
        await one.quiet()
        server.freeze()
        waiting = one.queue.receive(REQUESTS, 1)
        waiting.addErrback(lambda failure: failure.trap(CancelledError)).cancel()
        await self.soon(one.stop())

    async def test_ping_refused(self) -> None:
        """A Redis that cannot save refuses even PING: that is a sign of life, and no failure of ours."""
        server = await self.server(save="3600 1")
        one = await self.instance(server.url)
        (server.directory / "dump.rdb").mkdir()
        server.say("BGSAVE")
        await self.until(lambda: server.say("PING").startswith(b"-MISCONF"), "it can save")
        listening = one.redis.listening
        timer = listening._ping
        timer.reset(0)
        await self.until(lambda: listening._ping is not timer and not listening.link.unanswered, "no answer")
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_wrong_password(self) -> None:
        """It says so without the password, keeps trying, and works once the password is right."""
        server = await self.server(requirepass="right")
        one = await self.instance(f"redis://:wrong-secret@127.0.0.1:{server.port}/0")
        unavailable_reason = one.queue.unavailable_reason or ""
        self.assertIn("password", unavailable_reason)
        self.assertNotIn("wrong-secret", unavailable_reason)
        await self.refused(one.queue.accept(Submission(b"1"), None))
        right = await self.instance(f"redis://:right@127.0.0.1:{server.port}/0")
        await right.redis.command("CONFIG", "SET", "requirepass", "wrong-secret")
        await self.patiently(lambda: one.queue.accept(Submission(b"1"), None))

    async def test_another_layout(self) -> None:
        """Keys of another layout, older or newer, are refused with what to do about it, and not touched."""
        server = await self.server()
        one = await self.instance(server.url)
        await one.queue.accept(Submission(b"1"), None)
        layout, number = f"{one.redis.prefix}layout", f"{one.redis.prefix}number"
        before = await one.redis.command("GET", number)
        for found in (None, "9"):
            await (one.redis.command("SET", layout, found) if found else one.redis.command("DEL", layout))
            other = await self.instance(server.url)
            self.assertIn(f"have layout {found or 1}, and", other.queue.unavailable_reason or "")
            self.assertIn("another prefix", other.queue.unavailable_reason or "")
            await self.refused(other.queue.accept(Submission(b"1"), None))
            self.assertEqual(await one.redis.command("GET", number), before)

    async def test_layout_of_before(self) -> None:
        """Keys of layout 2 mean the same in this one, and become keys of this one."""
        server = await self.server()
        one = await self.instance(server.url)
        accepted = await one.queue.accept(Submission(b"1"), None)
        layout = f"{one.redis.prefix}layout"
        await one.redis.command("SET", layout, "2")
        other = await self.instance(server.url)
        self.assertEqual((await other.store.find(accepted.correlation_id)).status, Status.PENDING)
        self.assertEqual(await one.redis.command("GET", layout), b"3")

    async def test_scripts_forgotten(self) -> None:
        """SCRIPT FLUSH costs a repetition, and no caller notices."""
        one = await self.instance((await self.server()).url)
        await one.redis.command("SCRIPT", "FLUSH")
        accepted = await one.queue.accept(Submission(b"1"), None)
        await one.redis.command("SCRIPT", "FLUSH")
        (delivery,) = await one.queue.receive(REQUESTS, 1)
        self.assertEqual(delivery.request.correlation_id, accepted.correlation_id)

    async def test_stream_deleted(self) -> None:
        """A stream that was deleted is made again; the requests in it are delivered from their records, and logged."""
        one = await self.instance((await self.server()).url)
        accepted = await one.queue.accept(Submission(b"1"), None)
        self.assertEqual(await one.redis.command("DEL", f"t:q:{REQUESTS}:ready:normal"), 1)
        (delivery,) = await one.queue.receive(REQUESTS, 1)
        self.assertEqual(delivery.request.correlation_id, accepted.correlation_id)
        await one.queue.accept(Submission(b"2"), None)
        (other,) = await one.queue.receive(REQUESTS, 1)
        self.assertEqual(other.request.submission.payload, b"2")

    async def test_group_deleted(self) -> None:
        """A group that was destroyed is made again, and no request is delivered a second time."""
        one = await self.instance((await self.server()).url)
        for number in (b"1", b"2"):
            await one.queue.accept(Submission(number), None)
        (first,) = await one.queue.receive(REQUESTS, 1)
        await one.redis.command("XGROUP", "DESTROY", f"t:q:{REQUESTS}:ready:normal", "openhqm")
        (second,) = await one.queue.receive(REQUESTS, 5)
        self.assertEqual(second.request.submission.payload, b"2")
        self.assertTrue(await first.settle(self.reply(first)))

    async def test_trimmed(self) -> None:
        """Requests that were trimmed off a stream are delivered from their records."""
        one = await self.instance((await self.server()).url)
        for number in (b"1", b"2", b"3"):
            await one.queue.accept(Submission(number), None)
        await one.redis.command("XTRIM", f"t:q:{REQUESTS}:ready:normal", "MAXLEN", "0")
        found: set[bytes] = set()
        while len(found) < 3:
            found |= {each.request.submission.payload for each in await one.queue.receive(REQUESTS, 5)}
        self.assertEqual(found, {b"1", b"2", b"3"})

    async def test_full(self) -> None:
        """At maxmemory new requests are refused, deliveries can be settled, and it recovers by itself."""
        one = await self.instance((await self.server()).url)
        await one.queue.accept(Submission(b"1"), None)
        (delivery,) = await one.queue.receive(REQUESTS, 1)
        await one.redis.command("CONFIG", "SET", "maxmemory", "1")
        error = await self.refused(one.queue.accept(Submission(b"2"), None))
        self.assertIn("maxmemory", error.reason)
        self.assertIn("maxmemory", one.queue.unavailable_reason or "")
        self.assertTrue(await delivery.settle(self.reply(delivery)))
        await one.redis.command("CONFIG", "SET", "maxmemory", "0")
        await self.until(lambda: one.queue.unavailable_reason is None, "it did not recover")
        await one.queue.accept(Submission(b"2"), None)

    async def test_full_for_long(self) -> None:
        """A Redis without memory extends a lease all the same."""
        one = await self.instance((await self.server()).url, lease=1.0)
        await one.queue.accept(Submission(b"1"), None)
        (delivery,) = await one.queue.receive(REQUESTS, 1)
        await one.redis.command("CONFIG", "SET", "maxmemory", "1")
        first = delivery.lease_end
        delivery.extend()
        await self.until(lambda: delivery.lease_end > first or delivery.revoked.called, "it was not extended")
        self.assertFalse(delivery.revoked.called)
        self.assertTrue(await delivery.settle(self.reply(delivery)))

    async def test_ended_by_a_redis_that_is_gone(self) -> None:
        """An ending that this Redis knows nothing of takes no request away: it is delivered again."""
        one = await self.instance((await self.server()).url)
        accepted = await one.queue.accept(Submission(b"1"), None)
        (delivery,) = await one.queue.receive(REQUESTS, 1)
        await delivery.ack()
        (again,) = await one.queue.receive(REQUESTS, 1)
        self.assertEqual((again.request.correlation_id, again.attempt), (accepted.correlation_id, 2))
        self.assertTrue(await again.settle(self.reply(again)))

    async def test_behind_one_that_waits(self) -> None:
        """In order: a receiver behind a retry does not ask all the time whether it is over."""
        server = await self.server()
        one = await self.instance(server.url)
        await one.queue.accept(Submission(b"1"), None)
        (first,) = await one.queue.receive(REQUESTS, 1, in_order=True)
        await first.retry(2.0, "no luck")
        await one.queue.accept(Submission(b"2", not_before=one.redis.clock_now() + 0.1), None)
        found = [(await one.queue.receive(REQUESTS, 1, in_order=True))[0]]
        await found[0].settle(self.reply(found[0]))
        found += await one.queue.receive(REQUESTS, 1, in_order=True)
        self.assertEqual([each.request.submission.payload for each in found], [b"1", b"2"])
        asked = re.search(rb"cmdstat_evalsha:calls=(\d+)", server.say("INFO", "commandstats"))
        assert asked is not None
        self.assertLess(int(asked[1]), 50)

    async def test_replica(self) -> None:
        """A master that became a replica is unavailable with the reason, until it is a master again."""
        server = await self.server()
        one = await self.instance(server.url)
        await one.redis.command("REPLICAOF", "127.0.0.1", "1")
        error = await self.refused(one.queue.accept(Submission(b"1"), None))
        self.assertIn("replica", error.reason)
        server.say("REPLICAOF", "NO", "ONE")
        await self.patiently(lambda: one.queue.accept(Submission(b"1"), None))

    async def test_forgotten_everything(self) -> None:
        """A Redis whose data are gone is an alarm that lasts: it is not mistaken for an empty one."""
        server = await self.server()
        one = await self.instance(server.url)
        accepted = await one.queue.accept(Submission(b"1"), None)
        server.say("FLUSHALL")
        server.say("CLIENT", "KILL", "TYPE", "normal")
        await self.until(lambda: "forgotten" in (one.queue.unavailable_reason or ""), "it was not noticed")
        await self.refused(one.store.find(accepted.correlation_id))

    async def test_forgotten_while_connected(self) -> None:
        """It is an alarm also where no connection was lost, and where another process has started since."""
        server = await self.server()
        one, two = await self.instance(server.url), await self.instance(server.url)
        await one.queue.accept(Submission(b"1"), None)
        server.say("FLUSHALL")
        self.assertIn("forgotten", str(await self.refused(one.queue.accept(Submission(b"2"), None))))
        three = await self.instance(server.url)
        await three.queue.accept(Submission(b"3"), None)
        self.assertIn("forgotten", str(await self.refused(two.queue.accept(Submission(b"4"), None))))
        for each in (one, two):
            self.assertIn("forgotten", each.queue.unavailable_reason or "")
        self.assertEqual(len(self.flushLoggedErrors()), 0)

    async def test_numbers_after_a_loss(self) -> None:
        """A Redis that lost its last second gives out no id a second time, and the loss is told."""
        server = await self.server()
        one = await self.instance(server.url)
        first = await one.queue.accept(Submission(b"1"), None)
        number = one.redis.ids.number(first.correlation_id)
        assert number is not None
        await one.redis.command("SET", "t:number", number - 1)  # as if it had not been synced
        await one.redis.command("DEL", f"t:r:{number}", f"t:q:{REQUESTS}:ready:normal")
        server.kill()
        server.start()
        second = await self.patiently(lambda: one.queue.accept(Submission(b"2"), None))
        self.assertNotEqual(first.correlation_id, second.correlation_id)
        self.assertIn("lost", " ".join(one.queue.warnings))

    async def test_due_at_the_same_time(self) -> None:
        """What is due at the same time is delivered in the order of acceptance, also where numbers get longer."""
        server = await self.server()
        before = await self.instance(server.url)
        await before.redis.command("SET", "t:number", 10**7 - 3)  # as an earlier version counted
        one = await self.instance(server.url)
        due = time.time() + 0.5
        payloads = [b"%d" % number for number in range(6)]
        for payload in payloads:
            await one.queue.accept(Submission(payload, not_before=due), None)
        delivered = []
        while len(delivered) < len(payloads):
            delivered += await self.soon(one.queue.receive(REQUESTS, 6))
        self.assertEqual([each.request.submission.payload for each in delivered], payloads)

    async def test_parent_record(self) -> None:
        """A record that stands in no other key is known, is never delivered, and ends once (decision 48)."""
        server = await self.server()
        one = await self.instance(server.url)
        number = await one.redis.command("INCR", "t:number")
        id, at = one.redis.ids.issue(number), time.time()
        body = encode_request(Request(id, at, Submission(b"null")))
        fields = ("at", at, "body", body, "queue", REQUESTS, "priority", "normal", "attempt", 0, "last", 1)
        await one.redis.command("HSET", f"t:r:{number}", *fields)
        await one.queue.accept(Submission(b"1"), None)
        other = await self.instance(server.url)
        self.assertEqual((await other.store.find(id)).status, Status.PENDING)
        (delivery,) = await other.queue.receive(REQUESTS, 10)
        self.assertEqual(delivery.request.submission.payload, b"1")
        await other.store.cancel(id)
        self.assertEqual((await one.store.find(id)).status, Status.CANCELLED)
        with self.assertRaises(AlreadyEnded):
            await one.store.cancel(id)

    async def test_lost_answer(self) -> None:
        """A settling whose answer got lost is asked for again, and finds that it was done: one ending."""
        from twisted.internet import reactor

        server = await self.server()
        proxy = CuttingProxy(reactor, server.port)
        self.addCleanup(proxy.stop)
        one = await self.instance(f"redis://127.0.0.1:{proxy.own_port}/0")
        counted: list[str] = []
        one.store.on_ending.append(lambda number, status: counted.append(status))
        accepted = await one.queue.accept(Submission(b"1"), None)
        (delivery,) = await one.queue.receive(REQUESTS, 1)
        proxy.cut_answer_to(b'"special"')
        reply = self.reply(delivery, b'"special"')
        await self.refused(delivery.settle(reply))
        await self.until(lambda: one.queue.unavailable_reason is None, "it did not connect again")
        delivery.extend()  # Redis says that the delivery is over, and it is: settled
        await one.quiet()
        self.assertTrue(await self.patiently(lambda: delivery.settle(reply)))
        self.assertEqual(counted, ["COMPLETED"])
        self.assertEqual([event.type for event in await one.store.history(accepted.correlation_id, 2)], ["completed"])

    async def test_lost_answer_to_a_retry(self) -> None:
        """A retry whose answer got lost is one retry."""
        from twisted.internet import reactor

        server = await self.server()
        proxy = CuttingProxy(reactor, server.port)
        self.addCleanup(proxy.stop)
        one = await self.instance(f"redis://127.0.0.1:{proxy.own_port}/0")
        await one.queue.accept(Submission(b"1"), None)
        (delivery,) = await one.queue.receive(REQUESTS, 1)
        proxy.cut_answer_to(b'"no luck"')
        await self.refused(delivery.retry(0.1, "no luck"))
        await self.patiently(lambda: delivery.retry(0.1, "no luck"))
        (again,) = await one.queue.receive(REQUESTS, 1)
        self.assertEqual(again.attempt, 2)
        self.assertEqual((await one.queue.depth(REQUESTS)).in_flight, 1)

    async def test_lease_over_a_pause(self) -> None:
        """A result that comes after a pause of Redis longer than the lease still counts, if no other delivery began."""
        server = await self.server()
        one = await self.instance(server.url, lease=1.0)
        await one.queue.accept(Submission(b"1"), None)
        (delivery,) = await one.queue.receive(REQUESTS, 1)
        server.freeze()
        await self.refused(delivery.settle(self.reply(delivery)))
        server.thaw()
        self.assertTrue(await self.patiently(lambda: delivery.settle(self.reply(delivery))))

    async def test_extended_when_it_is_confirmed(self) -> None:
        """A lease that was extended ends when it did before, until Redis has confirmed that it does not."""
        server = await self.server()
        one = await self.instance(server.url)
        await one.queue.accept(Submission(b"1"), None)
        (delivery,) = await one.queue.receive(REQUESTS, 1)
        await one.quiet()
        before = delivery.lease_end
        server.freeze()
        delivery.extend()
        self.assertEqual(delivery.lease_end, before)
        server.thaw()
        await one.quiet()
        self.assertGreater(delivery.lease_end, before)

    async def test_not_durable(self) -> None:
        """A Redis without an append-only file is declared not durable, with the reason."""
        one = await self.instance((await self.server(appendonly="no")).url)
        self.assertFalse(one.queue.traits.durable)
        self.assertIn("appendonly", " ".join(one.queue.warnings))

    async def test_unknown_while_away(self) -> None:
        """An id that was never given out is refused without a look-up."""
        server = await self.server()
        one = await self.instance(server.url)
        server.kill()
        await self.until(lambda: one.queue.unavailable_reason, "it was not noticed")
        error = await self.failure(one.store.find("11111111-1111-4111-8111-111111111111"))
        self.assertIsInstance(error, UnknownRequest)
