"""What a broker has lost is published anew, or ends: no request waits for ever for what is not there."""

from __future__ import annotations

from typing import Any

from openhqm.errors import NotDurable
from openhqm.messages import Acceptance, Priority, Status, Submission
from openhqm.redis import ledger as redis_ledger
from openhqm.sqlite import ledger as sqlite_ledger
from openhqm.testing import REQUESTS
from tests.brokered.test_brokered import Books
from tests.brokered.test_redis_ledger import Shared

NOTED = 2.0  # by then it is in the books what the broker has
SWEPT = 6.0  # by then what is marked is published
DUE = 120.0
SURE = 60.0
LOOK = 10.0  # how often an empty broker is looked at, at the least


class FileTests(Books):
    """The books in the file: every message is there, too"""

    def lose(self, queue: str | None = None, priority: Priority | None = None) -> bool:
        """Whether anything was lost, by the books."""
        lost = self.bench.done(self.broker.lose(queue, priority))
        self.bench.pass_time(3)
        found: bool = self.successResultOf(lost)
        self.bench.pass_time(SWEPT)
        return found

    def next(self) -> Any:
        """The next one, if there is one."""
        (loan,) = self.successResultOf(self.receive(most=1))
        return loan

    def do_all(self) -> int:
        """Do what there is; how many attempts that took."""
        count = self.left()
        for _ in range(count):
            self.settle(self.next())
        return count

    def test_everything(self) -> None:
        """What waited, what was in work, what was to be tried again: all of it ends, and what is done stays so."""
        done, in_work, waiting = self.accepted(), self.accepted(), self.accepted(priority=Priority.LOW)
        self.settle(self.next())
        self.next()
        self.bench.pass_time(NOTED)
        self.assertTrue(self.lose())
        self.assertEqual(self.do_all(), 2)
        self.assertEqual([self.status(each) for each in (done, in_work, waiting)], [Status.COMPLETED] * 3)
        (warning,) = self.bench.queue.warnings
        self.assertIn("lost everything it had: 2 requests are published anew", warning)

    def test_not_early(self) -> None:
        """What was delayed, first or between two attempts, still is; and the next attempt is the one that it was."""
        later = self.accepted(not_before=self.bench.now() + DUE)
        retried = self.accepted()
        self.do(self.one().retry(DUE, "no luck"))
        self.bench.pass_time(NOTED)
        self.assertTrue(self.lose())
        self.assertEqual(self.left(), 2)
        early = self.receive(most=1)
        self.assertNoResult(early)
        self.bench.pass_time(DUE)
        loans = [*self.successResultOf(early), self.next()]
        attempts = {loan.request.correlation_id: loan.attempt for loan in loans}
        self.assertEqual(attempts, {later.correlation_id: 1, retried.correlation_id: 2})

    def test_one_lane(self) -> None:
        """Of a queue that was deleted the others know nothing: what they hold is not published once more."""
        for priority in Priority:
            self.accepted(priority=priority)
        self.accepted(priority=Priority.HIGH, endpoint="billing")
        self.bench.pass_time(NOTED)
        self.assertTrue(self.lose(REQUESTS, Priority.HIGH))
        self.assertEqual((self.left(), self.left(f"{REQUESTS}.billing")), (3, 1))
        (warning,) = self.bench.queue.warnings
        self.assertIn(f"what was in {REQUESTS}: 1 requests", warning)

    def test_a_moment_ago(self) -> None:
        """What the broker has confirmed last may not be in the books yet; it is not lost either."""
        self.accepted()
        self.assertTrue(self.lose(REQUESTS, Priority.NORMAL))
        self.assertEqual(self.do_all(), 1)

    def test_nothing(self) -> None:
        """Where nothing was there nobody is alarmed, and nothing is published."""
        self.accepted()
        self.settle(self.next())
        self.bench.pass_time(NOTED)
        self.assertFalse(self.lose())
        self.assertEqual((self.left(), list(self.bench.queue.warnings)), (0, []))

    def test_many(self) -> None:
        """However many there are, they are looked at a few at a time."""
        self.patch(sqlite_ledger, "MOST_LOOKED_AT", 3)
        accepted = [self.accepted() for _ in range(10)]
        self.settle(self.next())
        self.bench.pass_time(NOTED)
        self.assertTrue(self.lose())
        self.assertEqual(self.do_all(), 9)
        self.assertEqual({self.status(each) for each in accepted}, {Status.COMPLETED})

    def test_killed(self) -> None:
        """A kill while it is found out: whoever is asked again finds the rest."""
        self.accepted()
        self.bench.pass_time(NOTED)
        self.broker.lose()
        self.bench.crash()
        self.assertTrue(self.lose() or self.left())
        self.assertEqual(self.do_all(), 1)

    def test_disk_full(self) -> None:
        """While the books cannot be written nobody says that all is well."""
        self.accepted()
        self.bench.pass_time(NOTED)
        self.break_the_disk()
        lost = self.bench.done(self.broker.lose())
        self.failureResultOf(lost)
        self.mend_the_disk()
        self.bench.pass_time(5)
        self.assertTrue(self.lose())
        self.assertEqual(self.do_all(), 1)


class RedisTests(Shared):
    """The books in Redis: what the broker has is there alone"""

    async def lose(self, queue: str | None = None, priority: Priority | None = None) -> bool:
        """Whether anything was lost, by the books; one of the two processes notices, and is sure after a while."""
        if queue is None and self.redis("ZCARD", "elsewhere"):
            await self.suspect(self.here.broker.lose())
            self.here.broker.away = True  # nothing is published before all is clear
            for _ in range(int(SURE / LOOK) - 1):
                await self.pass_time(LOOK)
                await self.suspect(self.here.broker.on_lost(None, None))
            await self.pass_time(LOOK)
            self.here.broker.away = False
        lost = self.here.broker.lose(queue, priority)
        for _ in range(3):
            await self.pass_time(1)
        return await lost

    async def suspect(self, lost: Any) -> None:
        """That it is empty is not believed."""
        await self.quiet()
        error = self.failureResultOf(lost, NotDurable).value
        self.assertIn("requests are open. Is it the right one?", error.reason)

    async def record(self, accepted: Acceptance) -> Any:
        return await self.do(self.there.store.find(accepted.correlation_id))

    async def test_everything(self) -> None:
        """What nobody can do any more ends as FAILED, in words: also what was in work, for it was lost there, too."""
        in_work = await self.accept()
        await self.one(self.there)
        waiting, later = await self.accept(), await self.accept(not_before=self.bench.now() + DUE)
        await self.pass_time(NOTED)
        self.assertTrue(await self.lose())
        for each in (in_work, waiting, later):
            reply = (await self.record(each)).reply
            self.assertEqual((reply.status, reply.status_code), (Status.FAILED, redis_ledger.LOST_STATUS))
            self.assertIn("sent again", reply.error)
        (warning,) = self.here.queue.warnings
        self.assertIn("3 have ended as FAILED", warning)

    async def test_the_wrong_broker(self) -> None:
        """Who was led to another broker, and is led back in time, finds everything as it was."""
        accepted = await self.accept()
        await self.pass_time(NOTED)
        await self.suspect(self.here.broker.on_lost(None, None))
        await self.pass_time(LOOK)
        await self.suspect(self.here.broker.on_lost(None, None))
        await self.pass_time(SURE)  # it was the right one again; and now once more it is not
        await self.suspect(self.here.broker.on_lost(None, None))
        self.assertEqual((await self.record(accepted)).status, Status.PENDING)
        loan = await self.one(self.there)
        self.assertTrue(await self.do(loan.settle(self.reply(loan))))
        self.assertEqual(list(self.here.queue.warnings), [])

    async def test_one_lane(self) -> None:
        """Of a queue that was deleted the others know nothing, nor do those that wait for their time elsewhere."""
        high = await self.accept(priority=Priority.HIGH)
        others = [await self.accept(), await self.accept(priority=Priority.HIGH, not_before=self.bench.now() + DUE)]
        await self.pass_time(NOTED)
        self.assertTrue(await self.lose(REQUESTS, Priority.HIGH))
        self.assertEqual((await self.record(high)).status, Status.FAILED)
        self.assertEqual([(await self.record(each)).status for each in others], [Status.PENDING] * 2)

    async def test_a_moment_ago(self) -> None:
        """What another process has published last is still here, and is published anew."""
        accepted = await self.do(self.there.queue.accept(Submission(b"1"), None))
        self.there.broker.away = True
        self.assertFalse(await self.lose())
        self.there.broker.away = False
        await self.pass_time(redis_ledger.MARK_SECONDS + SWEPT)
        loan = await self.one(self.here)
        self.assertEqual(loan.request.correlation_id, accepted.correlation_id)

    async def test_noted_late(self) -> None:
        """What another process had published before it was lost, and notes only afterwards, is published anew."""
        accepted = await self.do(self.there.queue.accept(Submission(b"1"), None))
        lost = self.here.broker.lose(REQUESTS, Priority.NORMAL)
        await self.quiet()
        self.assertFalse(await lost)
        await self.pass_time(NOTED)
        await self.pass_time(redis_ledger.MARK_SECONDS + SWEPT)
        loan = await self.one(self.here)
        self.assertEqual(loan.request.correlation_id, accepted.correlation_id)
        await self.pass_time(redis_ledger.MARK_SECONDS + SWEPT)
        self.assertEqual(self.redis("ZCARD", "unpublished"), 0)

    async def test_nothing_is_left_in_the_index(self) -> None:
        """What has ended, or was taken back, is not looked at again."""
        await self.accept()
        loan = await self.one(self.there)
        await self.do(loan.settle(self.reply(loan)))
        self.here.broker.mood = "refuses"
        await self.do(self.here.queue.accept(Submission(b"1"), None).addErrback(lambda failure: None))
        self.assertEqual(self.redis("ZCARD", "elsewhere"), 0)

    async def test_many(self) -> None:
        """However many there are, they are looked at a few at a time."""
        self.patch(redis_ledger, "MOST_LOOKED_AT", 3)
        accepted = [await self.accept() for _ in range(10)]
        await self.pass_time(NOTED)
        self.assertTrue(await self.lose())
        self.assertEqual({(await self.record(each)).status for each in accepted}, {Status.FAILED})
