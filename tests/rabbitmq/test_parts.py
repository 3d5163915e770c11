"""What can be known of RabbitMQ without one: addresses, queues, delays, and which message was confirmed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.config.rabbitmq_address import parse_address
from openhqm.errors import NotDurable
from openhqm.messages import Priority
from openhqm.rabbitmq import queues
from openhqm.rabbitmq.link import Reconnecting
from openhqm.rabbitmq.publishing import MOST_LATE, MOST_UNCONFIRMED, Publisher, Returned
from openhqm.rabbitmq.wire import within
from tests.rabbitmq.test_framing import frames


class AddressTests(SynchronousTestCase):
    """``parse_address``"""

    def test_plain(self) -> None:
        """A URL names the host, the port, the virtual host and who we are there."""
        found = parse_address("amqp://gate:p%40ss@rabbit:5673/prod%2Feu")
        self.assertEqual((found.hosts, found.vhost), ((("rabbit", 5673),), "prod/eu"))
        self.assertEqual((found.username, found.password, found.tls), ("gate", "p@ss", False))

    def test_defaults(self) -> None:
        """What is left out is what RabbitMQ has after it was installed."""
        found = parse_address("amqp://localhost")
        self.assertEqual((found.hosts, found.vhost, found.username), ((("localhost", 5672),), "/", "guest"))
        self.assertEqual(parse_address("amqp://localhost/%2F").vhost, "/")
        self.assertEqual(parse_address("amqps://localhost").hosts, (("localhost", 5671),))

    def test_several(self) -> None:
        """The nodes of a cluster are separated by commas."""
        found = parse_address("amqp://u:p@one,two:5673,[::1]:5674/v")
        self.assertEqual(found.hosts, (("one", 5672), ("two", 5673), ("::1", 5674)))

    def test_refused(self) -> None:
        """What cannot be one is refused, in words that do not hold the password."""
        for url in (
            "redis://u:hush@h/",
            "amqp://u:hush@h:port/",
            "amqp://u:hush@h/a/b",
            "amqp://u:hush@h/?heartbeat=1",
            "amqp://u:hush@h/?ca=file",
            "amqp://u:hush@h/?x",
        ):
            error = self.assertRaises(ValueError, parse_address, url)
            self.assertNotIn("hush", str(error), url)

    def test_secret(self) -> None:
        """Neither what is shown to people nor what a debugger shows has the password in it."""
        found = parse_address("amqp://u:hush@h/")
        self.assertNotIn("hush", f"{found} {found!r}")


class QueueTests(SynchronousTestCase):
    """Names and arguments."""

    def test_priorities(self) -> None:
        """A queue is one for each priority; a partition has one for all: in order is in order."""
        self.assertEqual(queues.lanes("p.", "q"), ("p.q!high", "p.q", "p.q!low"))
        self.assertEqual(queues.lanes("p.", "q.billing._12"), ("p.q.billing._12",))
        for priority in Priority:
            self.assertIn(queues.lane("p.", "q", priority), queues.lanes("p.", "q"))
            self.assertEqual(queues.lane("p.", "q._0", priority), "p.q._0")

    def test_arguments(self) -> None:
        """Quorum queues that drop nothing, however often it is lent; one consumer at a time for a partition."""
        found = queues.arguments("p.q!high")
        self.assertEqual(found["x-queue-type"], "quorum")
        self.assertGreater(found["x-delivery-limit"], 1_000_000_000)
        self.assertNotIn("x-single-active-consumer", found)
        self.assertTrue(queues.arguments("p.q._3")["x-single-active-consumer"])

    def test_delay_queues(self) -> None:
        """They lose nothing: at least once, refusing what they cannot take, and never expiring themselves."""
        for level in range(queues.LEVELS):
            found = queues.delay_arguments("p.", level)
            self.assertEqual(found["x-dead-letter-strategy"], "at-least-once")
            self.assertEqual(found["x-overflow"], "reject-publish")
            self.assertNotIn("x-expires", found)
            self.assertLess(found["x-message-ttl"], 2**32)
        self.assertEqual(queues.delay_arguments("p.", 0)["x-dead-letter-exchange"], "")
        self.assertEqual(queues.delay_arguments("p.", 5)["x-dead-letter-exchange"], queues.delay_queue("p.", 4))

    @given(st.floats(0, 400 * 86400 * 1000.0))
    def test_never_too_long(self, delay: float) -> None:
        """The delay queues keep a message almost for its delay, and never for longer."""
        steps = queues.steps_of(delay)
        kept = 0
        here = queues.level_of(steps) if steps else -1
        headers = queues.delay_headers(steps)
        for level in range(here, -1, -1):
            if headers.items() >= queues.waits(level, True).items():
                kept += queues.delay_arguments("", level)["x-message-ttl"]
            else:
                self.assertLessEqual(queues.waits(level, False).items(), headers.items())
        self.assertLessEqual(kept, delay)
        self.assertEqual(kept, steps * queues.STEP_MS)
        if steps < queues.MOST_STEPS:
            self.assertLess(delay - kept, 2 * queues.STEP_MS)

    @given(st.floats(250, 400 * 86400 * 1000.0))
    def test_way_out(self, delay: float) -> None:
        """Every message waits in the last of the delay queues, which alone leads to where it is to go."""
        self.assertEqual(queues.delay_headers(queues.steps_of(delay))["openhqm-wait-0"], 1)


class Channel:
    """What pika's channel is to a publisher."""

    channel_number = 1

    def __init__(self) -> None:
        self.is_open = True
        self.published: list[int] = []
        self.asked: list[Any] = []

    def confirm_delivery(self, ack_nack_callback: Any, callback: Any) -> None:
        self.answer = ack_nack_callback
        callback(None)

    def add_on_return_callback(self, callback: Any) -> None:
        self.returned = callback

    def write(self, data: bytes) -> None:
        """What is written into its connection."""
        method, header, body = frames(data)
        assert method.method.mandatory and header.properties.delivery_mode == 2 and body.fragment == b"x"
        self.published.append(int(header.properties.message_id))

    def basic_qos(self, callback: Any) -> None:
        if not self.is_open:
            from pika.exceptions import ChannelWrongStateError

            raise ChannelWrongStateError("Channel is closed.")
        self.asked.append(callback)

    def confirm(self, tag: int, multiple: bool = False, name: str = "Basic.Ack") -> None:
        self.answer(SimpleNamespace(method=SimpleNamespace(delivery_tag=tag, multiple=multiple, NAME=name)))

    def return_it(self, tag: int) -> None:
        self.returned(self, None, SimpleNamespace(message_id=str(tag)), b"")


class LinkTests(SynchronousTestCase):
    """`Reconnecting`, to nodes that do not answer"""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()

    def make(self, up: Callable[[Any], Awaitable[None]]) -> Reconnecting:
        address = parse_address("amqp://127.0.0.1:1,127.0.0.1:2")
        return Reconnecting(address, "a", self.reactor, lambda: 0.5, seconds=1.5, up=up, down=lambda reason: None)

    def test_stop_while_it_connects(self) -> None:
        """Whoever stops does not wait for a node that may never answer; and the others are not even asked."""
        link = self.make(lambda protocol: succeed(None))
        link.start()
        self.successResultOf(link.stop())
        self.assertEqual([port for _, port, *_ in self.reactor.tcpClients], [1])
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class WithinTests(SynchronousTestCase):
    """``within``"""

    def test_in_time(self) -> None:
        """What comes in time is what it was, an answer or a failure."""
        clock = Clock()
        answer: Deferred[int] = Deferred()
        waiting = within(answer, 1, clock)
        answer.callback(7)
        self.assertEqual(self.successResultOf(waiting), 7)
        self.failureResultOf(within(fail(KeyError("k")), 1, clock), KeyError)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_late(self) -> None:
        """pika is not told that nobody waits any more: what it fires afterwards, it fires for the first time."""
        for give_up in (lambda waiting, clock: clock.advance(1), lambda waiting, clock: waiting.cancel()):
            clock = Clock()
            answer: Deferred[int] = Deferred()
            waiting = within(answer, 1, clock)
            give_up(waiting, clock)
            self.failureResultOf(waiting, TimeoutError, CancelledError)
            self.assertFalse(answer.called)
            answer.errback(KeyError("the channel is closed"))
            self.assertEqual(self.flushLoggedErrors(), [])


class PublisherTests(SynchronousTestCase):
    """``Publisher``"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.channel = Channel()
        self.publisher = Publisher(self.clock, 1.5)
        self.connect()

    def connect(self) -> None:
        channel = SimpleNamespace(_channel=self.channel)
        self.successResultOf(Deferred.fromCoroutine(self.publisher.up(channel, self.channel.write, 4096)))

    def publish(self, count: int = 1, queue: str = "q") -> list[Deferred[None]]:
        return [self.publisher.publish(queue, b"x", {}) for _ in range(count)]

    def test_several_at_once(self) -> None:
        """A confirmation of several is for those up to its number, and for none above it."""
        first, second, third = self.publish(3)
        self.channel.confirm(2, multiple=True)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertNoResult(third)
        self.channel.confirm(3)
        self.successResultOf(third)

    def test_which_was_returned(self) -> None:
        """Of several that are confirmed together, the one that was returned has failed, and no other."""
        first, second, third = self.publish(3)
        self.channel.return_it(2)
        self.channel.confirm(3, multiple=True)
        self.successResultOf(first)
        self.failureResultOf(second, Returned)
        self.successResultOf(third)

    def test_refused(self) -> None:
        """A message that RabbitMQ does not want has failed."""
        (only,) = self.publish()
        self.channel.confirm(1, name="Basic.Nack")
        self.failureResultOf(only, NotDurable)

    def test_late(self) -> None:
        """Nobody waits for longer than the time; a confirmation that comes then changes nothing."""
        (late,) = self.publish()
        self.clock.advance(1.0)
        (after,) = self.publish()
        self.clock.advance(0.5)
        self.failureResultOf(late, NotDurable)
        self.assertNoResult(after)
        self.channel.confirm(2, multiple=True)
        self.successResultOf(after)

    def test_silence(self) -> None:
        """Who does not answer at all is in unavailable_reason, which is over with the answer."""
        (late,) = self.publish()
        self.clock.advance(1.5)
        self.failureResultOf(late, NotDurable)
        self.assertIn("does not answer", str(self.publisher.unavailable_reason))
        self.failureResultOf(self.publish()[0], NotDurable)
        (answered,) = self.channel.asked
        answered(None)
        self.assertIsNone(self.publisher.unavailable_reason)
        self.assertEqual(len(self.channel.published), 1)

    def test_one_queue_is_dead(self) -> None:
        """A queue that confirms nothing keeps nobody from publishing to the others, for as long as it may be."""
        for _ in range(3):
            (late,) = self.publish()
            self.clock.advance(1.5)
            self.failureResultOf(late, NotDurable)
            self.channel.asked.pop()(None)
        self.assertIsNone(self.publisher.unavailable_reason)

    def test_one_queue_is_dead_for_long(self) -> None:
        """However many publishes into it have failed, the others go on; and it holds no more of RabbitMQ's memory."""
        failed = self.publish(MOST_UNCONFIRMED, "dead")
        self.clock.advance(1.5)
        for late in failed:
            self.failureResultOf(late, NotDurable)
        self.channel.asked.pop()(None)
        alive, tried, refused = *self.publish(), *self.publish(2, "dead")
        self.assertEqual(self.failureResultOf(refused, NotDurable).value.retry_after, 1)
        self.channel.confirm(self.channel.published[-2])
        self.successResultOf(alive)
        self.clock.advance(1.5)
        self.failureResultOf(tried, NotDurable)

    def test_one_queue_is_back(self) -> None:
        """Where so many were not confirmed in time one is tried at a time; once one is confirmed all are published."""
        failed = self.publish(MOST_LATE)
        self.clock.advance(1.5)
        for late in failed:
            self.failureResultOf(late, NotDurable)
        self.channel.asked.pop()(None)
        tried, refused = self.publish(2)
        self.failureResultOf(refused, NotDurable)
        self.channel.confirm(self.channel.published[-1])
        self.successResultOf(tried)
        for late in self.publish(2):
            self.assertNoResult(late)

    def test_closed_meanwhile(self) -> None:
        """Who waits is told in time also where the channel is closed, and nobody has said so yet."""
        (late,) = self.publish()
        self.channel.is_open = False
        self.clock.advance(1.5)
        self.failureResultOf(late, NotDurable)

    def test_bounded(self) -> None:
        """So many may be unconfirmed, and whoever comes then is told to come again."""
        first, *_ = self.publish(MOST_UNCONFIRMED)
        (refused,) = self.publish()
        self.assertEqual(self.failureResultOf(refused, NotDurable).value.retry_after, 1)
        self.channel.confirm(1)
        self.successResultOf(first)
        self.assertNoResult(self.publish()[0])

    def test_blocked(self) -> None:
        """While RabbitMQ reads nothing, nothing is written to it."""
        self.publisher.blocked = "low on memory"
        self.assertIn("low on memory", str(self.failureResultOf(self.publish()[0], NotDurable).value))
        self.assertEqual(self.channel.published, [])

    def test_lost(self) -> None:
        """With the connection everything unconfirmed has failed; the numbers begin anew with the next one."""
        (lost,) = self.publish()
        self.publisher.down("the cable")
        self.failureResultOf(lost, NotDurable)
        self.failureResultOf(self.publish()[0], NotDurable)
        self.channel = Channel()
        self.connect()
        (kept,) = self.publish()
        self.channel.confirm(1)
        self.successResultOf(kept)

    def test_given_up(self) -> None:
        """Cancelling gives up the waiting; the confirmation is heard all the same."""
        (cancelled,) = self.publish()
        cancelled.addErrback(lambda failure: None)
        cancelled.cancel()
        self.channel.confirm(1)
        self.clock.advance(10)
        self.assertIsNone(self.publisher.unavailable_reason)
