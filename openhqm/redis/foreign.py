# -*- test-case-name: tests.redis.test_foreign -*-
"""Streams of Redis that other programs use: read by a consumer group, and added to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred, DeferredList, succeed
from zope.interface import implementer

from openhqm.errors import NotDurable
from openhqm.interfaces import Acks, IForeignBroker, IReceiver, ISubscription, Message, Properties
from openhqm.policy.field_text import readable
from openhqm.redis.address import Address, stream_fault
from openhqm.redis.answers import StreamAnswers
from openhqm.redis.driver import factory, is_refusal
from openhqm.redis.errors import refusal
from openhqm.redis.reconnecting import Reconnecting
from openhqm.redis.streams import BLOCK_SECONDS, StreamSubscription
from openhqm.runtime.answers import is_given_up
from openhqm.runtime.deferreds import deferred

OWN_FIELDS = frozenset(("payload", "content_type", "correlation", "reply_to"))


@implementer(IForeignBroker)
class RedisStreams:
    """The streams of the Redis at ``address``. Keys that begin with ``prefix`` may be those of a queue of ours.

    ``seconds`` is how long an answer may take. ``random`` is as `random.random`. ``deletes``: an entry that is
    acknowledged is deleted, because no other group reads the streams.
    """

    acks = Acks.EACH

    def __init__(
        self,
        address: Address,
        prefix: str,
        reactor: Any,
        random: Callable[[], float],
        *,
        seconds: float,
        deletes: bool = False,
    ) -> None:
        self._deletes = deletes
        self._address = address
        self._prefix = prefix
        self._reactor = reactor
        self._random = random
        self._seconds = seconds
        self._subscriptions: list[StreamSubscription] = []
        self._link = self._new_link(0.0)
        self.when_probed = self._link.when_probed
        own = f"openhqm-answers:{int(random() * 2**53):x}"
        self._answers = StreamAnswers(own, self._new_link(BLOCK_SECONDS), self._command, reactor, random)

    def _new_link(self, seconds: float) -> Reconnecting:
        return Reconnecting(
            self._address,
            self._reactor,
            factory(None, self._reactor),
            self._random,
            seconds=self._seconds + seconds,
            prepare=_nothing,
            up=lambda: None,
            down=lambda: None,
        )

    @property
    def unavailable_reason(self) -> str | None:
        return self._link.unavailable_reason

    @property
    def warnings(self) -> Sequence[str]:
        return [each.warning for each in self._subscriptions if each.warning is not None]

    def start(self) -> Deferred[None]:
        self._link.start()
        return succeed(None)

    @deferred
    async def stop(self) -> None:
        subscriptions, self._subscriptions = self._subscriptions, []
        await DeferredList([each.close() for each in subscriptions], consumeErrors=True)
        await self._answers.stop()
        await self._link.stop()

    def subscribe(self, name: str, channels: Sequence[str], most: int, receiver: IReceiver) -> ISubscription:
        (stream,) = channels
        made = StreamSubscription(
            stream,
            name,
            receiver,
            self._new_link(BLOCK_SECONDS),
            self._command,
            self._reactor,
            self._random,
            deletes=self._deletes,
        )
        self._subscriptions.append(made)
        made.start()
        return made

    def fault(self, channel: str) -> str | None:
        if channel.startswith(self._prefix):
            return f"begins with {self._prefix}, as the keys of OpenHQM do"
        return stream_fault(channel)

    @deferred
    async def publish(self, channel: str, message: Message) -> None:
        fault = self.fault(channel)
        if fault is not None:
            raise NotDurable(f"{channel[:80]!r} {fault}")
        await self._command("XADD", channel, "*", *fields(message))

    @deferred
    async def ask(self, channel: str, message: Message, answers: str | None) -> Message:
        """The answers come into a stream of our own: the configuration refuses another one."""
        about = message.properties or Properties()
        answer = self._answers.expect(about.correlation or b"")
        try:
            about = replace(about, reply_to=self._answers.name)
            await self.publish(channel, replace(message, properties=about))
            return await answer
        finally:
            answer.addErrback(is_given_up).cancel()

    @deferred
    async def _command(self, *arguments: Any) -> Any:
        """The answer to a command; `NotDurable`."""
        try:
            return await self._link.ask(*arguments)
        except Exception as error:
            if is_refusal(error):
                raise NotDurable(refusal(str(error)).reason) from None
            raise


def fields(message: Message) -> list[str | bytes]:
    """A message as the fields of an entry, names and values in turn."""
    about = message.properties or Properties()
    found: list[str | bytes] = ["payload", message.body]
    if about.content_type is not None:
        found += ["content_type", about.content_type]
    if about.correlation is not None:
        found += ["correlation", about.correlation]
    if about.reply_to is not None:
        found += ["reply_to", about.reply_to]
    for name, value in message.headers.items():
        if name not in OWN_FIELDS:
            found += [name, readable(value)]
    return found


async def _nothing(protocol: Any) -> None:
    """A connection of this kind needs no first commands."""
