# -*- test-case-name: tests.kafka.test_contract -*-
"""Publishing: one producer, and the thread in which librdkafka says what became of each message.

The reports of many messages come to the reactor together: one wake-up for as many as were confirmed meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import Lock, Thread
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFromThreads

from openhqm.errors import NotDurable
from openhqm.interfaces.broker import Message
from openhqm.kafka.errors import describe, outcome
from openhqm.kafka.messages import to_record

POLL_SECONDS = 0.5
LINGER_AT_STOP = 1.0
LINGER_MILLISECONDS = 1
"""How long a message waits for others: with 64 callers the client has a quarter less to do, and Kafka four fifths."""
HEADERS_BYTES = 48 * 1024
"""What a message may have besides its body."""
MOST_WAITING = 100_000


class Batch:
    """The messages of one publish, and what became of each."""

    __slots__ = ("channel", "done", "left", "outcomes")

    def __init__(self, channel: str, count: int) -> None:
        self.channel = channel
        self.left = count
        self.outcomes: list[NotDurable | None] = [None] * count
        self.done: Deferred[Sequence[NotDurable | None]] = Deferred()

    def end(self, index: int, outcome: NotDurable | None) -> None:
        """One message has an outcome. It fires with the last one."""
        self.outcomes[index] = outcome
        self.left -= 1
        if not self.left:
            self.done.callback(self.outcomes)


class Producing:
    """``seconds`` is how long a confirmation may take; ``erred`` is called in the reactor with errors of the client."""

    def __init__(
        self,
        properties: Mapping[str, Any],
        reactor: IReactorFromThreads,
        seconds: float,
        largest: int,
        erred: Callable[[Any], None],
    ) -> None:
        self._like = (properties, reactor, seconds, largest, erred)
        self._properties = {
            **properties,
            "acks": "all",
            "linger.ms": LINGER_MILLISECONDS,
            "message.timeout.ms": int(seconds * 1000),
            "message.max.bytes": largest + HEADERS_BYTES,
            "queue.buffering.max.messages": MOST_WAITING,
            "error_cb": lambda error: reactor.callFromThread(erred, error),
        }
        self._reactor = reactor
        self._reports: deque[tuple[Batch, int, Any]] = deque()
        self._lock = Lock()
        self._woken = self._stopping = False
        self.producer: Any = None

    def again(self) -> Producing:
        """Another one like this, not started."""
        return Producing(*self._like)

    def start(self) -> None:
        """Make the client. It begins to connect by itself."""
        from confluent_kafka import Producer

        self.producer = Producer(self._properties)
        Thread(target=self._poll, name="openhqm-kafka-producer", daemon=True).start()

    def publish(self, channel: str, messages: Sequence[Message]) -> Deferred[Sequence[NotDurable | None]]:
        """As `IBroker.publish`. It never waits: what librdkafka has no room for is refused."""
        if not messages:
            return succeed([])
        batch = Batch(channel, len(messages))
        for index, message in enumerate(messages):
            body, key, headers = to_record(message)
            try:
                self.producer.produce(
                    channel, body, key, headers=headers, on_delivery=partial(self._reported, batch, index)
                )
            except BufferError:
                batch.end(index, NotDurable("too many messages wait for Kafka", retry_after=1))
            except Exception as error:  # a KafkaException: it is known at once that the message cannot be taken
                said = error.args[0] if error.args and hasattr(error.args[0], "name") else None
                refused = NotDurable(f"Kafka did not take the message: {describe(error)}")
                batch.end(index, refused if said is None else outcome(said, channel))
        return batch.done

    def knows(self, channel: str, seconds: float) -> bool:
        """In a thread: whether the client, asked again, can publish into the topic."""
        found = self.producer.list_topics(channel, seconds).topics[channel]
        has_leaders = all(each.leader >= 0 for each in found.partitions.values())
        return found.error is None and bool(found.partitions) and has_leaders

    def stop(self) -> None:
        """In a thread: give up what is not confirmed, and end. Each message has an outcome before it returns.

        The thread that polls ends within `POLL_SECONDS`, and is not waited for: a message counts until its report was
        made, in whichever thread.
        """
        if self.producer is None:
            return
        self._stopping = True
        self.producer.purge()
        self.producer.flush(LINGER_AT_STOP)

    def _poll(self) -> None:
        while not self._stopping:
            self.producer.poll(POLL_SECONDS)

    def _reported(self, batch: Batch, index: int, error: Any, record: Any) -> None:
        """In the thread that polls."""
        with self._lock:
            self._reports.append((batch, index, error))
            wake, self._woken = not self._woken, True
        if wake:
            self._reactor.callFromThread(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            reports, self._reports = self._reports, deque()
            self._woken = False
        for batch, index, error in reports:
            batch.end(index, outcome(error, batch.channel))
