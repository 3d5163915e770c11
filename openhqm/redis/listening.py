# -*- test-case-name: tests.redis.test_listening,tests.redis.test_several_processes -*-
"""Messages from other processes, over a connection of its own: channels, for as long as they have a listener.

Redis keeps no message for a connection that is down. So each listener is told whenever its channel was opened, or
opened again: from then on it misses nothing, and what was before it looks up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.errors import NotDurable
from openhqm.redis.address import Address
from openhqm.redis.driver import factory, is_refusal
from openhqm.redis.errors import refusal
from openhqm.redis.reconnecting import Reconnecting

PING_SECONDS = 5.0


@attrs.frozen(eq=False)
class _Listener:
    heard: Callable[[bytes], None]
    opened: Callable[[], None]


class Listening:
    """The channels of this process. Each has one listener."""

    _log = Logger()

    def __init__(
        self,
        address: Address,
        reactor: Any,
        random: Callable[[], float],
        seconds: float,
        prepare: Callable[[Any], Awaitable[None]],
    ) -> None:
        self._reactor = reactor
        self._channels: dict[bytes, _Listener] = {}
        self._ping: Any = None
        self._refused: set[bytes] = set()
        self._refusal: str | None = None
        self.link = Reconnecting(
            address,
            reactor,
            factory(self._heard, reactor),
            random,
            seconds=seconds,
            prepare=prepare,
            up=self._up,
            down=self._down,
        )

    def listen(self, channel: str, heard: Callable[[bytes], None], opened: Callable[[], None]) -> Callable[[], None]:
        """Call ``heard`` with each message and ``opened`` whenever the channel opens, until what is returned is called.

        Both must not raise.
        """
        name = channel.encode()
        listener = self._channels[name] = _Listener(heard, opened)
        self._open(name, listener)

        def stop() -> None:
            if self._channels.get(name) is listener:
                del self._channels[name]
                self._refused.discard(name)
                # A channel that Redis does not close now closes with the connection; until then it has no listener.
                self.link.ask("UNSUBSCRIBE", name).addErrback(_answered_or_gone)

        return stop

    def stop(self) -> Deferred[None]:
        """Listen no more."""
        self._channels.clear()
        self._refused.clear()
        self._down()
        return self.link.stop()

    def _open(self, name: bytes, listener: _Listener) -> None:
        asked = self.link.ask("SUBSCRIBE", name)
        asked.addCallbacks(self._opened, self._not_opened, (name, listener), errbackArgs=(name, listener))

    def _opened(self, answer: Any, name: bytes, listener: _Listener) -> None:
        if self._channels.get(name) is not listener:
            return
        if name in self._refused:
            self._refused.remove(name)
            if not self._refused:
                self._log.info("messages from other processes arrive again", refusal=self._refusal)
                self._refusal = None
        listener.opened()

    def _not_opened(self, failure: Failure, name: bytes, listener: _Listener) -> None:
        """Refused, it is asked for again with the next PING. Until then the listener finds out by looking, later."""
        if not is_refusal(failure.value):
            _gone_anyway(failure)
            return
        if self._channels.get(name) is listener:
            self._refused.add(name)
        reason = refusal(str(failure.value)).reason
        if reason != self._refusal:
            self._log.error("no messages from other processes: {reason}", reason=reason)
        self._refusal = reason

    def _heard(self, channel: bytes, message: bytes) -> None:
        listener = self._channels.get(channel)
        if listener is not None:
            listener.heard(message)

    def _up(self) -> None:
        for name, listener in list(self._channels.items()):
            self._open(name, listener)
        self._ping = self._reactor.callLater(PING_SECONDS, self._ask_whether_it_lives)

    def _down(self) -> None:
        if self._ping is not None and self._ping.active():
            self._ping.cancel()
        self._ping = None

    def _ask_whether_it_lives(self) -> None:
        """A server that is gone without closing the connection is noticed by a command that has no answer."""
        self._ping = self._reactor.callLater(PING_SECONDS, self._ask_whether_it_lives)
        self.link.ask("PING").addErrback(_answered_or_gone)
        for name in list(self._refused):
            self._open(name, self._channels[name])


def _answered_or_gone(failure: Failure) -> None:
    """A refusal (Redis refuses even PING while it cannot save) is an answer, too."""
    if not is_refusal(failure.value):
        _gone_anyway(failure)


def _gone_anyway(failure: Failure) -> None:
    """The connection is down, and with it every channel; they open again when it is back."""
    failure.trap(NotDurable)
