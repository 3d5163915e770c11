# -*- test-case-name: tests.mqtt.test_broker,tests.mqtt.test_contract -*-
"""Publishing with QoS 1: each message has its own PUBACK, and a time by which it must be there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from openhqm.errors import NotDurable
from openhqm.interfaces.broker import ChannelMissing, Message, Properties
from openhqm.mqtt.address import LARGEST_PACKET, topic_fault
from openhqm.mqtt.client import Client
from openhqm.mqtt.marks import NOTHING
from openhqm.mqtt.messages import to_payload
from openhqm.mqtt.reason_codes import NO_SUBSCRIBERS

Outcomes = Deferred[Sequence[NotDurable | None]]
"""In bytes: what the length of a packet can say (MQTT 5, section 1.5.5)."""
OVERHEAD = 512
"""Of a packet, besides the body: its topic, and the headers of a request."""
_PROPERTY = 5
"""Bytes of a user property, besides its name and value."""


class _Batch:
    """Messages that were asked for together; ``done`` fires once each has its outcome."""

    def __init__(self, channel: str, count: int) -> None:
        self.channel = channel
        self.done: Outcomes = Deferred()  # where it is cancelled, the messages are published all the same
        self._outcomes: list[NotDurable | None] = [None] * count
        self._open = set(range(count))
        self.deadline: Any = None

    def settle(self, index: int, outcome: NotDurable | None) -> None:
        """What became of one message. What is heard after the deadline changes nothing."""
        if index in self._open:
            self._open.remove(index)
            self._outcomes[index] = outcome
            if not self._open:
                if self.deadline is not None and self.deadline.active():
                    self.deadline.cancel()
                if not self.done.called:
                    self.done.callback(self._outcomes)

    def fail(self, reason: NotDurable) -> None:
        """The same for all that have no outcome yet."""
        for index in list(self._open):
            self.settle(index, reason)


class KnownTopics(Protocol):
    """What knows whether a topic has a session that keeps what is published into it."""

    def there(self, channel: str) -> Deferred[bool]:
        """Whether it has one."""

    def clear(self, channel: str) -> Deferred[None]:
        """It has none any more."""


class Publisher:
    """``seconds`` is how long a PUBACK may take. ``expiry``: after how many seconds the broker drops a message that it
    could not deliver (MQTT 5); None: never.
    """

    def __init__(self, clock: Any, seconds: float, marks: KnownTopics, expiry: int | None) -> None:
        self._clock = clock
        self._seconds = seconds
        self._marks = marks
        self._expiry = expiry
        self._client: Client | None = None
        self._silent = False

    @property
    def unavailable_reason(self) -> str | None:
        """Why nothing can be published although there is a connection, or None."""
        return "the MQTT broker does not answer" if self._silent else None

    def up(self, client: Client) -> None:
        """Publish over this connection from now on."""
        self._client, self._silent = client, False

    def down(self) -> None:
        """There is no connection. What waits has failed with it."""
        self._client, self._silent = None, False

    @property
    def largest_message(self) -> int | None:
        """The most bytes of a body, where the broker has said that; else None."""
        said = None if self._client is None else self._client.properties.get("MaximumPacketSize")
        return None if said is None else max(0, int(said) - OVERHEAD)

    def publish(self, channel: str, messages: Sequence[Message]) -> Outcomes:
        """See `openhqm.interfaces.broker.IBroker.publish`."""
        client, fault = self._client, topic_fault(channel)
        if fault is not None:
            return _refused(messages, f"{channel[:80]!r} {fault}: it cannot be a topic")
        if client is None:
            return _refused(messages, "not connected to the MQTT broker")
        if self.unavailable_reason is not None:
            return _refused(messages, self.unavailable_reason)
        if not messages:
            return succeed([])
        batch = _Batch(channel, len(messages))
        batch.deadline = self._clock.callLater(self._seconds, self._too_late, batch)
        there = self._marks.there(channel)
        there.addCallback(self._send, client, batch, messages).addErrback(_not_sent, batch)
        return batch.done

    def _send(self, there: bool, client: Client, batch: _Batch, messages: Sequence[Message]) -> None:
        if not there:
            batch.fail(ChannelMissing(batch.channel))
            return
        if not batch.deadline.active():
            return
        for index, message in enumerate(messages):
            refusal = self._refusal(client, batch.channel, message)
            if refusal is not None:
                batch.settle(index, NotDurable(refusal))
                continue
            payload, properties = to_payload(message, client.is_5, self._expiry)
            about = message.properties
            if about is None:
                sent = client.publish(batch.channel, payload, properties)
            else:
                sent = client.publish(batch.channel, payload, properties, retain=about.retained, qos=about.qos)
                if about.retained:  # the broker has kept it, whether or not there is a subscriber now
                    sent.addCallback(lambda code: 0)
            sent.addCallbacks(self._confirmed, _failed, (batch, index), errbackArgs=(batch, index))

    def _refusal(self, client: Client, channel: str, message: Message) -> str | None:
        largest = self.largest_message
        if largest is not None and len(message.body) > largest:
            return f"the MQTT broker takes no message of more than {largest} bytes"
        most = client.properties.get("MaximumPacketSize", LARGEST_PACKET)
        texts = [channel, message.key or "", *message.headers.keys(), *message.headers.values()]
        about = message.properties or Properties()
        texts += [about.content_type or "", about.reply_to or ""]
        try:
            size = sum(len(text.encode()) + _PROPERTY for text in texts) + len(message.body) + 2 * _PROPERTY
            size += len(about.correlation or b"")
        except UnicodeEncodeError:
            return "a header of the message is not UTF-8"
        if size > most:
            return f"with its headers the message takes more than the {most} bytes of the broker's largest packet"
        if any(len(text.encode()) > 65_535 for text in texts):
            return "a header of the message has more than 65535 bytes"
        return None

    def _confirmed(self, code: int, batch: _Batch, index: int) -> None:
        self._silent = False
        if code == NO_SUBSCRIBERS:  # the broker has dropped it: the session of the channel has ended
            self._marks.clear(batch.channel).addErrback(_is_noticed_again)
            batch.settle(index, ChannelMissing(batch.channel))
        else:
            batch.settle(index, None)

    def _answered(self, result: None, client: Client) -> None:
        if client is self._client:
            self._silent = False

    def _too_late(self, batch: _Batch) -> None:
        client = self._client
        if client is not None and not self._silent:
            self._silent = True
            # Maybe nothing of the batch was sent, and no PUBACK comes: ask for an answer of any kind.
            client.unsubscribe(batch.channel + NOTHING).addCallbacks(self._answered, _is_over, (client,))
        batch.fail(NotDurable(f"the MQTT broker did not confirm within {self._seconds:g} s"))


def _is_over(failure: Failure) -> None:
    """The connection is: the next one begins afresh."""
    failure.trap(NotDurable)


def _failed(failure: Failure, batch: _Batch, index: int) -> None:
    failure.trap(NotDurable)
    batch.settle(index, NotDurable(failure.getErrorMessage()))


def _not_sent(failure: Failure, batch: _Batch) -> None:
    error = failure.value
    batch.fail(error if isinstance(error, NotDurable) else NotDurable(f"{type(error).__name__}: {error}"))


def _is_noticed_again(failure: Failure) -> None:
    """The mark stays: the next message has no subscriber, either."""
    failure.trap(NotDurable)


def _refused(messages: Sequence[Message], reason: str) -> Outcomes:
    return succeed([NotDurable(reason)] * len(messages))
