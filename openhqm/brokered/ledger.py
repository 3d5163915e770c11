# -*- test-case-name: tests.brokered.test_brokered -*-
"""What a queue over a broker asks of the result store elsewhere: the books that decide what a message is worth.

A broker holds copies of a request's message. They may be late, or come twice. The ledger knows which of them counts,
how many attempts there were, and whether there is an ending. Each call is one durable step; `NotDurable` where it was
not made, or where nobody can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from openhqm.messages import (
    Acceptance,
    DeadLetter,
    Depth,
    IdempotencyClaim,
    Priority,
    Reply,
    Request,
    Submission,
)
from openhqm.policy.copies import Copy, Loan, NotYet, Recovered


class Ledger(Protocol):
    """The store's half for a queue over a broker."""

    on_ending: list[Callable[[int, str], None]]
    """Called with number and status at each ending that this process learns of, whoever caused it; maybe twice."""

    complete: bool
    """Whether these are all the books there are: every request is in them, and nothing is accepted elsewhere."""

    counts_returns: bool
    """Whether what goes back to the broker costs an attempt: then what cannot be begun is kept until it can."""

    @property
    def durable(self) -> bool:
        """Whether a step survives a restart of the store."""

    @property
    def unavailable_reason(self) -> str | None:
        """Why no step can be made now, or None."""

    @property
    def warnings(self) -> Sequence[str]:
        """What an operator should know although everything works."""

    def start(self) -> Deferred[None]:
        """Open the books; `CannotStart`."""

    def when_probed(self) -> Deferred[None]:
        """Fires once it is known whether they can be reached; `unavailable_reason` says."""

    def stop(self) -> Deferred[None]:
        """Close them."""

    def follow(self, queue: str, look: Callable[[], None]) -> None:
        """Learn of endings of this queue's requests in other processes; ``look`` when some may have been missed."""

    def number(self, correlation_id: str) -> int | None:
        """The number of a request, or None where its id was not given out here; `NotDurable`."""

    # Accepting

    def record(self, submission: Submission, claim: IdempotencyClaim | None) -> Deferred[Copy | Acceptance]:
        """Record a request with its claim and its deadline, and mark it; the acceptance where it is a repeat.

        `IdempotencyConflict`.
        """

    def withdraw(self, copy: Copy, claim: IdempotencyClaim | None) -> Deferred[bool]:
        """Take record, claim and mark back. False, and nothing of it, where somebody knows of the request already."""

    def note_published(self, copies: Sequence[tuple[int, int]]) -> Deferred[None]:
        """Take the marks away: each is a number, and the attempts that the copy carries."""

    def unpublished(self, most: int) -> Deferred[Sequence[Copy]]:
        """Some of the marked requests that nobody is likely to be publishing now. They count as tried now."""

    def queues(self) -> Deferred[Sequence[str]]:
        """See `IMessageQueue.queues`."""

    def recover(self, queue: str | None, priority: Priority | None) -> Deferred[Recovered]:
        """The broker has lost what lay in that queue with that priority, or (None) everything.

        Each request that has not ended, and that lay there by these books, is marked where its message is kept here;
        else it ends as FAILED. `NotDurable`: not all of them; to be asked once more.
        """

    # Lending

    def begin(self, copy: Copy, returned: int) -> Deferred[Loan | NotYet | None]:
        """Count an attempt. None where the copy is worth nothing: ended, unknown, or there is a newer one.

        ``returned`` is how often the broker has lent this very copy before, for whoever has nothing better to go by.
        """

    def ending(self, number: int) -> Deferred[str | None]:
        """The status with which a request has ended, or None."""

    def note_progress(self, loan: Loan, detail: dict[str, Any]) -> Deferred[None]:
        """Add a progress event; `ValueError` past the limits of a history, `DeliveryClosed`."""

    # Settling. `DeliveryClosed` where a later attempt has begun.

    def release(self, loan: Loan) -> Deferred[Copy | None]:
        """The attempt was not one. None: the same copy is to be lent again; else one to be published in its place."""

    def hold(self, loan: Loan, delay: float, reason: str) -> Deferred[bool]:
        """The same copy may begin again after ``delay`` seconds. False: the request has ended."""

    def renew(self, loan: Loan, request: Request, body: bytes, delay: float, reason: str) -> Deferred[Copy | None]:
        """A new copy counts from now on, and is marked; older ones are worth nothing.

        None where there is nothing left to publish: the request has ended, or the copy was published.
        """

    def end(self, loan: Loan, reply: Reply, letter: DeadLetter | None) -> Deferred[bool]:
        """Record the ending and the dead letter. False: it had ended before, and nothing was recorded."""

    def let_go(self, loan: Loan) -> Deferred[None]:
        """Nobody works on it, and nothing is left to do."""

    # Dead letters

    def bury(self, letter: DeadLetter) -> Deferred[None]:
        """Add a dead letter for what is not one of the requests in these books."""

    def dead_letters(self, after: int, most: int) -> Deferred[Sequence[tuple[int, DeadLetter]]]:
        """See `IMessageQueue.dead_letters`."""

    def redrive(self, number: int) -> Deferred[Copy]:
        """Record and mark a dead letter's request anew, and drop the dead letter. `UnknownRequest`."""

    def letters_depth(self) -> Deferred[Depth]:
        """How many dead letters there are."""
