# -*- test-case-name: tests.brokered -*-
"""The seam that RabbitMQ still stands on; it goes with the move to `openhqm.interfaces.broker`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from openhqm.interfaces.queue import QueueTraits
from openhqm.messages import Depth, Priority


class IBrokerDelivery(Interface):
    """A message on loan from a broker that knows nothing of requests, attempts or endings."""

    body: bytes = Attribute("as it was published")
    attempts: int = Attribute("as it was published: how many attempts there had been by then")
    returned: int = Attribute("how often the broker has lent this very message before, as far as it counts; else 0")
    taken_back: Deferred[str] = Attribute("fires with the reason once the broker may lend it to somebody else")

    def ack() -> Deferred[None]:
        """The broker forgets it. `NotDurable` where that cannot be said any more: then it is lent again."""

    def release() -> Deferred[None]:
        """The broker lends it again at once, before those that came after it."""


OnLost = Callable[[str | None, Priority | None], Deferred[bool]]
"""Called with the queue and the priority, or with None for all; whether anything was in it."""


class IBroker(Interface):
    """Queues of bytes elsewhere, for `openhqm.brokered.queue` to build the promises on. It reconnects for ever."""

    on_lost: OnLost | None = Attribute(
        "None, or to be called when a queue is gone, for somebody has deleted it or the broker has lost its data, and "
        "before it is made anew; where that fails, or the process is killed, it is called again the next time"
    )
    traits: QueueTraits = Attribute("a `QueueTraits`")
    unavailable_reason: str | None = Attribute("why a publish could not be kept now, or None")
    warnings: Sequence[str] = Attribute("what an operator should know although everything works")

    def start() -> Deferred[None]:
        """Begin to connect. It does not wait until that has worked."""

    def when_probed() -> Deferred[None]:
        """Fires once it is known whether the broker can be reached; `unavailable_reason` says."""

    def stop() -> Deferred[None]:
        """Hang up. Whoever waits in `receive` is cancelled; what is on loan is lent again."""

    def publish(queue: str, body: bytes, *, attempts: int, priority: Priority, delay: float) -> Deferred[None]:
        """Fires once the broker took responsibility. `NotDurable` where it did not, or where nobody can tell.

        It is lent to nobody before ``delay`` seconds have passed, also when everything is started anew in between.
        """

    def receive(queue: str, most: int, *, in_order: bool = False) -> Deferred[Sequence[IBrokerDelivery]]:
        """Fires with one to ``most`` deliveries, as soon as there are any. Cancelling loses none.

        ``in_order``: with one, the oldest, and only while no other of this queue is on loan to anybody.
        """

    def depth(queue: str) -> Deferred[Depth]:
        """How much lies in the queue, as far as the broker tells; ``oldest`` is None where it does not."""
