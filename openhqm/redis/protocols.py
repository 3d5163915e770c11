# -*- test-case-name: tests.redis.test_protocols -*-
"""txredisapi's protocol with a shorter way for a command: hiredis packs it, and one Deferred waits for its answer.

Bytes come and go as they are. `openhqm.redis.connecting` logs in and selects the database: the protocol would give up
for ever over a wrong password.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from hiredis import pack_command
from twisted.internet.defer import Deferred, fail
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from txredisapi import ConnectionError as Lost
from txredisapi import RedisProtocol


class CommandProtocol(RedisProtocol):  # type: ignore[misc]
    """Sends commands, and takes their answers in the same order.

    ``asked`` has the commands without an answer yet, the oldest first: when each was sent, and the Deferred of its
    answer. ``seconds`` tells the time.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        super().__init__(charset=None, convertNumbers=False)
        self.asked: deque[tuple[float, Deferred[Any]]] = deque()
        self._seconds = seconds
        self._unasked: Exception | None = None

    def execute_command(self, *arguments: Any, **options: Any) -> Deferred[Any]:
        """The answer to one command. Cancelling does not take the command back."""
        unasked, self._unasked = self._unasked, None
        if unasked is not None:
            return fail(unasked)
        if not self.connected:
            return fail(Lost("Not connected"))
        packed = pack_command(arguments)
        answer: Deferred[Any] = Deferred()
        self.asked.append((self._seconds(), answer))
        self.transport.write(packed)
        return answer

    def replyReceived(self, reply: Any) -> None:
        if not self.asked:
            # Redis refuses the connection (too many connections, protected mode): that answers every command.
            self._unasked = reply if isinstance(reply, Exception) else None
            return
        _, answer = self.asked.popleft()
        if isinstance(reply, Exception):
            answer.errback(reply)
        else:
            answer.callback(reply)

    def tryConvertData(self, data: Any) -> Any:
        """Bytes stay as they are: without this, each value in an answer is looked at to find that out."""
        return data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        while self.asked:
            self.replyReceived(Lost("Lost connection"))


class SubscriberProtocol(CommandProtocol):
    """Subscribes to channels, too: ``heard`` is called with channel and message."""

    def __init__(self, seconds: Callable[[], float], heard: Callable[[bytes, bytes], None]) -> None:
        super().__init__(seconds)
        self._heard = heard

    def replyReceived(self, reply: Any) -> None:
        if isinstance(reply, list) and len(reply) == 3 and reply[0] == b"message":
            self._heard(reply[1], reply[2])
        else:
            super().replyReceived(reply)
