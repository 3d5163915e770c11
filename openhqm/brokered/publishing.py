# -*- test-case-name: tests.brokered.test_brokered -*-
"""Publishing copies, and seeing to it that each one that is marked is published in the end.

A mark is taken away a moment after the broker has confirmed, many at a time: nobody waits for it. A kill before that
leaves a copy too many, which the ledger sorts out.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from openhqm.brokered.ledger import Ledger
from openhqm.errors import NotDurable
from openhqm.interfaces.legacy import IBroker
from openhqm.policy.copies import NOTE_SECONDS, Copy
from openhqm.policy.queue_names import priority_of, queue_of
from openhqm.runtime.deferreds import deferred

MOST_UNNOTED = 1000
SWEEP_SECONDS = 5.0
SWEEP_COPIES = 100


class Publishing:
    """``requests`` is the name of the request queue."""

    _log = Logger()

    def __init__(self, broker: IBroker, ledger: Ledger, clock: IReactorTime, requests: str) -> None:
        self._broker = broker
        self._ledger = ledger
        self._clock = clock
        self._requests = requests
        self._unnoted: list[tuple[int, int]] = []
        self._note_timer: Any = None
        self._resting: Deferred[Any] | None = None
        self._sweeping: Deferred[None] | None = None
        self._stopped = False

    def start(self) -> None:
        """Begin to publish what is marked."""
        self._sweeping = self._sweep()

    @deferred
    async def stop(self) -> None:
        """Publish nothing more, and note what was."""
        self._stopped = True
        if self._resting is not None:
            self._resting.cancel()
        if self._sweeping is not None:
            await self._sweeping
        if self._note_timer is not None:
            self._note_timer.cancel()
            self._note()

    def publish(self, copy: Copy) -> Deferred[None]:
        """Fires once the broker has it. `NotDurable`: the mark stays.

        A delay beyond what the broker keeps is cut short: what comes too early is published anew.
        """
        submission = copy.request.submission
        delay = copy.delay
        if delay > 0:
            longest = self._broker.traits.longest_delay
            delay = delay if longest is None else min(delay, longest)
        published = self._broker.publish(
            queue_of(self._requests, submission),
            copy.body,
            attempts=copy.attempts,
            priority=priority_of(submission),
            delay=delay,
        )
        return published.addCallback(self._published, copy)

    def _published(self, confirmed: None, copy: Copy) -> None:
        self._unnoted.append((copy.number, copy.attempts))
        if len(self._unnoted) >= MOST_UNNOTED:
            self._note()
        elif self._note_timer is None:
            self._note_timer = self._clock.callLater(NOTE_SECONDS, self._note)

    @deferred
    async def publish_or_leave(self, copy: Copy) -> None:
        """Publish a marked copy. It does not fail: where it could not be published, the mark is left for later."""
        try:
            await self.publish(copy)
        except NotDurable as error:
            words = "{id} is published later: {reason}"
            self._log.warn(words, id=copy.request.correlation_id, reason=error.reason)

    def _note(self) -> None:
        self.note().addErrback(lambda failure: failure.trap(NotDurable))

    def note(self) -> Deferred[None]:
        """Take the marks away of what was published until now. Where that fails they stay; `NotDurable`."""
        if self._note_timer is not None and self._note_timer.active():
            self._note_timer.cancel()
        self._note_timer = None
        published, self._unnoted = self._unnoted, []
        if not published or self._broker.unavailable_reason is not None:
            # Maybe it comes back without what it has just confirmed: that is published once more.
            return succeed(None)
        return self._ledger.note_published(published)

    @deferred
    async def _sweep(self) -> None:
        try:
            self._resting = self._broker.when_probed()
            await self._resting
            while not self._stopped:
                if not await self._publish_marked() and not self._stopped:
                    self._resting = deferLater(self._clock, SWEEP_SECONDS)
                    await self._resting
        except CancelledError:
            pass  # told to stop

    async def _publish_marked(self) -> bool:
        """Whether there is more to do at once."""
        if self._broker.unavailable_reason is not None:
            return False
        try:
            copies = await self._ledger.unpublished(SWEEP_COPIES)
        except NotDurable:
            return False
        outcomes: Any = await DeferredList([self.publish(copy) for copy in copies], consumeErrors=True)
        failures = [failure for success, failure in outcomes if not success]
        for failure in failures:
            if not failure.check(NotDurable):
                self._log.failure("publishing what was left over broke down", failure)
        return len(copies) == SWEEP_COPIES and not failures
