# -*- test-case-name: tests.mqtt.test_foreign -*-
"""The session in which the messages of other programs come: topic filters, QoS 1, acknowledged by hand.

The broker keeps for the session what was published to its topics and not acknowledged, also while no process is
connected. It is never asked to keep more on its way than the window of the subscription: that is the receive maximum.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from openhqm.errors import NotDurable
from openhqm.interfaces.broker import IReceiver, ISubscription, Message
from openhqm.mqtt.client import Client
from openhqm.mqtt.connecting import describe
from openhqm.mqtt.deliveries import MQTTDelivery
from openhqm.mqtt.messages import from_foreign
from openhqm.mqtt.received import Received
from openhqm.runtime.reconnecting import Reconnecting

MOST_BUFFERED = 16 * 1024 * 1024
"""Bytes of bodies that wait here. Beyond that nothing more is read until half of them are gone."""
SHORTEST_ROUND = 120.0
"""In seconds. A broker that uses its 65,535 packet identifiers up in less sends too much for them to tell messages
apart."""
NOTHING = "openhqm/nothing"
"""A topic without a subscriber, to tell the broker that this client is there while it reads nothing."""


@implementer(ISubscription)
class TopicSubscription:
    """``connect`` makes a connection of the session: it is called with what takes each message."""

    def __init__(
        self,
        client_id: str,
        filters: Sequence[str],
        receiver: IReceiver,
        peer: str,
        clock: Any,
        random: Callable[[], float],
        connect: Callable[[Callable[[Received], None]], Deferred[Client]],
    ) -> None:
        self._filters = filters
        self._receiver = receiver
        self._clock = clock
        self._connect_client = connect
        self._client: Client | None = None
        self._buffer: deque[tuple[int, Message]] = deque()
        self._buffered = 0
        self._out: dict[MQTTDelivery, int] = {}
        self._most = 0
        self._stopped = False
        self._flowing = False
        self._was_subscribed = False
        self._last_identifier = 0
        self._round_began = clock.seconds()
        self._identifies = True
        self._link = Reconnecting(
            f"{peer} ({client_id})",
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
        return None if self._stopped else self._link.unavailable_reason

    def start(self) -> None:
        """Begin to connect."""
        self._link.start()

    def credit(self, most: int) -> None:
        self._most = most
        self._flow()

    def stop(self) -> Deferred[None]:
        # What is out can be acknowledged until the connection is closed, by `close`.
        self._stopped = True
        self._most = 0
        return succeed(None)

    def close(self) -> Deferred[None]:
        """End the connection. What is out, or waits here, is delivered again to the process that comes next."""
        self._stopped = True
        return self._link.stop()

    # The connection

    async def _connect(self) -> Client:
        client = await self._connect_client(self._received)
        self._client = client
        client.lost.addCallback(self._dropped)
        return client

    async def _up(self, client: Client) -> None:
        if client.is_5:
            from paho.mqtt.subscribeoptions import SubscribeOptions

            # What is retained comes with the first subscription of a session, and not with each connection.
            options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
        elif client.session_present and self._was_subscribed:
            return
        else:
            options = None
        for each in self._filters:
            # Not awaited: the answer comes after what the session holds.
            client.subscribe(each, options).addCallbacks(self._subscribed, self._not_subscribed, errbackArgs=(client,))

    def _subscribed(self, result: None) -> None:
        self._was_subscribed = True

    def _not_subscribed(self, failure: Failure, client: Client) -> None:
        failure.trap(NotDurable)
        # Later: where it is the connection that is over, that is known by then.
        self._clock.callLater(0, self._refused, failure.getErrorMessage(), client)

    def _refused(self, reason: str, client: Client) -> None:
        if client is self._client:
            self._link.reconnect(reason)

    def _dropped(self, reason: str) -> str:
        self._client = None
        self._buffer.clear()
        self._buffered = 0
        out, self._out = self._out, {}
        for delivery in out:
            delivery.revoke(reason)
        return reason

    # Messages

    def _received(self, came: Received) -> None:
        client = self._client
        if self._stopped or client is None:
            return  # it is not acknowledged, and comes to the next process
        read = from_foreign(came, self._identity(came), came.duplicate and client.session_present)
        self._buffer.append((came.mid, read))
        self._buffered += len(read.body)
        self._flow()
        if self._buffered > MOST_BUFFERED or len(self._buffer) > max(self._most, 1):
            client.pause(NOTHING)

    def _identity(self, came: Received) -> str | None:
        """Its packet identifier, unless another message has the same one soon after: MQTT has no more."""
        number = came.mid
        if not number:
            return None
        if number < self._last_identifier and not came.duplicate:
            now = self._clock.seconds()
            self._identifies = now - self._round_began > SHORTEST_ROUND
            self._round_began = now
        self._last_identifier = number
        return str(number) if self._identifies else None

    def _flow(self) -> None:
        if self._flowing:
            return
        self._flowing = True
        try:
            while self._buffer and len(self._out) < self._most:
                number, message = self._buffer.popleft()
                self._buffered -= len(message.body)
                delivery = MQTTDelivery(message, self._acknowledge)
                self._out[delivery] = number
                self._receiver.received(delivery)
        finally:
            self._flowing = False
        if self._client is not None and self._buffered <= MOST_BUFFERED // 2 and len(self._buffer) <= self._most // 2:
            self._client.resume()

    def _acknowledge(self, delivery: MQTTDelivery) -> bool:
        number = self._out.pop(delivery, None)
        if number is None or self._client is None:
            return False  # its connection is over
        self._client.acknowledge(number)
        if self._buffer:
            self._flow()
        return True
