"""A queue and a ledger in two places keep the promises, whatever the broker between them does."""

from __future__ import annotations

from typing import Any

import apsw
from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from openhqm.brokered.put_aside import FOREIGN_SECONDS
from openhqm.codec import encode_request
from openhqm.errors import LeaseLost, NotDurable
from openhqm.interfaces import BrokerTraits, Message
from openhqm.messages import Acceptance, IdempotencyClaim, Priority, Reply, Request, Status, Submission
from openhqm.policy.shares import ONE_IN
from openhqm.queue.ledger import CLAIM_SECONDS
from openhqm.sqlite.sql import fetch_one
from openhqm.testing import FORMS, REQUESTS, PublishResult
from tests.benches import BrokeredBench

CLAIM = IdempotencyClaim("key", b"print")
PARTITION = f"{REQUESTS}._0"


class BrokeredCase(SynchronousTestCase):
    """The ledger in the embedded file, and a broker that is told what to do wrong."""

    traits: BrokerTraits = FORMS["amqp"]

    def setUp(self) -> None:
        self.bench = BrokeredBench(self.traits)
        self.addCleanup(lambda: self.bench.close())

    @property
    def broker(self) -> Any:
        return self.bench.broker

    def do(self, deferred: Deferred[Any]) -> Any:
        return self.successResultOf(self.bench.done(deferred))

    def accept(self, claim: IdempotencyClaim | None = None, **fields: Any) -> Deferred[Acceptance]:
        return self.bench.done(self.bench.queue.accept(Submission(b"1", **fields), claim))

    def accepted(self, claim: IdempotencyClaim | None = None, **fields: Any) -> Acceptance:
        found: Acceptance = self.successResultOf(self.accept(claim, **fields))
        return found

    def receive(self, queue: str = REQUESTS, most: int = 5) -> Deferred[Any]:
        return self.bench.done(self.bench.queue.receive(queue, most, in_order=queue == PARTITION))

    def one(self, queue: str = REQUESTS) -> Any:
        (delivery,) = self.successResultOf(self.receive(queue, 1))
        return delivery

    def reply(self, delivery: Any, status: Status = Status.COMPLETED) -> Reply:
        id = delivery.request.correlation_id
        return Reply(id, status, self.bench.now(), result=b"1", attempt=delivery.attempt)

    def settle(self, delivery: Any) -> bool:
        first: bool = self.do(delivery.settle(self.reply(delivery)))
        return first

    def status(self, accepted: Acceptance) -> Status:
        status: Status = self.do(self.bench.store.find(accepted.correlation_id)).status
        return status

    def left(self) -> int:
        """How many messages the broker has, delivered or not."""
        return sum(len(self.bench.server.messages(name)) for name in self.bench.server.channels)

    def rows(self, table: str) -> int:
        count: int = fetch_one(self.bench.file.reader, f"SELECT count(*) FROM {table}")[0]
        return count

    def break_the_disk(self) -> None:
        self.bench.run_commit = lambda commit: fail(apsw.FullError("the disk is full"))  # type: ignore[method-assign]

    def mend_the_disk(self) -> None:
        del self.bench.run_commit

    def put(self, body: bytes, channel: str = REQUESTS) -> None:
        """What another program publishes."""
        self.bench.server.provide(channel)
        self.bench.server.put(channel, Message(body))
        self.bench.server.channels[channel].dispatch()


class AcceptingTests(BrokeredCase):
    """What a caller is told, and what becomes of it."""

    def test_refused(self) -> None:
        """What the broker refuses is not accepted, and its key is free again."""
        self.broker.publish_result = PublishResult.REFUSED
        self.failureResultOf(self.accept(CLAIM), NotDurable)
        self.assertEqual((self.rows("messages"), self.rows("claims"), self.rows("outbox")), (0, 0, 0))
        self.broker.publish_result = PublishResult.CONFIRMED
        accepted = self.accepted(CLAIM)
        self.assertFalse(accepted.replayed)
        self.assertEqual(self.one().request.correlation_id, accepted.correlation_id)

    def test_refused_by_a_new_channel(self) -> None:
        """What a broker refuses because it has just made the channel is published once more, a moment later."""
        results = iter((PublishResult.CONFIRMED, PublishResult.REFUSED, PublishResult.CONFIRMED))
        self.broker.publish_result = lambda channel, message: next(results)  # the first time there is no channel
        accepting = self.accept()
        self.assertNoResult(accepting)
        self.bench.pass_time(0.5)
        accepted = self.successResultOf(accepting)
        self.assertEqual(self.one().request.correlation_id, accepted.correlation_id)

    def test_stopped_while_a_new_channel_refuses(self) -> None:
        """No caller waits for what is not published any more."""
        results = iter((PublishResult.CONFIRMED, PublishResult.REFUSED))
        self.broker.publish_result = lambda channel, message: next(results)  # the first time there is no channel
        accepting = self.accept()
        self.assertNoResult(accepting)
        self.bench.queue.stop()
        self.bench.turn()
        self.failureResultOf(accepting, NotDurable)

    def test_away(self) -> None:
        """While the broker is known to be away nothing is written for it; a repeat is still known."""
        first = self.accepted(CLAIM)
        self.bench.server.go_away()
        self.assertIsNotNone(self.bench.queue.unavailable_reason)
        rows = self.rows("messages")
        self.failureResultOf(self.accept(), NotDurable)
        self.assertEqual(self.rows("messages"), rows)
        self.assertEqual(self.accepted(CLAIM), replace(first, replayed=True))

    def test_confirmation_lost(self) -> None:
        """The message of a request that was withdrawn is passed over, and a repeat is a request of its own."""
        self.accepted()
        self.settle(self.one())
        self.broker.publish_result = PublishResult.UNCONFIRMED
        self.failureResultOf(self.accept(CLAIM), NotDurable)
        self.broker.publish_result = PublishResult.CONFIRMED
        again = self.accepted(CLAIM)
        self.assertEqual(self.left(), 2)
        delivery = self.one()
        self.assertEqual((delivery.request.correlation_id, delivery.attempt), (again.correlation_id, 1))
        self.settle(delivery)
        self.assertEqual(self.left(), 0)

    def test_begun_before_it_is_withdrawn(self) -> None:
        """Where a worker has it by then it was accepted, whatever the broker said."""
        self.accepted()
        self.settle(self.one())
        waiting = self.receive()
        self.broker.publish_result = PublishResult.UNCONFIRMED
        accepted = self.accepted(CLAIM)
        (delivery,) = self.successResultOf(waiting)
        self.assertEqual(delivery.request.correlation_id, accepted.correlation_id)
        self.assertTrue(self.settle(delivery))

    def test_cannot_be_withdrawn(self) -> None:
        """Where withdrawing fails as well it is published later, and a repeat under its key gets its id."""
        self.accepted()
        self.settle(self.one())
        self.broker.publish_result = PublishResult.STALLED
        accepting = self.accept(CLAIM)
        self.assertNoResult(accepting)
        self.break_the_disk()
        self.broker.lose_connection()
        self.bench.turn()
        self.failureResultOf(accepting, NotDurable)
        self.mend_the_disk()
        self.broker.publish_result = PublishResult.CONFIRMED
        self.broker.come_back()
        self.bench.pass_time(3)
        again = self.accepted(CLAIM)
        self.assertTrue(again.replayed)
        self.bench.pass_time(CLAIM_SECONDS + 6)
        self.assertEqual(self.one().request.correlation_id, again.correlation_id)

    def test_told_before_it_is_withdrawn(self) -> None:
        """An id that a repeat was told is not withdrawn: both callers have it, and it is published later."""
        self.accepted()
        self.settle(self.one())
        self.broker.publish_result = PublishResult.STALLED
        accepting = self.accept(CLAIM)
        repeated = self.accepted(CLAIM)
        self.assertTrue(repeated.replayed)
        self.broker.lose_connection()
        self.broker.publish_result = PublishResult.CONFIRMED
        self.bench.turn()
        self.assertEqual(self.successResultOf(accepting), replace(repeated, replayed=False))
        self.broker.come_back()
        self.bench.pass_time(CLAIM_SECONDS + 6)
        delivery = self.one()
        self.assertEqual(delivery.request.correlation_id, repeated.correlation_id)
        self.assertTrue(self.settle(delivery))
        self.bench.pass_time(40)
        self.assertEqual((self.left(), self.rows("outbox")), (0, 0))

    def test_notes_are_taken_together(self) -> None:
        """That messages were published costs no commit of its own for each, and none that a caller waits for."""
        self.accepted()
        self.bench.pass_time(2)
        commits: list[int] = []
        commit = self.bench.run_commit
        self.bench.run_commit = lambda call: (commits.append(1), commit(call))[1]  # type: ignore[method-assign]
        for _ in range(50):
            self.accepted()
        self.assertEqual(len(commits), 50)
        self.bench.pass_time(1.5)
        self.assertLess(len(commits), 55)
        self.bench.crash()
        self.bench.pass_time(CLAIM_SECONDS + 6)
        self.assertEqual(self.left(), 51)  # the ledger knows of each that it was published

    def test_published_together(self) -> None:
        """What is accepted in one turn goes to the broker in one publish; each caller gets an answer of its own."""
        self.accepted()
        batches: list[int] = []
        publish = self.broker.publish
        self.broker.publish = lambda channel, messages: (batches.append(len(messages)), publish(channel, messages))[1]
        accepting = [self.bench.queue.accept(Submission(b"1"), None) for _ in range(20)]
        self.bench.turn()
        self.assertEqual(len({self.successResultOf(each).correlation_id for each in accepting}), 20)
        self.assertEqual(batches, [20])

    def test_stop_in_order(self) -> None:
        """A process that stops in order leaves nothing to be published once more."""
        self.accepted()
        self.do(self.bench.queue.stop())
        self.bench.open()
        self.bench.pass_time(CLAIM_SECONDS + 6)
        self.assertEqual(len(self.bench.server.published), 1)
        self.one()

    def test_stop_while_it_publishes(self) -> None:
        """Stopping does not wait for a broker that does not answer."""
        self.accepted()
        self.do(self.one().retry(1, "no luck"))
        self.broker.publish_result = PublishResult.STALLED
        self.bench.pass_time(2)
        self.do(self.bench.queue.stop())
        self.bench.open()
        self.bench.pass_time(CLAIM_SECONDS + 6)
        self.assertEqual(self.one().attempt, 2)


class OutboxTests(BrokeredCase):
    """What waits for its time, or behind another request, waits in the ledger."""

    def test_nothing_while_the_clock_stands(self) -> None:
        """One retry in 30 s publishes nothing before it is due, however often it is looked, and one message then."""
        self.accepted()
        self.do(self.one().retry(30, "no luck"))
        published = len(self.bench.server.published)
        for _ in range(1000):
            self.bench.turn()
        self.bench.pass_time(29)
        self.assertEqual(len(self.bench.server.published), published)
        self.assertEqual(self.left(), 0)
        self.bench.pass_time(1)
        self.assertEqual(len(self.bench.server.published), published + 1)

    def test_in_time_and_in_order(self) -> None:
        """What is due is published within 100 ms of its time, in the order of the times."""
        now = self.bench.now()
        by_delay = {delay: self.accepted(not_before=now + delay).correlation_id for delay in (7.3, 2.1, 5.0, 2.2)}
        self.assertEqual(self.left(), 0)
        seen: list[tuple[float, str]] = []
        self.bench.step = 0.05
        put = self.bench.server.put

        def note(name: str, message: Message) -> None:
            seen.append((self.bench.now() - now, message.body.decode()))
            put(name, message)

        self.bench.server.put = note  # type: ignore[method-assign]
        self.bench.pass_time(8)
        self.assertEqual(len(seen), 4)
        for (at, body), delay in zip(seen, sorted(by_delay), strict=True):
            self.assertIn(by_delay[delay], body)
            self.assertTrue(delay <= at <= delay + 0.1, f"due at {delay}, published at {at}")

    def test_a_partition_has_one_message(self) -> None:
        """A partition never has two messages in the broker, and each ending lets the next one go at once."""
        accepted = [self.accepted(partition=0) for _ in range(6)]
        self.accepted(partition=1)

        def there() -> int:
            bodies = [each.body for name in self.bench.server.channels for each in self.bench.server.messages(name)]
            return sum(b'"partition":0' in body for body in bodies)

        self.assertEqual(there(), 1)
        self.settle(self.one(PARTITION))
        self.assertEqual(there(), 1)
        delivery = self.one(PARTITION)
        self.do(delivery.dead_letter("gave up", self.reply(delivery, Status.FAILED)))
        self.assertEqual(there(), 1)
        self.do(self.bench.store.cancel(accepted[2].correlation_id))  # it waits in the broker
        self.bench.turn()
        delivery = self.one(PARTITION)
        self.assertEqual(delivery.request.correlation_id, accepted[3].correlation_id)
        self.do(self.bench.store.cancel(accepted[4].correlation_id))  # it waits behind
        self.do(delivery.retry(10, "no luck"))
        self.assertEqual(there(), 0)
        self.bench.pass_time(11)
        self.assertEqual(there(), 1)
        delivery = self.one(PARTITION)
        self.assertEqual((delivery.request.correlation_id, delivery.attempt), (accepted[3].correlation_id, 2))
        self.settle(delivery)
        self.assertEqual(self.one(PARTITION).request.correlation_id, accepted[5].correlation_id)

    def test_retry_while_the_broker_is_away(self) -> None:
        """A retry waits in the ledger, and is published once the broker is back, at its time."""
        self.accepted()
        delivery = self.one()
        self.broker.publish_result = PublishResult.REFUSED
        self.do(delivery.retry(10, "no luck"))
        self.bench.pass_time(20)
        self.assertEqual((self.rows("outbox"), self.left()), (1, 0))
        self.broker.publish_result = PublishResult.CONFIRMED
        self.bench.pass_time(CLAIM_SECONDS + 6)
        self.assertEqual(self.one().attempt, 2)

    def test_redriven_while_the_broker_is_away(self) -> None:
        """What is redriven is kept, too."""
        self.accepted()
        delivery = self.one()
        self.do(delivery.dead_letter("gave up", self.reply(delivery, Status.FAILED)))
        self.broker.publish_result = PublishResult.REFUSED
        redriven = self.do(self.bench.queue.redrive(1))
        self.broker.publish_result = PublishResult.CONFIRMED
        self.bench.pass_time(CLAIM_SECONDS + 6)
        self.assertEqual(self.one().request.correlation_id, redriven.correlation_id)


class MessagesTests(BrokeredCase):
    """What a message is worth."""

    def test_duplicates(self) -> None:
        """A message that comes twice is worked on once, as one attempt, and nothing of it is left."""
        accepted = self.accepted()
        self.bench.server.duplicate(REQUESTS)
        (delivery,) = self.successResultOf(self.receive())
        self.assertEqual((delivery.attempt, self.left()), (1, 1))
        self.bench.server.duplicate(REQUESTS)
        self.assertTrue(self.settle(delivery))
        self.assertNoResult(self.receive())
        self.assertEqual((self.status(accepted), self.left()), (Status.COMPLETED, 0))

    def test_older_generation(self) -> None:
        """A message from before a retry is passed over when it comes again: the retry keeps its time and number."""
        self.accepted()
        delivery = self.one()
        self.broker.step = lambda name, act: fail(NotDurable("gone")) if name == "ack" else act()
        self.do(delivery.retry(10, "no luck"))
        self.bench.crash()
        waiting = self.receive()
        self.bench.pass_time(8)
        self.assertNoResult(waiting)
        self.assertEqual(self.left(), 0)
        self.bench.pass_time(3)
        (again,) = self.successResultOf(waiting)
        self.assertEqual(again.attempt, 2)

    def test_unreadable(self) -> None:
        """Bytes that are no request become one dead letter, with all of them, and do not come again."""
        accepted = self.accepted()
        self.put(b"\xff no")
        delivery = self.one()
        self.assertEqual(delivery.request.correlation_id, accepted.correlation_id)
        self.settle(delivery)
        self.assertNoResult(self.receive())
        ((_, letter),) = self.do(self.bench.queue.dead_letters(0, 10))
        self.assertEqual(letter.request.submission.body, b"\xff no")
        self.assertIn("not a request", letter.reason)
        self.assertEqual(letter.reply.reason_class, "not_a_request")
        self.assertEqual(self.left(), 0)

    def test_unreadable_while_the_disk_is_full(self) -> None:
        """What cannot be made a dead letter now stays with the broker until it can."""
        self.accepted()
        self.settle(self.one())
        self.break_the_disk()
        self.put(b"\xff no")
        self.receive()
        self.bench.pass_time(5)
        self.assertEqual(self.left(), 1)
        self.mend_the_disk()
        self.bench.pass_time(5)
        self.assertEqual((self.left(), len(self.do(self.bench.queue.dead_letters(0, 10)))), (0, 1))

    def test_another_store(self) -> None:
        """A request of another store goes back to the broker after a while, and this is said; it is no dead letter."""
        self.accepted()
        self.settle(self.one())
        other = Request("11111111-1111-4111-8111-111111111111", 1.0, Submission(b'"x"'))
        self.put(encode_request(other))
        waiting = self.receive()
        self.bench.pass_time(1)
        self.assertNoResult(waiting)
        self.assertIn("has not given out", " ".join(self.bench.queue.warnings))
        self.bench.pass_time(1.5 * FOREIGN_SECONDS)
        self.assertEqual((self.left(), self.do(self.bench.queue.dead_letters(0, 10))), (1, []))
        self.flushLoggedErrors()


class WorkingTests(BrokeredCase):
    """Leases, connections and the ledger while requests are worked on."""

    def test_stopped_while_it_is_begun(self) -> None:
        """A receiver that gives up in the moment in which a request is begun releases it, uncounted."""
        accepted = self.accepted()
        waiting = self.bench.queue.receive(REQUESTS, 1)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.bench.store.stop()
        self.do(self.bench.queue.stop())
        self.bench.open()
        delivery = self.one()
        self.assertEqual((delivery.request.correlation_id, delivery.attempt), (accepted.correlation_id, 1))

    def test_connection_lost(self) -> None:
        """A delivery that the broker has revoked settles nothing, and its request is delivered again."""
        accepted = self.accepted()
        late = self.one()
        self.broker.lose_connection()
        self.assertEqual(self.successResultOf(late.revoked), "lease lost")
        self.failureResultOf(self.bench.done(late.settle(self.reply(late))), LeaseLost)
        self.broker.come_back()
        again = self.one()
        self.assertEqual(again.attempt, 2)
        self.assertTrue(self.settle(again))
        self.assertEqual(self.status(accepted), Status.COMPLETED)

    def test_counted_redeliveries(self) -> None:
        """What comes again although it was begun is counted; a retry, and what was cancelled as it waited, is not."""
        counted: list[None] = []
        self.bench.queue.redeliveries.on_redelivered.append(lambda: counted.append(None))
        cancelled = self.accepted()
        self.do(self.bench.store.cancel(cancelled.correlation_id))
        self.accepted()
        delivery = self.one()
        self.do(delivery.retry(1, "no luck"))
        self.bench.pass_time(2)
        again = self.one()
        self.assertEqual((again.attempt, len(counted)), (2, 0))
        self.broker.lose_connection()  # in the middle of the work
        self.broker.come_back()
        self.bench.pass_time(3)
        third = self.one()
        self.assertEqual((third.attempt, len(counted)), (3, 1))
        settling = third.settle(self.reply(third))
        self.broker.lose_connection()  # it has ended, and the broker was not told
        self.assertTrue(self.do(settling))
        self.broker.come_back()
        self.assertNoResult(self.receive())
        self.assertEqual(len(counted), 2)

    def test_connection_lost_while_it_is_settled(self) -> None:
        """An ending that is in the ledger stands; the message that comes again is passed over."""
        accepted = self.accepted()
        delivery = self.one()
        settling = delivery.settle(self.reply(delivery))
        self.broker.lose_connection()
        self.assertTrue(self.do(settling))
        self.broker.come_back()
        self.assertNoResult(self.receive())
        self.assertEqual((self.status(accepted), self.left()), (Status.COMPLETED, 0))

    def test_connection_lost_and_disk_full(self) -> None:
        """Where neither place has the ending, the request is left to the next attempt."""
        self.accepted()
        delivery = self.one()
        self.break_the_disk()
        settling = delivery.settle(self.reply(delivery))
        self.broker.lose_connection()
        self.failureResultOf(self.bench.done(settling), NotDurable)
        self.assertEqual(self.successResultOf(delivery.revoked), "lease lost")
        self.failureResultOf(self.bench.done(delivery.settle(self.reply(delivery))), LeaseLost)
        self.mend_the_disk()
        self.broker.come_back()
        self.bench.pass_time(3)
        self.assertEqual(self.one().attempt, 2)

    def test_disk_full(self) -> None:
        """What cannot be counted is not delivered: it is looked at again in a while, not all the time."""
        self.accepted()
        self.bench.pass_time(2)
        self.break_the_disk()
        waiting = self.receive()
        self.bench.pass_time(10)
        self.assertNoResult(waiting)
        self.mend_the_disk()
        self.bench.pass_time(3)
        (delivery,) = self.successResultOf(waiting)
        self.assertEqual(delivery.attempt, 1)

    def test_cancelled_while_it_is_begun(self) -> None:
        """A request that ends in the moment in which it is delivered is revoked at once."""
        accepted = self.accepted()
        receiving = self.bench.queue.receive(REQUESTS, 1)
        self.bench.store.cancel(accepted.correlation_id)
        self.bench.turn()
        if receiving.called:
            (delivery,) = self.successResultOf(receiving)
            self.assertEqual(self.successResultOf(delivery.revoked), "CANCELLED")
        self.assertEqual(self.status(accepted), Status.CANCELLED)

    def test_no_channel_is_there_yet(self) -> None:
        """A worker that asks before anything was accepted has the first request of each priority."""
        receiving = self.receive(most=1)
        self.bench.pass_time(2)
        for priority in Priority:
            accepted = self.accepted(priority=priority)
            self.bench.pass_time(1)
            (delivery,) = self.successResultOf(receiving)
            self.assertEqual(delivery.request.correlation_id, accepted.correlation_id)
            self.settle(delivery)
            receiving = self.receive(most=1)

    def test_high_first_and_low_does_not_starve(self) -> None:
        """Under saturation high never waits behind low, and low gets one delivery in ten."""
        for priority in (Priority.LOW, Priority.HIGH):
            for _ in range(40):
                self.accepted(priority=priority)
        order = []
        for _ in range(2 * ONE_IN):
            delivery = self.one()
            order.append(delivery.request.submission.priority)
            self.settle(delivery)
        self.assertEqual(order.count(Priority.LOW), 2)
        self.assertEqual(order[: ONE_IN - 1], [Priority.HIGH] * (ONE_IN - 1))

    def test_unwanted_goes_to_others(self) -> None:
        """What was prefetched, and is not asked for, goes back to the broker within moments."""
        for _ in range(10):
            self.accepted()
        for delivery in self.successResultOf(self.receive(most=3)):
            self.settle(delivery)
        self.bench.pass_time(4)
        self.assertEqual(self.successResultOf(self.broker.depth(REQUESTS)), 7)

    def test_delivered_while_the_depth_is_asked(self) -> None:
        """A message that the broker delivers after it was counted there is counted once."""
        for _ in range(4):
            self.accepted()
        ask, received = self.broker.depth, []

        def receive_before_the_last(channel: str) -> Any:
            if channel.endswith("_low") and not received:
                received.append(channel)
                self.one()
            return ask(channel)

        self.patch(self.broker, "depth", receive_before_the_last)
        depth = self.do(self.bench.queue.depth(REQUESTS))
        self.assertTrue(received)
        self.assertEqual(depth.ready + depth.in_flight, 4)


class UnwantedWithoutRequeueTests(BrokeredCase):
    """A product that cannot requeue"""

    traits = FORMS["kafka"]

    def test_unwanted_goes_to_the_outbox(self) -> None:
        """What was prefetched, and is not asked for, does not wait in the broker for longer than a minute."""
        accepted = {self.accepted().correlation_id for _ in range(10)}
        done = set()
        for delivery in self.successResultOf(self.receive(most=3)):
            done.add(delivery.request.correlation_id)
            self.settle(delivery)
        published = len(self.bench.server.published)
        self.bench.pass_time(70)
        self.assertGreater(len(self.bench.server.published), published)
        while received := [*self._received()]:
            for delivery in received:
                done.add(delivery.request.correlation_id)
                self.settle(delivery)
        self.assertEqual(done, accepted)

    def _received(self) -> list[Any]:
        waiting = self.receive(most=5)
        self.bench.pass_time(2)
        if waiting.called:
            return list(self.successResultOf(waiting))
        waiting.addErrback(lambda failure: None)
        waiting.cancel()
        return []
