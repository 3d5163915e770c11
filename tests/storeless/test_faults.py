"""Workers without a store while the broker does not take what they report: no request is lost or ended twice."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from openhqm.errors import NotDurable
from openhqm.messages import Status
from openhqm.testing import FORMS, REQUESTS, PublishResult
from tests.storeless.bench import IN_ORDER, REPLIES, StorelessCase

LOW = f"{REQUESTS}._low"


class FaultTests(StorelessCase):
    """A broker that does not take what a worker reports"""

    def break_publishing(self, result: PublishResult = PublishResult.REFUSED) -> None:
        self.worker.broker.publish_result = result

    def mend_publishing(self) -> None:
        self.worker.broker.publish_result = PublishResult.CONFIRMED

    def test_confirmation_lost(self) -> None:
        """A step whose confirmation was lost is reported again, and is in the history once."""
        id = self.accept()
        delivery = self.receive_one()
        self.break_publishing(PublishResult.UNCONFIRMED)
        self.fails(delivery.retry(10, "no luck"), NotDurable)
        self.mend_publishing()
        self.do(delivery.retry(10, "no luck"))
        self.assertEqual(self.types(id), ["pending", "processing", "retrying"])
        self.bench.pass_time(11)
        self.settle(self.receive_one())
        self.assertEqual(self.endings, ["COMPLETED"])
        self.nothing_is_left()

    def test_confirmation_of_a_beginning_lost(self) -> None:
        """An attempt whose first report was not confirmed is begun again, and is the same attempt."""
        id = self.accept()
        self.break_publishing(PublishResult.UNCONFIRMED)
        waiting = self.receive()
        self.bench.pass_time(3)
        self.assertNoResult(waiting)
        self.mend_publishing()
        self.bench.pass_time(2)
        (delivery,) = self.successResultOf(waiting)
        self.assertEqual(delivery.attempt, 1)
        self.settle(delivery)
        self.assertEqual(self.types(id), ["pending", "processing", "completed"])

    def test_given_up(self) -> None:
        """A step that is given up while it is reported can be reported again; in the history it is once."""
        id = self.accept()
        delivery = self.receive_one()
        self.break_publishing(PublishResult.STALLED)
        settling = delivery.settle(self.reply(delivery))
        self.bench.turn()
        settling.cancel()
        self.failureResultOf(settling, CancelledError)
        self.mend_publishing()
        self.settle(delivery)
        self.assertEqual(self.types(id), ["pending", "processing", "completed"])
        self.nothing_is_left()

    def test_an_ending_cannot_be_reported(self) -> None:
        """An ending that the broker has not taken is none: the worker keeps the request until it has."""
        id = self.accept()
        delivery = self.receive_one()
        self.break_publishing()
        self.fails(delivery.settle(self.reply(delivery)), NotDurable)
        self.assertEqual(self.depth(REQUESTS), 1)
        (warning,) = self.worker.queue.warnings
        self.assertIn("steps cannot be reported", warning)
        self.mend_publishing()
        self.settle(delivery)
        self.assertEqual(self.record(id).status, Status.COMPLETED)
        self.assertEqual(list(self.worker.queue.warnings), [])
        self.nothing_is_left()

    def test_a_release_cannot_be_reported(self) -> None:
        """A release that the broker has not taken is none: nothing is lost, and it can be reported again."""
        self.accept()
        delivery = self.receive_one()
        self.break_publishing()
        self.fails(delivery.release(), NotDurable)
        self.mend_publishing()
        self.do(delivery.release())
        self.assertEqual(self.receive_one().attempt, 1)

    def test_beginnings_cannot_be_reported(self) -> None:
        """A request that cannot be begun has no attempt, however long that lasts: it is begun as the first one."""
        ids = [self.accept(), self.accept(partition=0)]
        self.break_publishing()
        waiting = [self.receive(queue=queue) for queue in (REQUESTS, IN_ORDER)]
        self.bench.pass_time(20)
        self.mend_publishing()
        self.bench.pass_time(1)
        found = [self.do(each)[0] for each in waiting]
        self.assertEqual([(each.request.correlation_id, each.attempt) for each in found], [(id, 1) for id in ids])
        for delivery in found:
            self.settle(delivery)
        self.nothing_is_left()

    def test_given_up_before_it_could_be_begun(self) -> None:
        """A worker that asks no more leaves to others what it could not begin."""
        id = self.accept()
        self.break_publishing()
        waiting = self.receive()
        self.bench.pass_time(2)
        waiting.addErrback(lambda failure: failure.trap(CancelledError))
        waiting.cancel()
        self.bench.pass_time(3)
        self.assertEqual(self.receive_one(self.new_worker()).request.correlation_id, id)

    def test_stopped_before_it_could_be_begun(self) -> None:
        """So does a worker that is stopped."""
        id = self.accept()
        self.break_publishing()
        waiting = self.receive()
        waiting.addErrback(lambda failure: failure.trap(CancelledError))
        self.bench.pass_time(2)
        self.do(self.worker.queue.stop())
        self.assertEqual(self.receive_one(self.new_worker()).request.correlation_id, id)

    def test_cut_off_before_it_could_be_begun(self) -> None:
        """What the broker takes back is another worker's; the one that could not begin it takes the next."""
        first = self.accept()
        self.break_publishing()
        waiting = self.receive()
        self.bench.pass_time(2)
        self.worker.broker.lose_connection()
        other = self.new_worker()
        self.assertEqual(self.receive_one(other).request.correlation_id, first)
        self.do(other.queue.stop())
        self.worker.broker.come_back()
        self.mend_publishing()
        self.bench.pass_time(2)
        second = self.accept()
        (delivery,) = self.do(waiting)
        self.assertIn(delivery.request.correlation_id, (first, second))

    def test_some_cannot_be_begun(self) -> None:
        """A request that can be begun is not held up by those that cannot."""
        ids = [self.accept(), self.accept()]
        published: list[str] = []

        def only_the_first(name: str, act: Any) -> Deferred[Any]:
            published.append(name)
            return act() if name != "publish" or published.count("publish") == 1 else _refused()

        self.worker.broker.step = only_the_first
        (delivery,) = self.do(self.worker.queue.receive(REQUESTS, 2))
        self.assertEqual((delivery.request.correlation_id, delivery.attempt), (ids[0], 1))

    def test_no_reply_channel(self) -> None:
        """Where no listener was ever started a worker begins nothing, and says what is missing."""
        self.accept()
        self.stop_listener()
        self.bench.server.delete(REPLIES)
        waiting = self.receive()
        self.bench.pass_time(5)
        self.assertNoResult(waiting)
        (warning,) = self.worker.queue.warnings
        self.assertIn(f"the broker has no channel {REPLIES}", warning)
        self.start_listener()
        self.bench.pass_time(2)
        (delivery,) = self.do(waiting)
        self.assertEqual((delivery.attempt, list(self.worker.queue.warnings)), (1, []))

    def test_no_request_channel(self) -> None:
        """A worker that is started before the first listener waits for it, and begins what it accepts."""
        self.stop_listener()
        for name in list(self.bench.server.channels):
            self.bench.server.delete(name)
        waiting = self.receive()
        self.bench.pass_time(5)
        self.assertIn("no process that accepts requests has made it", self.worker.queue.warnings[0])
        self.start_listener()
        self.bench.pass_time(20)
        self.assertEqual(list(self.worker.queue.warnings), [])
        id = self.accept()
        self.assertEqual(self.do(waiting)[0].request.correlation_id, id)


class SqsFaultTests(FaultTests):
    """The same where the broker leases each message"""

    traits = FORMS["sqs"]

    def test_cut_off_before_it_could_be_begun(self) -> None:
        """The lease outlives the connection: the worker begins it once it is back."""
        id = self.accept()
        self.break_publishing()
        waiting = self.receive()
        self.bench.pass_time(2)
        self.worker.broker.lose_connection()
        self.worker.broker.come_back()
        self.mend_publishing()
        self.bench.pass_time(2)
        (delivery,) = self.do(waiting)
        self.assertEqual((delivery.request.correlation_id, delivery.attempt), (id, 1))


def _refused() -> Deferred[Any]:
    refused: Deferred[Any] = Deferred()
    refused.callback([NotDurable("no more")])
    return refused
