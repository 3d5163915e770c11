# -*- test-case-name: tests.brokered.test_brokered -*-
"""Reading what a broker delivers: a request of this store, or a dead letter."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.brokered.messages import from_message, same_message
from openhqm.brokered.prefetched import Prefetched
from openhqm.brokered.put_aside import PutAside
from openhqm.brokered.rejects import foreign, unreadable
from openhqm.brokered.source import Source
from openhqm.errors import NotDurable, UnreadableMessage
from openhqm.interfaces import IBrokerDelivery
from openhqm.messages import DeadLetter
from openhqm.policy.channels import group_of
from openhqm.policy.queue_names import queue_of, without_share
from openhqm.queue.ledger import Incoming, Ledger
from openhqm.runtime.timer_queue import TimerQueue

RETRY_SECONDS = 1.0


class Reader:
    """For the group of queues ``name``. ``read_late`` is called with what could not be read at once.

    ``timers`` are those of the group, and end with it. ``aside`` has the messages of other stores. ``asks`` tells
    whether this process ever asked for a queue.
    """

    _log = Logger()

    def __init__(
        self,
        ledger: Ledger,
        clock: IReactorTime,
        timers: TimerQueue,
        name: str,
        requests: str,
        read_late: Callable[[Prefetched], None],
        asks: Callable[[str], bool],
    ) -> None:
        self._asks = asks
        self._ledger = ledger
        self._clock = clock
        self._timers = timers
        self._name = name
        self._requests = requests
        self._read_late = read_late
        self.aside = PutAside(clock)

    def read(self, delivery: IBrokerDelivery, source: Source) -> Prefetched | None:
        """What the delivery is; None where it becomes a dead letter, or can be read only later."""
        try:
            incoming = from_message(delivery.message, delivery.redelivery_count or 0)
            number = self._ledger.number(incoming.request.correlation_id)
        except UnreadableMessage as error:
            self._reject(unreadable(delivery.message.body, error.reason, self._clock.seconds()), delivery, source)
            return None
        except NotDurable:  # the store was never reached, so it cannot tell whether it has given out the id
            self._later(RETRY_SECONDS, lambda: self._read_again(delivery, source))
            return None
        if number is None:
            self._put_aside(incoming, delivery, source)
            return None
        queue = queue_of(self._requests, incoming.request.submission)
        if not self._asks(queue):  # its tenant has no share here: it waits with all others
            queue, _ = without_share(queue)
        # What another program, or another configuration, has put into this channel is worked on here.
        queue = queue if group_of(queue) == self._name else self._name
        return Prefetched(delivery, source, replace(incoming, number=number), queue, self._clock.seconds())

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self._timers.at(self._clock.seconds() + seconds, call)

    def _read_again(self, delivery: IBrokerDelivery, source: Source) -> None:
        if source.is_out(delivery):
            each = self.read(delivery, source)
            if each is not None:
                self._read_late(each)

    def _put_aside(self, incoming: Incoming, delivery: IBrokerDelivery, source: Source) -> None:
        """Its id was given out by another store: it goes back in a while, for a process that has that store."""
        if source.requeues:
            message = same_message(incoming, delivery.message.key, incoming.attempts + incoming.redeliveries)
            self.aside.add(delivery, source, message, incoming.request.correlation_id)
        else:
            self._reject(foreign(incoming.request, self._clock.seconds()), delivery, source)

    def _reject(self, letter: DeadLetter, delivery: IBrokerDelivery, source: Source) -> None:
        """Make a dead letter of it, however long that takes; the broker keeps the message until then."""
        if source.is_out(delivery):
            about = (letter, delivery, source)
            self._ledger.reject(letter).addCallbacks(self._rejected, self._not_rejected, about, errbackArgs=about)

    def _rejected(self, result: None, letter: DeadLetter, delivery: IBrokerDelivery, source: Source) -> None:
        text = "a message in {channel} is a dead letter: {reason}"
        self._log.warn(text, channel=source.channel, reason=letter.reason, id=letter.request.correlation_id)
        source.done(delivery)

    def _not_rejected(self, failure: Failure, letter: DeadLetter, delivery: IBrokerDelivery, source: Source) -> None:
        failure.trap(NotDurable)
        self._later(RETRY_SECONDS, lambda: self._reject(letter, delivery, source))
