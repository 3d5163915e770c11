"""Workers without a store report what they do to the process that accepted the requests, and each request ends once."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import CancelledError
from zope.interface.verify import verifyObject

from openhqm.codec import encode_request
from openhqm.errors import NotDurable
from openhqm.interfaces import IResultStore
from openhqm.messages import Request, Status, Submission
from openhqm.policy.history import MOST_EVENTS
from openhqm.storeless.results import NullResultStore
from openhqm.testing import FORMS, REQUESTS
from tests.storeless.bench import IN_ORDER, StorelessCase

LOW = f"{REQUESTS}._low"


class WorkingTests(StorelessCase):
    """What a worker does, and what is known of it where the request was accepted"""

    def test_history(self) -> None:
        """Everything a worker does is in the history, in its order, and the answer is there."""
        id = self.accept()
        delivery = self.receive_one()
        self.assertEqual(self.record(id).status, Status.PROCESSING)
        for step in (1, 2):
            self.do(delivery.progress({"step": step}))
        self.settle(delivery)
        self.assertEqual(self.types(id), ["pending", "processing", "progress", "progress", "completed"])
        record = self.record(id)
        self.assertEqual((record.reply and record.reply.result, record.attempt), (b"1", 1))
        self.bench.pass_time(2)
        self.nothing_is_left()
        self.assertEqual(self.endings, ["COMPLETED"])

    def test_watched(self) -> None:
        """A watcher on the listener sees each step as it is reported."""
        id = self.accept()
        seen: list[str] = []
        self.bench.store.watch(id, lambda event: seen.append(event.type))
        delivery = self.receive_one()
        self.do(delivery.progress({}))
        self.settle(delivery)
        self.bench.turn()
        self.assertEqual(seen, ["processing", "progress", "completed"])

    def test_retry(self) -> None:
        """A retry waits where the request was accepted, and the next attempt counts on, in whichever worker."""
        id = self.accept()
        self.do(self.receive_one().retry(10, "no luck"))
        self.assertEqual(self.record(id).next_attempt_at, self.bench.now() + 10)
        self.assertEqual(self.depth(REQUESTS), 0)
        waiting = self.receive(self.new_worker())
        self.bench.pass_time(9)
        self.assertNoResult(waiting)
        self.bench.pass_time(1)
        delivery = self.eventually(waiting, 2)
        self.assertEqual(delivery.attempt, 2)
        self.settle(delivery)
        self.assertEqual(self.types(id), ["pending", "processing", "retrying", "processing", "completed"])
        self.nothing_is_left()

    def test_retry_while_the_listener_is_down(self) -> None:
        """A retry that falls due while the listener is down waits for it, and is made then."""
        id = self.accept()
        delivery = self.receive_one()
        self.stop_listener()
        self.do(delivery.retry(10, "no luck"))
        waiting = self.receive(self.new_worker())
        self.bench.pass_time(60)
        self.assertNoResult(waiting)
        self.start_listener()
        delivery = self.eventually(waiting, 2)
        self.assertEqual((delivery.request.correlation_id, delivery.attempt), (id, 2))
        self.settle(delivery)
        self.nothing_is_left()

    def test_retries_are_counted(self) -> None:
        """Each attempt has the next number, however often it was retried."""
        self.accept()
        for attempt in range(1, 6):
            delivery = self.receive_one()
            self.assertEqual(delivery.attempt, attempt)
            self.do(delivery.retry(0, "no luck"))

    def test_in_order(self) -> None:
        """Requests of a partition are worked on one at a time, also by two workers and across retries."""
        ids = [self.accept(partition=0) for _ in range(3)]
        other = self.new_worker()
        begun: list[tuple[str, int]] = []
        for worker, retried in ((self.worker, True), (other, False), (self.worker, False), (other, False)):
            delivery = self.receive_one(worker, IN_ORDER)
            begun.append((delivery.request.correlation_id, delivery.attempt))
            waiting = [self.receive(each, IN_ORDER) for each in (self.worker, other)]
            self.bench.pass_time(1)
            for each in waiting:
                self.assertNoResult(each)
                each.cancel()
                self.failureResultOf(each, CancelledError)
            if retried:
                self.do(delivery.retry(5, "no luck"))
                self.bench.pass_time(5)
            else:
                self.settle(delivery)
            self.bench.pass_time(2)  # the worker that has asked in vain leaves the next one to others
        self.assertEqual(begun, [(ids[0], 1), (ids[0], 2), (ids[1], 1), (ids[2], 1)])
        self.nothing_is_left()

    def test_released(self) -> None:
        """A request that is released is delivered again, and its attempt was none."""
        self.accept()
        for _ in range(3):
            self.do(self.receive_one().release())
        delivery = self.receive_one()
        self.assertEqual(delivery.attempt, 1)
        self.settle(delivery)
        self.nothing_is_left()

    def test_released_after_attempts(self) -> None:
        """A release takes back its own attempt, and no other one."""
        self.accept()
        self.do(self.receive_one().retry(0, "no luck"))
        self.do(self.receive_one().release())
        self.assertEqual(self.receive_one().attempt, 2)

    def test_released_while_the_listener_is_down(self) -> None:
        """A request that is released while the listener is down waits for it, and its attempt was none."""
        self.accept()
        delivery = self.receive_one()
        self.stop_listener()
        self.do(delivery.release())
        self.start_listener()
        self.assertEqual(self.eventually(self.receive(self.new_worker()), 3).attempt, 1)

    def test_acknowledged(self) -> None:
        """A worker that has nothing to say of a request that has not ended leaves it to the next."""
        first, second = self.accept(), self.accept()
        self.do(self.bench.store.cancel(first))
        for _ in range(2):
            self.do(self.receive_one().ack())
        delivery = self.receive_one()
        self.assertEqual((delivery.request.correlation_id, delivery.attempt), (second, 1))
        self.settle(delivery)
        self.nothing_is_left()

    def test_dead_letter(self) -> None:
        """A dead letter is kept where the request was accepted, with the whole request, and can be redriven."""
        id = self.accept(headers={"X-Kind": "a"})
        delivery = self.receive_one()
        self.assertTrue(self.do(delivery.dead_letter("gave up", self.reply(delivery, Status.FAILED))))
        (letter,) = self.letters()
        self.assertEqual((letter.reason, letter.request), ("gave up", delivery.request))
        self.assertEqual(self.record(id).status, Status.FAILED)
        again = self.do(self.bench.queue.redrive(1))
        delivery = self.receive_one()
        self.assertEqual((delivery.request.correlation_id, delivery.attempt), (again.correlation_id, 1))

    def test_no_request(self) -> None:
        """A message that is no request becomes a dead letter with all its bytes, and is worked on by no handler."""
        self.publish(b"junk", REQUESTS)
        waiting = self.receive()
        self.bench.turn()
        self.assertNoResult(waiting)
        self.assertEqual([letter.request.submission.body for letter in self.letters()], [b"junk"])
        self.assertEqual(self.depth(REQUESTS), 0)

    def test_a_long_message_that_is_no_request(self) -> None:
        """Of a message that does not fit into a report the first bytes are kept, and the reason says so."""
        self.worker.broker.traits = evolve(self.traits, largest_message=2000)
        self.publish(b"\xff" * 1900, REQUESTS)
        self.receive()
        (letter,) = self.letters()
        body = letter.request.submission.body or b""
        self.assertEqual(body, b"\xff" * len(body))
        self.assertIn(f"the first {len(body)} of its 1900 bytes are kept", letter.reason)
        self.assertEqual(self.depth(REQUESTS), 0)

    def test_a_long_answer(self) -> None:
        """An answer that does not fit into a report ends its request as a dead letter that says so."""
        self.worker.broker.traits = evolve(self.traits, largest_message=2000)
        id = self.accept()
        delivery = self.receive_one()
        self.settle(delivery, result=b'"%s"' % (b"x" * 3000))
        record = self.record(id)
        self.assertEqual(record.status, Status.FAILED)
        self.assertIn("the broker takes no message of more than 2000", (record.reply and record.reply.error) or "")
        self.assertEqual([letter.reason for letter in self.letters()], ["unusable answer"])
        self.nothing_is_left()

    def test_deadline(self) -> None:
        """A request that a worker receives after its deadline is not begun: it has ended."""
        id = self.accept(timeout=10)
        self.bench.pass_time(11)
        waiting = self.receive()
        self.bench.turn()
        self.assertNoResult(waiting)
        self.assertEqual(self.record(id).status, Status.TIMEOUT)
        self.assertEqual(self.types(id), ["pending", "timeout"])
        self.nothing_is_left()

    def test_cancelled(self) -> None:
        """A worker is not told of a cancellation; what it reports then changes nothing, and leaves no dead letter."""
        id = self.accept()
        delivery = self.receive_one()
        self.do(self.bench.store.cancel(id))
        self.do(delivery.progress({}))
        self.do(delivery.dead_letter("gave up", self.reply(delivery, Status.FAILED)))
        self.assertEqual(self.types(id), ["pending", "processing", "cancelled"])
        self.assertEqual((self.letters(), self.endings), ([], ["CANCELLED"]))
        self.nothing_is_left()

    def test_first_ending(self) -> None:
        """Two attempts at once end a request once: the ending that is reported first stands."""
        id = self.accept()
        first = self.receive_one()
        self.bench.server.duplicate(REQUESTS)
        second = self.receive_one(self.new_worker())
        self.settle(second, result=b'"second"')
        self.settle(first, result=b'"first"')
        reply = self.record(id).reply
        self.assertEqual((reply and reply.result, self.endings), (b'"second"', ["COMPLETED"]))
        self.nothing_is_left()

    def test_too_much_progress(self) -> None:
        """Progress beyond the limits of a history is refused where it is said, or left out where it is written."""
        id = self.accept()
        delivery = self.receive_one()
        self.fails(delivery.progress({"much": "x" * 100_000}), ValueError)
        self.do(delivery.retry(0, "no luck"))
        delivery = self.receive_one()
        for _ in range(MOST_EVENTS - 4):
            self.do(delivery.progress({}))
        self.fails(delivery.progress({}), ValueError)
        self.settle(delivery)
        self.assertEqual(self.record(id).status, Status.COMPLETED)
        self.assertLessEqual(len(self.types(id)), MOST_EVENTS + 2)
        self.nothing_is_left()

    def test_accepts_nothing(self) -> None:
        """A process without a store refuses what it cannot do: accept, answer, redrive, and list dead letters."""
        self.fails(self.worker.queue.accept(Submission(b"1"), None), NotDurable)
        for asked in (self.worker.queue.redrive(1), self.worker.queue.dead_letters(0, 1)):
            self.fails(asked, NotDurable)
        store = NullResultStore()
        self.assertTrue(verifyObject(IResultStore, store))
        for asked in (store.find("x"), store.history("x", 0), store.cancel("x")):
            self.fails(asked, NotDurable)

    def test_another_reply_channel(self) -> None:
        """A worker reports in the channel that the request's message names, whatever its own configuration says."""
        self.bench.server.provide("elsewhere")
        request = Request("00000000-0000-4000-8000-000000000000", self.bench.now(), Submission(b"1"))
        self.publish(encode_request(request), REQUESTS, **{"openhqm-reply-channel": "elsewhere"})
        self.settle(self.receive_one())
        self.assertEqual((self.depth("elsewhere"), self.depth()), (2, 0))


class SqsWorkingTests(WorkingTests):
    """The same where the broker leases each message"""

    traits = FORMS["sqs"]
