# -*- test-case-name: tests.test_redis -*-
"""Lending from one queue in Redis: who waits for work in this process, and which loans it holds."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.codec import decode_request
from openhqm.errors import LoanOver, NotDurable, UnreadableMessage
from openhqm.interfaces import IDelivery
from openhqm.queues.redis_delivery import RedisDelivery
from openhqm.redis.connection import Redis

SAFETY_SECONDS = 7.0
RETRY_SECONDS = 1.0
NEVER = float("inf")
Waiter = Deferred[Sequence[IDelivery]]


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
        self._waiting: deque[tuple[int, bool, Waiter]] = deque()
        self._loans: dict[int, RedisDelivery] = {}
        self._taking = self._again = self._empty = self._stopped = False
        self._alarm: Any = None
        self._alarm_at = NEVER
        self._lease_check: Any = None
        self._unlisten = redis.listen(f"{redis.prefix}said:{name}", self._heard, self._opened)

    def receive(self, most: int, in_order: bool) -> Waiter:
        """See `IMessageQueue.receive`."""
        waiter: Waiter = Deferred(self._forget_waiter)
        self._waiting.append((most, in_order, waiter))
        if not self._empty:
            self._take()
        return waiter

    def _forget_waiter(self, waiter: Waiter) -> None:
        self._waiting = deque(entry for entry in self._waiting if entry[2] is not waiter)

    # When to look

    def _heard(self, message: bytes) -> None:
        word, _, rest = message.partition(b" ")
        if word == b"ready":
            self._look()
        elif word == b"ended":
            number, _, status = rest.partition(b" ")
            loan = self._loans.get(int(number))
            if loan is not None:
                loan.revoke(status.decode())

    def _opened(self) -> None:
        """What was said while nobody here could hear it: look at the queue, and ask after every loan."""
        self._look()
        for loan in list(self._loans.values()):
            loan.ask_after_it()

    def _look(self) -> None:
        self._empty = False
        self._take()

    def _look_at(self, due: float) -> None:
        """Look again at ``due``, by our clock."""
        if due >= self._alarm_at or self._stopped:
            return
        if self._alarm is not None and self._alarm.active():
            self._alarm.cancel()
        self._alarm_at = due
        self._alarm = self.redis.clock.callLater(max(0.0, due - self.redis.clock.seconds()), self._ring)

    def _ring(self) -> None:
        self._alarm_at = NEVER
        self._look()

    # Looking

    def _take(self) -> None:
        """Lend to whoever has waited longest; one look at a time."""
        if self._taking:
            self._again = True
        elif self._waiting and not self._stopped:
            self._taking, self._again = True, False
            most, in_order, waiter = self._waiting[0]
            # Before anything is asked: what Redis counts from its answer can only end later.
            ends = self.redis.clock.seconds() + self.lease
            token = self.redis.new_token()
            lending = self.redis.run("lend", self._name, most, self.lease, token, "1" if in_order else "")
            lending.addCallback(self._lent, 1 if in_order else most, waiter, token, ends)
            lending.addErrback(self._could_not_lend)

    def _lent(self, answer: list[Any], most: int, waiter: Waiter, token: str, ends: float) -> None:
        rows, wait = answer
        self._taking = False
        self._empty = len(rows) < most and not self._again
        now = self.redis.clock.seconds()
        if self._waiting:
            # A message about something new may have been lost: now and then, look without one.
            self._look_at(min(now + SAFETY_SECONDS, now + float(wait) if wait else NEVER))
        deliveries: list[IDelivery] = []
        for row in rows:
            delivery = self._delivery(row, token, ends)
            if delivery is not None:
                deliveries.append(delivery)
        if deliveries:
            if self._waiting and self._waiting[0][2] is waiter:
                self._waiting.popleft()
                waiter.callback(deliveries)
            else:  # who asked has given up meanwhile, and nobody saw them
                for lent in deliveries:
                    lent.give_back().addErrback(lambda failure: failure.trap(NotDurable, LoanOver))
        if not self._empty:
            self._take()

    def _could_not_lend(self, failure: Failure) -> None:
        """Redis is away, or refuses. What it may have lent nevertheless comes back when its lease is over."""
        self._taking = False
        if not failure.check(NotDurable):
            self._log.failure("looking into {queue} broke down", failure, queue=self._name)
        if self._stopped:
            return
        self._look_at(self.redis.clock.seconds() + RETRY_SECONDS)

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

    def stop(self) -> None:
        """Lend nothing more; who waits is told. What is on loan is lent anew when its lease is over."""
        self._stopped = True
        self._unlisten()
        for call in (self._alarm, self._lease_check):
            if call is not None and call.active():
                call.cancel()
        waiting, self._waiting = self._waiting, deque()
        for _, _, waiter in waiting:
            if not waiter.called:
                waiter.errback(CancelledError())
