# -*- test-case-name: tests.brokered.test_losses -*-
"""Noticing that a channel is gone, or was emptied by another program, and making good what was lost with it.

The ledger knows which requests have a message in a channel. So a channel that is missing is not made before the ledger
was asked (`restore`), and a channel that stays empty although requests should wait in it is treated as one that was
purged. The ledger publishes what it keeps once more, and ends the rest as FAILED.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.errors import NotDurable
from openhqm.interfaces import DepthKind, IBroker
from openhqm.queue.ledger import Ledger, LossUncertain, Recovered
from openhqm.runtime.deferreds import deferred, shielded

LOOK_SECONDS = 30.0
"""How often it is looked whether the channels still hold what the ledger counts."""
PURGED_LOOKS = {DepthKind.EXACT: 3, DepthKind.APPROXIMATE: 10, DepthKind.NONE: 3}
"""How many looks in a row have to find a channel empty. Another process may have prefetched what was in it."""
MOST_DOUBLINGS = 8
DROPPED_LOOKS = 2
"""The same where the broker has said that it has removed messages."""
SUSPICIOUS_SECONDS = 2.0
"""How often it is looked while a channel is missing, and it is too early to end what waits in it; and while a channel
is not empty from which messages were removed.
"""
RESTORE_SECONDS = 10.0
MOST_WARNINGS = 3
STOPPING = "this process is stopping"


class Losses:
    """``ledger`` has every request, or this is not for this process: see `Ledger.complete`. ``doubt`` is
    called with a channel that may have lost what was published a moment ago. ``quiet`` says for how many seconds a
    message that lies in a channel would have come to this process, and none came. ``channels`` are there before
    anything is published into them: processes consume from them that make none.
    """

    _log = Logger()

    def __init__(
        self,
        broker: IBroker,
        ledger: Ledger,
        clock: IReactorTime,
        doubt: Callable[[str], None],
        quiet: Callable[[str], float],
        channels: Sequence[str] = (),
    ) -> None:
        self._broker = broker
        self._ledger = ledger
        self._clock = clock
        self._doubt = doubt
        self._quiet = quiet
        self._channels = channels
        self._unmade: Sequence[str] = tuple(channels)
        self._restoring: dict[str, Deferred[None]] = {}
        self._waiting: dict[str, list[Deferred[None]]] = {}
        self._empty: dict[str, tuple[int, float]] = {}
        self._in_vain: Counter[str] = Counter()
        self._timer: Any = None
        self._looking: Deferred[None] | None = None
        self._stopped = False
        self._suspicions: dict[str, str] = {}
        self._times_lost: Counter[str] = Counter()
        self._dropped: set[str] = set()
        self.warnings: tuple[str, ...] = ()

    @property
    def unavailable_reason(self) -> str | None:
        """Why this does not seem to be the broker that has the requests, or None."""
        return next(iter(self._suspicions.values()), None)

    def start(self) -> None:
        """Begin to look."""
        if self._ledger.complete:
            self._broker.on_connected.append(self._look_again)
            self._broker.when_probed().addCallback(lambda _: self._look())

    def stop(self) -> None:
        """Look no more; what waits for a channel fails."""
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        for under_way in (self._looking, *self._restoring.values()):
            if under_way is not None:
                under_way.cancel()

    def restore(self, channel: str) -> Deferred[None]:
        """Make a channel that is missing, once the ledger has made good what was in it. `NotDurable`.

        Only a process with a complete ledger makes channels: made by another one, no process would notice the loss.
        """
        if self._stopped:
            return _failed(STOPPING)
        if not self._ledger.complete:
            return _failed(f"the broker has no channel {channel}: no process that accepts requests has made it yet")
        waiting: Deferred[None] = Deferred()
        self._waiting.setdefault(channel, []).append(waiting)
        if channel not in self._restoring:
            self._times_lost[channel] += 1
            restoring = self._restoring[channel] = self._restore(channel)
            restoring.addBoth(self._restored, channel)
        return waiting.addTimeout(RESTORE_SECONDS, self._clock, partial(_too_late, channel))

    def dropped(self, channel: str) -> None:
        """The broker has removed messages of the channel that no process was given.

        Once the channel is empty, what should wait in it is what is gone: it is published again, or ends.
        """
        if self._ledger.complete and channel not in self._dropped:
            self._dropped.add(channel)
            self._look_in(SUSPICIOUS_SECONDS)

    def times_lost(self, channel: str) -> int:
        """How often the channel was missing: what was published before the last time may be lost."""
        return self._times_lost[channel]

    def _restored(self, result: Any, channel: str) -> None:
        self._restoring.pop(channel, None)
        self._suspicions.pop(channel, None)
        reason: NotDurable | None = None
        if isinstance(result, Failure):
            if result.check(LossUncertain):
                self._suspicions[channel] = result.getErrorMessage()
            elif not result.check(NotDurable, CancelledError):
                self._log.failure("restoring channel {channel} broke down", result, channel=channel)
            error = result.value
            reason = error if isinstance(error, NotDurable) else NotDurable(STOPPING if self._stopped else str(error))
        for waiting in self._waiting.pop(channel, []):
            if waiting.called:
                continue
            if reason is not None:
                waiting.errback(reason)
            else:
                waiting.callback(None)

    @deferred
    async def _restore(self, channel: str) -> None:
        @deferred
        async def is_missing() -> bool:
            return not await self._broker.exists(channel)

        self._doubt(channel)
        sure = await self._is_the_right_broker(channel)
        recovered = await self._ledger.recover(channel, is_missing, lambda: self._broker.ensure(channel), sure)
        if recovered:
            self._warn(f"channel {channel} was gone", recovered)

    async def _is_the_right_broker(self, channel: str) -> bool:
        """Whether another channel that requests wait in is there."""
        for other in await self._ledger.open_channels():
            if other != channel and await self._broker.exists(other):
                return True
        return False

    # Looking

    def _look_again(self) -> None:
        """There is a new connection: the broker may have lost everything since."""
        self._empty.clear()
        self._unmade = tuple(self._channels)
        self._look()

    def _look(self) -> None:
        if self._stopped or self._looking is not None:
            return
        self._looking = shielded(self._look_at_all())
        self._looking.addBoth(self._looked)

    def _looked(self, result: Any) -> None:
        self._looking = None
        if isinstance(result, Failure) and not result.check(NotDurable, CancelledError):
            self._log.failure("looking for lost messages broke down", result)
        self._look_in(SUSPICIOUS_SECONDS if self._suspicions or self._dropped else LOOK_SECONDS)

    def _look_in(self, seconds: float) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if not self._stopped:
            self._timer = self._clock.callLater(seconds, self._look)

    async def _look_at_all(self) -> None:
        if self._broker.unavailable_reason is not None:
            return
        channels = await self._ledger.open_channels()
        for channel in self._empty.keys() - channels.keys():
            del self._empty[channel]
        for channel in self._suspicions.keys() - channels.keys():
            del self._suspicions[channel]
        self._dropped &= channels.keys()
        for channel, oldest in channels.items():
            try:
                await self._look_at(channel, oldest)
            except NotDurable as error:  # the others are looked at nevertheless
                self._log.debug("{channel} was not looked at: {reason}", channel=channel, reason=error.reason)
        unmade = self._unmade
        for channel in unmade:
            if not await self._broker.exists(channel):
                await self.restore(channel)
        if unmade is self._unmade:  # else there is another connection by now
            self._unmade = ()

    async def _look_at(self, channel: str, oldest: float) -> None:
        if not await self._broker.exists(channel):
            await self.restore(channel)
        elif await self._was_purged(channel, oldest):
            self._empty.pop(channel, None)
            was_dropped = channel in self._dropped
            self._dropped.discard(channel)
            self._in_vain[channel] += not was_dropped
            recovered = await self._ledger.recover(channel, partial(self._is_empty, channel), None, True)
            if recovered:
                counts = self._broker.traits.depth is not DepthKind.NONE
                what = "was emptied by another program" if counts and not was_dropped else "has lost messages"
                self._warn(f"channel {channel} {what}", recovered)

    async def _was_purged(self, channel: str, oldest: float) -> bool:
        """Whether the channel was empty for many looks in a row, while the same oldest request should wait in it.

        Where nothing of what was published again is there, either, the next finding takes twice as many looks:
        something else may be wrong, and the broker may keep every one of these messages.
        """
        if not await self._is_empty(channel):
            self._empty.pop(channel, None)
            self._in_vain.pop(channel, None)
            return False
        looks = PURGED_LOOKS[self._broker.traits.depth] << min(self._in_vain[channel], MOST_DOUBLINGS)
        looks = DROPPED_LOOKS if channel in self._dropped else looks
        seen, since = self._empty.get(channel, (0, oldest))
        self._empty[channel] = (seen + 1, oldest) if since == oldest else (1, oldest)
        return self._empty[channel][0] >= looks

    @deferred
    async def _is_empty(self, channel: str) -> bool:
        if self._broker.traits.depth is DepthKind.NONE:
            return self._quiet(channel) >= LOOK_SECONDS
        return await self._broker.depth(channel) == 0

    def _warn(self, what: str, recovered: Recovered) -> None:
        text = f"{what}: {recovered.published} requests are published again"
        if recovered.ended:
            text += f", and {recovered.ended} have ended as FAILED, because their content was in the broker alone"
        self._log.critical("{text}", text=text)
        self.warnings = (*self.warnings, text)[-MOST_WARNINGS:]


def _failed(reason: str) -> Deferred[None]:
    failed: Deferred[None] = Deferred()
    failed.errback(NotDurable(reason))
    return failed


def _too_late(channel: str, result: Any, seconds: float) -> Any:
    raise NotDurable(f"the broker has no channel {channel}, and it could not be made within {seconds:g} s")
