"""A broker in memory that holds bytes and nothing else, and can be told to misbehave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from openhqm.errors import NotDurable
from openhqm.interfaces import QueueTraits
from openhqm.interfaces.legacy import IBroker, IBrokerDelivery, OnLost
from openhqm.messages import Depth, Priority

TRAITS = QueueTraits(durable=True, ordered=True, native_priority=True, atomic_settle=False, tells_oldest=False)
_RANK = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}


Step = Callable[[], Deferred[None]]


@attrs.define(eq=False)
class Stored:
    """A message as the broker keeps it."""

    body: bytes
    attempts: int
    place: tuple[int, int]
    due: float
    returned: int = 0
    holder: MemoryBroker | None = None


class Server:
    """What survives the processes: named queues. ``confirmed`` lists what was taken responsibility for."""

    def __init__(self) -> None:
        self.queues: dict[str, list[Stored]] = {}
        self.clients: list[MemoryBroker] = []
        self._order = count()

    def put(self, queue: str, body: bytes, attempts: int, priority: Priority, due: float) -> None:
        message = Stored(body, attempts, (_RANK[priority], next(self._order)), due)
        self.queues.setdefault(queue, []).append(message)

    def duplicate(self, queue: str) -> None:
        """Everything in it once more, as a broker does that is not sure."""
        for message in list(self.queues[queue]):
            copy = attrs.evolve(message, holder=None, place=(message.place[0], next(self._order)))
            self.queues[queue].append(copy)
        self.wake()

    def let_go(self, client: MemoryBroker) -> None:
        """What this client had on loan may be lent to others."""
        self.clients = [each for each in self.clients if each is not client]
        for messages in self.queues.values():
            for message in messages:
                if message.holder is client:
                    message.holder = None
                    message.returned += 1

    def wake(self) -> None:
        for client in list(self.clients):
            client.lend()


@implementer(IBroker)
class MemoryBroker:
    """One process's connection to `Server`.

    ``mood``: None; "refuses" (a publish fails, nothing is taken); "deaf" (it is taken, and the confirmation gets lost);
    "stalls" (it is neither taken nor refused, until the connection is lost). ``step`` stands before whatever changes
    something at the broker.
    """

    warnings: Sequence[str] = ()
    on_lost: OnLost | None = None

    def __init__(self, server: Server, clock: Clock, traits: QueueTraits = TRAITS) -> None:
        self.server = server
        self.clock = clock
        self.traits = traits
        self.mood: str | None = None
        self.away = False
        self.step: Callable[[str, Step], Deferred[None]] = lambda name, step: step()
        self.published: list[tuple[str, int]] = []
        self._waiting: list[tuple[str, int, bool, Deferred[Sequence[IBrokerDelivery]]]] = []
        self._loans: set[MemoryBrokerDelivery] = set()
        self._stalled: list[Deferred[None]] = []

    @property
    def unavailable_reason(self) -> str | None:
        return "the broker is away" if self.away else None

    def start(self) -> Deferred[None]:
        self.server.clients.append(self)
        return succeed(None)

    def when_probed(self) -> Deferred[None]:
        return succeed(None)

    def stop(self) -> Deferred[None]:
        self.lose_connection()
        waiting, self._waiting = self._waiting, []
        for *_, waiter in waiting:
            waiter.errback(CancelledError())
        return succeed(None)

    def publish(self, queue: str, body: bytes, *, attempts: int, priority: Priority, delay: float) -> Deferred[None]:
        return self.step("publish", lambda: self._publish(queue, body, attempts, priority, delay))

    def _publish(self, queue: str, body: bytes, attempts: int, priority: Priority, delay: float) -> Deferred[None]:
        longest = self.traits.longest_delay
        assert longest is None or delay <= longest, "more than it was said to keep"
        if self.away or self.mood == "refuses":
            return fail(NotDurable("the broker is away"))
        if self.mood == "stalls":
            self._stalled.append(Deferred())
            return self._stalled[-1]
        self.published.append((queue, attempts))
        self.server.put(queue, body, attempts, priority, self.clock.seconds() + delay)
        self._look_at(delay)
        if self.mood == "deaf":
            return fail(NotDurable("the confirmation got lost"))
        return succeed(None)

    def receive(self, queue: str, most: int, *, in_order: bool = False) -> Deferred[Sequence[IBrokerDelivery]]:
        waiter: Deferred[Sequence[IBrokerDelivery]] = Deferred(self._forget)
        self._waiting.append((queue, 1 if in_order else most, in_order, waiter))
        for message in self.server.queues.get(queue, []):
            self._look_at(message.due - self.clock.seconds())
        self.lend()
        return waiter

    def depth(self, queue: str) -> Deferred[Depth]:
        messages, now = self.server.queues.get(queue, []), self.clock.seconds()
        on_loan = sum(message.holder is not None for message in messages)
        delayed = sum(message.holder is None and message.due > now for message in messages)
        return succeed(Depth(len(messages) - on_loan - delayed, delayed, on_loan))

    def lose(self, queue: str | None = None, priority: Priority | None = None) -> Deferred[bool]:
        """The server forgets what is in a queue, or everything, and this process is the first to notice."""
        for name, messages in self.server.queues.items():
            if queue in (None, name):
                messages[:] = [each for each in messages if priority and each.place[0] != _RANK[priority]]
        for client in list(self.server.clients):
            client.lose_connection()
            client.come_back()
        assert self.on_lost is not None, "nobody keeps books"
        return self.on_lost(queue, priority)

    def lose_connection(self) -> None:
        """What is on loan may be lent to somebody else, also to this process; nothing can be said of it any more."""
        self.crash()
        stalled, self._stalled = self._stalled, []
        for publishing in stalled:
            publishing.errback(NotDurable("the connection was lost"))
        loans, self._loans = self._loans, set()
        for loan in loans:
            loan.over = True
            loan.taken_back.callback("the connection was lost")
        self.server.wake()

    def come_back(self) -> None:
        """Connected again."""
        self.server.clients.append(self)
        self.lend()

    def crash(self) -> None:
        """The process is gone, and knows nothing of it."""
        self.server.let_go(self)

    def lend(self) -> None:
        for entry in list(self._waiting):
            queue, most, in_order, waiter = entry
            messages, now = self.server.queues.get(queue, []), self.clock.seconds()
            if self not in self.server.clients or (in_order and any(each.holder for each in messages)):
                continue
            ready = sorted(
                (each for each in messages if each.holder is None and each.due <= now), key=lambda each: each.place
            )
            if ready:
                self._waiting.remove(entry)
                waiter.callback([MemoryBrokerDelivery(self, queue, message) for message in ready[:most]])

    def _forget(self, waiter: Deferred[Any]) -> None:
        self._waiting = [entry for entry in self._waiting if entry[-1] is not waiter]

    def _look_at(self, delay: float) -> None:
        if delay > 0:
            self.clock.callLater(delay, self.server.wake)
        else:
            self.server.wake()


@implementer(IBrokerDelivery)
class MemoryBrokerDelivery:
    def __init__(self, broker: MemoryBroker, queue: str, message: Stored) -> None:
        self.body = message.body
        self.attempts = message.attempts
        self.returned = message.returned
        self.taken_back: Deferred[str] = Deferred()
        self.over = False
        self._broker = broker
        self._queue = queue
        self._message = message
        message.holder = broker
        broker._loans.add(self)

    def ack(self) -> Deferred[None]:
        messages = self._broker.server.queues[self._queue]
        return self._broker.step("ack", lambda: self._settle(lambda: messages.remove(self._message)))

    def release(self) -> Deferred[None]:
        return self._broker.step("give back", lambda: self._settle(lambda: None))

    def _settle(self, step: Any) -> Deferred[None]:
        if self.over:
            return fail(NotDurable("the broker has taken it back"))
        self.over = True
        self._broker._loans.discard(self)
        self._message.holder = None
        self._message.returned += 1
        step()
        self._broker.server.wake()
        return succeed(None)
