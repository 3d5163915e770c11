# -*- test-case-name: tests.brokered.test_brokered -*-
"""What has come from the channels of a group of queues and was not begun: the one list of messages above a broker.

It allows as many deliveries as its caller wants. Where that is more than there are slots, the next ones are here when
the first are begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from openhqm.brokered.prefetched import Prefetched
from openhqm.brokered.source import Recovery, Source
from openhqm.errors import NotDurable
from openhqm.interfaces import DepthKind, IBroker, IBrokerDelivery
from openhqm.policy.shares import Shares

MOST_PREFETCHED = 2000
ARRIVE_SECONDS = 0.5
"""How long the first delivery waits for what lies in channels of a higher priority."""


class Prefetch:
    """``channels`` are those of one group, high priority first. ``read`` makes a `Prefetched` of a delivery, or deals
    with it otherwise and returns None. ``arrived`` is called with a queue for which something has come, and with None
    for all. ``losses`` makes a channel that is missing. ``asks`` tells whether this process ever asked for a queue.
    ``ahead``: whether to allow more than are asked for.
    """

    def __init__(
        self,
        broker: IBroker,
        clock: IReactorTime,
        channels: Sequence[str],
        read: Callable[[IBrokerDelivery, Source], Prefetched | None],
        arrived: Callable[[str | None], None],
        losses: Recovery,
        asks: Callable[[str], bool],
        ahead: bool,
    ) -> None:
        self._broker = broker
        self._clock = clock
        self._read = read
        self._arrived = arrived
        self._asks = asks
        self._ahead = ahead
        self._shares = Shares(len(channels))
        ready = partial(arrived, None)
        self.sources = [Source(broker, clock, name, self._received, losses, ready) for name in channels]
        self._rank = {source: rank for rank, source in enumerate(self.sources)}
        self._lines: dict[str, list[deque[Prefetched]]] = {}
        self._expected: dict[Source, int] | None = None
        self._expecting: Any = None

    def __iter__(self) -> Iterator[Prefetched]:
        return iter([each for lines in self._lines.values() for line in lines for each in line])

    @property
    def active(self) -> bool:
        """Whether deliveries may come."""
        return any(source.active for source in self.sources)

    def want(self, most: int) -> None:
        """Let so many deliveries wait here, or be taken, from each channel."""
        ahead = 2 * most if self._ahead else most
        begins = not self.active and len(self.sources) > 1 and self._expecting is None
        if begins:
            self._expecting = self._clock.callLater(ARRIVE_SECONDS, self._take_what_came)
        for source in self.sources:
            source.allow(min(source.in_hand + ahead, MOST_PREFETCHED))
        if begins and self.active:
            self._count_what_lies_there()
        elif begins:  # no channel is there yet, and each says when it is
            self._expect_nothing()

    def lines(self, queue: str) -> Sequence[Sequence[Prefetched]]:
        """What waits here of the queue, by the channel that it came from."""
        return self._lines.get(queue) or [()] * len(self.sources)

    def has(self, queue: str) -> bool:
        """Whether something of the queue can be taken."""
        return self._expecting is None and any(self._lines.get(queue, ()))

    def take(self, queue: str, most: int) -> list[Prefetched]:
        """Up to so many of the queue, by priority."""
        taken: list[Prefetched] = []
        lines = self._lines.get(queue)
        while lines is not None and self._expecting is None and len(taken) < most:
            rank = self._shares.choose([bool(line) for line in lines])
            if rank is None:
                break
            taken.append(lines[rank].popleft())
            _waits(taken[-1], -1)
        return taken

    def put_back(self, each: Prefetched) -> None:
        """It could not be begun, or is to be begun again: it goes first, once ``arrived`` is called."""
        each.extra = not self._asks(each.queue)
        _waits(each, 1)
        self._line(each).appendleft(each)

    def remove(self, each: Prefetched) -> bool:
        """It waits here no more; whether it did."""
        line = self._line(each)
        if each not in line:
            return False
        line.remove(each)
        _waits(each, -1)
        return True

    def pause(self) -> None:
        """Let nothing more come, until more is wanted, and stay subscribed."""
        for source in self.sources:
            source.pause()

    def stop(self) -> Deferred[Any]:
        """Let nothing more come, until more is wanted. What has come stays. It does not fail."""
        self._expect_nothing()
        return DeferredList([source.stop() for source in self.sources])

    def _received(self, delivery: IBrokerDelivery, source: Source) -> None:
        each = self._read(delivery, source)
        if each is not None and not delivery.revoked.called:
            each.extra = not self._asks(each.queue)
            _waits(each, 1)
            self._line(each).append(each)
            delivery.revoked.addCallback(self._revoked, each)
            self._arrived(each.queue)
        self._look_whether_all_came()

    def _revoked(self, reason: str, each: Prefetched) -> str:
        self.remove(each)
        return reason

    def _line(self, each: Prefetched) -> deque[Prefetched]:
        lines = self._lines.get(each.queue)
        if lines is None:
            lines = self._lines[each.queue] = [deque() for _ in self.sources]
        return lines[self._rank[each.source]]

    # The first deliveries go by priority, too, although the channels answer one after the other

    def _count_what_lies_there(self) -> None:
        """Take nothing until what lies in all channels has come, or has had the time to."""
        self._expected = {}
        exact = self._broker.traits.depth is DepthKind.EXACT
        for source in self.sources:
            depth = self._broker.depth(source.channel) if exact else succeed(None)
            depth.addErrback(_no_depth).addCallback(self._counted, source)

    def _counted(self, depth: int | None, source: Source) -> None:
        if self._expected is not None:
            self._expected[source] = source.arrived + min(depth or 0, max(0, source.allowed - source.arrived))
            self._look_whether_all_came()

    def _look_whether_all_came(self) -> None:
        expected = self._expected
        if expected is None or len(expected) < len(self.sources):
            return
        if all(source.arrived >= count for source, count in expected.items()):
            self._take_what_came()

    def _take_what_came(self) -> None:
        self._expect_nothing()
        self._arrived(None)

    def _expect_nothing(self) -> None:
        if self._expecting is not None and self._expecting.active():
            self._expecting.cancel()
        self._expecting = self._expected = None


def _waits(each: Prefetched, change: int) -> None:
    """Only what was asked for stands for what is asked for, or the rest would take its place."""
    if not each.extra:
        each.source.waiting += change


def _no_depth(failure: Failure) -> None:
    """It cannot be told now how much lies there."""
    failure.trap(NotDurable)
