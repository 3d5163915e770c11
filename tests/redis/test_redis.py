"""Redis keeps the same promises as every other backend, on a real server, and through what happens to servers."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from openhqm.errors import NotDurable, OpenHQMError, UnknownRequest
from openhqm.messages import Event, Reply, Status, Submission
from openhqm.testing import REQUESTS, backend_contract
from openhqm.testing.surviving import Crashing
from tests.brokers import RedisServer
from tests.redis.bench import Instance, RedisBench, redis_bench
from tests.redis.proxy import CuttingProxy

PATIENCE = 25.0


class RedisContract(backend_contract(redis_bench)):  # type: ignore[misc]
    """The Redis backend."""

    timeout = 60


class RedisKilledContract(Crashing):
    """The same after a crash of Redis itself, kill -9, together with whoever used it."""

    timeout = 60

    def make_bench(self) -> Deferred[RedisBench]:
        return redis_bench(self, kills=True)


del backend_contract, Crashing


class Real(TestCase):
    """Instances in real time, on a server that the test may do anything to."""

    timeout = 60

    async def server(self, **settings: str) -> RedisServer:
        server = RedisServer(**settings)
        self.addCleanup(server.close)
        return server.start()

    async def instance(self, url: str, lease: float = 60.0) -> Instance:
        made = Instance(url, "t:", None, lease)
        self.addCleanup(made.stop)
        await made.start()
        return made

    async def until(self, holds: Callable[[], Any], words: str) -> None:
        """Ask again until it holds; the deadline is for a promise that is not kept."""
        from twisted.internet import reactor

        end = reactor.seconds() + PATIENCE  # type: ignore[attr-defined]
        while not holds():
            self.assertLess(reactor.seconds(), end, words)  # type: ignore[attr-defined]
            await deferLater(reactor, 0.02)  # type: ignore[arg-type]

    def soon(self, step: Deferred[Any]) -> Deferred[Any]:
        """Within five seconds: far less than a lease, and than the time after which somebody looks without a word."""
        from twisted.internet import reactor

        return step.addTimeout(5.0, reactor)  # type: ignore[arg-type]

    async def patiently(self, step: Callable[[], Deferred[Any]]) -> Any:
        """Repeat what could not be made durable, as callers do."""
        from twisted.internet import reactor

        end = reactor.seconds() + PATIENCE  # type: ignore[attr-defined]
        while True:
            try:
                return await step()
            except NotDurable:
                if reactor.seconds() > end:  # type: ignore[attr-defined]
                    raise
                await deferLater(reactor, 0.05)  # type: ignore[arg-type]

    async def refused(self, step: Deferred[Any]) -> NotDurable:
        """It fails with `NotDurable`, and within two seconds."""
        from twisted.internet import reactor

        started = reactor.seconds()  # type: ignore[attr-defined]
        try:
            await step
        except NotDurable as error:
            self.assertLess(reactor.seconds() - started, 2.0)  # type: ignore[attr-defined]
            return error
        raise self.failureException("NotDurable was not raised")

    async def failure(self, step: Deferred[Any]) -> BaseException:
        try:
            await step
        except OpenHQMError as error:
            return error
        raise self.failureException("it did not fail")

    def reply(self, delivery: Any, result: bytes = b"2") -> Reply:
        return Reply(delivery.request.correlation_id, Status.COMPLETED, 1.0, result=result, attempt=delivery.attempt)


class SeveralTests(Real):
    """Two instances on one Redis."""

    async def test_told_elsewhere(self) -> None:
        """Who listens on B hears what A accepted and C works on, with the reply, without asking again."""
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

    async def test_woken_elsewhere(self) -> None:
        """Who waits for work on B is woken by what A accepts."""
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
        """Who works on a request on B learns that it was cancelled on A."""
        server = await self.server()
        a, b = [await self.instance(server.url) for _ in range(2)]
        accepted = await a.queue.accept(Submission(b"1"), None)
        (delivery,) = await b.queue.receive(REQUESTS, 1)
        await b.quiet()
        await a.store.cancel(accepted.correlation_id)
        self.assertEqual(await delivery.revoked, "CANCELLED")

    async def test_in_order_over_processes(self) -> None:
        """In order: while A holds one of a queue, B is lent none of it; and it is when A has settled."""
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
        """What is asked for goes out at once, and does not wait for the answer to what was asked before."""
        server = await self.server()
        one = await self.instance(server.url)
        await one.quiet()
        server.freeze()
        accepting = [one.queue.accept(Submission(b"%d" % number), None) for number in range(500)]
        self.assertGreaterEqual(one.redis.link.unanswered, 500)
        server.thaw()
        ids = [(await each).correlation_id for each in accepting]
        lent = await one.queue.receive(REQUESTS, 500)
        self.assertEqual([delivery.request.correlation_id for delivery in lent], ids)

    async def test_blocking_read_of_its_own(self) -> None:
        """Who waits for messages of others waits on a connection of its own: nobody is held up behind it."""
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


class FaultTests(Real):
    """What happens to servers."""

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
        await self.until(lambda: one.queue.unavailable_reason, "nobody noticed")
        await self.refused(first.settle(self.reply(first)))
        server.start()
        self.assertTrue(await self.patiently(lambda: first.settle(self.reply(first))))
        await self.until(lambda: heard and heard[-1].reply, "the ending was not told")
        lent = await one.queue.receive(REQUESTS, 50)
        self.assertEqual(
            [delivery.request.correlation_id for delivery in lent], [each.correlation_id for each in accepted[1:]]
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

    async def test_stopped_while_it_is_lent(self) -> None:
        """Who is stopped in the moment in which a request is lent gives it back: at once, and uncounted."""
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
        self.assertEqual(len(begun), 2, "it was not lent before")

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

    async def test_scripts_forgotten(self) -> None:
        """SCRIPT FLUSH costs a repetition, and nobody notices."""
        one = await self.instance((await self.server()).url)
        await one.redis.command("SCRIPT", "FLUSH")
        accepted = await one.queue.accept(Submission(b"1"), None)
        await one.redis.command("SCRIPT", "FLUSH")
        (delivery,) = await one.queue.receive(REQUESTS, 1)
        self.assertEqual(delivery.request.correlation_id, accepted.correlation_id)

    async def test_stream_deleted(self) -> None:
        """A stream that somebody deletes is made anew; what stood in it is lent from its record, and logged."""
        one = await self.instance((await self.server()).url)
        accepted = await one.queue.accept(Submission(b"1"), None)
        self.assertEqual(await one.redis.command("DEL", f"t:q:{REQUESTS}:ready:normal"), 1)
        (delivery,) = await one.queue.receive(REQUESTS, 1)
        self.assertEqual(delivery.request.correlation_id, accepted.correlation_id)
        await one.queue.accept(Submission(b"2"), None)
        (other,) = await one.queue.receive(REQUESTS, 1)
        self.assertEqual(other.request.submission.payload, b"2")

    async def test_group_deleted(self) -> None:
        """A group that somebody destroys is made anew, and nothing is lent a second time."""
        one = await self.instance((await self.server()).url)
        for number in (b"1", b"2"):
            await one.queue.accept(Submission(number), None)
        (first,) = await one.queue.receive(REQUESTS, 1)
        await one.redis.command("XGROUP", "DESTROY", f"t:q:{REQUESTS}:ready:normal", "openhqm")
        (second,) = await one.queue.receive(REQUESTS, 5)
        self.assertEqual(second.request.submission.payload, b"2")
        self.assertTrue(await first.settle(self.reply(first)))

    async def test_trimmed(self) -> None:
        """What somebody trims off a stream is lent from its record."""
        one = await self.instance((await self.server()).url)
        for number in (b"1", b"2", b"3"):
            await one.queue.accept(Submission(number), None)
        await one.redis.command("XTRIM", f"t:q:{REQUESTS}:ready:normal", "MAXLEN", "0")
        found: set[bytes] = set()
        while len(found) < 3:
            found |= {lent.request.submission.payload for lent in await one.queue.receive(REQUESTS, 5)}
        self.assertEqual(found, {b"1", b"2", b"3"})

    async def test_full(self) -> None:
        """At maxmemory new requests are refused, what is on loan can be settled, and it recovers by itself."""
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
        """Nobody loses a loan over a lease that Redis has no memory for: it is extended all the same."""
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
        """An ending that the Redis of now knows nothing of takes no request away: it is done once more."""
        one = await self.instance((await self.server()).url)
        accepted = await one.queue.accept(Submission(b"1"), None)
        (delivery,) = await one.queue.receive(REQUESTS, 1)
        await delivery.ack()
        (again,) = await one.queue.receive(REQUESTS, 1)
        self.assertEqual((again.request.correlation_id, again.attempt), (accepted.correlation_id, 2))
        self.assertTrue(await again.settle(self.reply(again)))

    async def test_behind_one_that_waits(self) -> None:
        """In order: whoever waits behind a retry does not ask all the time whether it may go."""
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
        """A master that became a replica refuses; what is asked is refused in words, until it is a master again."""
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
        await self.until(lambda: "forgotten" in (one.queue.unavailable_reason or ""), "nobody noticed")
        await self.refused(one.store.find(accepted.correlation_id))

    async def test_forgotten_while_connected(self) -> None:
        """So it is where no connection was lost over it, and where another process has begun anew since."""
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
        proxy.cut_answer_to(b'"marked"')
        reply = self.reply(delivery, b'"marked"')
        await self.refused(delivery.settle(reply))
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
        """Where Redis was away for longer than the lease and nobody else took the request, its result still counts."""
        server = await self.server()
        one = await self.instance(server.url, lease=1.0)
        await one.queue.accept(Submission(b"1"), None)
        (delivery,) = await one.queue.receive(REQUESTS, 1)
        server.freeze()
        await self.refused(delivery.settle(self.reply(delivery)))
        server.thaw()
        self.assertTrue(await self.patiently(lambda: delivery.settle(self.reply(delivery))))

    async def test_not_durable(self) -> None:
        """A Redis without an append-only file is said not to be durable, in words."""
        one = await self.instance((await self.server(appendonly="no")).url)
        self.assertFalse(one.queue.traits.durable)
        self.assertIn("appendonly", " ".join(one.queue.warnings))

    async def test_unknown_while_away(self) -> None:
        """An id that was never given out is refused without a look-up."""
        server = await self.server()
        one = await self.instance(server.url)
        server.kill()
        await self.until(lambda: one.queue.unavailable_reason, "nobody noticed")
        error = await self.failure(one.store.find("11111111-1111-4111-8111-111111111111"))
        self.assertIsInstance(error, UnknownRequest)
