# -*- test-case-name: tests.storeless.test_workers -*-
"""The ledger of a worker that has no store: it reports each step to the process that accepted the request.

A step is done once the broker has it. The accepting process consumes the channel that the request's message names
(`openhqm.storeless.steps_consumer`), and writes each step down. What its ledger decides cannot be asked here: whether a
request has ended, or whether a newer message counts. A message is known by what it says itself.

The accepting process keeps every request with its body. So a retry and a release are short reports; that process
publishes the next message, when it is due. While it is down, they wait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NoReturn
from uuid import UUID

import attrs
import msgspec
from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime

from openhqm.errors import NotDurable
from openhqm.interfaces import IBroker
from openhqm.messages import Acceptance, Child, DeadLetter, Depth, IdempotencyClaim, Load, Reply, Submission
from openhqm.policy.history import check_progress
from openhqm.policy.limits import Limits
from openhqm.policy.steps import ENDED, PROCESSING, PROGRESS, REJECTED, RELEASED, RETRYING, Step
from openhqm.queue.ledger import Attempt, Incoming, Outgoing, Recovered
from openhqm.runtime.deferreds import deferred
from openhqm.storeless.reporting import Reporter

NO_STORE = "this process has no store: it works, and accepts nothing"


@attrs.define(eq=False)
class _Reports:
    """What one attempt has reported. ``turn`` keeps its steps in order, ``progress`` counts those of progress."""

    turn: DeferredLock = attrs.field(factory=DeferredLock)
    progress: int = 0


@attrs.frozen
class ReportedAttempt(Attempt):
    """An attempt at a message.

    Its token names the message as well: where the same process begins it a second time, because it does not know that
    the broker has its first report, both have the same steps.
    """

    incoming: Incoming
    reports: _Reports = attrs.field(factory=_Reports, eq=False)


class StorelessLedger:
    """``reply_channel`` is where steps go that concern no request, or whose message names no other channel.

    ``name`` tells this process from every other one.
    """

    complete = False
    counts_redeliveries = True
    keeps_unbegun = alone = False
    durable = True
    unavailable_reason: str | None = None
    together = staticmethod(nullcontext)

    def __init__(self, broker: IBroker, clock: IReactorTime, *, reply_channel: str, name: str) -> None:
        self._reporter = Reporter(broker)
        self._clock = clock
        self._reply_channel = reply_channel
        self._name = name
        self.on_ending: list[Callable[[int, str], None]] = []
        self.on_due: list[Callable[[float], None]] = []

    @property
    def warnings(self) -> Sequence[str]:
        """Why no step can be reported now."""
        return self._reporter.warnings

    def start(self) -> Deferred[None]:
        return succeed(None)

    def when_probed(self) -> Deferred[None]:
        return succeed(None)

    def stop(self) -> Deferred[None]:
        return succeed(None)

    def to_ours(self, moment: float) -> float:
        """The accepting process has no time that could be asked for: the clocks have to agree."""
        return moment

    def follow(self, queue: str, missed: Callable[[], None]) -> None:
        """Endings of other processes are not told to this one."""

    def number(self, correlation_id: str) -> int | None:
        """Any id has one: which store has given it out cannot be told without that store's secret."""
        try:
            return UUID(correlation_id).int
        except ValueError:
            return None

    # Accepting and publishing are the accepting process's.

    def record(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        follow_ups: Sequence[Submission] = (),
        children: Sequence[Child] = (),
        *,
        at_once: bool = True,
    ) -> Deferred[Outgoing | Acceptance]:
        return maybeDeferred(_no_store)

    def load(self) -> Deferred[Load | None]:
        return succeed(None)

    def limit(self, limits: Limits) -> None:
        """The accepting process keeps them."""

    def withdraw(self, outgoing: Outgoing, claim: IdempotencyClaim | None) -> Deferred[bool]:
        return maybeDeferred(_no_store)

    def redrive(self, number: int) -> Deferred[Outgoing]:
        return maybeDeferred(_no_store)

    def queues(self) -> Deferred[Sequence[str]]:
        return succeed(())

    def published(self, entries: Sequence[tuple[int, int]]) -> Deferred[None]:
        return succeed(None)

    def not_published(self, entries: Sequence[tuple[int, int]]) -> Deferred[None]:
        return succeed(None)

    def take_due(self, most: int) -> Deferred[Sequence[Outgoing]]:
        return succeed(())

    def next_due(self) -> Deferred[float | None]:
        return succeed(None)

    def postpone(self, incoming: Incoming, delay: float) -> Deferred[bool]:
        return maybeDeferred(_no_store)

    def count(self, queue: str) -> Deferred[tuple[int, int]]:
        return succeed((0, 0))

    # Working

    @deferred
    async def begin(self, incoming: Incoming) -> Attempt | None:
        """The number of the attempt is what the message and the broker say.

        A worker that is killed during each attempt has counted it nowhere, so the product has to count redeliveries.
        """
        deadline = incoming.request.deadline
        if deadline is not None and deadline <= self._clock.seconds():
            return None  # the accepting process has ended it, or will
        number = incoming.attempts + incoming.redeliveries + 1
        token = f"{self._name}.{incoming.generation}.{number}"
        attempt = ReportedAttempt(incoming.number, number, token, incoming)
        await self._report(attempt, PROCESSING)
        return attempt

    def ending(self, number: int) -> Deferred[str | None]:
        return succeed(None)

    def note_progress(self, attempt: Attempt, detail: dict[str, Any]) -> Deferred[None]:
        return maybeDeferred(self._note_progress, _reported(attempt), detail)

    def _note_progress(self, attempt: ReportedAttempt, detail: dict[str, Any]) -> Deferred[None]:
        number = attempt.reports.progress + 1
        # Each attempt before has left two events at least, and this one has begun; the progress of others is not known.
        check_progress(2 * attempt.attempt + number, msgspec.json.encode(detail))
        attempt.reports.progress = number
        return self._report(attempt, PROGRESS, f"{PROGRESS} {number}", detail=detail)

    # Settling

    @deferred
    async def release(self, attempt: Attempt) -> bool:
        """The broker has counted the delivery, so the accepting process publishes another message in its place."""
        await self._report(_reported(attempt), RELEASED)
        return False

    def retry(self, attempt: Attempt, body: bytes, delay: float, reason: str) -> Deferred[None]:
        """The accepting process has the body, and publishes it again once ``delay`` seconds have passed."""
        return self._report(_reported(attempt), RETRYING, delay=delay, reason=reason)

    @deferred
    async def end(self, attempt: Attempt, reply: Reply, letter: DeadLetter | None) -> bool:
        """True: whether it had ended before is not known here."""
        await self._report(_reported(attempt), ENDED, reply=reply, reason=None if letter is None else letter.reason)
        return True

    def let_go(self, attempt: Attempt) -> Deferred[None]:
        """Whether the request has ended is not known here. If it has not, another message of it is published."""
        return self.release(attempt).addCallback(lambda _: None)

    def _report(self, attempt: ReportedAttempt, type: str, name: str | None = None, **fields: Any) -> Deferred[None]:
        incoming = attempt.incoming
        id, now = incoming.request.correlation_id, self._clock.seconds()
        step = Step(id, f"{attempt.token} {name or type}", type, now, incoming.generation, attempt.attempt, **fields)
        return attempt.reports.turn.run(self._reporter.report, step, incoming.reply_channel or self._reply_channel)

    # What the broker has lost is for the accepting process to notice.

    def returned(self, attempt: Attempt) -> None:
        """The broker delivers the message again, and counts that."""

    def open_channels(self) -> Deferred[Mapping[str, float]]:
        return succeed({})

    def recover(
        self,
        channel: str,
        is_lost: Callable[[], Deferred[bool]],
        make: Callable[[], Deferred[None]] | None,
        sure: bool,
    ) -> Deferred[Recovered]:
        return succeed(Recovered())

    # Dead letters

    def reject(self, letter: DeadLetter) -> Deferred[None]:
        step = Step(letter.request.correlation_id, REJECTED, REJECTED, self._clock.seconds(), letter=letter)
        return self._reporter.report(step, self._reply_channel)

    def dead_letters(self, after: int, most: int) -> Deferred[Sequence[tuple[int, DeadLetter]]]:
        return maybeDeferred(_no_store)

    def last_dead_letter(self) -> Deferred[int]:
        return maybeDeferred(_no_store)

    def drop_dead_letter(self, number: int) -> Deferred[None]:
        return maybeDeferred(_no_store)

    def dead_letters_depth(self) -> Deferred[Depth]:
        return maybeDeferred(_no_store)


def _reported(attempt: Attempt) -> ReportedAttempt:
    assert isinstance(attempt, ReportedAttempt), "counted by another ledger"
    return attempt


def _no_store() -> NoReturn:
    raise NotDurable(NO_STORE)
