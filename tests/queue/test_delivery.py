"""A delivery is settled once, and what a lost lease or a failed step does to it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import AlreadySettled, LeaseLost, NotDurable
from openhqm.messages import DeadLetter, Reply, Request, Status, Submission
from openhqm.queue.delivery import Delivery
from openhqm.queue.leases import LEAST_SECONDS, Leases

REQUEST = Request("11111111-1111-4111-8111-111111111111", 0.0, Submission(b"1"))
REPLY = Reply(REQUEST.correlation_id, Status.COMPLETED, 5.0)


class Backend:
    """Steps that end when the test says so."""

    lease = 60.0

    def __init__(self) -> None:
        self.clock = Clock()
        self.asked: list[tuple[Any, ...]] = []
        self.step: Deferred[Any] = Deferred()
        self.over: list[Delivery] = []

    def _ask(self, *what: Any) -> Deferred[Any]:
        self.asked.append(what)
        return self.step

    def retry(self, delivery: Delivery, delay: float, reason: str) -> Deferred[None]:
        return self._ask("retry", delay, reason)

    def release(self, delivery: Delivery) -> Deferred[None]:
        return self._ask("release")

    def end(self, delivery: Delivery, reply: Reply, letter: DeadLetter | None) -> Deferred[bool]:
        return self._ask("end", reply, letter)

    def acknowledge(self, delivery: Delivery) -> Deferred[None]:
        return self._ask("acknowledge")

    def progress(self, delivery: Delivery, detail: dict[str, Any]) -> Deferred[None]:
        self.asked.append(("progress", detail))
        return succeed(None)

    def extend(self, delivery: Delivery) -> None:
        self.asked.append(("extend", delivery.lease_end))

    def closed(self, delivery: Delivery) -> None:
        self.over.append(delivery)


class DeliveryTests(SynchronousTestCase):
    """`Delivery`, over a backend whose steps end when the test says so"""

    def setUp(self) -> None:
        self.backend = Backend()
        self.delivery = Delivery(REQUEST, 2, self.backend, "handle", 60.0)

    def test_once(self) -> None:
        """A second settling fails, whichever it is, also while the first is under way."""
        first = self.delivery.settle(REPLY)
        for again in (self.delivery.ack, self.delivery.release, lambda: self.delivery.retry(1.0, "no luck")):
            self.failureResultOf(again(), AlreadySettled)
        self.backend.step.callback(True)
        self.assertTrue(self.successResultOf(first))
        self.failureResultOf(self.delivery.settle(REPLY), AlreadySettled)
        self.assertEqual(self.backend.asked, [("end", REPLY, None)])
        self.assertEqual(self.backend.over, [self.delivery])

    def test_not_durable(self) -> None:
        """A step of which nothing was stored leaves the delivery open: it is settled again."""
        first = self.delivery.release()
        self.backend.step.errback(NotDurable("the disk is full"))
        self.failureResultOf(first, NotDurable)
        self.assertTrue(self.delivery.is_open)
        self.backend.step = succeed(None)
        self.successResultOf(self.delivery.release())

    def test_step_raises(self) -> None:
        """A step that raises, a bug, does not keep the delivery closed."""

        def broken(delivery: Delivery) -> Deferred[None]:
            raise ZeroDivisionError

        self.backend.acknowledge = broken  # type: ignore[method-assign]
        self.failureResultOf(self.delivery.ack(), ZeroDivisionError)
        self.assertTrue(self.delivery.is_open)

    def test_lost_by_the_backend(self) -> None:
        """Where the backend says that the request belongs to another delivery, this one is over."""
        first = self.delivery.settle(REPLY)
        self.backend.step.errback(LeaseLost(REQUEST.correlation_id, "a later attempt has begun"))
        self.failureResultOf(first, LeaseLost)
        self.failureResultOf(self.delivery.ack(), LeaseLost)
        self.assertEqual(self.backend.over, [self.delivery])

    def test_lost(self) -> None:
        """A lost lease revokes the work, and nothing can be settled or told after it."""
        self.assertTrue(self.delivery.lose())
        self.assertEqual(self.successResultOf(self.delivery.revoked), "lease lost")
        self.failureResultOf(self.delivery.settle(REPLY), LeaseLost)
        self.failureResultOf(self.delivery.progress({}), LeaseLost)
        self.assertFalse(self.delivery.lose())
        self.assertEqual(self.backend.asked, [])

    def test_not_lost_while_it_is_settled(self) -> None:
        """A lease that runs out while the ending is being stored changes nothing: the backend decides."""
        settled = self.delivery.settle(REPLY)
        self.assertFalse(self.delivery.lose())
        self.backend.step.callback(True)
        self.assertTrue(self.successResultOf(settled))

    def test_revoked(self) -> None:
        """What is revoked can still be settled; nothing is revoked after its end."""
        self.delivery.revoke("CANCELLED")
        self.assertEqual(self.successResultOf(self.delivery.revoked), "CANCELLED")
        self.backend.step = succeed(None)
        self.successResultOf(self.delivery.ack())
        other = Delivery(REQUEST, 1, self.backend, "handle", 60.0)
        self.successResultOf(other.ack())
        other.revoke("CANCELLED")
        self.assertNoResult(other.revoked)

    def test_dead_letter(self) -> None:
        """A dead letter carries the request, the reason and the reply."""
        self.backend.step = succeed(True)
        self.assertTrue(self.successResultOf(self.delivery.dead_letter("no use", REPLY)))
        self.assertEqual(self.backend.asked, [("end", REPLY, DeadLetter(REQUEST, "no use", REPLY, 5.0))])

    def test_progress_names_the_attempt(self) -> None:
        """A progress event says which attempt it is of."""
        self.successResultOf(self.delivery.progress({"percent": 5}))
        self.assertEqual(self.backend.asked, [("progress", {"percent": 5, "attempt": 2})])


class LeasesTests(SynchronousTestCase):
    """`Leases`, over a clock"""

    def setUp(self) -> None:
        self.backend = Backend()
        self.lost: list[Delivery] = []
        self.leases = Leases(self.backend.clock, 60.0, self.lost.append)

    def out(self, number: int) -> Delivery:
        delivery = Delivery(REQUEST, 1, self.backend, number, self.backend.clock.seconds() + 60.0)
        self.leases.add(number, delivery)
        return delivery

    def test_lost(self) -> None:
        """A lease that is not renewed is lost when it ends, and not before."""
        self.out(1)
        self.backend.clock.advance(30)
        second = self.out(2)
        self.backend.clock.advance(29)
        self.assertEqual(self.lost, [])
        self.backend.clock.advance(1)
        self.assertEqual([each.handle for each in self.lost], [1])
        self.backend.clock.advance(29)
        second.extend()
        self.backend.clock.advance(59)
        self.assertEqual([each.handle for each in self.lost], [1])
        self.backend.clock.advance(2)
        self.assertEqual([each.handle for each in self.lost], [1, 2])

    def test_one_timer(self) -> None:
        """However many are out, there is one timer; and none when nothing is out any more."""
        deliveries = [self.out(number) for number in range(100)]
        self.assertEqual(len(self.backend.clock.getDelayedCalls()), 1)
        for number, delivery in enumerate(deliveries):
            self.leases.discard(number, delivery)
        self.backend.clock.advance(120)
        self.assertEqual(self.backend.clock.getDelayedCalls(), [])

    def test_being_settled(self) -> None:
        """A delivery that is being settled when its lease ends is looked at again after a second, not all the time."""
        settled = self.out(1).settle(REPLY)
        self.backend.clock.advance(60)
        for _ in range(3):
            (call,) = self.backend.clock.getDelayedCalls()
            self.assertEqual(call.getTime() - self.backend.clock.seconds(), LEAST_SECONDS)
            self.backend.clock.advance(LEAST_SECONDS)
        self.assertEqual(self.lost, [])
        self.backend.step.callback(True)
        self.assertTrue(self.successResultOf(settled))

    def test_successor(self) -> None:
        """A late goodbye of a former delivery does not remove the one that has taken its place."""
        former, latter = self.out(1), self.out(1)
        self.leases.discard(1, former)
        self.assertIs(self.leases.get(1), latter)

    def test_stopped(self) -> None:
        """After the end no lease is kept, and no timer."""
        self.out(1)
        self.leases.stop()
        self.out(2)
        self.assertEqual(self.backend.clock.getDelayedCalls(), [])
