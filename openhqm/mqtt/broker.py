# -*- test-case-name: tests.mqtt.test_contract,tests.mqtt.test_broker -*-
"""MQTT as an `IBroker`: a topic and a kept session for each channel, QoS 1, every publish confirmed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredList, fail, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from openhqm.errors import NotDurable
from openhqm.interfaces.broker import Acks, BrokerTraits, DepthKind, IBroker, IReceiver, ISubscription, Message
from openhqm.mqtt.address import Address, topic_fault
from openhqm.mqtt.client import NEVER_EXPIRES, Client
from openhqm.mqtt.connecting import describe, too_late
from openhqm.mqtt.marks import Marks
from openhqm.mqtt.publishing import Publisher
from openhqm.mqtt.received import Received
from openhqm.mqtt.session import LARGEST_BATCH, MOST_UNACKNOWLEDGED, Session
from openhqm.runtime.deferreds import deferred
from openhqm.runtime.reconnecting import Reconnecting
from openhqm.runtime.threads import Threads

MOST_THREADS = 4
CONNECT_SECONDS = 5.0
STOPPED = "the client was stopped"


@implementer(IBroker)
class MQTTBroker:
    """The channels of one MQTT broker.

    One connection publishes and asks; its session ends with it. Each channel that is consumed from has one of its own,
    under the client id ``client_id/CHANNEL``, whose session is kept. ``keeps`` is how many messages the broker holds
    for a session. ``seconds`` is how long a PUBACK may take, ``expiry`` after how many the broker drops a message (MQTT
    5; None: never). ``random`` is as `random.random`.
    """

    def __init__(
        self,
        address: Address,
        client_id: str,
        reactor: Any,
        random: Callable[[], float],
        *,
        seconds: float,
        keeps: int | None,
        expiry: int | None = None,
    ) -> None:
        self.traits = BrokerTraits(
            acks=Acks.IN_ORDER,
            requeues=False,
            counts_redeliveries=False,
            keeps=keeps,
            largest_batch=LARGEST_BATCH,
            competing_consumers=False,
            depth=DepthKind.NONE,
        )
        self.on_connected: list[Callable[[], object]] = []
        self._address = address
        self._client_id = client_id
        self._reactor = reactor
        self._random = random
        self._threads = Threads(reactor, "mqtt", MOST_THREADS)
        self._marks = Marks(client_id, reactor, self._gone)
        self._publisher = Publisher(reactor, seconds, self._marks, expiry)
        self._sessions: dict[str, Session] = {}
        self._closing: dict[str, Deferred[None]] = {}
        self._warnings: list[str] = []
        self._stopped = False
        self._making: set[Deferred[None]] = set()
        self._link = Reconnecting(
            str(address), reactor, random, connect=self._connect, up=self._up, down=self._down, describe=describe
        )

    @property
    def unavailable_reason(self) -> str | None:
        return self._link.unavailable_reason or self._publisher.unavailable_reason

    @property
    def warnings(self) -> Sequence[str]:
        """What of the broker's own settings breaks a promise, and which channels cannot be consumed from."""
        found = [session.warning for session in self._sessions.values()] if self._link.connection is not None else []
        return [*self._warnings, *(warning for warning in found if warning is not None)]

    def start(self) -> Deferred[None]:
        self._threads.start()
        self._link.start()
        return succeed(None)

    def when_probed(self) -> Deferred[None]:
        return self._link.when_probed()

    @deferred
    async def stop(self) -> None:
        was_stopped, self._stopped = self._stopped, True
        for making in list(self._making):
            making.cancel()
        closing = [session.close(STOPPED) for session in list(self._sessions.values())]
        closing += self._closing.values()  # and those that were left a moment ago
        await DeferredList(closing, consumeErrors=True)
        await self._link.stop()
        if not was_stopped:
            self._threads.stop()

    def publish(self, channel: str, messages: Sequence[Message]) -> Deferred[Sequence[NotDurable | None]]:
        return self._publisher.publish(channel, messages)

    def consume(self, channel: str, receiver: IReceiver) -> ISubscription:
        session = self._sessions.get(channel)
        if session is not None:
            return session.serve(receiver)
        session = self._sessions[channel] = Session(
            channel,
            str(self._address),
            self._reactor,
            self._random,
            self._marks,
            lambda received: self._connect_session(channel, received, MOST_UNACKNOWLEDGED),
            self._ended,
            self.publish,
        )

        def start(result: None) -> None:
            # Without the first connection it could only fail, which would be no failure.
            self._link.when_probed().addCallback(lambda _: session.start())

        (self._closing.get(channel) or succeed(None)).addCallback(start)
        return session.serve(receiver)

    def ensure(self, channel: str) -> Deferred[None]:
        if self._stopped:
            return fail(NotDurable(STOPPED))
        making = self._ensure(channel)
        self._making.add(making)
        return making.addBoth(self._made, making)

    def _made(self, result: Failure | None, making: Deferred[None]) -> Failure | None:
        self._making.discard(making)
        if self._stopped and isinstance(result, Failure) and result.check(CancelledError):
            return Failure(NotDurable(STOPPED))
        return result

    @deferred
    async def _ensure(self, channel: str) -> None:
        fault = topic_fault(channel)
        if fault is not None:
            raise NotDurable(f"{channel[:80]!r} {fault}: it cannot be a topic")
        if await self._marks.ask(channel):
            return
        # What lies in a session that was not marked stays, and comes to the next process.
        client = await self._connect_session(channel, lambda message: None, 1)
        try:
            await client.subscribe(channel).addTimeout(CONNECT_SECONDS, self._reactor, too_late)
            client.close()
            await client.lost.addTimeout(CONNECT_SECONDS, self._reactor, too_late)
        finally:
            client.abort()
        # Not before: nothing may be published into it while this connection would receive it.
        await self._marks.make(channel)

    def exists(self, channel: str) -> Deferred[bool]:
        return self._marks.ask(channel)

    def depth(self, channel: str) -> Deferred[int | None]:
        return self.exists(channel).addCallback(lambda _: None)

    # Connections

    def _connect(self) -> Deferred[Client]:
        name = f"{self._client_id}/{int(self._random() * 2**53):x}"
        client = Client(self._address, name, self._reactor, self._marks.received)
        return client.connect(self._threads.run, CONNECT_SECONDS)

    def _connect_session(
        self, channel: str, received: Callable[[Received], None], receive_maximum: int
    ) -> Deferred[Client]:
        client = Client(
            self._address,
            f"{self._client_id}/{channel}",
            self._reactor,
            received,
            session=True,
            receive_maximum=receive_maximum,
        )
        return client.connect(self._threads.run, CONNECT_SECONDS).addCallback(self._look_at)

    def _look_at(self, client: Client) -> Client:
        """What the broker has said of the session."""
        kept = client.properties.get("SessionExpiryInterval", NEVER_EXPIRES)
        if kept < NEVER_EXPIRES:
            self._warnings = [f"the MQTT broker forgets a session after {kept} s without a connection: raise that"]
        return client

    async def _up(self, client: Client) -> None:
        await self._marks.up(client)
        self._publisher.up(client)
        self.traits = attrs.evolve(self.traits, largest_message=self._publisher.largest_message)
        self._reactor.callLater(0, self._connected)

    def _down(self, reason: str) -> None:
        self._marks.down()
        self._publisher.down()

    def _connected(self) -> None:
        if self._link.connection is not None:
            for call in self.on_connected:
                call()

    # Sessions

    def _gone(self, channel: str) -> None:
        session = self._sessions.get(channel)
        if session is not None:
            session.lose(f"{channel} was deleted")

    def _ended(self, session: Session, closed: Deferred[None]) -> None:
        channel = session.channel
        if self._sessions.get(channel) is session:
            del self._sessions[channel]
        if not closed.called:
            self._closing[channel] = closed
            closed.addCallback(lambda _: self._closed(channel, closed))

    def _closed(self, channel: str, closed: Deferred[None]) -> None:
        if self._closing.get(channel) is closed:
            del self._closing[channel]
