# -*- test-case-name: tests.redis.test_foreign -*-
"""One stream of Redis, read by a consumer of a group.

What was delivered to the consumer and not acknowledged, a process that starts under the same name reads first. What any
consumer of the group has left for longer than `IDLE_SECONDS`, it takes over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from openhqm.errors import NotDurable, UnreadableMessage
from openhqm.interfaces import IBrokerDelivery, IReceiver, ISubscription, Message, Properties
from openhqm.policy.foreign import take_apart
from openhqm.redis.driver import is_refusal
from openhqm.redis.errors import refusal
from openhqm.redis.reconnecting import FIRST_PAUSE, LONGEST_PAUSE, Reconnecting
from openhqm.runtime.deferreds import deferred

BLOCK_SECONDS = 1.0
IDLE_SECONDS = 60.0
TAKE_OVER_SECONDS = 20.0
"""How often to look for what another consumer has left."""
MANY_BYTES = 1024 * 1024
ACKNOWLEDGE = """for first = 2, #ARGV, 1000 do
  local last = math.min(first + 999, #ARGV)
  redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, first, last))
  redis.call('XDEL', KEYS[1], unpack(ARGV, first, last))
end"""
"""Acknowledged and not deleted, an entry would stay for ever. In portions: Lua unpacks some 8,000 values at once."""
Entry = tuple[str, list[tuple[bytes, bytes]]]
Command = Callable[..., Deferred[Any]]


@implementer(IBrokerDelivery)
class StreamDelivery:
    """An entry of the stream. ``acknowledge`` fires once Redis was told."""

    position = None
    redelivery_count = None

    def __init__(self, id: str, message: Message, acknowledge: Callable[[StreamDelivery], Deferred[None]]) -> None:
        self.id = id
        self.message = message
        self.revoked: Deferred[str] = Deferred()
        self._acknowledge: Callable[[StreamDelivery], Deferred[None]] | None = acknowledge

    def ack(self) -> Deferred[None]:
        acknowledge, self._acknowledge = self._acknowledge, None
        if acknowledge is None:
            return fail(NotDurable("the delivery was settled before"))
        return acknowledge(self)

    def requeue(self) -> Deferred[None]:
        return fail(NotDurable("a stream takes no entry back"))

    def extend(self, seconds: float) -> Deferred[None]:
        return fail(NotDurable("an entry of a stream has no lease"))


@implementer(ISubscription)
class StreamSubscription:
    """The consumer ``name`` of the group ``name``. It waits over ``link``; ``command`` asks over another connection.

    ``deletes``: an entry that is acknowledged is deleted in the same step.
    """

    _log = Logger()

    def __init__(
        self,
        stream: str,
        name: str,
        receiver: IReceiver,
        link: Reconnecting,
        command: Command,
        clock: Any,
        random: Callable[[], float],
        *,
        deletes: bool = False,
    ) -> None:
        self._deletes = deletes
        self._done: dict[str, Deferred[None]] = {}  # what is acknowledged with the next command
        self.warning: str | None = None
        self._stream = stream
        self._name = name
        self._receiver = receiver
        self._link = link
        self._command = command
        self._clock = clock
        self._random = random
        self._most = 0
        self._out: dict[str, StreamDelivery] = {}
        self._waiting: deque[Deferred[None]] = deque()
        self._left: str | None = "0"  # from here on it may have entries that were not acknowledged; None: it has none
        self._look_at = 0.0
        self._most_entries = 1
        self._stopped = False
        self._running: Deferred[None] | None = None

    def start(self) -> None:
        """Begin to read; it never fails."""
        self._link.start()
        self._running = self._run()

    def credit(self, most: int) -> None:
        self._most = most
        self._wake()

    def stop(self) -> Deferred[None]:
        self._stopped = True
        if self._running is not None:
            self._running.cancel()
        return succeed(None)

    @deferred
    async def close(self) -> None:
        """Read no more, and close the connection."""
        await self.stop()
        await self._link.stop()

    @deferred
    async def _run(self) -> None:
        pause = FIRST_PAUSE
        try:
            while not self._stopped:
                if len(self._out) >= self._most:
                    self._waiting.append(Deferred())
                    await self._waiting[-1]
                    continue
                reason = await self._turn()
                if reason is None:
                    pause, self.warning = FIRST_PAUSE, None
                    continue
                warning = f"{self._stream} cannot be read: {reason}"
                if warning != self.warning:
                    self._log.error("{stream} cannot be read: {reason}", stream=self._stream, reason=reason)
                self.warning = warning
                await deferLater(self._clock, pause * (0.5 + self._random()))
                pause = min(2 * pause, LONGEST_PAUSE)
        except CancelledError:
            pass  # by `stop`

    async def _turn(self) -> str | None:
        """Read what there is, or wait a moment for it. Returns why that failed, or None."""
        try:
            await self._link.when_up()
            entries = await self._read()
        except CancelledError:
            raise
        except NotDurable as error:
            return error.reason
        except Exception as error:
            if not is_refusal(error):
                self._log.failure("reading {stream} broke down", stream=self._stream)
                return f"{type(error).__name__}: {error}"
            if str(error).startswith("NOGROUP"):
                return await self._make_group()
            return refusal(str(error)).reason
        for id, fields in entries:
            if id not in self._out:
                self._out[id] = StreamDelivery(id, read(id, fields, self._stream), self._acknowledge)
                self._receiver.received(self._out[id])
        return None

    async def _make_group(self) -> str | None:
        try:
            await self._link.ask("XGROUP", "CREATE", self._stream, self._name, "0", "MKSTREAM")
        except NotDurable as error:
            return error.reason
        except Exception as error:
            if not is_refusal(error):
                raise
            return None if str(error).startswith("BUSYGROUP") else refusal(str(error)).reason
        self._left = "0"
        return None

    async def _read(self) -> list[Entry]:
        """First what this consumer has not acknowledged, then what others have left, and then what is new."""
        count = max(1, min(self._most_entries, self._most - len(self._out)))
        now = self._clock.seconds()
        if self._left is not None:
            found = await self._read_group(count, self._left)
            self._left = found[-1][0] if found else None
        elif now >= self._look_at:
            self._look_at = now + TAKE_OVER_SECONDS
            idle = int(IDLE_SECONDS * 1000)
            answer = await self._link.ask("XAUTOCLAIM", self._stream, self._name, self._name, idle, "0", "COUNT", count)
            found = entries_of(answer[1])
            if found:
                self._look_at = now
        else:
            found = await self._read_group(count, ">")
        size = sum(len(name) + len(value) for _, fields in found for name, value in fields)
        if size > MANY_BYTES:
            self._most_entries = max(1, self._most_entries // 4)
        elif len(found) == self._most_entries:
            self._most_entries = min(100, 2 * self._most_entries)
        return found

    async def _read_group(self, count: int, after: str) -> list[Entry]:
        waits = ("BLOCK", int(BLOCK_SECONDS * 1000)) if after == ">" else ()
        answer: Any = await self._link.ask(
            "XREADGROUP", "GROUP", self._name, self._name, "COUNT", count, *waits, "STREAMS", self._stream, after
        )
        return entries_of(answer[0][1]) if answer else []

    def _acknowledge(self, delivery: StreamDelivery) -> Deferred[None]:
        """What is acknowledged in one turn of the reactor, as what was accepted together is, goes in one command."""
        if not self._done:
            self._clock.callLater(0, self._acknowledge_all)
        acknowledged = self._done[delivery.id] = Deferred()
        return acknowledged

    def _acknowledge_all(self) -> None:
        done, self._done = self._done, {}
        for id in done:
            del self._out[id]
        self._wake()
        if self._deletes:
            asked = self._command("EVAL", ACKNOWLEDGE, 1, self._stream, self._name, *done)
        else:
            asked = self._command("XACK", self._stream, self._name, *done)

        def tell(result: Any) -> None:
            for each in done.values():
                each.callback(None) if not isinstance(result, Failure) else each.errback(result)

        asked.addBoth(tell)

    def _wake(self) -> None:
        while self._waiting and len(self._out) < self._most:
            self._waiting.popleft().callback(None)


def read(id: str, fields: list[tuple[bytes, bytes]], stream: str) -> Message:
    """An entry as a message: see `openhqm.policy.foreign.take_apart`."""
    try:
        content, reply_to, others = take_apart(fields)
        if content is None:
            raise UnreadableMessage("it has no field payload, body or data")
    except UnreadableMessage as error:  # none of its fields is its content: keep all of them
        whole = b"\n".join(b"%b: %b" % field for field in fields)
        return Message(whole, {}, None, Properties(topic=stream, message_id=id, fault=error.reason))
    content_type, correlation = others.pop(b"content_type", None), others.pop(b"correlation", None)
    about = Properties(
        topic=stream,
        message_id=id,
        reply_to=reply_to,
        correlation=correlation,
        content_type=None if content_type is None else content_type.decode("utf-8", "replace"),
    )
    # What is not UTF-8 stays what it is, and is refused as a header.
    headers = {_text(name): _text(value) for name, value in others.items()}
    return Message(content, headers, None, about)


def entries_of(found: Any) -> list[Entry]:
    """Entries that were deleted since are None, or have no fields."""
    return [
        (entry[0].decode("ascii"), list(zip(entry[1][::2], entry[1][1::2], strict=True)))
        for entry in found or ()
        if entry is not None and entry[1]
    ]


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
