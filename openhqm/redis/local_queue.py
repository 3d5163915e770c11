# -*- test-case-name: tests.redis.test_redis -*-
"""Waiters from one queue in Redis: who waits for work in this process, and which loans it holds."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.logger import Logger

from openhqm.codec import decode_request
from openhqm.errors import UnreadableMessage
from openhqm.queue.waiters import NEVER, Fetched, Waiter, Waiters
from openhqm.redis.connection import Redis
from openhqm.redis.delivery import RedisDelivery
from openhqm.runtime.deferreds import deferred

SAFETY_SECONDS = 7.0


class Place:
    """One queue as this process sees it. ``recorded``: its messages are requests, with a record and an ending."""

    _log = Logger()

    def __init__(self, redis: Redis, name: str, recorded: bool, lease: float, ttl: float, letters: str) -> None:
        self.redis = redis
        self.recorded = recorded
        self.lease = lease
        self.ttl = ttl
        self.letters = letters
        self._name = name
        self._loans: dict[int, RedisDelivery] = {}
        self._waiters = Waiters(name, redis.clock, self._look)
        self._lease_check: Any = None
        self._stopped = False
        self._unlisten = redis.listen(f"{redis.prefix}said:{name}", self._heard, self._opened)

    def receive(self, most: int, in_order: bool) -> Waiter:
        """See `IMessageQueue.receive`."""
        return self._waiters.receive(most, in_order)

    def _heard(self, message: bytes) -> None:
        word, _, rest = message.partition(b" ")
        if word == b"ready":
            self._waiters.wake()
        elif word == b"ended":
            number, _, status = rest.partition(b" ")
            loan = self._loans.get(int(number))
            if loan is not None:
                loan.revoke(status.decode())

    def _opened(self) -> None:
        """What was said while nobody here could hear it: look at the queue, and ask after every loan."""
        self._waiters.wake()
        for loan in list(self._loans.values()):
            loan.ask_after_it()

    @deferred
    async def _look(self, most: int, in_order: bool) -> Fetched:
        redis = self.redis
        # Before anything is asked: what Redis counts from its answer can only end later.
        ends = redis.clock.seconds() + self.lease
        token = redis.new_token()
        rows, wait = await redis.run("lend", self._name, most, self.lease, token, "1" if in_order else "")
        now = redis.clock.seconds()
        # A message about something new may have been lost: now and then, look without one.
        again = min(now + SAFETY_SECONDS, now + float(wait) if wait else NEVER)
        deliveries = [delivery for row in rows if (delivery := self._delivery(row, token, ends)) is not None]
        return Fetched(deliveries, more=len(rows) == (1 if in_order else most), again=again)

    def _delivery(self, row: list[Any], token: str, ends: float) -> RedisDelivery | None:
        number, at, attempt, body = int(row[0]), float(row[1]), int(row[2]), row[3]
        try:
            request = decode_request(body)
        except UnreadableMessage as error:
            # It comes back at the end of each lease, where a person can look at it.
            self._log.error(
                "message {number} of {queue} is unreadable: {error}", number=number, queue=self._name, error=error
            )
            return None
        if self.recorded:
            # Redis gave the number and the time, after the envelope was written.
            request = attrs.evolve(request, correlation_id=self.redis.ids.issue(number), submitted_at=at)
        delivery = self._loans[number] = RedisDelivery(self, number, request, attempt, token, ends)
        if self._lease_check is None:
            self._lease_check = self.redis.clock.callLater(self.lease, self._check_leases)
        return delivery

    # Loans

    def forget(self, number: int, delivery: RedisDelivery) -> None:
        """The loan is over."""
        if self._loans.get(number) is delivery:
            del self._loans[number]

    def _check_leases(self) -> None:
        self._lease_check = None
        now = self.redis.clock.seconds()
        for loan in [loan for loan in self._loans.values() if loan.lease_end <= now]:
            self._log.warn("the lease on {id} was lost", id=loan.request.correlation_id, attempt=loan.attempt)
            loan.lose()
        if self._loans and not self._stopped:
            soonest = min(loan.lease_end for loan in self._loans.values())
            self._lease_check = self.redis.clock.callLater(max(0.0, soonest - now), self._check_leases)

    @deferred
    async def stop(self) -> None:
        """Lend nothing more; who waits is told. What is on loan is lent anew when its lease is over.

        Fires once what was just being lent to them is given back; Redis is left after that.
        """
        self._stopped = True
        self._unlisten()
        await self._waiters.stop()
        if self._lease_check is not None and self._lease_check.active():
            self._lease_check.cancel()
