"""A full disk in each step: the step fails and leaves nothing, what is known is answered, and it goes on by itself.

On the embedded file the disk is full in a statement or in the commit. Redis is full at ``maxmemory``, where what ends a
request is still written.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import apsw
from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import TestCase

from openhqm.errors import NotDurable
from openhqm.messages import IdempotencyClaim, Reply, Status, Submission
from openhqm.policy.limits import Limits
from openhqm.testing import FORMS, REQUESTS
from tests.benches import BrokeredBench, SqliteBench
from tests.brokers import RedisServer
from tests.redis.bench import BrokeredRedisBench, RedisBench

BODY = b'"' + 50_000 * b"x" + b'"'
CLAIM = IdempotencyClaim("key", b"print")
FOLLOW_UPS = f"{REQUESTS}.billing"


class FullCase(TestCase):
    """``fill`` lets the disk be full, ``empty`` ends that. Each step is done three times: full, full, and with room."""

    timeout = 120
    bench: Any
    ends_when_full = False
    """Whether an ending is written although nothing is accepted."""

    async def open(self) -> None:
        raise NotImplementedError

    async def fill(self) -> None:
        raise NotImplementedError

    async def empty(self) -> None:
        raise NotImplementedError

    async def do(self, deferred: Deferred[Any]) -> Any:
        return await self.bench.done(deferred)

    async def refused(self, step: Callable[[], Deferred[Any]]) -> None:
        try:
            await self.do(step())
        except NotDurable:
            return
        self.fail("it was done on a full disk")

    async def twice_refused(self, step: Callable[[], Deferred[Any]]) -> Any:
        """What the step fires with once there is room; before that it fails, however often it is tried."""
        await self.fill()
        for _ in range(2):
            await self.refused(step)
            await self.bench.pass_time(1)
        await self.empty()
        await self.bench.pass_time(6)
        return await self.do(step())

    def reply(self, delivery: Any, status: Status = Status.COMPLETED, result: bytes = b"1") -> Reply:
        return Reply(delivery.request.correlation_id, status, self.bench.now(), result=result, attempt=delivery.attempt)

    async def count(self, queue: str = REQUESTS) -> int:
        """How many requests of the queue are delivered, each of which is settled."""
        count = 0
        while True:
            waiting = self.bench.queue.receive(queue, 1)
            await self.bench.pass_time(10)
            if not waiting.called:
                waiting.addErrback(lambda failure: None).cancel()
                return count
            (delivery,) = await self.do(waiting)
            self.assertEqual(delivery.attempt, 1)
            await self.do(delivery.settle(self.reply(delivery)))
            count += 1


class Full(FullCase):
    async def test_accept(self) -> None:
        """Accepting, with and without a claim and follow-ups."""
        for claim, follow_ups in ((None, []), (CLAIM, []), (None, [Submission(BODY, endpoint="billing")] * 2)):
            await self.open()
            accept = partial(self.bench.queue.accept, Submission(BODY), claim, follow_ups)
            accepted = await self.twice_refused(accept)
            self.assertFalse(accepted.replayed)
            self.assertEqual(await self.count(), 1)
            self.assertEqual(await self.count(FOLLOW_UPS), len(follow_ups))

    async def test_begin(self) -> None:
        """Beginning an attempt: the worker waits, and the attempt that it gets then is the first one."""
        await self.open()
        accepted = await self.do(self.bench.queue.accept(Submission(BODY), None))
        await self.fill()
        waiting = self.bench.queue.receive(REQUESTS, 1)
        await self.bench.pass_time(5)
        self.assertFalse(waiting.called)
        self.assertEqual((await self.bench.store.find(accepted.correlation_id)).status, Status.PENDING)
        await self.empty()
        await self.bench.pass_time(10)
        (delivery,) = await self.do(waiting)
        self.assertEqual(delivery.attempt, 1)
        self.assertTrue(await self.do(delivery.settle(self.reply(delivery))))

    async def test_end(self) -> None:
        """An ending with its follow-up: both are there, or neither is."""
        for letter in (False, True):
            await self.open()
            follow_up = Submission(b"2", endpoint="billing")
            accepted = await self.do(self.bench.queue.accept(Submission(b"1"), None, [follow_up]))
            (delivery,) = await self.do(self.bench.queue.receive(REQUESTS, 1))
            reply = self.reply(delivery, Status.FAILED if letter else Status.COMPLETED, BODY)

            def end(delivery: Any = delivery, reply: Reply = reply, letter: bool = letter) -> Deferred[Any]:
                return delivery.dead_letter("no", reply) if letter else delivery.settle(reply)  # type: ignore[no-any-return]

            if self.ends_when_full:
                await self.fill()
                await self.do(end())
                await self.empty()
                await self.bench.pass_time(6)
            else:
                await self.twice_refused(end)
            self.assertEqual((await self.bench.store.find(accepted.correlation_id)).status, reply.status)
            self.assertEqual(len(await self.do(self.bench.queue.dead_letters(0, 10))), int(letter))
            self.assertEqual(await self.count(FOLLOW_UPS), 1)

    async def test_retry_and_release(self) -> None:
        """A retry, and a release: the delivery stays open until it is written."""
        await self.open()
        await self.do(self.bench.queue.accept(Submission(BODY), None))
        (delivery,) = await self.do(self.bench.queue.receive(REQUESTS, 1))
        if self.ends_when_full:
            await self.do(delivery.retry(1.0, "no luck"))
        else:
            await self.twice_refused(lambda: delivery.retry(1.0, BODY.decode()))  # type: ignore[no-any-return]
        await self.bench.pass_time(10)
        (delivery,) = await self.do(self.bench.queue.receive(REQUESTS, 1))
        self.assertEqual(delivery.attempt, 2)
        self.assertTrue(await self.do(delivery.settle(self.reply(delivery))))

    async def test_redrive(self) -> None:
        """Redriving: the dead letter stays until its request is accepted."""
        await self.open()
        await self.do(self.bench.queue.accept(Submission(BODY), None))
        (delivery,) = await self.do(self.bench.queue.receive(REQUESTS, 1))
        await self.do(delivery.dead_letter("no", self.reply(delivery, Status.FAILED)))
        await self.fill()
        await self.refused(lambda: self.bench.queue.redrive(1))
        ((number, _),) = await self.do(self.bench.queue.dead_letters(0, 10))
        await self.empty()
        await self.bench.pass_time(6)
        await self.do(self.bench.queue.redrive(number))
        self.assertEqual(await self.do(self.bench.queue.dead_letters(0, 10)), [])
        self.assertEqual(await self.count(), 1)

    async def test_claim(self) -> None:
        """A repeat under a known key, and a key whose request was refused: the first is answered, the second free."""
        await self.open()
        accepted = await self.do(self.bench.queue.accept(Submission(BODY), CLAIM))
        other = IdempotencyClaim("other", b"print")
        await self.twice_refused(lambda: self.bench.queue.accept(Submission(BODY), other))
        again = await self.do(self.bench.queue.accept(Submission(BODY), CLAIM))
        self.assertEqual((again.correlation_id, again.replayed), (accepted.correlation_id, True))
        self.assertEqual(await self.count(), 2)

    async def test_deadline(self) -> None:
        """A deadline that passes on a full disk is kept once there is room, and has its follow-up."""
        await self.open()
        follow_up = Submission(BODY, endpoint="billing")
        accepted = await self.do(self.bench.queue.accept(Submission(b"1", timeout=5.0), None, [follow_up]))
        await self.fill()
        await self.bench.pass_time(10)
        await self.empty()
        await self.bench.pass_time(10)
        self.assertEqual((await self.bench.store.find(accepted.correlation_id)).status, Status.TIMEOUT)
        self.assertEqual(await self.count(FOLLOW_UPS), 1)

    async def test_cancel(self) -> None:
        """A cancellation with its follow-up: the caller is told that it did not happen, and can repeat it."""
        await self.open()
        follow_up = Submission(b"2", endpoint="billing")
        accepted = await self.do(self.bench.queue.accept(Submission(BODY), None, [follow_up]))
        cancel = partial(self.bench.store.cancel, accepted.correlation_id)
        if self.ends_when_full:
            await self.fill()
            await self.do(cancel())
            await self.empty()
            await self.bench.pass_time(6)
        else:
            await self.twice_refused(cancel)
        self.assertEqual((await self.bench.store.find(accepted.correlation_id)).status, Status.CANCELLED)
        self.assertEqual((await self.count(), await self.count(FOLLOW_UPS)), (0, 1))

    async def test_drop_oldest(self) -> None:
        """Nothing is dropped for a request that the disk does not take."""
        await self.open()
        limit = getattr(self.bench.queue, "limit", None) or self.bench.queue._ledger.limit
        limit(Limits(requests=1, drop_oldest=True))
        await self.bench.pass_time(2)
        oldest = await self.do(self.bench.queue.accept(Submission(b"1"), None))

        def accept() -> Deferred[Any]:
            accepted: Deferred[Any] = self.bench.queue.accept(Submission(BODY), None)
            return accepted

        await self.fill()
        await self.refused(accept)
        self.assertEqual((await self.bench.store.find(oldest.correlation_id)).status, Status.PENDING)
        await self.empty()
        await self.bench.pass_time(6)
        await self.do(accept())
        self.assertEqual((await self.bench.store.find(oldest.correlation_id)).status, Status.FAILED)
        self.assertEqual(await self.count(), 1)


class CommitTests(Full):
    """The embedded file, where the commit fails"""

    def make(self) -> Any:
        return SqliteBench()

    async def open(self) -> None:
        self.bench = self.make()
        self.addCleanup(self.bench.close)

    async def fill(self) -> None:
        self.bench.run_commit = lambda commit: fail(apsw.FullError("the disk is full"))

    async def empty(self) -> None:
        del self.bench.run_commit


class StatementTests(CommitTests):
    """The embedded file, where a statement fails"""

    async def fill(self) -> None:
        def refuse(cursor: Any, statement: str, values: Any) -> bool:
            if statement.startswith(("INSERT", "UPDATE", "DELETE")):
                raise apsw.FullError("the disk is full")
            return True

        self.bench.file.connection.exec_trace = refuse

    async def empty(self) -> None:
        self.bench.file.connection.exec_trace = None


class BrokeredCommitTests(CommitTests):
    """A broker, and the embedded file, where the commit fails"""

    def make(self) -> Any:
        return BrokeredBench(FORMS["amqp"])


class RedisTests(Full):
    """Redis at ``maxmemory``"""

    ends_when_full = True

    def make(self) -> Any:
        return RedisBench()

    async def open(self) -> None:
        self.bench = self.make()
        server = RedisServer().start()
        self.addCleanup(server.close)
        self.bench.server = server
        await self.bench.open()
        self.addCleanup(self.bench.close)

    async def fill(self) -> None:
        await self.bench.instance.redis.command("CONFIG", "SET", "maxmemory", "1")

    async def empty(self) -> None:
        await self.bench.instance.redis.command("CONFIG", "SET", "maxmemory", "0")


class BrokeredRedisTests(RedisTests):
    """A broker, and Redis at ``maxmemory``"""

    def make(self) -> Any:
        return BrokeredRedisBench(FORMS["amqp"])


del Full, FullCase
