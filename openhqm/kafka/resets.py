# -*- test-case-name: tests.kafka.test_retention -*-
"""Where a partition is read from when the offset of the group is no place in it.

Kafka removes messages by their age and their size, whether a group has read them or not. A client that is told to begin
with the earliest message then goes on behind the gap and says nothing. Here librdkafka is told to fail instead: what is
gone is counted before the partition is read from its beginning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from openhqm.kafka.errors import describe

ASKED_SECONDS = 1.0


class OffsetResets:
    """``consumer`` is that of librdkafka, in whose thread all of this runs, and ``topic`` what it reads.

    ``dropped`` is called with a partition, the first offset that is left in it, and how many messages Kafka has removed
    before it that the group had not read.
    """

    def __init__(self, consumer: Any, topic: str, dropped: Callable[[int, int, int], object]) -> None:
        self._consumer = consumer
        self._topic = topic
        self._dropped = dropped
        self._waiting: dict[int, int | None] = {}

    def __bool__(self) -> bool:
        """Whether there are partitions to begin."""
        return bool(self._waiting)

    def needed(self, record: Any) -> bool:
        """Whether what came in place of a record says that its partition has to be begun: `begin` does that then."""
        if record.error().name() != "_AUTO_OFFSET_RESET":
            return False
        self._waiting[record.partition()] = record.offset()  # None: the group has no offset
        return True

    def begin(self) -> str | None:
        """Begin the partitions for which it is needed; why that failed, or None. It may block for `ASKED_SECONDS`."""
        from confluent_kafka import OFFSET_BEGINNING, TopicPartition

        for number, wanted in list(self._waiting.items()):
            at = TopicPartition(self._topic, number, OFFSET_BEGINNING)
            try:
                if number in {each.partition for each in self._consumer.assignment()}:  # else another member has it
                    first = 0
                    if wanted is not None:
                        first, _ = self._consumer.get_watermark_offsets(at, timeout=ASKED_SECONDS)
                    self._consumer.incremental_unassign([at])
                    self._consumer.incremental_assign([at])
                    if wanted is not None and wanted < first:
                        self._dropped(number, first, first - wanted)
            except Exception as error:  # a KafkaException: it is tried again
                return describe(error)
            del self._waiting[number]
        return None


class _Reading(Protocol):
    """What reads a topic as one of a group."""

    topic: str
    group: str


class Dropped:
    """How many messages Kafka has removed from each topic that a group had not read."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def note(self, reading: _Reading, count: int) -> None:
        """So many more."""
        self._counts[reading.topic, reading.group] += count

    @property
    def warnings(self) -> Sequence[str]:
        """What an operator should know, and do."""
        return [
            f"Kafka has removed {count} messages of {topic} that the group {group} had not read, since this process "
            "began: raise retention.ms and retention.bytes"
            for (topic, group), count in self._counts.items()
        ]
