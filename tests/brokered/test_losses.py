"""What a broker has lost is published again, or ends: no request waits for ever for a message that is gone."""

from __future__ import annotations

from typing import Any

import apsw
from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openhqm.brokered.losses import LOOK_SECONDS, PURGED_LOOKS
from openhqm.interfaces import DepthKind
from openhqm.messages import Acceptance, Priority, Reply, Status, Submission
from openhqm.redis.ledger_losses import LOST_STATUS
from openhqm.sqlite import outbox_rows
from openhqm.testing import FORMS, REQUESTS
from tests.benches import BrokeredBench
from tests.redis.bench import BrokeredInstance, brokered_redis_bench

HIGH = f"{REQUESTS}._high"
NOTED = 2.0  # by then the ledger knows what the broker has
NOTICED = (PURGED_LOOKS[DepthKind.EXACT] + 2) * LOOK_SECONDS
LATER = 1000.0


class FileTestsBase(SynchronousTestCase):
    """The ledger in the file, which keeps every message, and a broker of one form"""

    form = "amqp"

    def setUp(self) -> None:
        self.bench = BrokeredBench(FORMS[self.form])
        self.addCleanup(lambda: self.bench.close())

    def do(self, deferred: Deferred[Any]) -> Any:
        return self.successResultOf(self.bench.done(deferred))

    def accepted(self, **fields: Any) -> Acceptance:
        found: Acceptance = self.do(self.bench.queue.accept(Submission(b"1", **fields), None))
        return found

    def received(self, most: int = 1, queue: str = REQUESTS) -> list[Any]:
        self.bench.turn()
        waiting = self.bench.queue.receive(queue, most)
        self.bench.pass_time(2)
        if not waiting.called:
            waiting.addErrback(lambda failure: None)
            waiting.cancel()
            return []
        return list(self.successResultOf(waiting))

    def settle(self, delivery: Any) -> None:
        id = delivery.request.correlation_id
        reply = Reply(id, Status.COMPLETED, self.bench.now(), result=b"1", attempt=delivery.attempt)
        self.assertTrue(self.do(delivery.settle(reply)))

    def settle_all(self) -> int:
        """Work on what there is; how many attempts that took."""
        count = 0
        while received := self.received():
            self.settle(received[0])
            count += 1
        return count

    def status(self, accepted: Acceptance) -> Status:
        status: Status = self.do(self.bench.store.find(accepted.correlation_id)).status
        return status


class FileTests(FileTestsBase):
    """The ledger in the file, over AMQP"""

    def test_everything(self) -> None:
        """What waited and what was in work ends, although the broker came back empty; what had ended stays so."""
        done, in_work, waiting = self.accepted(), self.accepted(), self.accepted(priority=Priority.LOW)
        self.settle(self.received()[0])
        (lost,) = self.received()
        self.bench.pass_time(NOTED)
        self.bench.server.lose_everything()
        self.bench.pass_time(LOOK_SECONDS)
        self.assertEqual(self.successResultOf(lost.revoked), "lease lost")
        self.assertEqual(self.settle_all(), 2)
        self.assertEqual([self.status(each) for each in (done, in_work, waiting)], [Status.COMPLETED] * 3)
        self.assertTrue(any("published again" in warning for warning in self.bench.queue.warnings))

    def test_deleted(self) -> None:
        """A channel that was deleted takes nothing of the others with it, and its requests are published again."""
        high, normal = self.accepted(priority=Priority.HIGH), self.accepted()
        self.bench.pass_time(NOTED)
        before = len(self.bench.server.published)
        self.bench.server.delete(HIGH)
        self.bench.pass_time(2 * LOOK_SECONDS)
        self.assertEqual([name for name, _ in self.bench.server.published[before:]], [HIGH])
        self.assertEqual(self.settle_all(), 2)
        self.assertEqual([self.status(each) for each in (high, normal)], [Status.COMPLETED] * 2)

    def test_deleted_and_noticed_by_the_next_publish(self) -> None:
        """The next request for a channel that is gone is accepted, and brings back what was lost with it."""
        first = self.accepted()
        self.bench.pass_time(NOTED)
        self.bench.server.delete(REQUESTS)
        second = self.accepted()
        self.bench.pass_time(1)
        self.assertEqual(self.settle_all(), 2)
        self.assertEqual([self.status(each) for each in (first, second)], [Status.COMPLETED] * 2)

    def test_purged(self) -> None:
        """Requests whose messages were purged do not stay PENDING for ever."""
        accepted = [self.accepted() for _ in range(3)]
        self.bench.pass_time(NOTED)
        self.bench.server.purge(REQUESTS)
        self.bench.pass_time(NOTICED)
        self.assertEqual(self.settle_all(), 3)
        self.assertEqual({self.status(each) for each in accepted}, {Status.COMPLETED})
        (warning,) = self.bench.queue.warnings
        self.assertIn("emptied by another program: 3 requests are published again", warning)

    def test_resurfaced(self) -> None:
        """A message that was thought lost and comes nevertheless is passed over: the newer one counts."""
        self.accepted()
        self.bench.pass_time(NOTED)
        (message,) = self.bench.server.messages(REQUESTS)
        self.bench.server.delete(REQUESTS)
        self.bench.pass_time(2 * LOOK_SECONDS)
        self.bench.server.put(REQUESTS, message)
        self.assertEqual(self.settle_all(), 1)
        self.bench.pass_time(2)
        self.assertEqual(list(self.bench.server.messages(REQUESTS)), [])

    def test_not_early(self) -> None:
        """What waits in the outbox for its time is not touched by a loss, and comes as the attempt that it is."""
        later = self.accepted(not_before=self.bench.now() + LATER)
        retried = self.accepted()
        self.do(self.received()[0].retry(LATER, "no luck"))
        self.bench.server.lose_everything()
        self.bench.pass_time(NOTICED)
        self.assertEqual(self.received(), [])
        self.bench.pass_time(LATER)
        attempts = {each.request.correlation_id: each.attempt for each in (*self.received(), *self.received())}
        self.assertEqual(attempts, {later.correlation_id: 1, retried.correlation_id: 2})

    def test_in_order(self) -> None:
        """A partition goes on where its message was lost."""
        queue = f"{REQUESTS}._0"
        ids = [self.accepted(partition=0).correlation_id for _ in range(3)]
        self.bench.pass_time(NOTED)
        self.bench.server.lose_everything()
        self.bench.pass_time(2 * LOOK_SECONDS)
        found = []
        for _ in ids:
            (delivery,) = self.received(queue=queue)
            found.append(delivery.request.correlation_id)
            self.settle(delivery)
        self.assertEqual(found, ids)

    def test_nothing(self) -> None:
        """Where nothing was lost there is no warning, and nothing is published twice."""
        for _ in range(3):
            self.accepted()
        self.bench.pass_time(NOTICED)
        self.assertEqual(len(self.bench.server.published), 3)
        self.settle_all()
        self.bench.server.lose_everything()
        self.bench.pass_time(NOTICED)
        self.assertEqual((len(self.bench.server.published), list(self.bench.queue.warnings)), (3, []))

    def test_prefetched_elsewhere(self) -> None:
        """A channel that is empty because another process works on its messages was not purged."""
        self.accepted()
        (delivery,) = self.received()
        for _ in range(PURGED_LOOKS[DepthKind.EXACT] + 2):
            self.bench.pass_time(LOOK_SECONDS)
            delivery.extend()
        self.assertEqual(len(self.bench.server.published), 1)
        self.settle(delivery)

    def test_many(self) -> None:
        """However many there are, they are published again in portions."""
        self.patch(outbox_rows, "MOST_RECOVERED", 3)
        accepted = [self.accepted() for _ in range(10)]
        self.bench.pass_time(NOTED)
        self.bench.server.lose_everything()
        self.bench.pass_time(2 * LOOK_SECONDS)
        self.assertEqual(self.settle_all(), 10)
        self.assertEqual({self.status(each) for each in accepted}, {Status.COMPLETED})

    def test_killed(self) -> None:
        """A process that starts after the broker has lost everything makes it good."""
        accepted = self.accepted()
        self.bench.pass_time(NOTED)
        self.bench.crash()
        self.bench.server.lose_everything()
        self.bench.pass_time(NOTICED)
        self.assertEqual(self.settle_all(), 1)
        self.assertEqual(self.status(accepted), Status.COMPLETED)

    def test_disk_full(self) -> None:
        """While the ledger cannot be written nothing is forgotten: it is made good later."""
        self.accepted()
        self.bench.pass_time(NOTED)
        self.bench.run_commit = lambda commit: fail(apsw.FullError("the disk is full"))  # type: ignore[method-assign]
        self.bench.server.lose_everything()
        self.bench.pass_time(LOOK_SECONDS)
        del self.bench.run_commit
        self.bench.pass_time(2 * LOOK_SECONDS)
        self.assertEqual(self.settle_all(), 1)


class QuietTests(FileTestsBase):
    """A product that tells no depth, as MQTT: what is lost shows where a worker waits for it"""

    form = "mqtt"

    def lose(self, count: int) -> list[Acceptance]:
        """Accept requests whose messages are lost by a broker that has confirmed them."""
        accepted = [self.accepted() for _ in range(count)]
        self.bench.pass_time(NOTED)
        self.bench.server.purge(REQUESTS)
        return accepted

    def waited_for(self) -> Any:
        """What a worker is given that waits for as long as it takes to notice a loss."""
        waiting = self.bench.queue.receive(REQUESTS, 1)
        for _ in range(PURGED_LOOKS[DepthKind.NONE] + 2):
            if not waiting.called:
                self.bench.pass_time(LOOK_SECONDS)
        return self.successResultOf(waiting)[0]

    def test_lost(self) -> None:
        """A worker waits, nothing comes, and requests should have: they are published again."""
        accepted = self.lose(3)
        self.settle(self.waited_for())
        self.assertEqual(self.settle_all(), 2)
        self.assertEqual({self.status(each) for each in accepted}, {Status.COMPLETED})
        (warning,) = self.bench.queue.warnings
        self.assertIn("has lost messages: 3 requests are published again", warning)

    def test_lost_in_a_crash(self) -> None:
        """The same for a process that was killed with its broker."""
        (accepted,) = self.lose(1)
        self.bench.crash()
        self.settle(self.waited_for())
        self.assertEqual(self.status(accepted), Status.COMPLETED)

    def test_lost_again_and_again(self) -> None:
        """Where what is published again does not come, either, it is published ever more rarely."""
        bench = BrokeredBench(evolve(FORMS["mqtt"], keeps=0))
        self.addCleanup(lambda: bench.close())
        bench.server.drops_when_full = True
        self.successResultOf(bench.done(bench.queue.accept(Submission(b"1"), None)))
        waiting = bench.queue.receive(REQUESTS, 1)
        waiting.addErrback(lambda failure: failure.trap(CancelledError))
        for _ in range(200):
            bench.pass_time(LOOK_SECONDS)
        self.assertIn(len(bench.server.published), range(3, 10))
        waiting.cancel()

    def test_nobody_waits(self) -> None:
        """Where no worker waits, nothing is said to be lost, and nothing is published twice."""
        self.accepted()
        self.bench.pass_time(NOTICED)
        self.assertEqual((len(self.bench.server.published), list(self.bench.queue.warnings)), (1, []))
        self.assertEqual(self.settle_all(), 1)

    def test_busy(self) -> None:
        """What waits behind a handler that takes long is not lost."""
        for _ in range(4):
            self.accepted()
        (delivery,) = self.received()
        for _ in range(PURGED_LOOKS[DepthKind.NONE] + 2):
            self.bench.pass_time(LOOK_SECONDS)
            delivery.extend()
        self.settle(delivery)
        self.assertEqual(self.settle_all(), 3)
        self.assertEqual(list(self.bench.queue.warnings), [])


class RedisTests(TestCase):
    """The ledger in Redis, which does not keep what the broker has"""

    timeout = 120

    async def setUp(self) -> None:  # type: ignore[override]
        self.bench = await brokered_redis_bench(self)
        self.addCleanup(self.bench.close)
        here = self.bench.instance
        assert isinstance(here, BrokeredInstance)
        self.here = here

    async def accepted(self, **fields: Any) -> Acceptance:
        found: Acceptance = await self.bench.done(self.here.queue.accept(Submission(b"1", **fields), None))
        return found

    async def record(self, accepted: Acceptance) -> Any:
        return await self.bench.done(self.here.store.find(accepted.correlation_id))

    async def test_ended(self) -> None:
        """A request whose content is nowhere any more ends as FAILED, and its reply says to send it again."""
        lost, later = await self.accepted(), await self.accepted(not_before=self.bench.now() + LATER)
        await self.bench.pass_time(NOTED)
        self.bench.messages.lose_everything()
        await self.bench.pass_time(60.0 + 3 * LOOK_SECONDS)
        reply = (await self.record(lost)).reply
        self.assertEqual((reply.status, reply.status_code), (Status.FAILED, LOST_STATUS))
        self.assertIn("send it again", reply.error)
        self.assertEqual((await self.record(later)).status, Status.PENDING)

    async def test_follow_up(self) -> None:
        """The ending of a request that was lost has its follow-up, as every ending has."""
        follow_up = Submission(b"2", endpoint="billing")
        lost = await self.bench.done(self.here.queue.accept(Submission(b"1"), None, [follow_up]))
        await self.bench.pass_time(NOTED)
        self.bench.messages.lose_everything()
        await self.bench.pass_time(60.0 + 3 * LOOK_SECONDS)
        (delivery,) = await self.bench.done(self.here.queue.receive(f"{REQUESTS}.billing", 1))
        self.assertEqual(delivery.request.correlation_id, lost.follow_ups[0])
        self.assertEqual(delivery.request.submission.parent_reply, (await self.record(lost)).reply)

    async def test_the_wrong_broker(self) -> None:
        """A broker that has none of the channels is not believed for a minute, and this is said until then."""
        accepted = await self.accepted()
        await self.bench.pass_time(NOTED)
        self.bench.messages.lose_everything()
        await self.bench.pass_time(LOOK_SECONDS)
        self.assertIn("check host, virtual host and prefix", self.here.queue.unavailable_reason or "")
        self.assertEqual((await self.record(accepted)).status, Status.PENDING)

    async def test_one_channel(self) -> None:
        """Where other channels are there it is the right broker: what was lost with one of them ends at once."""
        high, other = await self.accepted(priority=Priority.HIGH), await self.accepted()
        await self.bench.pass_time(NOTED)
        self.bench.messages.delete(HIGH)
        await self.bench.pass_time(2 * LOOK_SECONDS)
        self.assertEqual((await self.record(high)).status, Status.FAILED)
        self.assertEqual((await self.record(other)).status, Status.PENDING)

    async def test_a_moment_ago(self) -> None:
        """What was published a moment ago is still in the ledger with its content: it is published again."""
        accepted = await self.accepted()
        self.bench.messages.lose_everything()
        await self.bench.pass_time(60.0)
        (delivery,) = await self.bench.done(self.here.queue.receive(REQUESTS, 1))
        self.assertEqual(delivery.request.correlation_id, accepted.correlation_id)
