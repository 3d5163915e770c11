# -*- test-case-name: tests.brokered.test_brokered -*-
"""The queue over a broker that only moves messages: what is promised is kept by the ledger beside it.

Each step is written into the ledger first and told to the broker second. A kill in between leaves an outbox entry, or
a message too many, and both are made good; docs/queue-over-a-broker.md goes through each one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred, DeferredList, fail
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from openhqm.brokered.local_queue import LocalQueue
from openhqm.brokered.losses import Losses
from openhqm.brokered.outbox import Outbox
from openhqm.brokered.redeliveries import Redeliveries
from openhqm.brokered.source import Recovery
from openhqm.errors import NotDurable
from openhqm.interfaces import BrokerTraits, DepthKind, IBroker, IDelivery, IMessageQueue, IShares, QueueTraits
from openhqm.messages import Acceptance, Child, DeadLetter, Depth, IdempotencyClaim, Load, Priority, Submission, Waiting
from openhqm.policy.channels import Channels, group_of
from openhqm.policy.queue_names import MOST_QUEUES, without_share
from openhqm.queue.ledger import Ledger, Outgoing
from openhqm.runtime.deferreds import Running, deferred, shielded

MOST_UNDER_WAY = 1000
"""Journaled requests that are being published. Further ones go through the outbox, which takes them in portions."""


class StepsConsumer(Protocol):
    """What writes down the steps of workers without a store (`openhqm.storeless`)."""

    channel: str

    @property
    def warnings(self) -> Sequence[str]:
        """What an operator should know although everything works."""

    def start(self, losses: Recovery) -> None:
        """Begin to consume; ``losses`` makes the channel where it is missing."""

    def stop(self) -> Deferred[None]:
        """Finish what was received, and consume no more."""


@implementer(IMessageQueue)
class BrokeredQueue:
    """The queues of ``broker``, with ``ledger`` beside it.

    A delivery that is not extended for ``lease`` seconds is delivered again. ``journaled``: a request is accepted once
    the ledger has it, also while the broker is away. ``steps`` writes down the steps of workers
    without a store, where this process accepts what they work on. For them the channels of ``queues`` are made at once.
    """

    _log = Logger()

    def __init__(
        self,
        broker: IBroker,
        ledger: Ledger,
        clock: IReactorTime,
        *,
        channels: Channels,
        dead_letters: str,
        lease: float = 60.0,
        steps: StepsConsumer | None = None,
        queues: Sequence[str] = (),
        journaled: bool = False,
    ) -> None:
        self._broker = broker
        self._ledger = ledger
        self.together = ledger.together
        self._clock = clock
        self._channels = channels
        self._dead_letters = dead_letters
        self._lease = lease
        self._steps = steps
        self._journaled = journaled
        self._under_way = 0
        names = [name for queue in queues for name in channels.names(queue)]
        self._losses = Losses(broker, ledger, clock, lambda channel: self._outbox.doubt(channel), self._quiet, names)
        self._outbox = Outbox(broker, ledger, clock, self._losses, None if steps is None else steps.channel)
        self.redeliveries = Redeliveries(ledger)
        self._local: dict[str, LocalQueue] = {}
        self._traits: tuple[BrokerTraits, bool, QueueTraits] | None = None
        ledger.on_ending.append(self._ended)

    @property
    def traits(self) -> QueueTraits:
        """What broker and ledger keep together."""
        traits, durable = self._broker.traits, self._ledger.durable
        known = self._traits
        if known is None or known[0] is not traits or known[1] is not durable:  # it is asked with every request
            known = self._traits = (traits, durable, _together(traits, durable))
        return known[2]

    @property
    def unavailable_reason(self) -> str | None:
        """Why nothing can be accepted now, or None."""
        return self._ledger.unavailable_reason or (None if self._journaled else self._without_a_broker)

    @property
    def _without_a_broker(self) -> str | None:
        return self._broker.unavailable_reason or self._losses.unavailable_reason

    @property
    def warnings(self) -> Sequence[str]:
        """What an operator should know of either place."""
        local = [warning for queue in self._local.values() for warning in queue.warnings]
        steps = () if self._steps is None else self._steps.warnings
        away = self._without_a_broker if self._journaled else None
        waiting = () if away is None else (f"what is accepted now waits for the broker: {away}",)
        return (*self._ledger.warnings, *self._broker.warnings, *local, *steps, *self._losses.warnings, *waiting)

    def _quiet(self, channel: str) -> float:
        return max((queue.quiet_seconds(channel) for queue in self._local.values()), default=0.0)

    @deferred
    async def start(self) -> None:
        await self._ledger.start()
        await self._broker.start()
        self._outbox.start()
        self._losses.start()
        if self._steps is not None:
            self._steps.start(self._losses)

    @deferred
    async def stop(self) -> None:
        await DeferredList([queue.stop() for queue in self._local.values()])
        self._losses.stop()
        if self._steps is not None:
            await self._steps.stop()
        await self._outbox.stop()
        await self._broker.stop()
        await self._ledger.stop()

    def accept(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        follow_ups: Sequence[Submission] = (),
        children: Sequence[Child] = (),
    ) -> Deferred[Acceptance]:
        if children:
            return shielded(self._accept_steps(submission, claim, follow_ups, children))
        if not self._journaled:
            return self._accept(submission, claim, follow_ups)
        if self._without_a_broker is None:
            return shielded(self._accept_into_journal(submission, claim, follow_ups))
        # Nothing is published now: there is one step, and a coroutine would cost more than the rest of it.
        return self._ledger.record(submission, claim, follow_ups, at_once=False).addCallback(_acceptance)

    async def _accept_steps(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        follow_ups: Sequence[Submission],
        children: Sequence[Child],
    ) -> Acceptance:
        """The outbox publishes the steps. A request that consists of some has no message."""
        if not self._journaled and claim is None and self._broker.unavailable_reason is not None:
            raise NotDurable(self._broker.unavailable_reason)
        return _acceptance(await self._ledger.record(submission, claim, follow_ups, children))

    async def _accept_into_journal(
        self, submission: Submission, claim: IdempotencyClaim | None, follow_ups: Sequence[Submission]
    ) -> Acceptance:
        at_once = self._under_way < MOST_UNDER_WAY
        self._under_way += at_once  # before the ledger answers: many may be asked of it at the same time
        published = None
        try:
            outgoing = await self._ledger.record(submission, claim, follow_ups, at_once=at_once)
            if isinstance(outgoing, Outgoing) and not outgoing.waits:
                published = self._outbox.publish(outgoing).addBoth(self._is_published, outgoing)
            return _acceptance(outgoing)
        finally:
            if published is None:
                self._under_way -= at_once

    def _is_published(self, failure: Failure | None, outgoing: Outgoing) -> None:
        """Where it could not be, its entry stays, and the outbox publishes it."""
        self._under_way -= 1
        if failure is not None:
            self._outbox.failed(outgoing)
        if failure is not None and not failure.check(NotDurable):
            self._log.failure("publishing {id} broke down", failure, id=outgoing.request.correlation_id)

    def _accept(
        self, submission: Submission, claim: IdempotencyClaim | None, follow_ups: Sequence[Submission]
    ) -> Deferred[Acceptance]:
        """Nearly all are recorded and published at the first try, which needs no coroutine: each would pay for that."""
        if claim is None and self._broker.unavailable_reason is not None:
            return fail(NotDurable(self._broker.unavailable_reason))
        accepted: Deferred[Acceptance] = Deferred()  # cancelled, it goes on all the same
        recording = self._ledger.record(submission, claim, follow_ups)
        recording.addCallbacks(self._recorded, accepted.errback, (claim, accepted))
        return accepted

    def _recorded(
        self, outgoing: Outgoing | Acceptance, claim: IdempotencyClaim | None, accepted: Deferred[Acceptance]
    ) -> None:
        if isinstance(outgoing, Acceptance) or outgoing.waits:
            accepted.callback(_acceptance(outgoing))
            return
        about = outgoing, claim, accepted
        self._outbox.publish(outgoing).addCallbacks(self._confirmed, self._not_confirmed, about, errbackArgs=about)

    def _confirmed(
        self, _: None, outgoing: Outgoing, claim: IdempotencyClaim | None, accepted: Deferred[Acceptance]
    ) -> None:
        accepted.callback(_acceptance(outgoing))

    def _not_confirmed(
        self, failure: Failure, outgoing: Outgoing, claim: IdempotencyClaim | None, accepted: Deferred[Acceptance]
    ) -> None:
        Running(self._take_back(failure, outgoing, claim), accepted.callback, accepted.errback)

    async def _take_back(self, failure: Failure, outgoing: Outgoing, claim: IdempotencyClaim | None) -> Acceptance:
        """It is accepted all the same where it cannot be taken back: its entry stays, and the outbox publishes it."""
        if await self._withdrawn(outgoing, claim):
            failure.raiseException()
        if not failure.check(NotDurable):
            self._log.failure("publishing {id} broke down", failure, id=outgoing.request.correlation_id)
        return _acceptance(outgoing)

    async def _withdrawn(self, outgoing: Outgoing, claim: IdempotencyClaim | None) -> bool:
        """Whether to say that it was not accepted: it was taken back, or what became of it is not known."""
        try:
            return await self._ledger.withdraw(outgoing, claim)
        except NotDurable:
            return True  # the entry stays: it is published later, and the caller knows no id

    def receive(
        self, queue: str, most: int, *, in_order: bool = False, shares: IShares | None = None
    ) -> Deferred[Sequence[IDelivery]]:
        """See `IMessageQueue.receive`. In order is what the outbox publishes: one message of a partition at a time."""
        if shares is not None:
            return self._queue(queue).receive_shared(most, shares)
        return self._queue(queue).receive(queue, 1 if in_order else most)

    def load(self) -> Deferred[Load | None]:
        return self._ledger.load()

    def queues(self) -> Deferred[Sequence[str]]:
        return self._ledger.queues()

    @deferred
    async def waiting(self, queue: str) -> Mapping[Priority, Waiting]:
        """See `IMessageQueue.waiting`. Since when something waits is known of what this process has received.

        Where the broker does not count exactly, and of a partition, the ledger does. It does not know their priorities.
        What waits for a tenant's share waits behind all that is in the same channels.
        """
        queue, _ = without_share(queue)
        local = self._local.get(group_of(queue))
        priorities, names = self._channels.priorities, self._channels.names(queue)
        here = [Waiting(0)] * len(names) if local is None else local.waiting(queue)
        if group_of(queue) != queue or self._broker.traits.depth is not DepthKind.EXACT:
            published, _ = await self._ledger.count(queue)
            since = [each.since for each in here if each.since is not None]
            return {Priority.NORMAL: Waiting(published, min(since, default=None))}
        counts = [(await self._broker.depth(name) or 0) for name in names]
        return {
            priority: Waiting(count + each.count, each.since)
            for priority, count, each in zip(priorities, counts, here, strict=True)
        }

    @deferred
    async def depth(self, queue: str) -> Depth:
        if queue == self._dead_letters:
            return await self._ledger.dead_letters_depth()
        published, waiting = await self._ledger.count(queue)
        counts = self._broker.traits.depth is DepthKind.EXACT and self._broker.unavailable_reason is None
        if group_of(queue) != queue or not counts:
            local = self._local.get(group_of(queue))
            return Depth(published, waiting, 0 if local is None else local.counts(queue)[1], None)
        ready = in_flight = 0
        for channel in self._channels.names(queue):
            ready += await self._broker.depth(channel) or 0
            # What the broker does not count any more has come by the time of its answer. What comes while the next
            # channel is asked was counted by the broker.
            local = self._local.get(queue)
            here, begun = (0, 0) if local is None else local.counts(queue, channel)
            ready += here
            in_flight += begun
        return Depth(ready, waiting, in_flight, None)

    def dead_letters(self, after: int, most: int) -> Deferred[Sequence[tuple[int, DeadLetter]]]:
        return self._ledger.dead_letters(after, most)

    def reject(self, letter: DeadLetter) -> Deferred[None]:
        return self._ledger.reject(letter)

    def last_dead_letter(self) -> Deferred[int]:
        return self._ledger.last_dead_letter()

    def drop_dead_letter(self, number: int) -> Deferred[None]:
        return self._ledger.drop_dead_letter(number)

    def redrive(self, number: int) -> Deferred[Acceptance]:
        return shielded(self._redrive(number))

    async def _redrive(self, number: int) -> Acceptance:
        outgoing = await self._ledger.redrive(number)
        if not outgoing.waits:
            try:
                await self._outbox.publish(outgoing)
            except NotDurable as error:
                self._outbox.failed(outgoing)
                id = outgoing.request.correlation_id
                self._log.warn("{id} was redriven, and is published later: {reason}", id=id, reason=error.reason)
        return _acceptance(outgoing)

    def _queue(self, queue: str) -> LocalQueue:
        name = group_of(queue)
        local = self._local.get(name)
        if local is None:
            if len(self._local) >= MOST_QUEUES:
                raise ValueError(f"more than {MOST_QUEUES} queues")
            local = self._local[name] = LocalQueue(
                self._broker,
                self._ledger,
                self._clock,
                name=name,
                requests=self._channels.requests,
                channels=self._channels.names(name),
                lease=self._lease,
                losses=self._losses,
                redeliveries=self.redeliveries,
            )
        return local

    def _ended(self, number: int, status: str) -> None:
        for queue in self._local.values():
            queue.ended(number, status)


def _together(traits: BrokerTraits, durable: bool) -> QueueTraits:
    return QueueTraits(
        durable=traits.durable and durable,
        ordered=traits.in_order and not traits.native_partitions,
        atomic_settle=False,
        largest_message=traits.largest_message,
        tells_oldest=False,
        tells_shares=False,
    )


def _acceptance(outgoing: Outgoing | Acceptance) -> Acceptance:
    if isinstance(outgoing, Acceptance):
        return outgoing
    request = outgoing.request
    return Acceptance(request.correlation_id, request.submitted_at, follow_ups=outgoing.follow_ups)
