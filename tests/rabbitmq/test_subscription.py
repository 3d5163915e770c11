"""A subscription and its window, against a queue in memory that answers as RabbitMQ does."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, TimeoutError, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import NotDurable
from openhqm.rabbitmq.subscription import LOWER_SECONDS, MOST_CONSUMERS, MOST_PREFETCHED, RETRY_SECONDS, Subscription
from openhqm.testing.broker_bench import Inbox


class Closed(Exception):
    """As pika says that RabbitMQ has closed a channel."""

    def __init__(self, reply_code: int, reply_text: str) -> None:
        super().__init__(reply_text)
        self.reply_code, self.reply_text = reply_code, reply_text


class Channel:
    """An AMQP channel to a queue. Answers come in their order, when `answer` is called; deliveries before them."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.raw = self
        self.is_open = True
        self.on_closed: Callable[[Exception], None] | None = None
        self.prefetch = 0
        self.consumers: dict[str, tuple[int, Any]] = {}
        self.unsettled: dict[int, tuple[str, bytes]] = {}
        self.tag = 0
        self.waiting: list[tuple[Deferred[Any], Callable[[], None]]] = []

    # What a subscription uses

    def add_on_cancel_callback(self, callback: Any) -> None:
        self.cancelled = callback

    def call(self, method: str, seconds: float, **arguments: Any) -> Deferred[Any]:
        return self._ask(lambda: getattr(self, method)(**arguments))

    def cancel(self, tag: str, seconds: float) -> Deferred[Any]:
        return self._ask(lambda: self.consumers.pop(tag, None))

    def close(self) -> None:
        self.on_closed = None
        self.end(NotDurable("the channel is closed"))

    def basic_ack(self, tag: int) -> None:
        assert self.is_open, "the channel is closed"
        del self.unsettled[tag]
        self.queue.deliver()

    def basic_nack(self, tag: int) -> None:
        assert self.is_open, "the channel is closed"
        self.queue.ready.insert(0, self.unsettled.pop(tag)[1])
        self.queue.deliver()

    # What RabbitMQ does

    def _ask(self, do: Callable[[], object]) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        self.waiting.append((answer, do))
        if self.queue.answers:
            self.answer()
        return answer

    def answer(self) -> None:
        """Do what was asked for, and say so."""
        waiting, self.waiting = self.waiting, []
        for answer, do in waiting:
            do()
            self.queue.deliver()
            answer.callback(None)

    def queue_declare(self, queue: str, passive: bool) -> None:
        assert (queue, passive) == ("q", True)

    def basic_qos(self, prefetch_count: int) -> None:
        assert 0 < prefetch_count < 65536
        self.prefetch = prefetch_count

    def basic_consume(self, queue: str, on_message_callback: Any, consumer_tag: str) -> None:
        self.consumers[consumer_tag] = (self.prefetch, on_message_callback)

    def send(self) -> bool:
        """Send a message to a consumer that has room."""
        for tag, (prefetch, received) in self.consumers.items():
            if sum(owner == tag for owner, _ in self.unsettled.values()) < prefetch:
                body = self.queue.ready.pop(0)
                self.tag += 1
                self.unsettled[self.tag] = (tag, body)
                method = SimpleNamespace(delivery_tag=self.tag, redelivered=False)
                received(self, method, SimpleNamespace(headers=None, reply_to=None), body)
                return True
        return False

    def end(self, reason: Exception) -> None:
        self.is_open = False
        self.consumers.clear()
        unsettled, self.unsettled = self.unsettled, {}
        self.queue.ready[:0] = [body for _, body in unsettled.values()]
        waiting, self.waiting = self.waiting, []
        for answer, _ in waiting:
            answer.errback(reason)
        if self.on_closed is not None:
            self.on_closed(reason)


class Queue:
    """The connection to the one queue there is, too."""

    is_open = True

    def __init__(self) -> None:
        self.answers = True
        self.ready: list[bytes] = []
        self.channels: list[Channel] = []
        self.delivering = False

    def channel(self, seconds: float) -> Deferred[Channel]:
        self.channels.append(Channel(self))
        return succeed(self.channels[-1])

    @property
    def prefetch(self) -> list[int]:
        """Of each consumer."""
        return [prefetch for channel in self.channels for prefetch, _ in channel.consumers.values()]

    def publish(self, count: int) -> None:
        self.ready += [b"%d" % number for number in range(count)]
        self.deliver()

    def deliver(self) -> None:
        if self.delivering:
            return
        self.delivering = True
        while self.ready and any(channel.send() for channel in self.channels if channel.is_open):
            pass
        self.delivering = False


class SubscriptionTests(SynchronousTestCase):
    """`Subscription`"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.queue: Any = Queue()
        self.ended: list[Subscription] = []
        self.deleted: list[str] = []
        self.without_leader: list[Subscription] = []
        self.inbox = Inbox()
        self.subscription = self.inbox.subscription = Subscription(
            "q",
            self.inbox,
            self.clock,
            ended=self.ended.append,
            deleted=self.deleted.append,
            no_leader=self.without_leader.append,
        )
        self.subscription.up(self.queue)

    def settle(self, *numbers: int) -> None:
        """Acknowledge by the number of the delivery."""
        for number in numbers:
            self.inbox.settled.append(self.inbox.deliveries[number])
            self.successResultOf(self.inbox.deliveries[number].ack())

    def test_grows(self) -> None:
        """A larger window is one consumer more, and it is exactly as wide as the credit."""
        self.queue.publish(20)
        for most, prefetch in ((2, [2]), (5, [2, 3]), (5, [2, 3]), (9, [2, 3, 4])):
            self.subscription.credit(most)
            self.assertEqual((self.queue.prefetch, self.inbox.out), (prefetch, most))

    def test_shrinks(self) -> None:
        """A smaller window comes after a while, and is as wide as the credit whatever cancelled consumers have out."""
        self.queue.publish(20)
        self.subscription.credit(8)
        self.subscription.credit(3)
        self.assertEqual(self.queue.prefetch, [8])
        self.clock.advance(LOWER_SECONDS)
        self.assertEqual(self.queue.prefetch, [])
        self.settle(0, 1, 2, 3, 4)
        self.assertEqual(self.inbox.out, 3)
        for number in range(5, 15):
            self.settle(number)
            self.assertEqual(self.inbox.out, 3)

    def test_soon_as_before(self) -> None:
        """A credit that is soon as large as before costs no question to RabbitMQ."""
        self.subscription.credit(8)
        for _ in range(100):
            self.subscription.credit(7)
            self.subscription.credit(8)
        self.clock.advance(LOWER_SECONDS)
        self.assertEqual((self.queue.prefetch, self.queue.channels[0].prefetch), ([8], 8))

    def test_none(self) -> None:
        """Without credit nothing comes after a while, and what was on its way by then is out."""
        self.subscription.credit(5)
        self.queue.answers = False
        self.subscription.credit(0)
        self.clock.advance(LOWER_SECONDS)
        self.queue.publish(2)  # before RabbitMQ has read that
        self.queue.channels[0].answer()
        self.queue.publish(3)
        self.assertEqual((self.inbox.bodies, self.inbox.out), ([b"0", b"1"], 2))
        self.queue.answers = True
        self.subscription.credit(3)
        self.assertEqual(self.inbox.out, 3)

    @given(
        st.lists(
            st.one_of(
                st.tuples(st.just("credit"), st.integers(0, 40)),
                st.tuples(st.just("publish"), st.integers(1, 30)),
                st.tuples(st.just("settle"), st.integers(1, 30)),
            ),
            max_size=40,
        )
    )
    def test_exact(self, steps: list[tuple[str, int]]) -> None:
        """After whatever it went through the window is as wide as the credit, with a few consumers."""
        self.setUp()
        credit = 0
        for step, count in steps:
            if step == "credit":
                credit = count
                self.subscription.credit(count)
                self.clock.advance(LOWER_SECONDS)
            elif step == "publish":
                self.queue.publish(count)
            else:
                known = (*self.inbox.settled, *self.inbox.revoked)
                for delivery in [each for each in self.inbox.deliveries if each not in known][:count]:
                    self.inbox.settled.append(delivery)
                    self.successResultOf(delivery.ack())
            self.assertLessEqual(len(self.queue.prefetch), MOST_CONSUMERS)
            if self.queue.ready:
                self.assertGreaterEqual(self.inbox.out, credit)
        for delivery in [each for each in self.inbox.deliveries if each not in self.inbox.settled]:
            self.inbox.settled.append(delivery)
            self.successResultOf(delivery.ack())
        self.queue.publish(50)
        self.assertLessEqual(self.inbox.out, credit)
        self.assertEqual(self.inbox.out, credit)

    def test_as_much_as_a_queue_sends(self) -> None:
        """A credit beyond what a quorum queue has on its way is that much."""
        self.subscription.credit(10**9)
        self.assertEqual(self.queue.prefetch, [MOST_PREFETCHED])

    def test_reconnected(self) -> None:
        """After a connection was lost the window is as wide over the next; what was out is revoked, and comes again."""
        self.queue.publish(5)
        self.subscription.credit(3)
        before = list(self.inbox.deliveries)
        self.queue.is_open = False
        self.queue.channels[0].end(ConnectionError())
        self.assertEqual(self.inbox.revoked, [])
        self.subscription.down("the cable")
        self.assertEqual(self.inbox.revoked, before)
        self.assertEqual(self.successResultOf(before[0].revoked), "the cable")
        self.failureResultOf(before[0].ack(), NotDurable)
        self.queue.is_open = True
        self.subscription.up(self.queue)
        self.assertEqual(self.inbox.bodies[3:], [b"0", b"1", b"2"])
        self.assertEqual((self.inbox.lost_for, self.subscription.warning), ([], None))

    def test_closed(self) -> None:
        """A channel that RabbitMQ closes revokes what is out. There is a warning until another one is open, soon."""
        self.queue.publish(2)
        self.subscription.credit(1)
        self.queue.channels[0].end(Closed(406, "PRECONDITION_FAILED"))
        self.assertEqual(len(self.inbox.revoked), 1)
        self.assertIn("PRECONDITION_FAILED (406)", str(self.subscription.warning))
        self.clock.advance(RETRY_SECONDS)
        self.assertIsNone(self.subscription.warning)
        self.assertEqual(self.inbox.bodies, [b"0", b"0"])

    def test_missing(self) -> None:
        """A queue that is not there is told, also to a subscription without credit."""
        self.queue.answers = False
        self.subscription.down("the cable")
        self.subscription.up(self.queue)
        self.queue.channels[-1].end(Closed(404, "NOT_FOUND"))
        self.assertEqual((len(self.inbox.lost_for), self.deleted, self.ended), (1, ["q"], [self.subscription]))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_deleted_while_a_consumer_is_added(self) -> None:
        """A queue that is deleted just then is told once, after what was out of it was revoked."""
        self.queue.publish(1)
        self.subscription.credit(1)
        self.queue.answers = False
        self.subscription.credit(2)
        self.queue.channels[0].answer()
        self.queue.channels[0].cancelled(SimpleNamespace(method=SimpleNamespace(consumer_tag="1")))
        self.assertEqual((len(self.inbox.lost_for), self.inbox.revoked_when_lost), (1, 1))
        self.assertEqual((self.deleted, self.ended), (["q"], [self.subscription]))
        self.assertFalse(self.queue.channels[0].is_open)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopped(self) -> None:
        """What comes after the stop goes back; what came before it can be settled, and then it is over."""
        self.subscription.credit(5)
        self.queue.publish(1)
        self.queue.answers = False
        stopped = self.subscription.stop()
        self.queue.ready.append(b"late")
        self.queue.channels[0].send()
        self.assertNoResult(stopped)
        self.queue.channels[0].answer()
        self.assertEqual((self.inbox.bodies, self.queue.ready), ([b"0"], [b"late"]))
        self.successResultOf(stopped)
        self.successResultOf(self.subscription.stop())
        self.assertEqual(self.ended, [])
        self.settle(0)
        self.assertEqual(self.ended, [self.subscription])
        self.assertFalse(self.queue.channels[0].is_open)
        self.successResultOf(self.subscription.stop())

    def test_no_leader(self) -> None:
        """A queue that gives no answer while RabbitMQ does has no leader: that is told, and it is tried again."""
        self.queue.publish(1)
        (channel,) = self.queue.channels
        channel.basic_consume = lambda **arguments: None
        self.queue.answers = False
        self.subscription.credit(1)
        channel.answer()
        channel.waiting.pop()[0].errback(TimeoutError())
        self.assertEqual(self.without_leader, [self.subscription])
        self.assertIn("q cannot be consumed from: it does not answer", str(self.subscription.warning))
        self.queue.answers = True
        self.clock.advance(RETRY_SECONDS)
        self.assertEqual((self.inbox.bodies, self.subscription.warning), ([b"0"], None))

    def test_no_answer_at_all(self) -> None:
        """Where RabbitMQ itself does not answer either, nothing is known of the leader."""
        (channel,) = self.queue.channels
        self.queue.answers = False
        self.subscription.credit(1)
        channel.answer()
        self.queue.channel = lambda seconds: fail(TimeoutError())
        channel.waiting.pop()[0].errback(TimeoutError())
        self.assertEqual(self.without_leader, [])
        self.assertIn("does not answer", str(self.subscription.warning))
