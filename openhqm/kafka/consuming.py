# -*- test-case-name: tests.kafka.test_contract -*-
"""One member of a consumer group, and the thread that drives it: librdkafka's consumer blocks where it is asked.

The thread reads a bounded number of records ahead, and pauses the partitions where more is not wanted. It calls its
owner in the reactor's thread only.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from threading import Event, Thread
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

from openhqm.kafka.errors import describe
from openhqm.kafka.resets import OffsetResets

POLL_SECONDS = 0.05
ASKED_SECONDS = 1.0
MOST_AHEAD = 500
BYTES_AHEAD = 4 * 1024 * 1024
"""How much is read, and not yet delivered, before no more is read. Reading goes on at half of it."""
FULL_SECONDS = 1.0
"""How long a member that is full does not poll before it pauses its partitions, and polls.

librdkafka forgets what it has fetched of a partition that is paused, and fetches it again a second after it goes on.
"""
LOOK_SECONDS = 0.02
MOST_AT_ONCE = 100
DRAIN_SECONDS = 5.0
"""How long a partition that is given to another consumer waits for what is being worked on."""


class Owner(Protocol):
    """What a member tells, each in the reactor's thread."""

    def read(self, records: Sequence[Any]) -> None:
        """Records were read, in the order of each partition."""

    def drain(self, partitions: Sequence[int], drained: Event) -> None:
        """Other consumers get these partitions. ``drained`` is set once nothing of them is out."""

    def gave_up(self, partitions: Sequence[int], committed: Mapping[int, int], reason: str) -> None:
        """These partitions belong to this member no more; up to where each was committed for the last time."""

    def committed(self, offsets: Mapping[int, int], reason: str | None) -> None:
        """What was committed, or why that failed."""

    def erred(self, error: Any) -> None:
        """A ``KafkaError`` about the topic or the group."""

    def dropped(self, count: int) -> None:
        """Kafka has removed so many messages that the group had not read."""

    def ended(self, reason: str) -> None:
        """The thread ended by an error, and nothing is read any more."""


class Member:
    """A member of the group in ``properties``, which reads ``topic`` once it is started.

    ``topic_id`` is that of the topic, or None. It is committed with each offset: an offset of a topic of that name that
    was deleted says nothing of this one, which is then read from its beginning.
    """

    _log = Logger()

    def __init__(
        self,
        properties: Mapping[str, Any],
        topic: str,
        topic_id: str | None,
        reactor: IReactorFromThreads,
        owner: Owner,
    ) -> None:
        self._topic = topic
        self.topic_id = topic_id
        self._reactor = reactor
        self._owner = owner
        self._properties = {
            **properties,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",  # see `OffsetResets`
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 10_000,
            "fetch.wait.max.ms": 100,
            "queued.max.messages.kbytes": 8192,
            "topic.metadata.refresh.interval.ms": 5_000,
        }
        self._consumer: Any = None
        self._resets: OffsetResets
        self._closing = False
        self._closed: Deferred[None] = Deferred()
        self.marks: dict[int, int] = {}
        """By partition the offset behind the last record that was acknowledged, where it is not committed yet."""
        self._of_another: frozenset[int] = frozenset()
        self._found: list[Any] = []
        self._read_in_all = self._bytes_read = 0
        self.taken_in_all = self.bytes_taken = 0
        """How much of what was read is no longer ahead. The thread counts what it reads, the owner what it takes."""
        self._commit_wanted = False
        self._full_since: float | None = None
        self._paused: bool | None = False
        """Whether the partitions are paused. None: there are others, and librdkafka decides."""
        self.partitions: frozenset[int] | None = None
        """Its share of the partitions; None: the group has given it none yet."""
        self.stopped = False
        """Whether to read no more records: what is out is still settled."""

    def start(self) -> None:
        """Join the group."""
        from confluent_kafka import Consumer

        self._consumer = Consumer(self._properties)
        self._resets = OffsetResets(self._consumer, self._topic, self._on_dropped)
        Thread(target=self._run, name="openhqm-kafka-consumer", daemon=True).start()

    def commit(self) -> None:
        """Have the thread commit the marks, within `POLL_SECONDS`; the owner is told. One commit at a time."""
        self._commit_wanted = True

    def close(self) -> Deferred[None]:
        """Commit the marks and leave the group. It fires once that is done, and does not fail."""
        self._closing = True
        return self._closed

    # In the thread

    def _run(self) -> None:
        try:
            if self.topic_id is not None:
                self._of_another = self._committed_for_another()
            self._consumer.subscribe(
                [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
            while not self._closing:
                if self._commit_wanted:
                    self._commit()
                if self._is_full():
                    time.sleep(LOOK_SECONDS)
                else:
                    self._read()
                    self._begin()
            self._commit_now(list(self.marks))
            self._consumer.close()
        except Exception as error:
            self._log.failure("a Kafka consumer of {topic} broke down", topic=self._topic)
            self._reactor.callFromThread(self._owner.ended, f"a consumer of {self._topic} ended: {describe(error)}")
        finally:
            self._reactor.callFromThread(self._closed.callback, None)

    def _commit(self) -> None:
        """It waits for the answer: one that came as an event would come behind all records that were fetched before."""
        self._commit_wanted = False
        offsets = self._offsets(self.marks.copy())
        reason = None
        done: dict[int, int] = {}
        try:
            found = self._consumer.commit(offsets=offsets, asynchronous=False) if offsets else []
            done = {each.partition: each.offset for each in found if each.error is None}
            reason = next((describe(each.error) for each in found if each.error is not None), None)
        except Exception as error:
            reason = describe(error)
        self._reactor.callFromThread(self._owner.committed, done, reason)

    def _is_full(self) -> bool:
        """Whether to poll nothing for a moment. Where that goes on, the partitions are paused, and it polls."""
        if not self.stopped and not self._is_far_ahead:
            self._full_since = None
            if self._paused is not False:
                self._pause(False)
            return False
        if self._full_since is None:
            self._full_since = time.monotonic()
        is_long = time.monotonic() - self._full_since >= FULL_SECONDS
        if self._paused is False and not (is_long or self.stopped):
            return True
        if self._paused is not True:
            self._pause(True)
        return False

    @property
    def _is_far_ahead(self) -> bool:
        records, size = self._read_in_all - self.taken_in_all, self._bytes_read - self.bytes_taken
        share = 1.0 if self._full_since is None else 0.5
        return records >= share * MOST_AHEAD or size >= share * BYTES_AHEAD

    def _read(self) -> None:
        record = self._consumer.poll(POLL_SECONDS)
        while record is not None:
            if record.error() is not None and self._resets.needed(record):
                break
            if record.error() is not None:
                self._reactor.callFromThread(self._owner.erred, record.error())
            else:
                self._found.append(record)
                self._read_in_all += 1
                self._bytes_read += len(record)
            record = None if len(self._found) >= MOST_AT_ONCE or self._is_far_ahead else self._consumer.poll(0)
        self._hand_over()

    def _begin(self) -> None:
        if not self._resets:
            return
        reason = self._resets.begin()
        self._paused = None
        if reason is not None:
            self._log.debug("{topic} is begun again later: {reason}", topic=self._topic, reason=reason)

    def _on_dropped(self, partition: int, first: int, count: int) -> None:
        """What is gone cannot be delivered again. That is committed, or the next member would count it once more."""
        text = "Kafka has removed {count} messages of {topic} from partition {partition} that the group had not read"
        self._log.critical(text, count=count, topic=self._topic, partition=partition)
        self._consumer.commit(offsets=self._offsets({partition: first}), asynchronous=True)
        self._reactor.callFromThread(self._owner.dropped, count)

    def _hand_over(self) -> None:
        """Before the owner hears that partitions change hands: a call of ``poll`` may be in the middle of a batch."""
        found, self._found = self._found, []
        if found:
            self._reactor.callFromThread(self._owner.read, found)

    def _pause(self, full: bool) -> None:
        partitions = self._consumer.assignment()
        if partitions:
            (self._consumer.pause if full else self._consumer.resume)(partitions)
        self._paused = full

    def _on_assign(self, consumer: Any, partitions: Sequence[Any]) -> None:
        """librdkafka takes the partitions over by itself, once this returns. None of them is paused."""
        # Only at first: in what is given later, the member before has begun at the right place.
        old = [each.partition for each in partitions if each.partition in self._of_another]
        self._of_another = frozenset()
        if old:
            from confluent_kafka import OFFSET_BEGINNING, TopicPartition

            self._log.warn("{topic} was deleted and made again: it is read from its beginning", topic=self._topic)
            begun = [TopicPartition(self._topic, number, OFFSET_BEGINNING) for number in old]
            consumer.incremental_assign([*begun, *(each for each in partitions if each.partition not in old)])
        self.partitions = (self.partitions or frozenset()) | {each.partition for each in partitions}
        self._paused = None

    def _committed_for_another(self) -> frozenset[int]:
        """In which partitions the group has committed an offset of another topic, which had the same name.

        Another client asks, which joins nothing: after such a question, a member now and then fetched nothing.
        """
        from confluent_kafka import Consumer, KafkaException, TopicPartition

        asking = Consumer(self._properties)
        try:
            while not self._closing:
                asking.poll(0)  # tokens are fetched in its callbacks
                try:
                    known = asking.list_topics(self._topic, timeout=ASKED_SECONDS).topics[self._topic].partitions
                    asked = [TopicPartition(self._topic, number) for number in known]
                    found = asking.committed(asked, timeout=ASKED_SECONDS)
                except KafkaException as error:
                    self._log.debug(
                        "the offsets of {topic} are asked for again: {error}", topic=self._topic, error=error
                    )
                    continue
                if not any(each.error for each in found):
                    ids = (None, "", self.topic_id)
                    return frozenset(each.partition for each in found if each.offset >= 0 and each.metadata not in ids)
                asking.poll(POLL_SECONDS)
        finally:
            asking.close()
        return frozenset()

    def _on_revoke(self, consumer: Any, partitions: Sequence[Any]) -> None:
        """What is being worked on has a while to end. Then what was acknowledged is committed, before another consumer
        begins behind it.
        """
        numbers = self._lose(partitions)
        if not self._closing:
            drained = Event()
            self._reactor.callFromThread(self._owner.drain, numbers, drained)
            drained.wait(DRAIN_SECONDS)
        committed, reason = self._commit_now(numbers)
        self._reactor.callFromThread(self._owner.gave_up, numbers, committed, reason)

    def _on_lost(self, consumer: Any, partitions: Sequence[Any]) -> None:
        numbers = self._lose(partitions)
        self._reactor.callFromThread(self._owner.gave_up, numbers, {}, "the group went on without this consumer")

    def _lose(self, partitions: Sequence[Any]) -> list[int]:
        self._hand_over()
        numbers = [each.partition for each in partitions]
        self.partitions = (self.partitions or frozenset()).difference(numbers)
        return numbers

    def _commit_now(self, partitions: Sequence[int]) -> tuple[Mapping[int, int], str]:
        marks = {number: offset for number, offset in self.marks.copy().items() if number in partitions}
        reason = "another consumer has the partition now"
        if not marks:
            return {}, reason
        try:
            done = self._consumer.commit(offsets=self._offsets(marks), asynchronous=False)
        except Exception as error:
            return {}, f"{reason}, and the last commit failed: {describe(error)}"
        return {each.partition: each.offset for each in done if each.error is None}, reason

    def _offsets(self, marks: Mapping[int, int]) -> list[Any]:
        from confluent_kafka import TopicPartition

        id = self.topic_id or ""
        return [TopicPartition(self._topic, number, offset, id) for number, offset in marks.items()]
