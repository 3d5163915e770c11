# -*- test-case-name: tests.mqtt.test_foreign -*-
"""Answers to messages that were published: by their correlation data, or by the topic alone.

A client of MQTT 3.1.1 has no correlation data: what it publishes to a topic answers the oldest message that waits for
one there.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from openhqm.errors import NotDurable
from openhqm.interfaces import Message
from openhqm.mqtt.client import Client
from openhqm.mqtt.connecting import too_late
from openhqm.mqtt.messages import from_foreign
from openhqm.mqtt.received import Received

SUBSCRIBE_SECONDS = 5.0
MOST_TOPICS = 1000


class Answers:
    """Those that come over the connection that publishes. Their topics are subscribed to while a message waits there,
    and after that until more than `MOST_TOPICS` are. What comes in ``own`` without correlation data answers nothing: no
    device is told of that topic without them.
    """

    def __init__(self, clock: Any, own: str) -> None:
        self._clock = clock
        self.own = own
        self._client: Client | None = None
        self._waiting: dict[str, dict[bytes, Deferred[Message]]] = {}
        self._subscribed: set[str] = set()

    def up(self, client: Client) -> None:
        """Subscribe over this connection from now on."""
        self._client = client
        self._subscribed.clear()
        for topic, waiting in self._waiting.items():
            if waiting:
                self._subscribe(topic).addErrback(_is_tried_again)

    def down(self) -> None:
        """There is no connection. What waits goes on waiting: an answer may come with the next one."""
        self._client = None
        self._subscribed.clear()

    def expect(self, topic: str, correlation: bytes) -> tuple[Deferred[None], Deferred[Message]]:
        """Fires once the answer would be received, and then with the answer. Cancel the second one to give it up."""
        if len(self._waiting) >= MOST_TOPICS:
            self._drop_unused()
        waiting = self._waiting.setdefault(topic, {})

        def forget(answer: Deferred[Message]) -> None:
            if waiting.get(correlation) is answer:
                del waiting[correlation]

        answer: Deferred[Message] = Deferred(forget)
        waiting[correlation] = answer
        return self._subscribe(topic), answer

    def _subscribe(self, topic: str) -> Deferred[None]:
        client = self._client
        if client is None:
            return fail(NotDurable("not connected to the MQTT broker"))
        if topic in self._subscribed:
            return succeed(None)
        subscribing = client.subscribe(topic).addTimeout(SUBSCRIBE_SECONDS, self._clock, too_late)
        return subscribing.addCallback(lambda _: self._note(client, topic))

    def _note(self, client: Client, topic: str) -> None:
        if client is self._client:
            self._subscribed.add(topic)

    def _drop_unused(self) -> None:
        for topic in [each for each, waiting in self._waiting.items() if not waiting]:
            del self._waiting[topic]
            if topic in self._subscribed and self._client is not None:
                self._subscribed.discard(topic)
                self._client.unsubscribe(topic).addErrback(_is_tried_again)

    def received(self, came: Received) -> None:
        """A message has come over the connection."""
        client = self._client
        if client is not None:
            client.acknowledge(came.mid)
        waiting = self._waiting.get(came.topic)
        if not waiting or came.retained:  # a retained message is older than the question
            return
        correlation = came.correlation
        if correlation is None and came.topic == self.own:
            return
        answer = waiting.pop(next(iter(waiting)) if correlation is None else correlation, None)
        if answer is not None and came.fault is not None:
            answer.errback(NotDurable(f"its answer cannot be read: {came.fault}"))
        elif answer is not None:
            answer.callback(from_foreign(came, None, came.duplicate))


def _is_tried_again(failure: Failure) -> None:
    """With the next connection, or the next question."""
    failure.trap(NotDurable)
