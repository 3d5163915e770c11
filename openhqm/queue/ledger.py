# -*- test-case-name: tests.brokered -*-
"""What the queue over a broker asks of the result store beside it: the ledger, which decides what a message is worth.

A broker may lose a message, deliver it late, or deliver it twice. The ledger knows each request: which message of it
counts (its generation), how many attempts there were, and whether it has ended. It also holds the outbox: what is to
be published, and when.

Each call is one durable step. It fails with `NotDurable` where the step was not made, or where that cannot be told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import attrs
import msgspec
from twisted.internet.defer import Deferred

from openhqm.errors import NotDurable
from openhqm.messages import Acceptance, Child, DeadLetter, Depth, IdempotencyClaim, Load, Reply, Request, Submission
from openhqm.policy.limits import Limits

MOST_COUNTED = 100_000
CLAIM_SECONDS = 30.0
"""How long the process that publishes an outbox entry has for it, before another one does. It may have been killed."""


_ROOM_SECONDS = 0.05
_MANY = 100


STALE_SECONDS = 10.0
"""What was published so long before a message that has come has come as well, or is lost."""


def window_of(keeps: int | None) -> int | None:
    """How many messages that were not begun there may be in a channel that holds ``keeps``; None: as many as come.

    It is half as many: after a kill each of them may be published a second time.
    """
    return None if keeps is None else max(1, keeps // 2)


def pause_for_room(window: int) -> float:
    """How long to wait, in seconds, once there is room for a message in a channel.

    What is begun in a moment makes room for several, and they are published together. Where there may be few, the
    channel would run empty.
    """
    return _ROOM_SECONDS if window >= _MANY else 0.0


class LossUncertain(NotDurable):
    """It is too early to end requests for ever: this may not be the broker that has them."""


class Outgoing(msgspec.Struct, frozen=True):
    """An outbox entry: one message of a request, to be published into ``channel``.

    ``generation`` counts the decisions to publish a message of this request; ``attempts`` is how many attempts there
    had been by then. ``waits``: the message is published later, by the outbox, because it is not due, or because it
    waits behind another request of its partition. ``follow_ups`` are the ids of the request's follow-ups.
    """

    number: int
    request: Request
    channel: str
    body: bytes
    generation: int = 0
    attempts: int = 0
    waits: bool = False
    follow_ups: tuple[str, ...] = ()


class Incoming(msgspec.Struct, frozen=True):
    """A message that was read: its request, and what its headers say of it.

    ``number`` is the request's in the ledger. ``attempts`` is how many attempts there had been when it was published,
    ``redeliveries`` how often the broker had delivered this very message before. ``reply_channel`` is where a worker
    without a store reports its steps.
    """

    number: int
    request: Request
    body: bytes
    generation: int = 0
    attempts: int = 0
    redeliveries: int = 0
    reply_channel: str | None = None


@attrs.frozen
class Attempt:
    """An attempt that was counted. ``token`` tells it from every other one, also from one of the same number."""

    number: int
    attempt: int
    token: str


@attrs.frozen
class Recovered:
    """What became of requests whose messages the broker has lost: published again, or ended as FAILED."""

    published: int = 0
    ended: int = 0

    def __bool__(self) -> bool:
        return bool(self.published or self.ended)

    def __add__(self, other: Recovered) -> Recovered:
        return Recovered(self.published + other.published, self.ended + other.ended)


class Ledger(Protocol):
    """The store's half for a queue over a broker."""

    on_ending: list[Callable[[int, str], None]]
    """Called with number and status at each ending that this process learns of, maybe twice."""

    on_due: list[Callable[[float], None]]
    """Called with a time at which an outbox entry falls due that was not there, or not due, before."""

    complete: bool
    """Whether every request is in this ledger: then this process makes channels, and makes good what they lose."""

    counts_redeliveries: bool
    """Whether the broker's redeliveries are attempts, to this process or to workers without a store beside it.

    Then a message that was not worked on is not requeued: another one takes its place.
    """

    @property
    def keeps_unbegun(self) -> bool:
        """Whether no other process is known to want what this one has received and does not begin."""

    @property
    def alone(self) -> bool:
        """Whether no other process is known to receive its requests."""

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
        """Open the store; `CannotStart`."""

    def when_probed(self) -> Deferred[None]:
        """Fires once it is known whether the store can be reached; ``unavailable_reason`` says."""

    def stop(self) -> Deferred[None]:
        """Close the store."""

    def to_ours(self, moment: float) -> float:
        """A moment of the store's time, by the clock of this process."""

    def follow(self, queue: str, missed: Callable[[], None]) -> None:
        """Learn of endings of this queue's requests in other processes; ``missed`` when some may have been missed."""

    def number(self, correlation_id: str) -> int | None:
        """The number of a request, or None where its id was not given out by this store; `NotDurable`."""

    # Accepting

    def record(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        follow_ups: Sequence[Submission] = (),
        children: Sequence[Child] = (),
        *,
        at_once: bool = True,
    ) -> Deferred[Outgoing | Acceptance]:
        """Record a request with its claim, its deadline and its outbox entry; the acceptance where it is a repeat.

        Its follow-ups are recorded and held back. Whatever ends it gives them its reply and an outbox entry. One that
        consists of ``children`` has no entry and is accepted now; those of its steps that begin have one.

        An entry that does not wait is this process's to publish, for `CLAIM_SECONDS`. Without ``at_once`` every entry
        waits: it is due now, and the outbox publishes it. `IdempotencyConflict`, `QueueFull`.
        """

    def together(self) -> AbstractContextManager[None]:
        """What is recorded within, without waiting, is one step; see `IMessageQueue.together`."""

    def load(self) -> Deferred[Load | None]:
        """See `IMessageQueue.load`."""

    def limit(self, limits: Limits) -> None:
        """Other limits hold from now on."""

    def withdraw(self, outgoing: Outgoing, claim: IdempotencyClaim | None) -> Deferred[bool]:
        """Take record, claim and entry back. False, and nothing of it, where a caller or a worker knows of it."""

    def redrive(self, number: int) -> Deferred[Outgoing]:
        """Record a dead letter's request as a new one, and drop the dead letter. `UnknownRequest`."""

    def queues(self) -> Deferred[Sequence[str]]:
        """See `IMessageQueue.queues`."""

    # The outbox

    def published(self, entries: Sequence[tuple[int, int]]) -> Deferred[None]:
        """The broker has these messages: each is a number and a generation. Later generations are not touched."""

    def not_published(self, entries: Sequence[tuple[int, int]]) -> Deferred[None]:
        """The broker may not have these messages: the claims on them are over. Later generations are not touched."""

    def take_due(self, most: int) -> Deferred[Sequence[Outgoing]]:
        """Entries that are due, the oldest first; they are this process's to publish for `CLAIM_SECONDS`.

        An entry that was claimed before, and may have been published then, has a new generation.
        """

    def next_due(self) -> Deferred[float | None]:
        """In how many seconds the next entry falls due; None where none waits for its time."""

    def postpone(self, incoming: Incoming, delay: float) -> Deferred[bool]:
        """Move a message that cannot wait in the broker into the outbox. False: it is not worth that any more."""

    def count(self, queue: str) -> Deferred[tuple[int, int]]:
        """How many requests of the queue are ready, and how many wait for their time. `MOST_COUNTED` stands for more.

        Ready is what has a message in the broker that was not begun. For a partition, what stands behind another one
        is ready, too, and a delayed request counts from its time on.
        """

    # Working

    def begin(self, incoming: Incoming) -> Deferred[Attempt | None]:
        """Count an attempt. None where the message is worth nothing: its request has ended, or a newer one counts."""

    def ending(self, number: int) -> Deferred[str | None]:
        """The status with which a request has ended, or None."""

    def note_progress(self, attempt: Attempt, detail: dict[str, Any]) -> Deferred[None]:
        """Add a progress event; `ValueError` past the limits of a history, `LeaseLost`."""

    # Settling. `LeaseLost` where a later attempt has begun.

    def release(self, attempt: Attempt) -> Deferred[bool]:
        """The attempt does not count. True: the same message is to be delivered again. False: another is published."""

    def retry(self, attempt: Attempt, body: bytes, delay: float, reason: str) -> Deferred[None]:
        """A new message counts from now on, and waits in the outbox. Nothing of it where the request has ended."""

    def end(self, attempt: Attempt, reply: Reply, letter: DeadLetter | None) -> Deferred[bool]:
        """Record the ending and the dead letter. False: it had ended before, and nothing was recorded."""

    def let_go(self, attempt: Attempt) -> Deferred[None]:
        """The request has ended, and this attempt is over. `LeaseLost` where it has not ended after all."""

    # What the broker has lost

    def returned(self, attempt: Attempt) -> None:
        """The lease on its message is over: the message waits in its channel again. It is noted in a while."""

    def open_channels(self) -> Deferred[Mapping[str, float]]:
        """The channels with messages that were published and not begun, and since when the oldest of each waits."""

    def recover(
        self,
        channel: str,
        is_lost: Callable[[], Deferred[bool]],
        make: Callable[[], Deferred[None]] | None,
        sure: bool,
    ) -> Deferred[Recovered]:
        """The broker has lost what lay in the channel: publish it again, or end it as FAILED where it is not kept.

        One process at a time does that. ``is_lost`` is asked once it is this one's turn; where it says no, nothing is
        done. ``make`` makes the channel at the end of the turn: then what was being worked on is lost, too. None: the
        channel is there, and empty. ``sure``: this is the broker that had them, for others of its channels are there.
        `LossUncertain`, or another `NotDurable`: not all of it was done.
        """

    # Dead letters

    def reject(self, letter: DeadLetter) -> Deferred[None]:
        """Add a dead letter for a message that is not one of these requests."""

    def dead_letters(self, after: int, most: int) -> Deferred[Sequence[tuple[int, DeadLetter]]]:
        """See `IMessageQueue.dead_letters`."""

    def last_dead_letter(self) -> Deferred[int]:
        """See `IMessageQueue.last_dead_letter`."""

    def drop_dead_letter(self, number: int) -> Deferred[None]:
        """See `IMessageQueue.drop_dead_letter`."""

    def dead_letters_depth(self) -> Deferred[Depth]:
        """How many dead letters there are."""
