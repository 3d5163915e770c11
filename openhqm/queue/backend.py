# -*- test-case-name: tests.test_backends,tests.test_service -*-
"""A queue and the result store beside it, opened and closed together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import attrs
from twisted.internet.defer import Deferred, succeed

from openhqm.errors import CannotStart, NotDurable
from openhqm.interfaces import IBroker, IEndingLog, IMessageQueue, IResultStore
from openhqm.messages import DeadLetter
from openhqm.policy.addressing import Addressing
from openhqm.policy.channel_count import ChannelCount
from openhqm.policy.channels import Channels
from openhqm.policy.limits import Limits
from openhqm.policy.steps import Step
from openhqm.runtime.deferreds import deferred

RunCommit = Callable[[Callable[[], None]], Deferred[None]]
"""Runs a blocking commit in a thread; fires once it is done."""


CountTaken = Callable[[Sequence[tuple[bytes, float]]], Deferred[tuple[int, Sequence[float]]]]
"""Counts what a process has let its callers take of rate limits that all processes keep together: the name of each, and
seconds of it. It fires with how many processes there are, and how many seconds of each are owed by now; `NotDurable`.
"""


class Timekeeper(Protocol):
    """What keeps the deadlines and the expiry of a result store."""

    def start(self) -> None:
        """Begin to keep them. The queue is open by now."""

    def stop(self) -> None:
        """Keep them no longer."""


class CountChannels(Protocol):
    """Counts channels; see `Backend`."""

    def __call__(self, addressing: Addressing | None = None) -> ChannelCount: ...


def _known_at_once() -> Deferred[None]:
    return succeed(None)


@attrs.frozen
class Backend:
    """Where requests and answers are.

    ``timekeeper``: None where the queue keeps the time itself. ``when_probed`` fires once it is known whether a
    server can be reached. ``channels`` counts the channels that the queue takes in ``broker``, with the addressing
    that it was made with or with another one; None: there is no broker. ``requests_wait_in`` are those in which
    requests wait. ``limit`` has the queue keep other limits from then on; None: those that it has are its own.
    ``on_redelivered`` are functions that are called for each message which the broker delivers again although its
    work has begun before; None: there is no broker. ``own_time``: the times in the store are those of this process's
    clock. ``endings`` is the log of endings; None: the store keeps none. ``count_taken``: None where each process keeps
    rate limits for itself.
    """

    queue: IMessageQueue
    store: IResultStore
    timekeeper: Timekeeper | None = None
    when_probed: Callable[[], Deferred[None]] = _known_at_once
    channels: CountChannels | None = None
    broker: IBroker | None = None
    requests_wait_in: Sequence[str] = ()
    limit: Callable[[Limits], None] | None = None
    on_redelivered: list[Callable[[], object]] | None = None
    own_time: bool = False
    endings: IEndingLog | None = None
    count_taken: CountTaken | None = None

    @deferred
    async def start(self) -> None:
        """Open the queue, and then keep the time. `CannotStart`."""
        await self.queue.start()
        if self.timekeeper is not None:
            self.timekeeper.start()

    @deferred
    async def check(self) -> None:
        """Open it, and wait until it is known whether it works. `CannotStart` where it does not.

        How many channels a broker has may be known only now, and which of those that it does not make are missing.
        """
        await self.start()
        await self.when_probed()
        reason = self.queue.unavailable_reason or (self.channels().refusal if self.channels is not None else None)
        if reason is None and self.broker is not None and not self.broker.traits.makes_channels:
            reason = await _missing(self.broker, self.requests_wait_in)
        if reason is not None:
            raise CannotStart(reason)

    @deferred
    async def stop(self) -> None:
        """Close the queue and the store."""
        if self.timekeeper is not None:
            self.timekeeper.stop()
        await self.queue.stop()


async def _missing(broker: IBroker, channels: Sequence[str]) -> str | None:
    """Which of ``channels`` a broker that makes none does not have, and what to do; None: it has all."""
    reasons = []
    for channel in channels:
        try:
            await broker.ensure(channel)
        except NotDurable as error:
            reasons.append(error.reason)
    return "; ".join(reasons) or None


@attrs.frozen
class MadeBroker:
    """A broker as its product makes it, for a queue over it (`openhqm.brokered`).

    ``prefix`` is what the names of its channels begin with. ``lost_after``: where a shared store alone knows of a
    request whose message the broker does not have, the request ends after so many seconds. ``reports``: it may have a
    channel in which workers without a store report.
    """

    broker: IBroker
    prefix: str = ""
    lost_after: float = 60.0
    reports: bool = True


@attrs.frozen
class Beside:
    """What a store beside a broker is told of it.

    ``reply_channel`` is where workers without a store report; None: the product cannot have any. ``lost_after``: see
    `MadeBroker`. ``window`` is how many messages that were not begun a channel may have; None: as many as come.
    """

    channels: Channels
    reply_channel: str | None
    lost_after: float
    window: int | None = None


class StepLog(Protocol):
    """Writes down what workers without a store report. `NotDurable`."""

    def note(self, step: Step) -> Deferred[None]:
        """Write a step down, once. `UnknownRequest`; `ValueError` past the limits of a history."""

    def reject(self, letter: DeadLetter) -> Deferred[None]:
        """Add a dead letter."""


L_co = TypeVar("L_co", covariant=True)


@attrs.frozen
class Store(Generic[L_co]):
    """The result store beside a broker, and the ledger in it, which a queue over the broker opens and closes.

    ``steps`` is for a store of one process, to which workers without a store report; None: the store is shared.
    ``timekeeper``, ``when_probed``, ``own_time``, ``endings`` and ``count_taken``: see `Backend`.
    """

    ledger: L_co
    results: IResultStore
    timekeeper: Timekeeper | None = None
    when_probed: Callable[[], Deferred[None]] = _known_at_once
    steps: StepLog | None = None
    own_time: bool = False
    endings: IEndingLog | None = None
    count_taken: CountTaken | None = None
