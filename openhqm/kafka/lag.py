# -*- test-case-name: tests.kafka.test_contract -*-
"""How many messages of a topic lie behind what a consumer group has committed: asked in a thread.

librdkafka's admin client can be asked for offsets, too, and ended the process by an assertion of its own
(2.16.0, ``rd_kafka_admin_response_parse``): a consumer that reads nothing asks in its place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Lock
from typing import Any

from openhqm.errors import NotDurable
from openhqm.kafka.errors import describe
from openhqm.kafka.topics import ANSWER_SECONDS, Topic


class Lag:
    """``properties`` say how to reach the cluster. There is one client for each group that was asked about."""

    def __init__(self, properties: Mapping[str, Any]) -> None:
        self._properties = {**properties, "enable.auto.commit": False}
        self._clients: dict[str, Any] = {}
        self._lock = Lock()

    def of(self, topic: Topic, group: str) -> Callable[[], int]:
        """A function that blocks, for a thread. `NotDurable` where Kafka does not answer."""

        def ask() -> int:
            try:
                return self._ask(topic, group)
            except Exception as error:
                raise NotDurable(f"Kafka: {describe(error)}") from None

        return ask

    def _ask(self, topic: Topic, group: str) -> int:
        from confluent_kafka import TopicPartition

        client = self._client(group)
        places = [TopicPartition(topic.name, number) for number in topic.partitions]
        lag = 0
        due = time.monotonic() + ANSWER_SECONDS  # for all partitions together
        for place in client.committed(places, timeout=ANSWER_SECONDS):
            left = due - time.monotonic()
            if left <= 0:
                raise NotDurable(f"it has not told of all partitions within {ANSWER_SECONDS:g} s")
            first, end = client.get_watermark_offsets(place, timeout=left)
            lag += max(0, end - max(first, place.offset))
        return lag

    def _client(self, group: str) -> Any:
        from confluent_kafka import Consumer

        with self._lock:
            client = self._clients.get(group)
            if client is None:
                client = self._clients[group] = Consumer({**self._properties, "group.id": group})
            return client

    def close(self) -> None:
        """In a thread: close the clients."""
        with self._lock:
            clients, self._clients = self._clients, {}
        for client in clients.values():
            with suppress(Exception):  # it reads nothing: there is nothing to lose
                client.close()
