"""Which messages were confirmed, and which were not, without a RabbitMQ."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import NotDurable
from openhqm.interfaces import ChannelMissing, Message
from openhqm.rabbitmq.publishing import HELD_UP_SECONDS, MOST_LATE, MOST_UNCONFIRMED, Outcomes, Publisher
from tests.rabbitmq.test_framing import frames

LARGEST = 1000


class Channel:
    """An AMQP channel, with what pika's is to a publisher as ``raw``. The server answers when it is told to."""

    is_open = True

    def __init__(self, number: int, clock: Clock) -> None:
        self.raw = self
        self.channel_number = number
        self.on_closed: Any = None
        self.asked: list[Deferred[None]] = []
        self._clock = clock

    def add_on_return_callback(self, callback: Any) -> None:
        self.returned = callback

    def call(self, method: str, seconds: float, ack_nack_callback: Any = None) -> Deferred[None]:
        if method == "confirm_delivery":
            self.answer = ack_nack_callback
            return succeed(None)
        assert method == "basic_qos"
        self.asked.append(Deferred())
        return self.asked[-1].addTimeout(seconds, self._clock)

    def close(self) -> None:
        self.is_open = False


class Connection:
    """A connection, and what the server says over it."""

    largest_frame = 4096
    is_open = True

    def __init__(self, clock: Clock) -> None:
        self.lives = True
        self.channels: list[Channel] = []
        self.written: list[Any] = []
        self.writes = 0
        self._clock = clock

    def channel(self, seconds: float) -> Deferred[Any]:
        opened: Deferred[Any] = Deferred()
        if self.lives:
            self.channels.append(Channel(len(self.channels) + 1, self._clock))
            opened.callback(self.channels[-1])
        return opened.addTimeout(seconds, self._clock)

    def on_blocked(self, call: Any) -> None:
        self.block = call

    def write(self, data: bytes) -> None:
        self.writes += 1
        self.written += frames(data)

    @property
    def used(self) -> Channel:
        """The channel over which it is published."""
        return next(channel for channel in self.channels if channel.is_open)

    @property
    def bodies(self) -> list[bytes]:
        """Of the messages that were sent."""
        return [each.fragment for each in self.written if hasattr(each, "fragment")]

    def live(self) -> None:
        """Answer the question whether the server lives, over the channel that was asked."""
        (asking,) = [channel for channel in self.channels if channel.asked]
        asking.asked.pop().callback(None)

    def confirm(self, tag: int, multiple: bool = False, name: str = "Basic.Ack") -> None:
        """As RabbitMQ answers to messages by their number on the channel."""
        method = SimpleNamespace(delivery_tag=tag, multiple=multiple, NAME=name)
        self.used.answer(SimpleNamespace(method=method))

    def give_back(self, number: int) -> None:
        """Return the message, with the properties that it was sent with."""
        headers = [each for each in self.written if hasattr(each, "body_size")]
        self.used.returned(self.used, None, headers[number - 1].properties, b"")


class PublisherTests(SynchronousTestCase):
    """`Publisher`"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.missing: list[str] = []
        self.lost: list[str] = []
        self.publisher = Publisher(self.clock, lambda: 0.5, 1.5, self.missing.append)
        self.connection = self.connect()

    def connect(self) -> Any:
        connection: Any = Connection(self.clock)
        self.successResultOf(Deferred.fromCoroutine(self.publisher.up(connection, self.lost.append)))
        return connection

    def publish(self, *bodies: bytes, queue: str = "q") -> Outcomes:
        return self.publisher.publish(queue, [Message(body) for body in bodies or (b"x",)], LARGEST)

    def each(self, count: int, queue: str = "q") -> list[Outcomes]:
        """So many, each published alone."""
        return [self.publish(queue=queue) for _ in range(count)]

    def outcomes(self, publishing: Outcomes) -> list[Any]:
        """None for what was confirmed, and the kind of error for what was not."""
        return [None if each is None else type(each) for each in self.successResultOf(publishing)]

    def failed(self, publishing: Outcomes) -> NotDurable:
        """The one outcome, which is an error."""
        (outcome,) = self.successResultOf(publishing)
        self.assertIsInstance(outcome, NotDurable)
        assert outcome is not None
        return outcome

    def test_batch(self) -> None:
        """A batch is one write; it has its outcomes once the last of its messages is confirmed."""
        batch = self.publish(b"1", b"2", b"3")
        self.assertEqual((self.connection.bodies, self.connection.writes), ([b"1", b"2", b"3"], 1))
        self.connection.confirm(3)
        self.connection.confirm(1)
        self.assertNoResult(batch)
        self.connection.confirm(2)
        self.assertEqual(self.outcomes(batch), [None] * 3)
        self.assertEqual(self.clock.getDelayedCalls()[1:], [])

    def test_several_at_once(self) -> None:
        """A confirmation of several is for those up to its number, in whichever batches, and for none above it."""
        first, second, third = self.publish(b"1"), self.publish(b"2", b"3"), self.publish(b"4")
        self.connection.confirm(2, multiple=True)
        self.assertEqual(self.outcomes(first), [None])
        self.assertNoResult(second)
        self.connection.confirm(3, multiple=True)
        self.assertEqual(self.outcomes(second), [None, None])
        self.assertNoResult(third)

    def test_which_was_returned(self) -> None:
        """Of several that are confirmed together, the one that was returned has no channel, and no other."""
        batch = self.publish(b"1", b"2", b"3")
        self.connection.give_back(2)
        self.connection.confirm(3, multiple=True)
        self.assertEqual(self.outcomes(batch), [None, ChannelMissing, None])
        self.assertEqual(self.missing, ["q"])

    def test_refused(self) -> None:
        """A message that RabbitMQ does not want has failed, and no other of its batch."""
        batch = self.publish(b"1", b"2")
        self.connection.confirm(1, name="Basic.Nack")
        self.connection.confirm(2)
        self.assertEqual(self.outcomes(batch), [NotDurable, None])

    def test_late(self) -> None:
        """Nothing waits for longer than the time; a confirmation that comes then changes nothing."""
        late = self.publish(b"1", b"2")
        self.connection.confirm(1)
        self.clock.advance(1.0)
        after = self.publish(b"3")
        self.clock.advance(0.5)
        self.assertEqual(self.outcomes(late), [None, NotDurable])
        self.assertNoResult(after)
        self.connection.confirm(3, multiple=True)
        self.assertEqual(self.outcomes(after), [None])

    def test_too_large(self) -> None:
        """What RabbitMQ would close the channel for is not sent, and the rest of its batch is."""
        batch = self.publish(b"1", b"y" * (LARGEST + 1), b"2")
        self.assertEqual(self.connection.bodies, [b"1", b"2"])
        self.connection.confirm(2, multiple=True)
        self.assertEqual(self.outcomes(batch), [None, NotDurable, None])

    def test_cannot_be_carried(self) -> None:
        """What AMQP has no form for is refused alone: long names of headers, more headers than a frame holds."""
        strange = [{"n" * 256: ""}, {"name": "v" * 5000}, {"name": "\ud800"}]
        messages = [Message(b"1"), *(Message(b"?", headers) for headers in strange), Message(b"2")]
        batch = self.publisher.publish("q", messages, LARGEST)
        self.connection.confirm(2, multiple=True)
        self.assertEqual(self.outcomes(batch), [None, NotDurable, NotDurable, NotDurable, None])
        self.assertEqual(self.outcomes(self.publish(queue="q" * 256)), [NotDurable])

    def test_silence(self) -> None:
        """A server that does not answer at all is the reason to be unavailable, until it does."""
        late = self.publish()
        self.clock.advance(1.5)
        self.failed(late)
        self.assertIn("does not answer", str(self.publisher.unavailable_reason))
        self.failed(self.publish())
        self.connection.live()
        self.assertIsNone(self.publisher.unavailable_reason)
        self.assertEqual(len(self.connection.bodies), 1)

    def test_one_queue_is_dead(self) -> None:
        """A queue that confirms nothing keeps nothing from being published to the others."""
        for _ in range(3):
            late = self.publish()
            self.clock.advance(1.5)
            self.failed(late)
            self.connection.live()
        self.assertIsNone(self.publisher.unavailable_reason)

    def test_one_queue_is_dead_for_long(self) -> None:
        """However many publishes into it have failed, the others go on; and it holds no more of RabbitMQ's memory."""
        dead = self.each(MOST_UNCONFIRMED, "dead")
        self.clock.advance(1.5)
        for late in dead:
            self.failed(late)
        self.connection.live()
        alive, tried = self.publish(), self.publish(b"1", b"2", queue="dead")
        self.assertEqual(self.failed(self.publish(queue="dead")).retry_after, 1)
        self.connection.confirm(MOST_UNCONFIRMED + 1)
        self.assertEqual(self.outcomes(alive), [None])
        self.assertEqual(len(self.connection.bodies), MOST_UNCONFIRMED + 2)
        self.clock.advance(1.5)
        self.assertEqual(self.outcomes(tried), [NotDurable, NotDurable])

    def test_one_queue_is_back(self) -> None:
        """Where so many were not confirmed in time one is tried at a time; once one is confirmed all are published."""
        dead = self.each(MOST_LATE)
        self.clock.advance(1.5)
        for late in dead:
            self.failed(late)
        self.connection.live()
        tried, refused = self.each(2)
        self.failed(refused)
        self.connection.confirm(MOST_LATE + 1)
        self.assertEqual(self.outcomes(tried), [None])
        for late in self.each(2):
            self.assertNoResult(late)

    def test_one_queue_holds_all_up(self) -> None:
        """A queue on whose message the channel hangs is left behind on it, and the others go on over another one."""
        late, after = self.publish(b"1", queue="dead"), self.publish(b"2")
        self.clock.advance(1.5)
        self.assertEqual([self.outcomes(each) for each in (late, after)], [[NotDurable], [NotDurable]])
        waiting = self.publish()
        self.assertIn("does not answer", str(self.failed(waiting)))
        self.clock.advance(1.5)
        self.assertIsNone(self.publisher.unavailable_reason)
        self.assertEqual([channel.is_open for channel in self.connection.channels], [False, True])
        self.assertIn("dead", str(self.failed(self.publish(queue="dead"))))
        alive = self.publish(b"3")
        self.connection.confirm(1)
        self.assertEqual(self.outcomes(alive), [None])
        self.clock.advance(HELD_UP_SECONDS)
        tried, refused = self.publish(queue="dead"), self.publish(queue="dead")
        self.failed(refused)
        self.connection.confirm(2)
        self.assertEqual(self.outcomes(tried), [None])
        self.assertNoResult(self.publish(queue="dead"))

    def test_frozen(self) -> None:
        """A server that opens no other channel either is waited for, and no queue is blamed when it goes on."""
        self.connection.lives = False
        self.publish(queue="dead")
        self.clock.pump([1.5] * 20)
        self.assertIn("does not answer", str(self.publisher.unavailable_reason))
        self.connection.lives = True
        self.clock.advance(5.0)
        self.connection.live()
        self.assertIsNone(self.publisher.unavailable_reason)
        self.assertEqual([channel.is_open for channel in self.connection.channels], [True, False])
        self.assertNoResult(self.publish(queue="dead"))

    def test_bounded(self) -> None:
        """So many may be unconfirmed. Of a batch that would be more the first ones are sent, and the rest refused."""
        first, *_ = self.each(MOST_UNCONFIRMED - 1)
        batch = self.publish(b"in", b"out")
        refused = self.publish()
        self.assertEqual(self.failed(refused).retry_after, 1)
        self.connection.confirm(MOST_UNCONFIRMED)
        self.assertEqual(self.outcomes(batch), [None, NotDurable])
        self.connection.confirm(1)
        self.assertEqual(self.outcomes(first), [None])
        self.assertNoResult(self.publish())

    def test_blocked(self) -> None:
        """While RabbitMQ reads nothing, nothing is written to it, and the reason is what it says."""
        self.connection.block("low on memory")
        self.assertIn("low on memory", str(self.failed(self.publish())))
        self.assertIn("low on memory", str(self.publisher.unavailable_reason))
        self.assertEqual(self.connection.bodies, [])
        self.connection.block(None)
        self.assertNoResult(self.publish())

    def test_closed(self) -> None:
        """A channel that RabbitMQ closes alone is told with the reason, and nothing more is published over it."""
        self.connection.used.on_closed(SimpleNamespace(reply_text="FRAME_ERROR", reply_code=501))
        self.connection.used.is_open = False
        self.assertIn("FRAME_ERROR", self.lost[0])
        self.assertIn("not connected", str(self.failed(self.publish())))

    def test_closed_unnoticed(self) -> None:
        """What waits has its outcome in time also where the channel is closed and pika has not said so."""
        late = self.publish()
        self.connection.used.is_open = False
        self.clock.advance(1.5)
        self.failed(late)

    def test_lost(self) -> None:
        """With the connection everything unconfirmed has failed, except what is known to have no channel."""
        lost = self.publish(b"1", b"2")
        self.connection.give_back(1)
        self.publisher.down("the cable")
        self.assertEqual(self.outcomes(lost), [ChannelMissing, NotDurable])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.failed(self.publish())
        self.connection = self.connect()
        kept = self.publish()
        self.connection.confirm(1)
        self.assertEqual(self.outcomes(kept), [None])

    def test_given_up(self) -> None:
        """Cancelling gives up the waiting; the confirmation is heard all the same."""
        cancelled = self.publish()
        cancelled.addErrback(lambda failure: None)
        cancelled.cancel()
        self.connection.confirm(1)
        self.clock.advance(10)
        self.assertIsNone(self.publisher.unavailable_reason)
