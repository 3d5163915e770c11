"""Other programs on a Kafka: they make topics, publish and read, with clients that block."""

from __future__ import annotations

import time
from typing import Any

from tests.kafka.server import KafkaServer


class Programs:
    """Those on ``server``. Every name of a topic begins with ``prefix``."""

    def __init__(self, server: KafkaServer, prefix: str) -> None:
        from confluent_kafka import Producer
        from confluent_kafka.admin import AdminClient

        self.prefix = prefix
        self._to = {"bootstrap.servers": server.bootstrap}
        self.operator = AdminClient(self._to)
        self.producer = Producer(self._to)

    def topic(self, name: str, partitions: int = 1, **config: str) -> str:
        """Make a topic; its whole name."""
        from confluent_kafka.admin import NewTopic

        whole = self.prefix + name
        new = NewTopic(whole, partitions, 1, config={key.replace("_", "."): value for key, value in config.items()})
        self.operator.create_topics([new])[whole].result(20)
        return whole

    def topics(self, *names: str) -> None:
        """Make several topics at once, each with one partition, and come back once they are told of."""
        from confluent_kafka import KafkaException, TopicCollection
        from confluent_kafka.admin import NewTopic

        whole = [self.prefix + name for name in names]
        for made in self.operator.create_topics([NewTopic(name, 1, 1) for name in whole]).values():
            made.result(20)
        due = time.monotonic() + 20
        while True:
            try:
                for described in self.operator.describe_topics(TopicCollection(whole)).values():
                    described.result(20)
                return
            except KafkaException:
                assert time.monotonic() < due, f"{whole} are not told of"
                time.sleep(0.02)

    def delete(self, topic: str) -> None:
        """Delete it, and come back once it is gone."""
        self.operator.delete_topics([topic], operation_timeout=10)[topic].result(20)
        while topic in self.operator.list_topics(timeout=10).topics:
            time.sleep(0.05)

    def remove(self, topic: str, offset: int) -> None:
        """Remove all before ``offset`` from the one partition of the topic, as its retention would."""
        from confluent_kafka import TopicPartition

        for removed in self.operator.delete_records([TopicPartition(topic, 0, offset)]).values():
            removed.result(20)

    def publish(self, topic: str, *records: dict[str, Any]) -> None:
        """Publish them. Each is as ``Producer.produce`` takes it, and has a ``value``."""
        for record in records:
            self.producer.produce(topic, **record)
        left = self.producer.flush(30)
        assert not left, f"{left} records were not published"

    def read(self, topic: str, count: int, seconds: float = 30.0) -> list[Any]:
        """So many records from the beginning of the topic, or as many as there are by then."""
        from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

        reader = Consumer({**self._to, "group.id": f"{self.prefix}reader", "enable.auto.commit": False})
        partitions = reader.list_topics(topic, timeout=10).topics[topic].partitions
        reader.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
        found: list[Any] = []
        due = time.monotonic() + seconds
        try:
            while len(found) < count and time.monotonic() < due:
                found += [each for each in reader.consume(count - len(found), 0.2) if each.error() is None]
        finally:
            reader.close()
        return found

    def committed(self, group: str, topic: str) -> int:
        """Up to where the group has committed, over all partitions."""
        from confluent_kafka import Consumer, TopicPartition

        asking = Consumer({**self._to, "group.id": group, "enable.auto.commit": False})
        try:
            partitions = asking.list_topics(topic, timeout=10).topics[topic].partitions
            found = asking.committed([TopicPartition(topic, number) for number in partitions], timeout=10)
            return sum(max(0, each.offset) for each in found)
        finally:
            asking.close()
