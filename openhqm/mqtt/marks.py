# -*- test-case-name: tests.mqtt.test_broker,tests.mqtt.test_contract -*-
"""Which channels there are, and which process consumes from one: what MQTT itself does not tell.

A channel is a session that is kept for a topic. Whether there is one cannot be asked without taking it over from the
process that has it. So beside each channel, in ``CHANNEL/made``, lies a retained message: the mark. It names the client
id that the session belongs to: a second session would get a copy of each message. A broker that has lost its sessions
has lost its marks, too.

The process that consumes from a channel subscribes to ``CHANNEL/taken``, over a connection whose subscriptions end with
it. Another process asks there before it takes the session over, and has an answer in ``CHANNEL/held``; on MQTT 5 it is
told at once where the topic has no subscriber.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, TimeoutError, execute, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.errors import NotDurable
from openhqm.mqtt.address import topic_fault
from openhqm.mqtt.client import Client
from openhqm.mqtt.connecting import too_late
from openhqm.mqtt.reason_codes import NO_SUBSCRIBERS
from openhqm.mqtt.received import Received
from openhqm.runtime.deferreds import deferred

T = TypeVar("T")

MADE, TAKEN, HELD, NOTHING = "/made", "/taken", "/held", "/nothing"
ASK_SECONDS = 10.0
ANSWER_SECONDS = 1.0
"""How long a process has for its answer that it consumes from a channel."""


class Marks:
    """``owner`` is the client id of our sessions. ``gone`` is called with a channel whose mark another program
    has taken away.
    """

    _log = Logger()

    def __init__(self, owner: str, clock: Any, gone: Callable[[str], None]) -> None:
        self._owner = owner.encode()
        self._clock = clock
        self._gone = gone
        self._client: Client | None = None
        self._there: dict[str, bytes] = {}  # what lies in the mark; empty: there is none
        self._asking: dict[str, list[Deferred[bool]]] = {}
        self._taken: set[str] = set()
        self._answers: dict[str, Deferred[None]] = {}

    async def up(self, client: Client) -> None:
        """Ask over this connection from now on."""
        self._client = client
        for channel in self._taken:
            await self._answer(client.subscribe(channel + TAKEN))

    def down(self) -> None:
        """There is no connection: what was known may not be so any more."""
        self._client = None
        self._there.clear()

    # Whether there is a channel

    def there(self, channel: str) -> Deferred[bool]:
        """Whether there is such a channel, as far as the broker has said. `NotDurable` where that is not known.

        Callers hear in their order.
        """
        if topic_fault(channel) is not None:
            return succeed(False)
        if channel in self._there and channel not in self._asking:
            return execute(self._is_ours, channel)
        return self.ask(channel)

    def ask(self, channel: str) -> Deferred[bool]:
        """The same, and the broker is asked: what it tells by itself may be on its way."""
        if topic_fault(channel) is not None:
            return succeed(False)
        waiting: Deferred[bool] = Deferred()
        asking = self._asking.setdefault(channel, [])
        asking.append(waiting)
        if len(asking) == 1:
            self._ask(channel).addBoth(self._told, channel)
        return waiting

    @deferred
    async def _ask(self, channel: str) -> bool:
        client = self._connection()
        was = self._there.pop(channel, b"")
        await self._answer(client.subscribe(channel + MADE))
        await self._answer(
            client.unsubscribe(channel + NOTHING)
        )  # the mark has come by the time of the answer, if there is one
        if client is not self._client:
            raise NotDurable("the connection was lost")
        if not self._there.setdefault(channel, b"") and was:
            self._gone(channel)
        return self._is_ours(channel)

    def _is_ours(self, channel: str) -> bool:
        owner = self._there[channel]
        if owner not in (b"", self._owner):
            raise NotDurable(
                f"{channel} is kept for the client id {owner[:80].decode(errors='replace')!r}: processes that share a "
                "queue need the same client id, and installations that share a broker need prefixes that differ"
            )
        return bool(owner)

    def _told(self, result: bool | Failure, channel: str) -> None:
        if isinstance(result, Failure) and not result.check(NotDurable):
            self._log.failure("asking for channel {channel} broke down", result, channel=channel)
            result = Failure(NotDurable(str(result.value)))
        for waiting in self._asking.pop(channel):
            if not waiting.called:
                waiting.callback(result)

    @deferred
    async def make(self, channel: str) -> None:
        """Put the mark there. `NotDurable`."""
        await self._answer(self._connection().publish(channel + MADE, self._owner, retain=True))
        self._there[channel] = self._owner

    @deferred
    async def clear(self, channel: str) -> None:
        """Take the mark away: the channel has no session any more. `NotDurable`."""
        client = self._connection()
        self._there[channel] = b""
        await self._answer(client.publish(channel + MADE, b"", retain=True))

    # Which process consumes from it

    @deferred
    async def take(self, channel: str) -> bool:
        """Whether this process may consume from the channel: no other one does. `NotDurable`."""
        client = self._connection()
        if await self._answer(client.publish(channel + TAKEN, b"?")) != NO_SUBSCRIBERS and await self._is_held(
            client, channel
        ):
            return False
        self._taken.add(channel)
        await self._answer(client.subscribe(channel + TAKEN))
        return True

    async def _is_held(self, client: Client, channel: str) -> bool:
        answer = self._answers[channel] = Deferred()
        await self._answer(client.subscribe(channel + HELD))
        try:
            await self._answer(client.publish(channel + TAKEN, b"?"))
            await answer.addTimeout(ANSWER_SECONDS, self._clock)
        except TimeoutError:
            return False
        finally:
            del self._answers[channel]
            client.unsubscribe(channel + HELD).addErrback(_is_over_with_the_connection)
        return True

    def leave(self, channel: str) -> None:
        """This process consumes from the channel no more."""
        if channel in self._taken:
            self._taken.remove(channel)
            if self._client is not None:
                self._client.unsubscribe(channel + TAKEN).addErrback(_is_over_with_the_connection)

    # What comes

    def received(self, came: Received) -> None:
        """A message has come over the connection."""
        channel, slash, kind = came.topic.rpartition("/")
        kind = slash + kind
        if kind == MADE:
            was, self._there[channel] = self._there.get(channel), came.payload
            if was and not came.payload:
                self._gone(channel)
        elif kind == TAKEN and channel in self._taken and self._client is not None:
            self._client.publish(channel + HELD, b"!").addErrback(_is_over_with_the_connection)
        elif kind == HELD and channel in self._answers and not self._answers[channel].called:
            self._answers[channel].callback(None)
        if self._client is not None:
            self._client.acknowledge(came.mid)

    def _answer(self, answer: Deferred[T]) -> Deferred[T]:
        return answer.addTimeout(ASK_SECONDS, self._clock, too_late)

    def _connection(self) -> Client:
        if self._client is None:
            raise NotDurable("not connected to the MQTT broker")
        return self._client


def _is_over_with_the_connection(failure: Failure) -> None:
    """The broker forgets the subscription, or the answer, with the connection."""
    failure.trap(NotDurable)
