# -*- test-case-name: tests.testing.test_fake_broker -*-
"""How the fake broker publishes: what it takes, what it refuses, and what it leaves without an answer."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall

from openhqm.errors import NotDurable
from openhqm.interfaces import ChannelMissing, Message
from openhqm.testing.fake_server import FakeServer

Outcomes = Sequence[NotDurable | None]


class PublishResult(enum.Enum):
    """What becomes of a message that is published.

    ``CONFIRMED``: taken. ``REFUSED``: not taken, and the client is told. ``UNCONFIRMED``: taken, and the confirmation
    gets lost. ``STALLED``: not taken, and the client is not told; it gives up in the end.
    """

    CONFIRMED = "confirmed"
    REFUSED = "refused"
    UNCONFIRMED = "unconfirmed"
    STALLED = "stalled"


Results = PublishResult | Callable[[str, Message], PublishResult]
"""The result of every message, or a function from channel and message to one."""


class FakePublishing:
    """The publishes of one client.

    ``call_later`` is the client's; after ``seconds`` without an answer a publish is given up.
    """

    def __init__(
        self, server: FakeServer, call_later: Callable[[float, Callable[[], object]], IDelayedCall], seconds: float
    ) -> None:
        self._server = server
        self._call_later = call_later
        self._seconds = seconds
        self._stalled: dict[Deferred[Outcomes], tuple[list[NotDurable | None], list[int]]] = {}

    def publish(self, name: str, messages: Sequence[Message], results: Results) -> Deferred[Outcomes]:
        """Put the messages into the channel and deliver what lies there; then the outcomes, in their order."""
        outcomes: list[NotDurable | None] = []
        stalled = []
        for number, message in enumerate(messages):
            result = results if isinstance(results, PublishResult) else results(name, message)
            outcomes.append(self._put(name, message, result))
            if result is PublishResult.STALLED:
                stalled.append(number)
        if name in self._server.channels:
            self._server.channels[name].dispatch()
        if not stalled:
            return succeed(outcomes)
        waiting: Deferred[Outcomes] = Deferred(self._forget)
        self._stalled[waiting] = (outcomes, stalled)
        self._call_later(self._seconds, lambda: self._give_up(waiting, "the broker did not confirm it in time"))
        return waiting

    def give_up_all(self, reason: str) -> None:
        """The connection is lost: no answer will come."""
        for waiting in list(self._stalled):
            self._give_up(waiting, reason)

    def _put(self, name: str, message: Message, result: PublishResult) -> NotDurable | None:
        largest = self._server.traits.largest_message
        if result is PublishResult.STALLED:
            return None
        if result is PublishResult.REFUSED:
            return NotDurable("the broker refused the message")
        if largest is not None and len(message.body) > largest:
            return NotDurable(f"the broker takes no message of more than {largest} bytes")
        if name not in self._server.channels:
            return ChannelMissing(name)
        try:
            self._server.put(name, message)
        except NotDurable as error:
            return error
        return NotDurable("the confirmation got lost") if result is PublishResult.UNCONFIRMED else None

    def _forget(self, waiting: Deferred[Outcomes]) -> None:
        self._stalled.pop(waiting, None)

    def _give_up(self, waiting: Deferred[Outcomes], reason: str) -> None:
        if waiting in self._stalled:
            outcomes, stalled = self._stalled.pop(waiting)
            for number in stalled:
                outcomes[number] = NotDurable(reason)
            waiting.callback(outcomes)
