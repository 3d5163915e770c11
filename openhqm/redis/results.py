# -*- test-case-name: tests.redis.test_contract,tests.redis.test_several_processes -*-
"""Records and replies in Redis: the same for every process, from the acceptance to the published expiry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from zope.interface import implementer

from openhqm.codec import decode_reply, encode_reply
from openhqm.errors import AlreadyEnded, ExpiredRequest, UnknownRequest
from openhqm.interfaces import IResultStore
from openhqm.messages import Event, IdempotencyClaim, Record, Reply, Status
from openhqm.policy.foreign import reply_fields
from openhqm.policy.history import MOST_EVENTS, PIECE_BYTES, PIECE_EVENTS, check_progress
from openhqm.queue.endings import cancelled
from openhqm.redis.children import RedisChildren
from openhqm.redis.claims import claim_arguments
from openhqm.redis.connection import Redis
from openhqm.redis.deadlines import Deadlines
from openhqm.redis.ending_log import RedisEndingLog
from openhqm.redis.watching import Watching
from openhqm.runtime.deferreds import deferred

ANY_ATTEMPT = "*"


@implementer(IResultStore)
class RedisResults:
    """The store half of a Redis. Endings are kept for ``ttl`` seconds by Redis's clock."""

    def __init__(self, redis: Redis, ttl: float) -> None:
        self._redis = redis
        self._ttl = ttl
        self._watching = Watching(redis, self.history)
        self._deadlines = Deadlines(redis, self._end)
        self.log = RedisEndingLog(redis)
        self._children = RedisChildren(redis, self._end)
        self.sweeps = self._deadlines.sweeps
        self.sweeps.append(self._children.sweep)
        self.on_ending: list[Callable[[int, str], None]] = redis.on_ending

    @deferred
    async def find(self, correlation_id: str) -> Record:
        number = self._number(correlation_id)
        correlation_id = correlation_id.lower()  # as it was given out
        found = await self._redis.run("find", number)
        if not found:
            # An id that passes the check was given out: no look-up is needed to know that.
            raise ExpiredRequest(correlation_id)
        at, step, reply_text, expires, name, *steps = found
        children = self._children.states(steps[0], steps[1::2], steps[2::2]) if steps else ()
        submitted_at, tenant = float(at), name.decode() or None
        if reply_text:
            reply = decode_reply(reply_text)
            return Record(
                correlation_id,
                reply.status,
                submitted_at,
                reply.completed_at,
                reply.attempt,
                None,
                reply,
                float(expires),
                tenant,
                children,
            )
        if not step:
            return Record(correlation_id, Status.PENDING, submitted_at, submitted_at, tenant=tenant, children=children)
        last = _event(0, step)
        return Record(
            correlation_id,
            Status.PROCESSING,
            submitted_at,
            last.at,
            last.detail.get("attempt", 0),
            last.detail.get("next_attempt_at"),
            tenant=tenant,
            children=children,
        )

    @deferred
    async def history(self, correlation_id: str, after: int) -> Sequence[Event]:
        number = self._number(correlation_id)
        found = await self._redis.run("history", number, after, PIECE_EVENTS, PIECE_BYTES)
        if not found:
            raise ExpiredRequest(correlation_id.lower())
        at, last, reply_text, *texts = found
        events = [Event(1, "pending", float(at))] if after < 1 else []
        events += [_event(count, text) for count, text in enumerate(texts, max(after + 1, 2))]
        if reply_text and int(last) > after:
            reply = decode_reply(reply_text)
            events.append(Event(int(last), reply.status.value.lower(), reply.completed_at, reply=reply))
        return events

    def watch(self, correlation_id: str, listener: Callable[[Event], None]) -> Callable[[], None]:
        try:
            number = self._number(correlation_id)
        except UnknownRequest:
            return lambda: None  # nothing ever happens to it
        return self._watching.add(correlation_id.lower(), number, listener)

    @deferred
    async def cancel(self, correlation_id: str) -> Record:
        before = await self._open(correlation_id)
        await self.end(correlation_id, cancelled(before.correlation_id, self._redis.clock_now(), before.attempt))
        return before

    def completion_token(self, correlation_id: str) -> str:
        return self._redis.ids.completion_token(correlation_id)

    @deferred
    async def end(self, correlation_id: str, reply: Reply) -> None:
        if not await self._end(self._number(correlation_id), reply):
            await self._open(correlation_id)

    @deferred
    async def progress(self, correlation_id: str, detail: dict[str, Any]) -> None:
        text = msgspec.json.encode(detail)
        check_progress(1, text)
        answer = await self._redis.run("progress", self._number(correlation_id), ANY_ATTEMPT, text, MOST_EVENTS)
        if answer == b"full":
            check_progress(MOST_EVENTS + 1, b"")
        if answer in (b"ended", b"lost"):
            await self._open(correlation_id)

    @deferred
    async def let_expire(self, claims: Sequence[IdempotencyClaim]) -> None:
        await self._redis.run("let_expire", *(value for claim in claims for value in claim_arguments(claim)))

    async def _open(self, correlation_id: str) -> Record:
        before = await self.find(correlation_id)
        if before.reply is not None:
            raise AlreadyEnded(before.correlation_id, before.status.value)
        return before

    def start(self) -> None:
        """Begin to keep deadlines, and to see to what follows from steps."""
        self._deadlines.start()
        self._children.start()

    def stop(self) -> None:
        """Stop."""
        self._deadlines.stop()
        self._children.stop()
        self._watching.stop()

    @deferred
    async def _end(self, number: int, reply: Reply) -> bool:
        """Record the ending unless there is one. False: there was."""
        status = reply.status.value
        fields = reply_fields(reply)  # whether a stream asks for them, the record knows
        answer: bytes = await self._redis.run("end", number, status, encode_reply(reply), self._ttl, *fields)
        first = answer.startswith(b"1")
        if first:
            self._redis.not_answered(answer, reply.correlation_id)
            self._redis.tell_ending(number, status)
        return first

    def _number(self, correlation_id: str) -> int:
        number = self._redis.ids.number(correlation_id)
        if number is None:
            raise UnknownRequest(correlation_id)
        return number


def _event(number: int, text: bytes) -> Event:
    """An event as the scripts write it: type, time, and the detail as JSON."""
    type, at, detail = text.split(b" ", 2)
    return Event(number, type.decode(), float(at), msgspec.json.decode(detail))
