# -*- test-case-name: tests.rabbitmq.test_publishing -*-
"""Publishing over one AMQP channel: batches of messages, each message with its own confirmation.

A message that cannot be routed is returned, and confirmed all the same: RabbitMQ did with it what it was told
(https://www.rabbitmq.com/docs/confirms). One confirmation may be for several messages and does not say which of them
was returned; a returned message carries its own id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import takewhile
from typing import Any

import attrs
from twisted.internet.defer import Deferred, TimeoutError, succeed

from openhqm.errors import NotDurable
from openhqm.interfaces.broker import ChannelMissing, Message
from openhqm.rabbitmq.connection import Channel, Connection, describe
from openhqm.rabbitmq.delivery import KEY
from openhqm.rabbitmq.framing import Framing
from openhqm.runtime.deferreds import deferred

MOST_UNCONFIRMED = 10_000
MOST_LATE = 1000
"""Messages that one queue did not confirm in time. Further ones are tried one at a time: RabbitMQ keeps them in memory.
"""
OPEN_SECONDS = 5.0
HELD_UP_SECONDS = 60.0

DIRECT_REPLY = "amq.rabbitmq.reply-to"
"""The reply address of what is published over a channel that consumes from it."""
Answered = Callable[[Any, Any, bytes], None]
"""Called with the method, the properties and the body of an answer."""
Outcomes = Deferred[Sequence[NotDurable | None]]


@attrs.define(eq=False)
class _Batch:
    queue: str
    outcomes: list[NotDurable | None]
    sent_at: float
    unconfirmed: int = 0
    done: Outcomes = attrs.field(factory=Deferred)  # where it is cancelled, the messages are published all the same


_Entry = tuple[_Batch, int]
"""One message: its batch, and its place in it."""


@attrs.define
class _Late:
    count: int = 0
    again_at: float = 0.0


class Publisher:
    """``seconds`` is how long a confirmation may take. ``random`` is as `random.random`. ``missing`` is called with the
    name of a queue that does not exist. ``answered`` is called with what comes to `DIRECT_REPLY`; None: nothing does.
    """

    def __init__(
        self,
        clock: Any,
        random: Callable[[], float],
        seconds: float,
        missing: Callable[[str], None],
        answered: Answered | None = None,
    ) -> None:
        self._missing = missing
        self._answered = answered
        self._clock = clock
        self._random = random
        self._seconds = seconds
        self._lost: Callable[[str], None] = lambda reason: None
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._framing: Framing | None = None
        self._id = b""
        self._sent = 0
        self._unconfirmed: dict[int, _Entry] = {}  # by the number of the message, in their order
        self._late: dict[str, _Late] = {}  # by the queue, for those that have not confirmed in time since
        self._watching: Any = None
        self._silent = False
        self.blocked: str | None = None

    @property
    def unavailable_reason(self) -> str | None:
        """Why nothing can be published although there is a connection, or None."""
        if self.blocked is not None:
            return f"RabbitMQ accepts no messages ({self.blocked}): free some of its memory or disk"
        return "RabbitMQ does not answer" if self._silent else None

    async def up(self, connection: Connection, lost: Callable[[str], None]) -> None:
        """Publish over this connection from now on. ``lost`` is called when RabbitMQ closes the channel alone."""
        self._lost = lost
        connection.on_blocked(self._blocked)
        self._use(connection, await self._open(connection))

    def down(self, reason: str) -> None:
        """There is no connection. Nothing is known of the messages that were not confirmed."""
        self._channel = self._connection = None
        self.blocked = None
        self._silent = False
        self._late.clear()
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        unconfirmed, self._unconfirmed = self._unconfirmed, {}
        _settle(unconfirmed.values(), NotDurable(reason))

    async def _open(self, connection: Connection) -> Channel:
        channel = await connection.channel(OPEN_SECONDS)
        await channel.call("confirm_delivery", OPEN_SECONDS, ack_nack_callback=partial(self._confirmed, channel))
        channel.raw.add_on_return_callback(self._returned)
        if self._answered is not None:  # https://www.rabbitmq.com/docs/direct-reply-to: over the channel that publishes
            take = partial(_pass_on, self._answered)
            await channel.call(
                "basic_consume", OPEN_SECONDS, queue=DIRECT_REPLY, auto_ack=True, on_message_callback=take
            )
        channel.on_closed = partial(self._closed, connection)
        return channel

    def _use(self, connection: Connection, channel: Channel) -> None:
        self._connection, self._channel = connection, channel
        self._framing = Framing(channel.raw.channel_number, connection.largest_frame)
        # A consumer may take the id for one that no other message has.
        self._id = b"%x-" % int(self._random() * 2**53)
        self._sent = 0

    def publish(self, queue: str, messages: Sequence[Message], largest: int | None) -> Outcomes:
        """See `openhqm.interfaces.broker.IBroker.publish`. ``largest`` is the most bytes of a body."""
        connection, channel, framing = self._connection, self._channel, self._framing
        if connection is None or channel is None or framing is None or not channel.raw.is_open:
            return _refused(messages, NotDurable("not connected to RabbitMQ"))
        if self.unavailable_reason is not None:
            return _refused(messages, NotDurable(self.unavailable_reason))
        batch = _Batch(queue, [None] * len(messages), self._clock.seconds())
        room = self._room(queue, batch.sent_at)
        frames = []
        for index, message in enumerate(messages):
            number = self._sent + 1
            try:
                if index >= room:
                    raise NotDurable(f"RabbitMQ does not keep up with what is published to {queue}", retry_after=1)
                if largest is not None and len(message.body) > largest:
                    raise NotDurable(f"RabbitMQ takes no message of more than {largest} bytes")
                headers = message.headers if message.key is None else {**message.headers, KEY: message.key}
                id = b"%b%d" % (self._id, number)
                frames.append(framing.publish(queue, headers, id, message.body, message.properties))
            except NotDurable as error:
                batch.outcomes[index] = error
            except ValueError as error:
                batch.outcomes[index] = NotDurable(f"AMQP cannot carry the message: {error}")
            else:
                self._sent = number
                self._unconfirmed[number] = (batch, index)
        if not frames:
            return succeed(batch.outcomes)
        batch.unconfirmed = len(frames)
        connection.write(b"".join(frames))
        if self._watching is None:
            self._watching = self._clock.callLater(self._seconds, self._watch)
        return batch.done

    def forget(self, queue: str) -> None:
        """The queue was deleted: one that is made in its place may confirm what is published to it."""
        self._late.pop(queue, None)

    def _room(self, queue: str, now: float) -> int:
        """How many messages for ``queue`` may be sent now."""
        room = MOST_UNCONFIRMED - len(self._unconfirmed)
        late = self._late.get(queue)
        if late is None or late.count < MOST_LATE:
            return room
        if now < late.again_at:
            return 0
        late.again_at = now + self._seconds
        return min(room, 1)

    def _confirmed(self, channel: Channel, frame: Any) -> None:
        if channel is not self._channel:
            return
        tag, multiple = frame.method.delivery_tag, frame.method.multiple
        refused = NotDurable("RabbitMQ refused the message: its queue is full") if _is_nack(frame) else None
        self._silent = False
        if multiple:
            numbers = list(takewhile(lambda number: number <= tag, self._unconfirmed))
        else:
            numbers = [tag] if tag in self._unconfirmed else []
        entries = [self._unconfirmed.pop(number) for number in numbers]
        if self._late:
            for batch, _ in entries:
                self._late.pop(batch.queue, None)
        _settle(entries, refused)

    def _returned(self, raw: Any, method: Any, properties: Any, body: bytes) -> None:
        if self._channel is None or raw is not self._channel.raw:
            return
        entry = self._unconfirmed.get(int(properties.message_id.rpartition("-")[2]))
        if entry is not None:
            batch, index = entry
            batch.outcomes[index] = ChannelMissing(batch.queue)
            self._missing(batch.queue)

    def _watch(self) -> None:
        """Fail what has waited for too long. A confirmation that comes later changes nothing."""
        self._watching = None
        now = self._clock.seconds()
        late = list(takewhile(lambda each: each[1][0].sent_at + self._seconds <= now, self._unconfirmed.items()))
        entries = [self._unconfirmed.pop(number) for number, _ in late]
        oldest = next(iter(self._unconfirmed.values()), None)
        if oldest is not None:
            self._watching = self._clock.callLater(oldest[0].sent_at + self._seconds - now, self._watch)
        if entries and not self._silent:
            self._look_into(entries[0][0].queue)
        for batch, _ in entries:
            self._late.setdefault(batch.queue, _Late()).count += 1
        _settle(entries, NotDurable(f"RabbitMQ did not confirm within {self._seconds:g} s"))

    @deferred
    async def _look_into(self, queue: str) -> None:
        """Find out whether it is RabbitMQ that does not answer, or only ``queue``.

        A queue that has lost its leader confirms nothing; mostly RabbitMQ goes on with the others. But a first message
        to it on an AMQP channel holds that channel up for 65 seconds (3.10.8 and 4.0.5). Then another one is used, and
        a message to the queue is tried once in a while.
        """
        connection, channel = self._connection, self._channel
        if connection is None or channel is None or not channel.raw.is_open:
            return
        self._silent = True
        try:
            while channel is self._channel and self._silent:
                with suppress(TimeoutError):  # RabbitMQ itself does not answer
                    another = await self._open(connection)
                    if await self._answers(channel) or channel is not self._channel or not self._silent:
                        another.close()
                        return
                    channel.close()
                    self.down(f"RabbitMQ does not answer since a message was published to {queue}")
                    self._late[queue] = _Late(MOST_LATE, self._clock.seconds() + HELD_UP_SECONDS)
                    self._use(connection, another)
        except Exception as error:  # pika's: one of the channels is closed, and mostly so is the connection
            self._closed(connection, error)

    async def _answers(self, channel: Channel) -> bool:
        try:
            await channel.call("basic_qos", self._seconds)
        except TimeoutError:
            return False
        if channel is self._channel:
            self._silent = False
        return True

    def _closed(self, connection: Connection, error: Exception) -> None:
        if connection.is_open:  # else it is the connection that is lost
            self._lost(f"RabbitMQ has closed the channel: {describe(error)}")

    def _blocked(self, reason: str | None) -> None:
        self.blocked = reason


def _is_nack(frame: Any) -> bool:
    return bool(frame.method.NAME == "Basic.Nack")


def _settle(entries: Iterable[_Entry], failure: NotDurable | None) -> None:
    for batch, index in entries:
        if failure is not None and batch.outcomes[index] is None:
            batch.outcomes[index] = failure
        batch.unconfirmed -= 1
        if not batch.unconfirmed:
            batch.done.callback(batch.outcomes)


def _refused(messages: Sequence[Message], reason: NotDurable) -> Outcomes:
    return succeed([reason] * len(messages))


def _pass_on(answered: Answered, raw: Any, method: Any, properties: Any, body: bytes) -> None:
    answered(method, properties, body)
