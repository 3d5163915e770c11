"""Attempts are counted without a store: by what the message says, and by how often the broker has delivered it."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError

from openhqm.errors import DeliveryClosed, NotDurable
from openhqm.messages import Priority
from openhqm.testing import FORMS, LEASE, REQUESTS, PublishResult
from tests.storeless.bench import StorelessCase


class LeaseTests(StorelessCase):
    """Workers that are killed, or cut off, or that let a lease run out"""

    def test_killed(self) -> None:
        """What a killed worker had is delivered to another one, as the next attempt."""
        id = self.accept()
        self.receive_one()
        self.worker.kill()
        delivery = self.eventually(self.receive(self.new_worker()))
        self.assertEqual(delivery.attempt, 2)
        self.settle(delivery)
        self.assertEqual(self.types(id), ["pending", "processing", "processing", "completed"])
        self.nothing_is_left()

    def test_poison(self) -> None:
        """A request that kills each worker has a higher number with each attempt, so it is given up in the end."""
        self.accept()
        for attempt in range(1, 5):
            worker = self.new_worker()
            self.assertEqual(self.eventually(self.receive(worker)).attempt, attempt)
            worker.kill()

    def test_poison_after_retries(self) -> None:
        """The attempts before a retry count, too."""
        self.accept()
        self.do(self.receive_one().retry(0, "no luck"))
        self.receive_one()
        self.worker.kill()
        self.assertEqual(self.eventually(self.receive(self.new_worker())).attempt, 3)

    def test_connection_lost(self) -> None:
        """A worker that loses its connection is told that it works in vain, and settles nothing."""
        id = self.accept()
        late = self.receive_one()
        self.worker.broker.lose_connection()
        again = self.eventually(self.receive(self.new_worker()))
        self.assertEqual(again.attempt, 2)
        self.worker.broker.come_back()
        self.assertEqual(self.do(late.revoked), "lease lost")
        self.fails(late.settle(self.reply(late)), DeliveryClosed)
        self.settle(again)
        self.assertEqual(self.types(id), ["pending", "processing", "processing", "completed"])

    def test_lease_lost(self) -> None:
        """A handler that does not extend its lease has used up an attempt, also where it never comes back."""
        self.accept()
        for attempt in range(1, 5):
            self.assertEqual(self.receive_one().attempt, attempt)
            self.bench.pass_time(LEASE + 1)

    def test_lease_lost_where_nothing_is_requeued(self) -> None:
        """The same over a product that counts redeliveries, and cannot requeue."""
        self.worker.broker.traits = evolve(self.traits, requeues=False)
        self.test_lease_lost()


class SqsLeaseTests(LeaseTests):
    """The same where the broker leases each message"""

    traits = FORMS["sqs"]

    def test_connection_lost(self) -> None:
        """The lease of a message outlives the connection: what the worker has done counts once it is back."""
        id = self.accept()
        delivery = self.receive_one()
        self.worker.broker.lose_connection()
        self.fails(delivery.settle(self.reply(delivery)), NotDurable)
        self.worker.broker.come_back()
        self.settle(delivery)
        self.assertEqual(self.types(id), ["pending", "processing", "completed"])


class UnbegunTests(StorelessCase):
    """What a process has received and not begun costs no attempt"""

    def receive_all(self, worker: Any = None) -> list[Any]:
        """Receive from the worker until nothing comes any more."""
        found = []
        while (waiting := self.receive(worker)) is not None:
            self.bench.pass_time(3)
            if not waiting.called:
                waiting.addErrback(lambda failure: failure.trap(CancelledError))
                waiting.cancel()
                return found
            found.extend(self.successResultOf(waiting))
            self.settle(found[-1])
        return found

    def occupied(self) -> Any:
        """A delivery that a worker has while requests of other priorities, which came with it, wait there."""
        for priority in (Priority.HIGH, Priority.NORMAL, Priority.LOW):
            self.accept(priority=priority)
        return self.receive_one()

    def test_while_a_worker_is_busy(self) -> None:
        """What a busy worker does not begin goes to others, and has had no attempt, however often it went around."""
        for _ in range(8):
            delivery = self.occupied()
            self.assertEqual(delivery.attempt, 1)
            self.bench.pass_time(3)
            self.settle(delivery)
        found = self.receive_all(self.new_worker())
        self.assertEqual([delivery.attempt for delivery in found], [1] * 16)

    def test_stopped(self) -> None:
        """A worker that is stopped hands on what it has not begun, and that has had no attempt."""
        self.settle(self.occupied())
        for _ in range(5):
            worker = self.new_worker()
            delivery = self.eventually(self.receive(worker), 3)
            self.do(delivery.release())
            self.do(worker.queue.stop())
        self.do(self.worker.queue.stop())
        found = self.receive_all(self.new_worker())
        self.assertEqual([delivery.attempt for delivery in found], [1, 1])

    def test_stopped_while_it_hands_on(self) -> None:
        """A worker stops once the broker has what it was handing on: what is out when it ends counts as an attempt."""
        self.settle(self.occupied())
        self.worker.broker.publish_result = PublishResult.STALLED
        self.bench.pass_time(2)  # it has asked for nothing, and hands on what it has not begun
        stopping = self.bench.done(self.worker.queue.stop())
        self.assertNoResult(stopping)
        self.bench.pass_time(15)
        self.successResultOf(stopping)

    def test_handed_on_while_the_listener_is_down(self) -> None:
        """Other workers have it at once: no process has to publish it."""
        self.occupied()
        self.stop_listener()
        self.bench.pass_time(3)
        other = self.new_worker()
        self.assertEqual({self.receive_one(other).attempt for _ in range(2)}, {1})

    def test_by_the_process_with_the_file(self) -> None:
        """What that process prefetched, released or left unbegun while it was busy has had no attempt, either."""
        self.do(self.worker.queue.stop())
        for _ in range(6):
            self.accept(priority=Priority.LOW)
        for _ in range(6):
            self.bench.queue.receive(REQUESTS, 1).addCallback(lambda found: found[0].release())
            self.bench.pass_time(70)
        found = self.receive_all(self.new_worker())
        self.assertEqual([delivery.attempt for delivery in found], [1] * 6)

    def test_by_that_process_alone(self) -> None:
        """While no worker has reported, it keeps what it prefetched, and the order."""
        self.do(self.worker.queue.stop())
        ids = [self.accept() for _ in range(6)]
        self.bench.server.published.clear()
        begun = []
        for _ in ids:
            (delivery,) = self.do(self.bench.queue.receive(REQUESTS, 1))
            begun.append(delivery.request.correlation_id)
            self.bench.pass_time(20)
            self.settle(delivery)
        self.assertEqual((begun, self.bench.server.published), (ids, []))

    def test_a_release_of_that_process(self) -> None:
        """It is done once the broker has the message again: a process that stops after it leaves it uncounted."""
        self.do(self.worker.queue.stop())
        self.accept()
        (delivery,) = self.do(self.bench.queue.receive(REQUESTS, 1))
        self.bench.broker.publish_result = PublishResult.STALLED
        releasing = self.bench.done(delivery.release())
        self.assertNoResult(releasing)
        self.bench.pass_time(15)
        self.successResultOf(releasing)

    def test_both_count(self) -> None:
        """An attempt in the process with the file, and one in a worker, are two."""
        self.accept()
        (delivery,) = self.do(self.bench.queue.receive(REQUESTS, 1))
        self.do(delivery.retry(0, "no luck"))
        delivery = self.eventually(self.receive())
        self.assertEqual(delivery.attempt, 2)
        self.do(delivery.retry(0, "no luck"))
        self.do(self.worker.queue.stop())
        (delivery,) = self.do(self.bench.queue.receive(REQUESTS, 1))
        self.assertEqual(delivery.attempt, 3)


class SqsUnbegunTests(UnbegunTests):
    """The same where the broker leases each message"""

    traits = FORMS["sqs"]
