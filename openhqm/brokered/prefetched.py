# -*- test-case-name: tests.brokered.test_brokered -*-
"""A delivery of a broker that was read and not begun."""

from __future__ import annotations

from openhqm.brokered.source import Source
from openhqm.interfaces import IBrokerDelivery
from openhqm.queue.ledger import Incoming


class Prefetched:
    """``queue`` is the queue that its request waits in, ``source`` the channel that it came from."""

    __slots__ = ("delivery", "incoming", "queue", "source")

    def __init__(self, delivery: IBrokerDelivery, source: Source, incoming: Incoming, queue: str) -> None:
        self.delivery = delivery
        self.source = source
        self.incoming = incoming
        self.queue = queue
