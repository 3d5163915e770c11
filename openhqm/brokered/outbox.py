# -*- test-case-name: tests.brokered.test_brokered -*-
"""The outbox: what is to be published, when it is due, and that the ledger learns what was.

An entry is in the ledger before its message goes to the broker, so whatever is killed in between is published again,
under a new generation. What the broker has confirmed is told to the ledger a moment later, many at a time: no caller
waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.brokered.losses import STOPPING
from openhqm.brokered.messages import to_message
from openhqm.errors import NotDurable
from openhqm.interfaces import ChannelMissing, IBroker, Message
from openhqm.policy.channels import key_of
from openhqm.queue.ledger import Ledger, Outgoing
from openhqm.runtime.deferreds import deferred

NOTE_SECONDS = 1.0
MOST_UNNOTED = 1000
MOST_AT_ONCE = 200
NEW_CHANNEL_SECONDS = 0.25
"""A broker may refuse what is published into a channel that it has just made: so soon it is published once more."""
LOOK_SECONDS = 5.0
"""How often the ledger is asked what is due, besides when this process knows of something."""
NEVER = float("inf")
Batch = list[tuple[Outgoing, Deferred[None]]]


class Channels(Protocol):
    """What makes channels that are missing: `openhqm.brokered.losses.Losses`."""

    def restore(self, channel: str) -> Deferred[None]:
        """Make a channel, and make good what was lost with it. `NotDurable`."""

    def times_lost(self, channel: str) -> int:
        """How often the channel was missing."""


class Outbox:
    """``channels`` makes those that are missing. ``reply_channel`` is told to workers without a store, where some may
    work here.
    """

    _log = Logger()

    def __init__(
        self,
        broker: IBroker,
        ledger: Ledger,
        clock: IReactorTime,
        channels: Channels,
        reply_channel: str | None = None,
    ) -> None:
        self._broker = broker
        self._ledger = ledger
        self._clock = clock
        self._channels = channels
        self._reply_channel = reply_channel
        self._pending: dict[str, Batch] = {}
        self._unnoted: dict[str, list[tuple[int, int]]] = {}
        self._unnoted_count = 0
        self._note_timer: Any = None
        self._timer: Any = None
        self._timer_at = NEVER
        self._sweeping: Deferred[Any] | None = None
        self._refused: dict[Any, Batch] = {}
        self._failed: list[tuple[int, int]] = []
        self._failed_until = 0.0
        self._again = self._stopped = False

    def start(self) -> None:
        """Begin to publish what is due."""
        self._ledger.on_due.append(self._fell_due)
        self._broker.on_connected.append(self._connected)
        self._broker.when_probed().addCallback(lambda _: self._look())

    @deferred
    async def stop(self) -> None:
        """Publish nothing more, and tell the ledger what was published."""
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._sweeping is not None:
            self._sweeping.cancel()
        for call, batch in self._refused.items():
            call.cancel()
            _fail(batch, Failure(NotDurable(STOPPING)))
        self._refused.clear()
        await self.note().addErrback(_is_published_again)

    # Publishing

    def publish(self, outgoing: Outgoing) -> Deferred[None]:
        """Fires once the broker has the message. `NotDurable`: its entry stays, and it is published again.

        What is asked for in one turn of the reactor goes to the broker together.
        """
        confirmed: Deferred[None] = Deferred()  # cancelled, it is published all the same
        pending = self._pending.setdefault(outgoing.channel, [])
        pending.append((outgoing, confirmed))
        if len(pending) == 1:
            self._clock.callLater(0, self._publish, outgoing.channel)
        return confirmed

    def _publish(self, channel: str) -> None:
        pending = self._pending.pop(channel)
        most = self._broker.traits.largest_batch
        for start in range(0, len(pending), most):
            self._send(channel, pending[start : start + most])

    def _send(self, channel: str, batch: Batch, tries: int = 0) -> None:
        messages = [self._message(entry) for entry, _ in batch]
        times_lost = self._channels.times_lost(channel)
        answered = maybeDeferred(self._broker.publish, channel, messages)
        answered.addCallback(self._answered, channel, batch, tries, times_lost)
        answered.addErrback(lambda failure: _fail(batch, failure))  # a bug, and no caller has to wait for ever

    def _message(self, entry: Outgoing) -> Message:
        key = key_of(entry.request.submission)
        return to_message(entry.body, key, entry.generation, entry.attempts, self._reply_channel)

    def _answered(
        self, outcomes: Sequence[NotDurable | None], channel: str, batch: Batch, tries: int, times_lost: int
    ) -> None:
        missing: Batch = []
        refused: Batch = []
        kept = times_lost == self._channels.times_lost(channel)
        for (entry, confirmed), outcome in zip(batch, outcomes, strict=True):
            if outcome is None:
                if kept:  # else it may have been lost since it was confirmed, and is published once more
                    self._unnoted.setdefault(channel, []).append((entry.number, entry.generation))
                    self._unnoted_count += 1
                if not confirmed.called:
                    confirmed.callback(None)
            elif isinstance(outcome, ChannelMissing) and tries == 0:
                missing.append((entry, confirmed))
            elif tries == 1 and not self._stopped:
                refused.append((entry, confirmed))
            elif not confirmed.called:
                confirmed.errback(outcome)
        if missing:
            self._channels.restore(channel).addCallbacks(
                lambda _: self._send(channel, missing, tries=1), lambda failure: _fail(missing, failure)
            )
        if refused:
            call = self._clock.callLater(NEW_CHANNEL_SECONDS, lambda: self._send_again(call, channel))
            self._refused[call] = refused
        if self._stopped:
            return  # nothing more is noted, and what was published after the end is published again
        if self._unnoted_count >= MOST_UNNOTED:
            self._note()
        elif self._unnoted and self._note_timer is None:
            self._note_timer = self._clock.callLater(NOTE_SECONDS, self._note)

    def _send_again(self, call: Any, channel: str) -> None:
        self._send(channel, self._refused.pop(call), tries=2)

    def _note(self) -> None:
        self.note().addErrback(_is_published_again)

    def note(self) -> Deferred[None]:
        """Tell the ledger what was published until now. Where that fails the entries stay; `NotDurable`."""
        if self._note_timer is not None and self._note_timer.active():
            self._note_timer.cancel()
        self._note_timer = None
        published = [entry for entries in self._unnoted.values() for entry in entries]
        unavailable = self._broker.unavailable_reason is not None
        self._doubt_all()
        return succeed(None) if unavailable or not published else self._ledger.published(published)

    def doubt(self, channel: str) -> None:
        """The channel may have lost what was published into it a moment ago: that stays, and is published again."""
        self._unnoted_count -= len(self._unnoted.pop(channel, ()))

    def _doubt_all(self) -> None:
        self._unnoted, self._unnoted_count = {}, 0

    def _connected(self) -> None:
        """The broker may have come back without what it has confirmed last."""
        self._doubt_all()
        self._failed_until = 0.0
        self._look()

    def failed(self, outgoing: Outgoing) -> None:
        """The broker has not taken the message, as far as is known, and no caller waits for it: it is due again.

        That is noted for many at a time: at once when there is a new connection, else in a while. What is too much to
        be noted is due when its claim runs out.
        """
        if not self._failed:
            self._failed_until = self._clock.seconds() + LOOK_SECONDS
        if len(self._failed) < MOST_UNNOTED:
            self._failed.append((outgoing.number, outgoing.generation))

    # What is due

    def _fell_due(self, due: float) -> None:
        """The ledger has an entry that is due then. While the broker is away, no look at it is of use."""
        if due < self._timer_at and self._broker.unavailable_reason is None:
            self.wake_at(due)

    def wake_at(self, due: float) -> None:
        """An entry falls due at ``due``, by our clock."""
        if due >= self._timer_at or self._stopped:
            return
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._clock.callLater(max(0.0, due - self._clock.seconds()), self._look)

    def _look(self) -> None:
        """Publish what is due, one look at a time."""
        self._timer_at = NEVER
        if self._sweeping is not None:
            self._again = True
        elif not self._stopped:
            self._again = False
            sweeping = self._sweeping = self._sweep()
            sweeping.addBoth(self._swept)

    def _swept(self, again: Any) -> None:
        self._sweeping = None
        if isinstance(again, Failure):
            if again.check(CancelledError) and self._stopped:
                return
            if not again.check(NotDurable):
                self._log.failure("publishing from the outbox broke down", again)
            again = LOOK_SECONDS
        self.wake_at(self._clock.seconds() + (0.0 if self._again else min(again, LOOK_SECONDS)))

    @deferred
    async def _sweep(self) -> float:
        """Publish what is due now; in how many seconds to look again."""
        if self._broker.unavailable_reason is not None:
            return LOOK_SECONDS
        if self._failed and self._clock.seconds() >= self._failed_until:
            given_up, self._failed = self._failed, []
            await self._ledger.not_published(given_up)
        entries = await self._ledger.take_due(MOST_AT_ONCE)
        outcomes = await DeferredList([self.publish(entry) for entry in entries], consumeErrors=True)
        failed = False
        for entry, (success, failure) in zip(entries, outcomes, strict=True):
            if not success and not self._stopped:
                failed = True
                self.failed(entry)
                self._say_later(entry, failure)
        if len(entries) == MOST_AT_ONCE and not failed:
            return 0.0
        next_due = await self._ledger.next_due()
        return LOOK_SECONDS if next_due is None else next_due

    def _say_later(self, entry: Outgoing, failure: Any) -> None:
        if not failure.check(ChannelMissing):  # what makes the channel says so
            id, reason = entry.request.correlation_id, failure.getErrorMessage()
            self._log.warn("{id} is published later: {reason}", id=id, channel=entry.channel, reason=reason)


def _fail(batch: Batch, failure: Failure) -> None:
    """The channel could not be made: none of it was published."""
    for _, confirmed in batch:
        if not confirmed.called:
            confirmed.errback(failure)


def _is_published_again(failure: Failure) -> None:
    """The entries stay in the ledger: their messages are published once more, and the second ones are passed over."""
    failure.trap(NotDurable)
