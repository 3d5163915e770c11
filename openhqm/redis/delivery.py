# -*- test-case-name: tests.redis.test_redis -*-
"""A request on loan from Redis. Whatever settles it is one script, and may be asked for again.

The token of the lending says whose the loan is. A holder whose lease was lost has a token that is good for nothing.
A holder whose answer got lost asks again with the same token, and the script finds what it has done already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from openhqm.codec import encode_dead_letter, encode_reply
from openhqm.errors import DeliveryClosed, NotDurable
from openhqm.interfaces import IDelivery
from openhqm.messages import DeadLetter, Reply, Request
from openhqm.policy.foreign import reply_fields
from openhqm.policy.history import MOST_EVENTS, check_progress
from openhqm.redis.connection import Redis
from openhqm.runtime.deferreds import deferred

LOST = "its lease was lost"


class Lender(Protocol):
    """What a delivery needs of the queue that lent it."""

    redis: Redis
    recorded: bool
    lease: float
    ttl: float
    letters: str

    def forget(self, number: int, delivery: RedisDelivery) -> None:
        """The loan is over."""


@implementer(IDelivery)
class RedisDelivery:
    """A request on loan. ``lease_end`` is by our clock, and never later than Redis's own."""

    _log = Logger()

    def __init__(
        self, place: Lender, number: int, request: Request, attempt: int, token: str, lease_end: float
    ) -> None:
        self.request = request
        self.attempt = attempt
        self.revoked: Deferred[str] = Deferred()
        self.lease_end = lease_end
        self._place = place
        self._number = number
        self._token = token
        self._over: str | None = None
        self._unheard = False

    def extend(self) -> None:
        if self._over is None:
            ends = self._place.redis.clock.seconds() + self._place.lease
            self._run("extend", self._place.lease).addCallbacks(
                self._extended, self._not_extended, callbackArgs=(ends,)
            )

    ask_after_it = extend

    def _extended(self, answer: bytes, ends: float) -> None:
        if answer == b"lost":
            self.lose()
            return
        self.lease_end = max(self.lease_end, ends)
        if answer != b"1":
            self.revoke(answer.decode())

    def _not_extended(self, failure: Failure) -> None:
        failure.trap(NotDurable)  # it is tried again before the lease is over, or the lease is lost

    def progress(self, detail: dict[str, Any]) -> Deferred[None]:
        if not self._place.recorded:
            return succeed(None)
        text = msgspec.json.encode({**detail, "attempt": self.attempt})
        try:
            check_progress(1, text)
        except ValueError:
            return fail()
        return self._run("progress", text, MOST_EVENTS).addCallback(self._reported)

    def _reported(self, answer: bytes) -> None:
        if answer == b"full":
            check_progress(MOST_EVENTS + 1, b"")
        if answer != b"1":
            raise DeliveryClosed(self.request.correlation_id, LOST)

    def ack(self) -> Deferred[None]:
        return self._settle(lambda: self._finish(None, b"")).addCallback(lambda first: None)

    def settle(self, reply: Reply) -> Deferred[bool]:
        return self._settle(lambda: self._finish(reply, b""))

    def dead_letter(self, reason: str, reply: Reply) -> Deferred[bool]:
        letter = encode_dead_letter(DeadLetter(self.request, reason, reply, self._place.redis.clock_now()))
        return self._settle(lambda: self._finish(reply, letter))

    def retry(self, delay: float, reason: str) -> Deferred[None]:
        return self._settle(lambda: self._put_back(repr(float(delay)), msgspec.json.encode(reason)))

    def release(self) -> Deferred[None]:
        return self._settle(lambda: self._put_back("", b""))

    async def _finish(self, reply: Reply | None, letter: bytes) -> bool:
        place = self._place
        status, text = ("", b"") if reply is None else (reply.status.value, encode_reply(reply))
        asked = self.request.submission.reply_to is not None
        fields = reply_fields(reply) if reply is not None and asked else []
        answer = await self._run("settle", status, text, place.ttl, place.letters, letter, *fields)
        if answer == b"lost":
            raise DeliveryClosed(self.request.correlation_id, LOST)
        if answer == b"gone":  # expired, and so it had ended; or a message without a record, done before
            return not place.recorded
        first: bool = answer.startswith(b"1")
        place.redis.not_answered(answer, self.request.correlation_id)
        if first and status and place.recorded:
            for call in place.redis.on_ending:
                call(self._number, status)
        return first

    async def _put_back(self, delay: str, reason: bytes) -> None:
        answer, _ = await self._run("put_back", delay, reason)
        if answer == b"lost":
            raise DeliveryClosed(self.request.correlation_id, LOST)

    @deferred
    async def _settle(self, step: Callable[[], Any]) -> Any:
        if self._over is not None:
            raise DeliveryClosed(self.request.correlation_id, self._over)
        self._over = "it was settled before"
        try:
            result = await step()
        except NotDurable:
            # It was not done, or it was and nobody heard: asking again finds out. Until then Redis alone knows
            # whether the lease is over, and our own clock ends nothing.
            self._over = None
            self._unheard = True
            raise
        except DeliveryClosed:
            self._over = LOST
            self._place.forget(self._number, self)
            raise
        self._place.forget(self._number, self)
        return result

    def revoke(self, reason: str) -> None:
        """The work is in vain; settling is still allowed, and takes the message away."""
        if not self.revoked.called and self._over is None:
            self.revoked.callback(reason)

    def lose(self) -> None:
        """The lease is over, and somebody else may have the request: settle nothing more on this loan."""
        self._place.forget(self._number, self)
        if self._over is not None or self._unheard:
            return
        self._over = LOST
        if not self.revoked.called:
            self.revoked.callback("lease lost")

    def _run(self, script: str, *values: Any) -> Deferred[Any]:
        return self._place.redis.run(script, self._number, self._token, *values)
