# -*- test-case-name: tests.kafka.test_contract -*-
"""What is out of one partition of a topic, and which of it waits for a commit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Event
from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from openhqm.errors import NotDurable
from openhqm.interfaces.broker import IBrokerDelivery, Message, Position
from openhqm.kafka.messages import from_record


@implementer(IBrokerDelivery)
class KafkaDelivery:
    """One record, out of ``partition`` of the topic with that id (None: the cluster does not say)."""

    __slots__ = (
        "_acknowledge",
        "message",
        "offset",
        "over",
        "partition",
        "position",
        "record",
        "redelivery_count",
        "revoked",
        "topic_id",
    )

    def __init__(
        self, record: Any, topic_id: str | None, acknowledge: Callable[[KafkaDelivery], Deferred[None]]
    ) -> None:
        self.record = record
        self.topic_id = topic_id
        self.message: Message = from_record(record)
        self.partition: int = record.partition()
        self.offset: int = record.offset()
        self.position = Position(str(self.partition), self.offset)
        self.redelivery_count = None
        self.revoked: Deferred[str] = Deferred()
        self.over = False
        self._acknowledge = acknowledge

    def ack(self) -> Deferred[None]:
        return self._acknowledge(self)

    def requeue(self) -> Deferred[None]:
        return fail(NotDurable("Kafka takes no message back"))

    def extend(self, seconds: float) -> Deferred[None]:
        return fail(NotDurable("a delivery from Kafka has no lease that could be extended"))

    def revoke(self, reason: str) -> None:
        """Another consumer may have the record now."""
        if not self.over:
            self.over = True
            self.revoked.callback(reason)


@attrs.define(eq=False)
class Partition:
    """``out``: the deliveries that no acknowledgement has reached. ``waiting``: for a commit up to an offset."""

    out: OrderedDict[int, KafkaDelivery] = attrs.field(factory=OrderedDict)
    waiting: list[tuple[int, Deferred[None]]] = attrs.field(factory=list)
    last: int = -1
    drained: Event | None = None

    def commit(self, offset: int) -> None:
        """Everything before ``offset`` is committed."""
        done = [waiting for mark, waiting in self.waiting if mark <= offset]
        self.waiting = [(mark, waiting) for mark, waiting in self.waiting if mark > offset]
        for waiting in done:
            waiting.callback(None)

    def fail(self, reason: str) -> None:
        """It is not known whether what waits was committed."""
        waiting, self.waiting = self.waiting, []
        for _, each in waiting:
            each.errback(NotDurable(reason, maybe_done=True))

    def revoke(self, reason: str) -> None:
        """What is out is over."""
        out, self.out = self.out, OrderedDict()
        for delivery in out.values():
            delivery.revoke(reason)
        self.look_whether_drained()

    def look_whether_drained(self) -> None:
        """Tell the thread that waits for it."""
        if self.drained is not None and not self.out:
            self.drained.set()


class Together(Event):
    """Set once it was set so many times; then it sets another one."""

    def __init__(self, whole: Event, count: int) -> None:
        super().__init__()
        self._whole = whole
        self._left = count

    def set(self) -> None:
        self._left -= 1
        if not self._left:
            self._whole.set()
