# -*- test-case-name: tests.brokered.test_brokered -*-
"""The queue over a broker that holds bytes and nothing else: what is promised is kept by the books beside it.

Each step is written into the ledger first and said to the broker second. A kill in between leaves a mark, or a copy
too many, and both are made up for; `docs/two-places.md` goes through each one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from openhqm.brokered.ledger import Ledger
from openhqm.brokered.local_queue import Place
from openhqm.brokered.publishing import Publishing
from openhqm.codec import encode_request
from openhqm.errors import NotDurable
from openhqm.interfaces import IDelivery, IMessageQueue, QueueTraits
from openhqm.interfaces.legacy import IBroker
from openhqm.messages import (
    Acceptance,
    DeadLetter,
    Depth,
    IdempotencyClaim,
    Priority,
    Request,
    Submission,
)
from openhqm.policy.copies import Copy
from openhqm.policy.queue_names import MOST_QUEUES, holds_requests
from openhqm.runtime.deferreds import deferred, shielded

MOST_LOSSES = 3


class Following(Protocol):
    """What writes down the steps that workers without a store tell."""

    queue: str

    def start(self) -> None:
        """Begin to follow."""

    def stop(self) -> Deferred[None]:
        """Follow no more."""


@implementer(IMessageQueue)
class BrokeredQueue:
    """The queues of ``broker``, and the books in ``ledger``.

    A loan that is not extended for ``lease`` seconds is lent anew. ``following`` is what writes down what workers
    without a store tell, where this process keeps their books.
    """

    _log = Logger()

    def __init__(
        self,
        broker: IBroker,
        ledger: Ledger,
        clock: IReactorTime,
        *,
        requests: str,
        dead_letters: str,
        lease: float = 60.0,
        following: Following | None = None,
    ) -> None:
        self._broker = broker
        self._following = following
        self._ledger = ledger
        self._clock = clock
        self._requests = requests
        self._dead_letters = dead_letters
        self._lease = lease
        self._publishing = Publishing(broker, ledger, clock, requests)
        self._places: dict[str, Place] = {}
        self._lost: tuple[str, ...] = ()
        ledger.on_ending.append(self._ended)
        if ledger.complete:
            broker.on_lost = self._recover

    @property
    def traits(self) -> QueueTraits:
        """Those of the broker, as far as the books can bear it. A delay may be of any length: it is cut into pieces."""
        found = self._broker.traits
        durable = found.durable and self._ledger.durable
        return attrs.evolve(found, durable=durable, atomic_settle=False, longest_delay=None)

    @property
    def unavailable_reason(self) -> str | None:
        """Why nothing can be accepted now, or None."""
        return self._ledger.unavailable_reason or self._broker.unavailable_reason

    @property
    def warnings(self) -> Sequence[str]:
        """What an operator should know of either place."""
        return (*self._ledger.warnings, *self._broker.warnings, *self._lost)

    @deferred
    async def start(self) -> None:
        await self._ledger.start()
        await self._broker.start()
        self._publishing.start()
        if self._following is not None:
            self._following.start()

    @deferred
    async def stop(self) -> None:
        await DeferredList([place.stop() for place in self._places.values()])
        noted = self._publishing.stop()
        if self._following is not None:
            await self._following.stop()
        await self._broker.stop()
        await noted
        await self._ledger.stop()

    def accept(self, submission: Submission, claim: IdempotencyClaim | None) -> Deferred[Acceptance]:
        return shielded(self._accept(submission, claim))

    async def _accept(self, submission: Submission, claim: IdempotencyClaim | None) -> Acceptance:
        if claim is None and self._broker.unavailable_reason is not None:
            raise NotDurable(self._broker.unavailable_reason)
        copy = await self._ledger.record(submission, claim)
        if isinstance(copy, Acceptance):
            return copy
        try:
            await self._publishing.publish(copy)
        except Exception as error:
            if await self._withdrawn(copy, claim):
                raise
            if not isinstance(error, NotDurable):  # a bug, which nobody else hears of
                self._log.failure("publishing {id} broke down", id=copy.request.correlation_id)
        return _acceptance(copy)

    async def _withdrawn(self, copy: Copy, claim: IdempotencyClaim | None) -> bool:
        """Whether to say that it was not accepted: it is taken back, or what became of it is not known."""
        try:
            return await self._ledger.withdraw(copy, claim)
        except NotDurable:
            return True  # the mark stays: it is published later, and nobody was told of it

    @deferred
    async def publish(self, queue: str, message: Request, *, priority: Priority, delay: float) -> None:
        await self._broker.publish(queue, encode_request(message), attempts=0, priority=priority, delay=delay)

    def receive(self, queue: str, most: int, *, in_order: bool = False) -> Deferred[Sequence[IDelivery]]:
        return self._place(queue).receive(most, in_order)

    def queues(self) -> Deferred[Sequence[str]]:
        return self._ledger.queues()

    def depth(self, queue: str) -> Deferred[Depth]:
        return self._ledger.letters_depth() if queue == self._dead_letters else self._broker.depth(queue)

    def dead_letters(self, after: int, most: int) -> Deferred[Sequence[tuple[int, DeadLetter]]]:
        return self._ledger.dead_letters(after, most)

    def redrive(self, number: int) -> Deferred[Acceptance]:
        return shielded(self._redrive(number))

    async def _redrive(self, number: int) -> Acceptance:
        copy = await self._ledger.redrive(number)
        await self._publishing.publish_or_leave(copy)
        return _acceptance(copy)

    @deferred
    async def _recover(self, queue: str | None, priority: Priority | None) -> bool:
        """What the broker has lost is made good, or ends; and somebody is told."""
        if self._following is not None and queue == self._following.queue:
            queue = priority = None  # endings may have been among what was told
        await self._ledger.when_probed()
        await self._publishing.note()  # so that a mark stands for what was never published
        found = await self._ledger.recover(queue, priority)
        if not found:
            return False
        what = "everything it had" if queue is None else f"what was in {queue}"
        words = f"the broker has lost {what}: {found.marked} requests are published anew"
        if found.ended:
            words += f", and {found.ended} have ended as FAILED, for their content was there alone"
        self._log.critical("{words}", words=words)
        self._lost = (*self._lost, words)[-MOST_LOSSES:]
        return True

    def _place(self, queue: str) -> Place:
        place = self._places.get(queue)
        if place is None:
            if len(self._places) >= MOST_QUEUES:
                raise ValueError(f"more than {MOST_QUEUES} queues")
            recorded = holds_requests(self._requests, queue)
            place = Place(self._broker, self._ledger, self._publishing, self._clock, queue, recorded, self._lease)
            self._places[queue] = place
        return place

    def _ended(self, number: int, status: str) -> None:
        for place in self._places.values():
            place.ended(number, status)


def _acceptance(copy: Copy) -> Acceptance:
    return Acceptance(copy.request.correlation_id, copy.request.submitted_at)
