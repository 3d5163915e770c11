# -*- test-case-name: tests.rabbitmq.test_rabbitmq -*-
"""Publishing over one channel: many at once, each with its own confirmation, and none unanswered for long.

A message that cannot be routed is returned, and confirmed all the same: the broker did with it what it was told. The
confirmation of several at once does not say which of them it was, but what is returned carries its own number.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail

from openhqm.errors import NotDurable
from openhqm.rabbitmq.wire import channel_of

MOST_UNCONFIRMED = 10_000
MOST_LATE = 1000
"""So many that one queue did not confirm in time, and after them only one at a time: RabbitMQ keeps them in memory."""


class Returned(NotDurable):
    """There is no such queue."""


Way = tuple[str, str]
"""An exchange, and the queue that a message is to go to."""


@attrs.define
class _Unconfirmed:
    confirmed: Deferred[None]
    way: Way
    sent_at: float
    returned: bool = False


@attrs.define
class _Late:
    count: int = 0
    again_at: float = 0.0


class Publisher:
    """``seconds`` is how long a confirmation may take."""

    def __init__(self, reactor: Any, seconds: float) -> None:
        self._reactor = reactor
        self.seconds = seconds
        self._channel: Any = None
        self._frames: Callable[..., bytes] | None = None
        self._write: Callable[[bytes], object] | None = None
        self._sent = 0
        self._unconfirmed: dict[int, _Unconfirmed] = {}
        self._late: dict[Way, _Late] = {}  # of those that have not answered in time since
        self._watch_call: Any = None
        self._silent = False
        self.blocked: str | None = None

    @property
    def unavailable_reason(self) -> str | None:
        """Why nothing can be published although there is a connection, or None."""
        if self.blocked is not None:
            return f"RabbitMQ takes nothing ({self.blocked}): free some of its memory or disk"
        return "RabbitMQ does not answer" if self._silent else None

    async def up(self, channel: Any, write: Callable[[bytes], object], largest: int) -> None:
        """Publish over this channel from now on: ``write`` into its connection, frames of at most ``largest`` bytes."""
        from openhqm.rabbitmq.framing import Framing

        raw = channel_of(channel)
        selected: Deferred[Any] = Deferred()
        raw.confirm_delivery(ack_nack_callback=self._answered, callback=selected.callback)
        raw.add_on_return_callback(self._returned)
        await selected.addTimeout(max(self.seconds, 5.0), self._reactor)
        self._frames = Framing(raw.channel_number, largest).publish
        self._write = write
        self._sent = 0
        self._channel = raw

    def ask_whether_it_lives(self) -> None:
        """A queue that has lost its nodes confirms nothing, and holds up no other; RabbitMQ itself would answer."""
        channel = self._channel
        if channel is None or not channel.is_open or self._silent:
            return
        self._silent = True

        def answered(frame: Any) -> None:
            if channel is self._channel:
                self._silent = False

        channel.basic_qos(callback=answered)

    def down(self, reason: str) -> None:
        """There is no channel: nobody can tell what became of what was not confirmed."""
        self._channel = None
        self.blocked = None
        self._silent = False
        unconfirmed, self._unconfirmed = self._unconfirmed, {}
        self._late.clear()
        if self._watch_call is not None:
            self._watch_call.cancel()
            self._watch_call = None
        for each in unconfirmed.values():
            each.confirmed.errback(NotDurable(reason))

    def publish(self, queue: str, body: bytes, headers: dict[str, Any], exchange: str = "") -> Deferred[None]:
        """Fires when a queue has it: ``queue``, or one that ``exchange`` leads to. `Returned` where there is none;
        `NotDurable`.
        """
        frames, write = self._frames, self._write
        if self._channel is None or frames is None or write is None or not self._channel.is_open:
            return fail(NotDurable("not connected to RabbitMQ"))
        if self.unavailable_reason is not None:
            return fail(NotDurable(self.unavailable_reason))
        if len(self._unconfirmed) >= MOST_UNCONFIRMED:
            return fail(NotDurable("more is waiting for RabbitMQ than it can take", retry_after=1))
        now, way = self._reactor.seconds(), (exchange, queue)
        late = self._late.get(way)
        if late is not None and late.count >= MOST_LATE:
            if now < late.again_at:
                return fail(NotDurable(f"RabbitMQ confirms nothing that is published into {queue}", retry_after=1))
            late.again_at = now + self.seconds
        number = self._sent + 1
        write(frames(exchange, queue, headers, number, body))
        self._sent = number
        confirmed: Deferred[None] = Deferred()  # cancelled, it is published all the same
        self._unconfirmed[number] = _Unconfirmed(confirmed, way, now)
        if self._watch_call is None:
            self._watch_call = self._reactor.callLater(self.seconds, self._watch)
        return confirmed

    def _answered(self, frame: Any) -> None:
        tag, multiple = frame.method.delivery_tag, frame.method.multiple
        refused = frame.method.NAME == "Basic.Nack"
        self._silent = False
        if not multiple:
            answered = [tag] if tag in self._unconfirmed else []
        else:  # in the order of their numbers, for so they were sent
            answered = list(takewhile(lambda number: number <= tag, self._unconfirmed))
        for each in [self._unconfirmed.pop(number) for number in answered]:
            self._late.pop(each.way, None)
            _answer(each, refused)

    def _returned(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        each = self._unconfirmed.get(int(properties.message_id))
        if each is not None:
            each.returned = True

    def _watch(self) -> None:
        """Let nobody wait for longer than they may. A confirmation that comes later changes nothing."""
        self._watch_call = None
        now = self._reactor.seconds()
        given_up = []
        for number, each in self._unconfirmed.items():
            wait = each.sent_at + self.seconds - now
            if wait > 0:
                self._watch_call = self._reactor.callLater(wait, self._watch)
                break
            given_up.append(number)
        if given_up:
            self.ask_whether_it_lives()
        for each in [self._unconfirmed.pop(number) for number in given_up]:
            self._late.setdefault(each.way, _Late()).count += 1
            each.confirmed.errback(NotDurable(f"RabbitMQ did not confirm within {self.seconds:g} s"))


def _answer(each: _Unconfirmed, refused: bool) -> None:
    if refused:
        each.confirmed.errback(NotDurable("RabbitMQ refused the message: its queue is full"))
    elif each.returned:
        each.confirmed.errback(Returned("RabbitMQ has no such queue"))
    else:
        each.confirmed.callback(None)
