# -*- test-case-name: tests.mqtt.test_broker,tests.mqtt.test_contract -*-
"""The session of one channel, and what this process has out of it.

The broker keeps for the session what is published into the channel's topic, and what was delivered and not
acknowledged, for as long as it takes until a process comes back for it. One process at a time is connected to it.

Credit is a window of this process. The receive maximum bounds what comes beyond it; that waits here, and is the
broker's again when the connection ends.

Mosquitto confirms what it has not written down yet, and has lost the last of it when it is killed. What this process
had in hand it would have sent again first (MQTT 5, section 4.4): what it does not send is published again from here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from openhqm.errors import NotDurable
from openhqm.interfaces.broker import IReceiver, ISubscription, Message
from openhqm.mqtt.client import Client
from openhqm.mqtt.connecting import describe
from openhqm.mqtt.deliveries import MQTTDelivery
from openhqm.mqtt.in_doubt import InDoubt
from openhqm.mqtt.marks import NOTHING, Marks
from openhqm.mqtt.messages import from_own
from openhqm.mqtt.received import Received
from openhqm.runtime.deferreds import deferred
from openhqm.runtime.reconnecting import Reconnecting

LARGEST_BATCH = 100
MOST_UNACKNOWLEDGED = 8000
"""How many messages the broker may send for a channel that were not acknowledged: the receive maximum. One that is
worked on for long holds up the acknowledgements of all that came after it, and those must not hold up the next ones.
"""
MOST_BUFFERED = 16 * 1024 * 1024
"""Bytes of bodies that wait here. Beyond that nothing more is read until half of them are gone."""
RESENT_SECONDS = 0.3
"""How long nothing must have come before the broker is taken to have sent again all that it will. It sends that first,
so that a message that was not sent before says the same."""
STANDING_BY = "another process consumes from it, and this one stands by"


@implementer(ISubscription)
class Subscription:
    """One receiver of a session. After it has stopped, the next one has the same session."""

    def __init__(self, session: Session, receiver: IReceiver) -> None:
        self.receiver = receiver
        self.most = 0
        self.out = 0
        self._session = session

    def credit(self, most: int) -> None:
        self.most = most
        self._session.flow()

    def stop(self) -> Deferred[None]:
        return self._session.leave(self)


class Session:
    """``connect`` makes a connection of the session: it is called with what takes each message. ``ended`` is called
    when the session is of no use here any more, because it was left or its channel is gone, and with what fires once
    its connection is closed.
    """

    _log = Logger()

    def __init__(
        self,
        channel: str,
        peer: str,
        clock: Any,
        random: Callable[[], float],
        marks: Marks,
        connect: Callable[[Callable[[Received], None]], Deferred[Client]],
        ended: Callable[[Session, Deferred[None]], None],
        publish: Callable[[str, Sequence[Message]], Deferred[Sequence[NotDurable | None]]],
    ) -> None:
        self.channel = channel
        self.over = False
        self._clock = clock
        self._marks = marks
        self._connect_client = connect
        self._ended = ended
        self._publish = publish
        self._client: Client | None = None
        self._subscription: Subscription | None = None
        self._buffer: deque[tuple[int, Message]] = deque()
        self._buffered = 0
        self._out: dict[MQTTDelivery, tuple[int, Subscription]] = {}
        self._flowing = False
        self._in_doubt = InDoubt()
        self._heard_at = 0.0
        self._looking: Any = None
        self._link = Reconnecting(
            f"{peer} ({channel[:80]!r})",
            clock,
            random,
            connect=self._connect,
            up=self._up,
            down=lambda reason: None,
            describe=describe,
        )

    @property
    def warning(self) -> str | None:
        """Why nothing comes, or None."""
        reason = self._link.unavailable_reason
        return None if self.over or reason is None else f"{self.channel} cannot be consumed from: {reason}"

    def serve(self, receiver: IReceiver) -> Subscription:
        """Deliver to ``receiver`` from now on."""
        self._subscription = Subscription(self, receiver)
        self._clock.callLater(0, self.flow)  # not inside `consume`
        return self._subscription

    # The connection

    def start(self) -> None:
        """Begin to connect."""
        if not self.over:
            self._link.start()

    async def _connect(self) -> Client:
        if not await self._marks.there(self.channel):
            raise self._missing("the MQTT broker has no such channel")
        if not await self._marks.take(self.channel):
            self._in_doubt.clear()  # that process has them now
            raise NotDurable(STANDING_BY)
        try:
            client = await self._connect_client(self._received)
        except BaseException:
            self._marks.leave(self.channel)
            raise
        self._client = client
        client.lost.addCallback(self._dropped)
        if client.session_present:
            return client
        client.abort()
        self._in_doubt.clear()  # the ledger knows what was lost with the channel
        await self._marks.clear(self.channel)
        raise self._missing("its session has ended, and the MQTT broker has forgotten what was in it")

    async def _up(self, client: Client) -> None:
        # Not awaited: the answer comes after what the session holds.
        client.subscribe(self.channel).addErrback(self._not_subscribed, client)
        self._look_later()

    def _not_subscribed(self, failure: Failure, client: Client) -> None:
        failure.trap(NotDurable)
        if client is self._client:
            self._link.reconnect(failure.getErrorMessage())

    def _dropped(self, reason: str) -> str:
        """The connection is over."""
        self._client = None
        self._marks.leave(self.channel)
        out, self._out = self._out, {}
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        if not self.over:
            self._in_doubt.add(delivery.message for delivery in out)
            self._in_doubt.add(message for _, message in self._buffer)
        self._buffer.clear()
        self._buffered = 0
        for delivery, (_, subscription) in out.items():
            subscription.out -= 1
            delivery.revoke(reason)
        self._close_if_left()
        return reason

    def _missing(self, reason: str) -> NotDurable:
        self._clock.callLater(0, self.lose, reason)
        return NotDurable(reason)

    # Messages

    def _received(self, came: Received) -> None:
        if self.over:
            return
        read = from_own(came)
        if self._in_doubt:
            self._heard_at = self._clock.seconds()
            if (
                not self._in_doubt.remove(read) and not came.duplicate
            ):  # the first that is new: what was to come before it has come
                self._heard_at = 0.0
                self._clock.callLater(0, self._look)
        if came.qos or len(self._buffer) < MOST_UNACKNOWLEDGED:  # QoS 0 is at most once, and nothing bounds it
            self._buffer.append((came.mid, read))
            self._buffered += len(read.body)
            self.flow()
            if self._buffered > MOST_BUFFERED and self._client is not None:
                self._client.pause(self.channel + NOTHING)

    def _look_later(self) -> None:
        if self._in_doubt and self._client is not None and self._looking is None:
            self._looking = self._clock.callLater(RESENT_SECONDS, self._look)

    def _look(self) -> None:
        if self._looking is not None and self._looking.active():
            self._looking.cancel()
        self._looking = None
        if self._client is None:
            return
        if self._clock.seconds() - self._heard_at < RESENT_SECONDS:
            self._look_later()
        elif self._in_doubt:
            self._publish_lost()

    @deferred
    async def _publish_lost(self) -> None:
        """Publish again what was in hand when the connection was lost, and was not sent again."""
        lost = self._in_doubt.clear()
        text = "{channel}: the MQTT broker has lost {count} messages that it had delivered; they are published again"
        self._log.warn(text, channel=self.channel, count=len(lost))
        for start in range(0, len(lost), LARGEST_BATCH):
            batch = lost[start : start + LARGEST_BATCH]
            outcomes = await self._publish(self.channel, batch)
            self._in_doubt.add(each for each, outcome in zip(batch, outcomes, strict=True) if outcome is not None)
        self._look_later()

    def flow(self) -> None:
        """Deliver what the credit allows."""
        if self._flowing:
            return
        self._flowing = True
        try:
            while self._buffer and (subscription := self._subscription) and subscription.out < subscription.most:
                mid, message = self._buffer.popleft()
                self._buffered -= len(message.body)
                delivery = MQTTDelivery(message, self._acknowledge)
                self._out[delivery] = mid, subscription
                subscription.out += 1
                subscription.receiver.received(delivery)
        finally:
            self._flowing = False
        if self._buffered <= MOST_BUFFERED // 2 and self._client is not None:
            self._client.resume()

    def _acknowledge(self, delivery: MQTTDelivery) -> bool:
        mid, subscription = self._out.pop(delivery, (0, None))
        if subscription is None or self._client is None:
            return False
        self._client.acknowledge(mid)
        subscription.out -= 1
        self.flow()
        self._close_if_left()
        return True

    # The end

    def leave(self, subscription: Subscription) -> Deferred[None]:
        """Deliver nothing more to this one. What it has stays out; without anything out the connection is closed."""
        subscription.most = 0
        if self._subscription is subscription:
            self._subscription = None
        return succeed(None) if self._out or self._subscription is not None else self.close("it was left")

    def _close_if_left(self) -> None:
        if self._subscription is None and not self._out and not self.over:
            self.close("it was left")

    def lose(self, reason: str) -> None:
        """The channel is gone."""
        subscription, self._subscription = self._subscription, None
        if not self.over:
            self.close(reason)
            if subscription is not None:
                subscription.receiver.lost(reason)

    def close(self, reason: str) -> Deferred[None]:
        """End the connection. What is out is delivered again, to the process that comes next. It does not fail."""
        if self.over:
            return succeed(None)
        self.over = True
        out, self._out = self._out, {}
        self._buffer.clear()
        self._buffered = 0
        closed = self._link.stop()
        self._ended(self, closed)
        for delivery in out:
            delivery.revoke(reason)
        return closed
