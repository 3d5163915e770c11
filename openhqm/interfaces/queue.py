# -*- test-case-name: openhqm.testing -*-
"""The seams: what a queue, a delivery and a result store are to everybody else.

Every method that may wait returns a Deferred. ``openhqm.testing`` holds the contract that each
implementation passes; whoever writes a backend runs the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from openhqm.messages import (
    Acceptance,
    DeadLetter,
    Depth,
    Event,
    IdempotencyClaim,
    Priority,
    Record,
    Reply,
    Request,
    Submission,
)


@attrs.frozen
class QueueTraits:
    """What a backend can promise by itself; code and documentation make up for the rest.

    ``longest_delay`` is in seconds (None: no limit); ``largest_message`` in bytes (None: no limit). Without
    ``tells_oldest``, the depth of a queue does not say since when its oldest message waits.
    """

    durable: bool
    ordered: bool
    native_priority: bool
    atomic_settle: bool
    longest_delay: float | None = None
    largest_message: int | None = None
    tells_oldest: bool = True


class IDelivery(Interface):
    """A request on loan. It is settled exactly once, on itself; a second settling fails with `DeliveryClosed`.

    ``ack``, ``retry``, ``dead_letter``, ``settle`` and ``release`` settle; each fires once that is
    durable, and fails with `NotDurable` (and the loan goes on) where it could not be made so.
    """

    request: Request = Attribute("the `Request`")
    attempt: int = Attribute("which attempt this is, from 1; counted durably before it was lent")
    revoked: Deferred[str] = Attribute(
        "fires with the reason once the work is in vain: cancelled, past its deadline, or the lease lost"
    )

    def extend() -> None:
        """Start the lease anew."""

    def progress(detail: dict[str, Any]) -> Deferred[None]:
        """Add a progress event to the request's history. `ValueError` past the limits of a history."""

    def ack() -> Deferred[None]:
        """Done with, without a reply: a message that needs none, or whose request has ended elsewhere."""

    def retry(delay: float, reason: str) -> Deferred[None]:
        """Lend it again after ``delay`` seconds, also when the process is started anew in between."""

    def release() -> Deferred[None]:
        """Lend it again at once; the attempt was not one."""

    def settle(reply: Reply) -> Deferred[bool]:
        """The reply is durable and the request done. False: it had ended before, the reply was dropped."""

    def dead_letter(reason: str, reply: Reply) -> Deferred[bool]:
        """Like `settle`, and the request rests in the dead letters with the reason and the reply."""


class IMessageQueue(Interface):
    """Named queues of messages that survive whatever `QueueTraits` says they survive."""

    traits: QueueTraits = Attribute("a `QueueTraits`")
    unavailable_reason: str | None = Attribute("why a publish could not be kept now, or None")
    warnings: Sequence[str] = Attribute("what an operator should know although everything works")

    def start() -> Deferred[None]:
        """Open, check and lend anew what was on loan when the last process ended. `CannotStart`."""

    def stop() -> Deferred[None]:
        """Hang up. Whoever waits in `receive` is cancelled; what is on loan is lent again after a start."""

    def accept(submission: Submission, claim: IdempotencyClaim | None) -> Deferred[Acceptance]:
        """Take responsibility for a request: record and message are durable once this fires.

        It waits in the queue that `policy.queue_names.queue_of` names.

        `NotDurable` where that failed, `IdempotencyConflict` where the claim's key holds another request.
        Cancelling gives up the waiting and nothing else: what was asked for is done or fails as a whole.
        """

    def publish(queue: str, message: Request, *, priority: Priority, delay: float) -> Deferred[None]:
        """Add a message that has its id already; fires once it is durable."""

    def receive(queue: str, most: int, *, in_order: bool = False) -> Deferred[Sequence[IDelivery]]:
        """Fires with one to ``most`` deliveries, as soon as there are any. Cancelling loses none.

        ``in_order``: with one, the oldest, and only while no other of this queue is on loan or waits for its retry.
        """

    def depth(queue: str) -> Deferred[Depth]:
        """How much lies in the queue."""

    def queues() -> Deferred[Sequence[str]]:
        """The names of all queues that requests were ever accepted into, by whichever process; others may be there."""

    def dead_letters(after: int, most: int) -> Deferred[Sequence[tuple[int, DeadLetter]]]:
        """The dead letters in order, each with its number, beginning behind number ``after``."""

    def redrive(number: int) -> Deferred[Acceptance]:
        """Accept a dead letter's request anew, under a new id, and drop the dead letter: one step.

        ``metadata.redriven_from`` names the old id, whose ending stands. `UnknownRequest`.
        """


class IResultStore(Interface):
    """The record of every request from its acceptance to its expiry."""

    on_ending: list[Callable[[int, str], None]] = Attribute(
        "functions called with a number and the status at each ending that becomes durable in this process"
    )

    def find(correlation_id: str) -> Deferred[Record]:
        """What is known now. `UnknownRequest` or `ExpiredRequest`."""

    def history(correlation_id: str, after: int) -> Deferred[Sequence[Event]]:
        """The events numbered above ``after``. `UnknownRequest` or `ExpiredRequest`."""

    def watch(correlation_id: str, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call ``listener`` with each new event once it is durable, until the returned function is called."""

    def cancel(correlation_id: str) -> Deferred[Record]:
        """End it with CANCELLED. Fires with the record as it was before. `AlreadyEnded`.

        Cancelling the Deferred gives up the waiting and nothing else.
        """
