# -*- test-case-name: tests.brokered.test_brokered -*-
"""A delivery of a broker that was read and not begun."""

from __future__ import annotations

from openhqm.brokered.source import Source
from openhqm.interfaces import IBrokerDelivery
from openhqm.queue.ledger import Incoming


class Prefetched:
    """``queue`` is the queue that its request waits in, ``source`` the channel that it came from, ``since`` the time.

    ``extra``: this process did not ask for that queue, so the delivery does not stand for one that it asked for.
    """

    __slots__ = ("delivery", "extra", "incoming", "queue", "since", "source")

    def __init__(
        self, delivery: IBrokerDelivery, source: Source, incoming: Incoming, queue: str, since: float = 0.0
    ) -> None:
        self.delivery = delivery
        self.source = source
        self.incoming = incoming
        self.queue = queue
        self.since = since
        self.extra = False
