# -*- test-case-name: tests.redis.test_contract,tests.redis.test_recovery -*-
"""One queue in Redis as this process sees it: the callers of `receive`, and the deliveries that are out here.

Each step is one script, and may be asked for again. The token of a delivery says whose the request is: that of a
delivery whose lease was lost settles nothing any more. Where the answer to a step got lost, the same step with the same
token finds what it has done already.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import attrs
import msgspec
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.codec import decode_request, encode_dead_letter, encode_reply
from openhqm.errors import LeaseLost, NotDurable, UnreadableMessage
from openhqm.messages import DeadLetter, Reply, Request
from openhqm.policy.foreign import reply_fields
from openhqm.policy.history import MOST_EVENTS, check_progress
from openhqm.queue.delivery import Delivery
from openhqm.queue.leases import Leases
from openhqm.queue.waiters import NEVER, Fetched, Waiters
from openhqm.redis.connection import Redis
from openhqm.redis.turns import TurnScript
from openhqm.runtime.deferreds import deferred

SAFETY_SECONDS = 7.0
"""How often a queue is looked into without a signal, for one may get lost."""


@attrs.define(eq=False)
class Handle:
    """What Redis knows a delivery by.

    ``lease_end`` is what Redis has confirmed, by our clock, and never later than by Redis's own. ``in_doubt``: a step
    was asked for and its answer got lost, so Redis alone knows whether the delivery is over; asking again tells.
    """

    number: int
    token: str
    lease_end: float
    in_doubt: bool = False


class LocalQueue:
    """The queue ``name``. A lease lasts ``lease`` seconds, an ending is kept for ``ttl`` seconds.

    ``letters`` is the key of the dead letters. ``settling`` runs the script that settles.
    """

    _log = Logger()

    def __init__(self, redis: Redis, name: str, lease: float, ttl: float, letters: str, settling: TurnScript) -> None:
        self.clock: IReactorTime = redis.clock
        self.lease = lease
        self._redis = redis
        self._name = name
        self._ttl = ttl
        self._letters = letters
        self._settling = settling
        self.waiters = Waiters(name, redis.clock, self._fetch)
        self._leases = Leases(redis.clock, lease, self._lease_lost)
        self._unlisten = redis.listen(f"{redis.prefix}signals:{name}", self._heard, self._opened)
        redis.on_up.append(self.waiters.wake)
        self.receive = self.waiters.receive

    def stop(self) -> Deferred[Any]:
        """Deliver nothing more; the callers of `receive` are cancelled.

        Fires once what a fetch still brings is released; Redis has to stay connected until then. What is out is
        delivered again when its lease is over.
        """
        self._unlisten()
        with suppress(ValueError):  # it was stopped before
            self._redis.on_up.remove(self.waiters.wake)
        self._leases.stop()
        return self.waiters.stop()

    def _heard(self, message: bytes) -> None:
        kind, _, rest = message.partition(b" ")
        if kind == b"ready":
            self.waiters.wake()
        elif kind == b"ended":
            number, _, status = rest.partition(b" ")
            delivery = self._leases.get(int(number))
            if delivery is not None:
                delivery.revoke(status.decode())

    def _opened(self) -> None:
        """Signals from before were not heard here: look into the queue, and ask after every delivery."""
        self.waiters.wake()
        for _, delivery in self._leases:
            delivery.extend()

    @deferred
    async def _fetch(self, most: int, in_order: bool) -> Fetched:
        redis = self._redis
        # Before anything is asked: what Redis counts from its answer can only end later.
        lease_end = self.clock.seconds() + self.lease
        token = redis.new_token()
        rows, wait = await redis.run("receive", self._name, most, self.lease, token, "1" if in_order else "")
        now = self.clock.seconds()
        again = min(now + SAFETY_SECONDS, now + float(wait) if wait else NEVER)
        deliveries = [each for row in rows if (each := self._delivery(row, token, lease_end)) is not None]
        return Fetched(deliveries, more=len(rows) == (1 if in_order else most), again=again)

    def _delivery(self, row: Sequence[Any], token: str, lease_end: float) -> Delivery | None:
        number, at, attempt, body = int(row[0]), float(row[1]), int(row[2]), row[3]
        try:
            submission = decode_request(body).submission
        except UnreadableMessage as error:
            # It comes back at the end of each lease, where a person can look at it.
            self._log.error(
                "message {number} of {queue} is unreadable: {error}", number=number, queue=self._name, error=error
            )
            return None
        # Redis gave the number and the time, after the envelope was written. The worker compares it with its own clock.
        request = Request(self._redis.ids.issue(number), self._redis.clocks.to_ours(at), submission)
        delivery = Delivery(request, attempt, self, Handle(number, token, lease_end), lease_end)
        self._leases.add(number, delivery)
        return delivery

    def _lease_lost(self, delivery: Delivery) -> None:
        """Redis itself delivers the request again, in whichever process asks next."""

    # Steps

    def retry(self, delivery: Delivery, delay: float, reason: str) -> Deferred[None]:
        """See `Steps.retry`."""
        return self._step("reschedule", delivery, repr(float(delay)), msgspec.json.encode(reason)).addCallback(_nothing)

    def release(self, delivery: Delivery) -> Deferred[None]:
        """See `Steps.release`."""
        return self._step("reschedule", delivery, "", b"").addCallback(_nothing)

    def end(self, delivery: Delivery, reply: Reply, letter: DeadLetter | None) -> Deferred[bool]:
        """See `Steps.end`."""
        status = reply.status.value
        text = b"" if letter is None else encode_dead_letter(letter)
        fields = reply_fields(reply) if delivery.request.submission.reply_to is not None else ()
        answer = self._settle(delivery, status, encode_reply(reply), text, *fields)
        return answer.addCallbacks(self._ended, self._unanswered, (delivery, status), errbackArgs=(delivery,))

    def _ended(self, answer: bytes, delivery: Delivery, status: str) -> bool:
        _check_ours(answer, delivery)
        first = answer.startswith(b"1")  # 'gone' where the record has expired: it had ended before, too
        if first:
            self._redis.not_answered(answer, delivery.request.correlation_id)
            self._redis.tell_ending(delivery.handle.number, status)
        return first

    def acknowledge(self, delivery: Delivery) -> Deferred[None]:
        """See `Steps.acknowledge`."""
        return self._checked(self._settle(delivery, "", b"", b""), delivery).addCallback(_nothing)

    def progress(self, delivery: Delivery, detail: dict[str, Any]) -> Deferred[None]:
        """See `Steps.progress`."""
        text = msgspec.json.encode(detail)
        try:
            check_progress(1, text)
        except ValueError:
            return fail()
        answer = self._run("progress", delivery, text, MOST_EVENTS)
        return answer.addCallback(_check_ours, delivery).addCallback(_check_length)

    def extend(self, delivery: Delivery) -> None:
        """See `Steps.extend`. Before Redis has confirmed it, the lease ends when it did."""
        until, delivery.lease_end = delivery.lease_end, delivery.handle.lease_end
        asked = self._run("extend", delivery, self.lease)
        asked.addCallbacks(self._extended, _not_extended, callbackArgs=(delivery, until))

    def _extended(self, answer: bytes, delivery: Delivery, until: float) -> None:
        handle: Handle = delivery.handle
        if answer == b"lost":
            if not handle.in_doubt:  # or it is over because of our own step
                delivery.lose()
            return
        delivery.lease_end = handle.lease_end = max(handle.lease_end, until)
        if answer != b"1":
            delivery.revoke(answer.decode())

    def closed(self, delivery: Delivery) -> None:
        """See `Steps.closed`."""
        self._leases.discard(delivery.handle.number, delivery)

    def _step(self, script: str, delivery: Delivery, *values: Any) -> Deferred[Any]:
        """The answer to a script that settles the delivery. `LeaseLost`; `NotDurable`: it may have run all the same."""
        return self._checked(self._run(script, delivery, *values), delivery)

    def _checked(self, answer: Deferred[Any], delivery: Delivery) -> Deferred[Any]:
        return answer.addCallbacks(_check_ours, self._unanswered, (delivery,), errbackArgs=(delivery,))

    def _settle(self, delivery: Delivery, status: str, reply: bytes, letter: bytes, *fields: Any) -> Deferred[Any]:
        handle: Handle = delivery.handle
        size = len(reply) + len(letter)
        return self._settling.run(
            size, handle.number, handle.token, status, reply, self._ttl, self._letters, letter, *fields
        )

    def _run(self, script: str, delivery: Delivery, *values: Any) -> Deferred[Any]:
        handle: Handle = delivery.handle
        return self._redis.run(script, handle.number, handle.token, *values)

    def _unanswered(self, failure: Failure, delivery: Delivery) -> Failure:
        """Our clock does not end the lease from now on: Redis may have kept it, or have done the step."""
        if failure.check(NotDurable):
            delivery.handle.in_doubt = True
            self._leases.discard(delivery.handle.number, delivery)
        return failure


def _check_ours(answer: bytes, delivery: Delivery) -> bytes:
    if answer == b"lost":
        raise LeaseLost(delivery.request.correlation_id)
    return answer


def _check_length(answer: bytes) -> None:
    if answer == b"full":
        check_progress(MOST_EVENTS + 1, b"")


def _not_extended(failure: Failure) -> None:
    failure.trap(NotDurable)  # the worker extends it again before the lease is over, or it is lost


def _nothing(answer: bytes) -> None:
    """That it was done is all there is to know."""
