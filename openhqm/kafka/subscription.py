# -*- test-case-name: tests.kafka.test_contract,tests.kafka.test_broker -*-
"""A subscription to a topic: what was delivered, in the order of each partition, and up to where it is acknowledged.

Kafka knows no acknowledgement of a message, only an offset for each partition and group. An acknowledgement here says
that everything up to it is done with: it raises the mark of its partition, which is committed with those of the same
time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from threading import Event
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from zope.interface import implementer

from openhqm.errors import NotDurable
from openhqm.interfaces.broker import IReceiver, ISubscription
from openhqm.kafka.consuming import Member
from openhqm.kafka.errors import MISSING, describe
from openhqm.kafka.partitions import KafkaDelivery, Partition, Together

COMMIT_SECONDS = 10.0
"""How long no commit may succeed before those who wait for one are told that it is not known."""
AGAIN_SECONDS = 0.2
"""After a commit that failed: while partitions change hands, Kafka refuses commits for a moment."""


@implementer(ISubscription)
class KafkaSubscription:
    """As a member of the consumer group ``group``. ``doubted`` is called where the topic seems to be missing,
    ``unreachable`` with an error of the connection, ``ended`` when nothing of the subscription is left, and ``dropped``
    with how many messages Kafka has removed that the group had not read.
    """

    _log = Logger()

    def __init__(
        self,
        topic: str,
        group: str,
        reactor: Any,
        receiver: IReceiver,
        doubted: Callable[[KafkaSubscription], None],
        unreachable: Callable[[Any], None],
        ended: Callable[[KafkaSubscription], None],
        dropped: Callable[[KafkaSubscription, int], None],
    ) -> None:
        self.topic = topic
        self.group = group
        self.warning: str | None = None
        self._reactor = reactor
        self._receiver = receiver
        self._doubted = doubted
        self._unreachable = unreachable
        self._ended = ended
        self._dropped = dropped
        self._member: Member | None = None
        self._closing: Deferred[None] | None = None
        self._partitions: dict[int, Partition] = {}
        self._ahead: deque[Any] = deque()
        self._credit = 0
        self._out = 0
        self._delivering = False
        self._committing = self._asked = False
        self._late: Any = None
        self._again: Any = None
        self.stopped = False

    def join(self, member: Member) -> None:
        """The topic is there: begin to read it."""
        if self._closing is None:
            self._member = member
            member.start()

    @property
    def topic_id(self) -> str | None:
        """The id of the topic that it reads, where the cluster says one."""
        return None if self._member is None else self._member.topic_id

    @property
    def joined(self) -> bool:
        """Whether it reads the topic."""
        return self._member is not None

    @property
    def reads(self) -> bool:
        """Whether it has its share of the partitions."""
        return self._member is not None and self._member.partitions is not None

    def credit(self, most: int) -> None:
        self._credit = most
        self._deliver()

    def stop(self) -> Deferred[None]:
        self._stop()
        if self._out and self._member is not None:
            return succeed(None)  # its partitions are free once all that it has is acknowledged
        return self.close("the subscription was stopped")

    def lose(self, reason: str) -> None:
        """The topic is gone."""
        if self.stopped:
            self.close(reason)
            return
        self.close(reason)
        self._receiver.lost(reason)

    def close(self, reason: str) -> Deferred[None]:
        """Revoke what is out, and leave the group."""
        self._stop()
        if self._closing is None:
            for partition in self._partitions.values():
                partition.revoke(reason)
            self._out = 0
            self._closing = succeed(None) if self._member is None else self._member.close()
            self._closing.addCallback(lambda _: self._is_over(reason))
        done: Deferred[None] = Deferred()
        self._closing.addCallback(lambda _: done.callback(None))
        return done

    def _stop(self) -> None:
        self.stopped = True
        self._ahead.clear()
        if self._member is not None:
            self._member.stopped = True

    def _is_over(self, reason: str) -> None:
        self._committing = False
        self._stop_timers()
        marks = {} if self._member is None else self._member.marks
        for number, partition in self._partitions.items():
            if number not in marks:  # else the last commit failed
                partition.commit(partition.last + 1)
            partition.fail(reason)
        self._ended(self)

    # Called by the member, in the reactor's thread

    def read(self, records: Sequence[Any]) -> None:
        self.warning = None
        if self.stopped:
            return
        self._ahead.extend(records)
        self._deliver()

    def drain(self, partitions: Sequence[int], drained: Event) -> None:
        self._forget_ahead(partitions)
        busy = [self._partitions[number] for number in partitions if number in self._partitions]
        busy = [each for each in busy if each.out]
        if not busy:
            drained.set()
        elif len(busy) == 1:
            busy[0].drained = drained
        else:
            together = Together(drained, len(busy))
            for each in busy:
                each.drained = together

    def gave_up(self, partitions: Sequence[int], committed: Mapping[int, int], reason: str) -> None:
        self._forget_ahead(partitions)
        for number in partitions:
            partition = self._partitions.pop(number, None)
            if self._member is not None:
                self._member.marks.pop(number, None)
            if partition is not None:
                self._out -= len(partition.out)
                partition.commit(committed.get(number, -1))
                partition.fail(reason)
                partition.revoke(reason)
        self._deliver()
        self._look_whether_over()

    def committed(self, offsets: Mapping[int, int], reason: str | None) -> None:
        self._committing = False
        marks = {} if self._member is None else self._member.marks
        for number, offset in offsets.items():
            if marks.get(number, -1) <= offset:
                marks.pop(number, None)
            if number in self._partitions:
                self._partitions[number].commit(offset)
        if offsets:
            self._stop_timers()
        if marks and self._closing is None:
            self._expect_a_commit()
            if reason is None:
                self._commit_soon()
            elif self._again is None:
                self._again = self._reactor.callLater(AGAIN_SECONDS, self._commit_again)
        self._look_whether_over()

    def erred(self, error: Any) -> None:
        if error.name() in MISSING:
            self._doubted(self)
        elif error.name() in ("TOPIC_AUTHORIZATION_FAILED", "GROUP_AUTHORIZATION_FAILED"):
            self.warning = f"{self.topic} cannot be read: {describe(error)}"
        elif error.name() == "INCONSISTENT_GROUP_PROTOCOL":
            self.warning = (
                f"{self.topic} is not read: another program is in the consumer group {self.group}, and shares its "
                "partitions in another way. Give one of them another group"
            )
        elif error.name() == "_MAX_POLL_EXCEEDED":
            self._log.warn("{topic}: {reason}", topic=self.topic, reason=describe(error))
        else:
            self._unreachable(error)

    def dropped(self, count: int) -> None:
        self._dropped(self, count)
        self._receiver.dropped(count)

    def ended(self, reason: str) -> None:
        self.lose(reason)

    # Delivering

    def _deliver(self) -> None:
        if self._delivering:  # a receiver has acknowledged inside of `received`: the loop below goes on
            return
        self._delivering = True
        try:
            while self._ahead and self._out < self._credit and not self.stopped:
                self._deliver_one(self._take())
        finally:
            self._delivering = False

    def _take(self) -> Any:
        record = self._ahead.popleft()
        self._count_ahead(record)
        return record

    def _count_ahead(self, record: Any) -> None:
        assert self._member is not None
        self._member.taken_in_all += 1
        self._member.bytes_taken += len(record)

    def _forget_ahead(self, partitions: Sequence[int]) -> None:
        forgotten = [record for record in self._ahead if record.partition() in partitions]
        self._ahead = deque(record for record in self._ahead if record.partition() not in partitions)
        for record in forgotten:
            self._count_ahead(record)

    def _deliver_one(self, record: Any) -> None:
        delivery = KafkaDelivery(record, self.topic_id, self._acknowledge)
        partition = self._partitions.setdefault(delivery.partition, Partition())
        if delivery.offset <= partition.last:  # the topic was made again, or its offsets were set back
            self._out -= len(partition.out)
            partition.revoke("the offsets of the partition were set back")
        partition.last = delivery.offset
        partition.out[delivery.offset] = delivery
        self._out += 1
        self._receiver.received(delivery)

    # Acknowledging

    def _acknowledge(self, delivery: KafkaDelivery) -> Deferred[None]:
        partition = self._partitions.get(delivery.partition)
        if delivery.over or partition is None or self._member is None or delivery.offset not in partition.out:
            return fail(NotDurable("the delivery was settled before, or another consumer may have it"))
        while True:
            offset, earlier = partition.out.popitem(last=False)
            earlier.over = True
            self._out -= 1
            if offset == delivery.offset:
                break
        done: Deferred[None] = Deferred()
        partition.waiting.append((delivery.offset + 1, done))
        self._member.marks[delivery.partition] = delivery.offset + 1
        if partition.drained is not None:
            partition.look_whether_drained()  # the thread that waits for it commits
        else:
            self._commit_soon()
        self._deliver()
        return done

    def _commit_soon(self) -> None:
        """Marks of the same time are committed together; those that come meanwhile, after that."""
        self._expect_a_commit()
        if not self._asked and not self._committing and self._again is None:
            self._asked = True
            self._reactor.callLater(0, self._commit)

    def _commit_again(self) -> None:
        self._again = None
        self._commit_soon()

    def _commit(self) -> None:
        self._asked = False
        if self._member is not None and self._closing is None and self._member.marks and not self._committing:
            self._committing = True
            self._member.commit()

    def _expect_a_commit(self) -> None:
        if self._late is None:
            self._late = self._reactor.callLater(COMMIT_SECONDS, self._commit_is_late)

    def _stop_timers(self) -> None:
        for timer in (self._late, self._again):
            if timer is not None and timer.active():
                timer.cancel()
        self._late = self._again = None

    def _commit_is_late(self) -> None:
        """Their marks stay: the next commit takes them along."""
        self._late = None
        self._committing = False
        for partition in self._partitions.values():
            partition.fail(f"Kafka has confirmed no commit for {COMMIT_SECONDS:g} s")
        self._look_whether_over()

    def _look_whether_over(self) -> None:
        idle = not self._out and not self._committing and not self._asked and self._again is None
        if self.stopped and idle and self._closing is None:
            self.close("the subscription was stopped")
