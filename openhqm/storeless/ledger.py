# -*- test-case-name: tests.storeless.test_following -*-
"""The books of a worker that has no store: each step is told to the process that keeps them, over the broker.

A step is done once the broker has it. Whoever follows (`storeless/steps_consumer.py`) writes it down in its time, so
what is decided from the books elsewhere cannot be asked here: whether a request has ended meanwhile, or whether there
is a newer copy. A copy is known by what it says itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any, NoReturn
from uuid import UUID

import attrs
import msgspec
from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime

from openhqm.codec import encode_step
from openhqm.errors import NotDurable
from openhqm.interfaces.legacy import IBroker
from openhqm.messages import Acceptance, DeadLetter, Depth, IdempotencyClaim, Priority, Reply, Request, Submission
from openhqm.policy.copies import Copy, Loan, NotYet, Recovered
from openhqm.policy.history import check_progress
from openhqm.policy.queue_names import priority_of, queue_of
from openhqm.policy.steps import BURIED, ENDED, PROCESSING, PROGRESS, RETRYING, Step
from openhqm.runtime.deferreds import deferred

NO_STORE = "this process has no store: it works, and accepts nothing"


@attrs.frozen
class ToldLoan(Loan):
    """With what is needed to tell of it: ``turn`` keeps its steps in order, ``numbers`` names its progress."""

    copy: Copy
    turn: DeferredLock = attrs.field(factory=DeferredLock, eq=False)
    numbers: Iterator[int] = attrs.field(factory=lambda: count(1), eq=False)


class StorelessLedger:
    """``responses`` is the queue in which the steps are told; ``name`` tells this process from every other one."""

    complete = False
    counts_returns = True
    durable = True
    unavailable_reason: str | None = None
    warnings: Sequence[str] = ()

    def __init__(self, broker: IBroker, clock: IReactorTime, *, requests: str, responses: str, name: str) -> None:
        self._broker = broker
        self._clock = clock
        self._requests = requests
        self._responses = responses
        self._name = name
        self._tokens = count(1)
        self._held: dict[str, tuple[int, int]] = {}
        self.on_ending: list[Callable[[int, str], None]] = []

    def start(self) -> Deferred[None]:
        return succeed(None)

    def when_probed(self) -> Deferred[None]:
        return succeed(None)

    def stop(self) -> Deferred[None]:
        return succeed(None)

    def follow(self, queue: str, look: Callable[[], None]) -> None:
        """Nobody tells us."""

    def number(self, correlation_id: str) -> int | None:
        """Any id has one: who has given it out cannot be told without the secret."""
        try:
            return UUID(correlation_id).int
        except ValueError:
            return None

    # Accepting is for others, and so are the marks.

    def record(self, submission: Submission, claim: IdempotencyClaim | None) -> Deferred[Copy | Acceptance]:
        return maybeDeferred(_no_store)

    def withdraw(self, copy: Copy, claim: IdempotencyClaim | None) -> Deferred[bool]:
        return maybeDeferred(_no_store)

    def note_published(self, copies: Sequence[tuple[int, int]]) -> Deferred[None]:
        return succeed(None)

    def unpublished(self, most: int) -> Deferred[Sequence[Copy]]:
        return succeed(())

    def recover(self, queue: str | None, priority: Priority | None) -> Deferred[Recovered]:
        """Who accepts does that."""
        return succeed(Recovered())

    def queues(self) -> Deferred[Sequence[str]]:
        """Who accepts knows them."""
        return succeed(())

    # Lending

    @deferred
    async def begin(self, copy: Copy, returned: int) -> Loan | NotYet | None:
        now, request = self._clock.seconds(), copy.request
        if request.deadline is not None and request.deadline <= now:
            return None  # whoever keeps the books has ended it, or will
        held, made = self._held.get(self._queue(request), (None, 0))
        attempt = max(copy.attempts + returned, made if held == copy.number else 0) + 1
        loan = ToldLoan(copy.number, attempt, f"{self._name}.{next(self._tokens)}", copy)
        await self._tell(loan, PROCESSING, PROCESSING, {"attempt": attempt})
        return loan

    def ending(self, number: int) -> Deferred[str | None]:
        """Nobody tells us."""
        return succeed(None)

    def note_progress(self, loan: Loan, detail: dict[str, Any]) -> Deferred[None]:
        return maybeDeferred(self._note_progress, _told(loan), detail)

    def _note_progress(self, loan: ToldLoan, detail: dict[str, Any]) -> Deferred[None]:
        number = next(loan.numbers)
        check_progress(number, msgspec.json.encode(detail))
        return self._tell(loan, f"progress {number}", PROGRESS, detail)

    # Settling

    def release(self, loan: Loan) -> Deferred[Copy | None]:
        """The broker has counted that it lent this copy, so a new one goes in its place; in order the place counts."""
        copy = _told(loan).copy
        if copy.request.submission.partition is not None:
            return succeed(None)
        return succeed(attrs.evolve(copy, attempts=loan.attempt - 1))

    @deferred
    async def hold(self, loan: Loan, delay: float, reason: str) -> bool:
        told = _told(loan)
        await self._tell_retry(told, delay, reason)
        # One at a time in each queue that is worked off in order.
        self._held[self._queue(told.copy.request)] = loan.number, loan.attempt
        return True

    @deferred
    async def renew(self, loan: Loan, request: Request, body: bytes, delay: float, reason: str) -> Copy | None:
        await self._tell_retry(_told(loan), delay, reason)
        # There are no marks here: until the broker has the new copy, the old one is all there is.
        priority = priority_of(request.submission)
        await self._broker.publish(
            self._queue(request), body, attempts=loan.attempt, priority=priority, delay=max(0.0, delay)
        )
        return None

    @deferred
    async def end(self, loan: Loan, reply: Reply, letter: DeadLetter | None) -> bool:
        reason = None if letter is None else letter.reason
        await self._tell(_told(loan), ENDED, ENDED, {}, reply, reason)
        return True

    def let_go(self, loan: Loan) -> Deferred[None]:
        return succeed(None)

    def _tell_retry(self, loan: ToldLoan, delay: float, reason: str) -> Deferred[None]:
        due = self._clock.seconds() + delay
        detail = {"attempt": loan.attempt, "next_attempt_at": due, "error": reason}
        return self._tell(loan, RETRYING, RETRYING, detail)

    def _tell(
        self,
        loan: ToldLoan,
        name: str,
        type: str,
        detail: dict[str, Any],
        reply: Reply | None = None,
        reason: str | None = None,
    ) -> Deferred[None]:
        id = loan.copy.request.correlation_id
        step = Step(id, f"{loan.token} {name}", type, self._clock.seconds(), detail, reply, reason)
        return loan.turn.run(self._publish, step)

    def _publish(self, step: Step) -> Deferred[None]:
        return self._broker.publish(self._responses, encode_step(step), attempts=0, priority=Priority.NORMAL, delay=0.0)

    def _queue(self, request: Request) -> str:
        return queue_of(self._requests, request.submission)

    # Dead letters

    def bury(self, letter: DeadLetter) -> Deferred[None]:
        id = letter.request.correlation_id
        return self._publish(Step(id, BURIED, BURIED, self._clock.seconds(), letter=letter))

    def dead_letters(self, after: int, most: int) -> Deferred[Sequence[tuple[int, DeadLetter]]]:
        return maybeDeferred(_no_store)

    def redrive(self, number: int) -> Deferred[Copy]:
        return maybeDeferred(_no_store)

    def letters_depth(self) -> Deferred[Depth]:
        return maybeDeferred(_no_store)


def _told(loan: Loan) -> ToldLoan:
    assert isinstance(loan, ToldLoan), "lent by another ledger"
    return loan


def _no_store() -> NoReturn:
    raise NotDurable(NO_STORE)
