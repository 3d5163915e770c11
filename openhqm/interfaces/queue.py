# -*- test-case-name: openhqm.testing -*-
"""The seam of a backend: what a queue, a delivery and a result store are to the rest of the program.

Every method that may wait returns a Deferred. ``openhqm.testing`` holds the contract that each implementation passes;
the author of another one runs the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from openhqm.interfaces.shares import IShares
from openhqm.messages import (
    Acceptance,
    Child,
    DeadLetter,
    Depth,
    Event,
    IdempotencyClaim,
    Load,
    Priority,
    Record,
    Reply,
    Request,
    Submission,
    Waiting,
)

DEAD_LETTER_PAGE_BYTES = 1024 * 1024
"""How many bytes of dead letters one page holds; the last one may go beyond it."""


@attrs.frozen
class QueueTraits:
    """What distinguishes a backend from the others. Priorities, and delays of any length, every backend keeps.

    ``durable``: what was accepted survives a crash and a power cut. ``ordered``: within one priority the oldest request
    is delivered first. ``atomic_settle``: the reply and the end of the request are one step. ``largest_message`` is in
    bytes (None: no limit). Without ``tells_oldest``, the depth of a queue does not say since when its oldest message
    waits. Without ``tells_shares``, whose requests wait is known of those alone that the process has prefetched.
    """

    durable: bool
    ordered: bool
    atomic_settle: bool
    largest_message: int | None = None
    tells_oldest: bool = True
    tells_shares: bool = True


class IDelivery(Interface):
    """A request that was received. It is settled exactly once, on itself.

    ``ack``, ``retry``, ``dead_letter``, ``settle`` and ``release`` settle it; each fires once that is durable. Each
    fails with `NotDurable` where it could not be made so, and the delivery stays open; with `AlreadySettled` a second
    time; with `LeaseLost` where the lease ran out and the request belongs to another delivery.
    """

    request: Request = Attribute("the `Request`")
    attempt: int = Attribute("which attempt this is, from 1; counted durably before it was delivered")
    revoked: Deferred[str] = Attribute(
        "fires with the reason once the work is in vain: cancelled, past its deadline, or the lease lost"
    )

    def extend() -> None:
        """Renew the lease: it ends ``lease`` seconds from now."""

    def progress(detail: dict[str, Any]) -> Deferred[None]:
        """Add a progress event to the request's history, unless it has ended. `ValueError` past a history's limits."""

    def ack() -> Deferred[None]:
        """Nothing is left to do: the request has ended elsewhere."""

    def retry(delay: float, reason: str) -> Deferred[None]:
        """Deliver it again after ``delay`` seconds, as the next attempt, also after a restart in between."""

    def release() -> Deferred[None]:
        """Deliver it again at once; the attempt does not count."""

    def settle(reply: Reply) -> Deferred[bool]:
        """The reply is durable and the request done. False: it had ended before, the reply was dropped."""

    def dead_letter(reason: str, reply: Reply) -> Deferred[bool]:
        """Like `settle`, and the request is kept in the dead letters with the reason and the reply."""


class IMessageQueue(Interface):
    """Named queues of requests that survive whatever `QueueTraits` says they survive."""

    traits: QueueTraits = Attribute("a `QueueTraits`")
    unavailable_reason: str | None = Attribute("why nothing can be accepted now, or None")
    warnings: Sequence[str] = Attribute("what an operator should know although everything works")

    def start() -> Deferred[None]:
        """Open and check. What was delivered when the last process ended is delivered again. `CannotStart`."""

    def stop() -> Deferred[None]:
        """Close. The callers of `receive` are cancelled; what is delivered now is delivered again after a start."""

    def accept(
        submission: Submission,
        claim: IdempotencyClaim | None,
        follow_ups: Sequence[Submission] = (),
        children: Sequence[Child] = (),
    ) -> Deferred[Acceptance]:
        """Take responsibility for a request: record and message are durable once this fires.

        It waits in the queue that `policy.queue_names.queue_of` names.

        ``follow_ups`` are accepted in the same step, each with an id of its own, and held back: none is delivered
        before the request has ended. Whatever ends it makes them due in the same step, as requests of that time, with
        its reply as their ``parent_reply``. Their ``not_before`` is not looked at.

        A submission with ``coalescing`` takes the place of the one that was accepted last with that key, in the same
        step, where that one has neither begun nor ended: it ends as CANCELLED, and its reply names the new one.

        ``children`` are the steps that the request consists of, ordered by their stage. It is then itself a record
        without a message: it is not delivered, its steps are, each a request with an id of its own. It ends with the
        last of them, or with the first that does not complete; where it ends otherwise, each of its steps does. Its
        ``not_before`` is that of the first stage. No step has a later deadline than the request.

        `NotDurable` where that failed, `IdempotencyConflict` where the claim's key holds another request. `QueueFull`
        beyond the limits of the queue, `MessageTooLarge` where it would not fit into an empty one; a repeat and a
        follow-up are never refused for them. `QueueFull`, too, where the claim is for ``repeats_only`` and its key is
        free, and stays so.
        Cancelling does not take the request back: it is accepted or fails as a whole.
        """

    def together() -> AbstractContextManager[None]:
        """What is accepted within, without waiting, becomes durable in one step: all that is taken of it, or nothing.

        Each still has an outcome of its own.
        """

    def receive(
        queue: str, most: int, *, in_order: bool = False, shares: IShares | None = None
    ) -> Deferred[Sequence[IDelivery]]:
        """Fires with one to ``most`` deliveries, as soon as there are any. Cancelling loses none.

        ``in_order``: with one, the oldest, and only while no other of this queue is delivered or waits for its retry.

        ``shares`` chooses among the requests of this queue and those that wait beside it on behalf of its names
        (`policy.queue_names.share_of`), as far as the backend tells them apart: see `QueueTraits.tells_shares`. None:
        those that wait beside it are not delivered.
        """

    def depth(queue: str) -> Deferred[Depth]:
        """How many requests are in the queue."""

    def waiting(queue: str) -> Deferred[Mapping[Priority, Waiting]]:
        """What waits for its first attempt, as far as it is known without counting: by the clock of this process.

        What ended while it waited may be among it until a fetch passes over it. `NotDurable`.
        """

    def load() -> Deferred[Load | None]:
        """How much has not ended, of what `queue.limits` allows. None: nothing is limited, and it is not counted."""

    def queues() -> Deferred[Sequence[str]]:
        """The names of all queues that requests were ever accepted into, by any process; others may be among them."""

    def dead_letters(after: int, most: int) -> Deferred[Sequence[tuple[int, DeadLetter]]]:
        """A page of the dead letters in order, each with its number, numbered above ``after``: one to ``most``.

        It ends with the letter that reaches `DEAD_LETTER_PAGE_BYTES`, so that no listing grows with what was stored. An
        empty page: there are no more.
        """

    def reject(letter: DeadLetter) -> Deferred[None]:
        """Add a dead letter for a message that is no request. `NotDurable`."""

    def last_dead_letter() -> Deferred[int]:
        """The highest number that a dead letter was given; 0: there was none. It may be gone by now."""

    def drop_dead_letter(number: int) -> Deferred[None]:
        """Remove a dead letter for good. `UnknownRequest`."""

    def redrive(number: int) -> Deferred[Acceptance]:
        """Accept a dead letter's request again, under a new id, and remove the dead letter: one step.

        ``metadata.redriven_from`` names the old id, whose ending stands. `UnknownRequest`.
        """


class IResultStore(Interface):
    """The record of every request from its acceptance to its expiry."""

    on_ending: list[Callable[[int, str], None]] = Attribute(
        "functions called with a number and the status at each ending that becomes durable in this process"
    )

    def completion_token(correlation_id: str) -> str | None:
        """What a target shows to end this request from outside an attempt. None: this process cannot tell.

        It is the same for every process with this store, at any time. For an id that was not given out there is one,
        too. `NotDurable` where the store was not reached yet.
        """

    def find(correlation_id: str) -> Deferred[Record]:
        """The record as it is now. `UnknownRequest` or `ExpiredRequest`."""

    def history(correlation_id: str, after: int) -> Deferred[Sequence[Event]]:
        """The next events numbered above ``after``, in order. `UnknownRequest` or `ExpiredRequest`.

        They are a piece of the history, which may have many megabytes: at most `PIECE_EVENTS` of ``policy.history``,
        and no more once their details have `PIECE_BYTES`; at least one where there is one. An ending comes with the
        last piece. The next piece is that above the last number of this one.
        """

    def watch(correlation_id: str, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call ``listener`` with each new event once it is durable, until the returned function is called."""

    def end(correlation_id: str, reply: Reply) -> Deferred[None]:
        """End a request with ``reply``, also while a worker has it. `AlreadyEnded`, and the errors of `find`."""

    def progress(correlation_id: str, detail: dict[str, Any]) -> Deferred[None]:
        """Add a progress event to the history of a request that has begun.

        `AlreadyEnded`; `ValueError` past the limits of a history; the errors of `find`.
        """

    def cancel(correlation_id: str) -> Deferred[Record]:
        """End it with CANCELLED. Fires with the record as it was before. `AlreadyEnded`.

        Cancelling the Deferred does not take that back.
        """

    def let_expire(claims: Sequence[IdempotencyClaim]) -> Deferred[None]:
        """The key of each is free once its ``lifetime`` from now is over, whatever it was taken for. `NotDurable`.

        A key that is free stays so, and one that holds a request with another fingerprint is left alone.
        """
