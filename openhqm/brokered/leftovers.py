# -*- test-case-name: tests.brokered.test_brokered,tests.brokered.test_promises -*-
"""What was prefetched and is not asked for: other processes may have it, and it does not wait in a broker for long."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from openhqm.brokered.prefetch import Prefetch
from openhqm.brokered.prefetched import Prefetched
from openhqm.errors import NotDurable
from openhqm.interfaces import IBroker
from openhqm.queue.ledger import Ledger
from openhqm.queue.waiters import NEVER, Waiters

IDLE_SECONDS = 1.0
"""A process that has asked for nothing for so long leaves the messages to others."""
LONGEST_WAIT = 60.0
"""Nothing that is not being worked on stays unacknowledged in a broker for longer, nor for half its longest lease."""


class Leftovers:
    """``waiters`` are those of this process by queue. ``want`` asks the broker for what they wait for.

    ``deliver_again`` hands a message back, after so many attempts. ``put_back`` takes what begins here.
    """

    def __init__(
        self,
        broker: IBroker,
        ledger: Ledger,
        clock: IReactorTime,
        prefetch: Prefetch,
        waiters: Mapping[str, Waiters],
        want: Callable[[], None],
        deliver_again: Callable[[Prefetched, int], Deferred[None]],
        put_back: Callable[[Prefetched], None],
    ) -> None:
        self._broker = broker
        self._ledger = ledger
        self._clock = clock
        self._prefetch = prefetch
        self._waiters = waiters
        self._want = want
        self._deliver_again = deliver_again
        self._put_back = put_back
        self._asked: dict[str, float] = {}
        self._asked_at = clock.seconds()
        self._timer: Any = None
        self._stopped = False
        self._under_way: set[Deferred[Any]] = set()
        self.handing_back = False

    def asked(self, queue: str) -> None:
        """A request of the queue is asked for."""
        self._asked[queue] = self._asked_at = self._clock.seconds()
        self.watch()

    def watch(self) -> None:
        """Something may be here that is not asked for: look in a while."""
        if self._timer is None and not self._stopped:
            self._timer = self._clock.callLater(IDLE_SECONDS, self._look)

    def stop(self) -> Deferred[Any]:
        """Let nothing more come, and hand back what can be handed back. It does not fail.

        Fires once the broker has all of it, also of what was being handed back before: what is still out when the
        connection ends is delivered again, and that may count as an attempt.
        """
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._hand_back()
        return DeferredList(list(self._under_way))

    def _look(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        waiting = [queue for queue, waiters in self._waiters.items() if waiters]
        for queue in waiting:
            self._asked[queue] = self._asked_at = now
        idle = now - self._asked_at
        self._move_unwanted(now)
        if idle >= IDLE_SECONDS and not self.handing_back:
            self._leave(idle)
        if waiting or self._prefetch.active or any(self._prefetch):
            self.watch()

    def _leave(self, idle: float) -> None:
        """This process asks for nothing: other processes may have what was prefetched, where there are any.

        Where consumers share partitions, it leaves them late: to leave and come back is a rebalance each time.
        """
        keeps = self._ledger.keeps_unbegun or not self._broker.traits.requeues
        if keeps and idle < self._longest:
            self._prefetch.pause()
        else:
            self._hand_back()

    @property
    def _longest(self) -> float:
        return min(LONGEST_WAIT, (self._broker.traits.longest_lease_seconds or NEVER) / 2)

    def _hand_back(self) -> None:
        """What is requeued before the broker delivers nothing more would come back here."""
        self.handing_back = True
        self._wait_for(self._prefetch.stop().addCallback(self._handed_back))

    def _wait_for(self, handed_back: Deferred[Any]) -> None:
        self._under_way.add(handed_back)
        handed_back.addBoth(lambda _: self._under_way.discard(handed_back))

    def _handed_back(self, result: Any) -> Deferred[Any]:
        self.handing_back = False
        again = []
        if any(self._waiters.values()) and not self._stopped:
            self._want()
        elif self._broker.traits.requeues or self._ledger.counts_redeliveries:
            for each in list(self._prefetch):
                self._prefetch.remove(each)
                again.append(self._deliver_again(each, _attempts(each)))
        return DeferredList(again)

    def _move_unwanted(self, now: float) -> None:
        """What waits here for too long goes into the outbox, and is published again for any process."""
        for each in list(self._prefetch):
            since = max(each.since, self._asked.get(each.queue, each.since))
            if now - since >= self._longest:
                self._prefetch.remove(each)
                if self._ledger.complete:
                    postponed = self._ledger.postpone(each.incoming, 0.0)
                    postponed.addCallbacks(self._postponed, self._not_postponed, (each,), errbackArgs=(each,))
                else:  # only the process that has accepted it has an outbox
                    self._wait_for(self._deliver_again(each, _attempts(each)))

    def _postponed(self, worth_it: bool, each: Prefetched) -> None:
        each.source.done(each.delivery)

    def _not_postponed(self, failure: Failure, each: Prefetched) -> None:
        failure.trap(NotDurable)
        self._put_back(each)


def _attempts(each: Prefetched) -> int:
    """How many were made: what the message says, and what the broker has counted since."""
    return each.incoming.attempts + each.incoming.redeliveries
