# -*- test-case-name: tests.kafka.test_producing,tests.kafka.test_contract -*-
"""Publishing: one producer, and what librdkafka says of each message.

librdkafka calls back within ``poll``, once for each message. A thread that polls takes the interpreter from the reactor
for each of these calls, and gives it back: with many callers that costs more than all the rest of publishing. So the
reactor polls, without waiting: often while messages are under way, and else now and then, for errors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, succeed

from openhqm.errors import NotDurable
from openhqm.interfaces.broker import Message
from openhqm.kafka.errors import STOPPED, describe, outcome
from openhqm.kafka.messages import to_record

POLL_SECONDS = 0.1
"""How often the client is asked for errors while no message is under way."""
SOONEST_SECONDS, LATEST_SECONDS = 0.001, 0.02
"""How often it is asked while some are. The longer nothing comes, the less often."""
SLOWER = 1.2
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
        reactor: Any,
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
        self._under_way = 0
        self._pause = SOONEST_SECONDS
        self._timer: Any = None
        self._is_soon = self._stopping = False
        self.producer: Any = None

    def again(self) -> Producing:
        """Another one like this, not started."""
        return Producing(*self._like)

    def start(self) -> None:
        """Make the client. It begins to connect by itself."""
        from confluent_kafka import Producer

        self.producer = Producer(self._properties)
        self._poll_in(POLL_SECONDS)

    def publish(self, channel: str, messages: Sequence[Message]) -> Deferred[Sequence[NotDurable | None]]:
        """As `IBroker.publish`. It never waits: what librdkafka has no room for is refused."""
        if not messages or self._stopping:
            return succeed([NotDurable(STOPPED)] * len(messages))
        batch = Batch(channel, len(messages))
        for index, message in enumerate(messages):
            body, key, headers = to_record(message)
            try:
                self.producer.produce(
                    channel, body, key, headers=headers, on_delivery=partial(self._reported, batch, index)
                )
                self._under_way += 1
            except BufferError:
                batch.end(index, NotDurable("too many messages wait for Kafka", retry_after=1))
            except Exception as error:  # a KafkaException: it is known at once that the message cannot be taken
                said = error.args[0] if error.args and hasattr(error.args[0], "name") else None
                refused = NotDurable(f"Kafka did not take the message: {describe(error)}")
                batch.end(index, refused if said is None else outcome(said, channel))
        if self._under_way and (not self._is_soon or self._pause > SOONEST_SECONDS):
            self._pause = SOONEST_SECONDS
            self._poll_in(self._pause)
        return batch.done

    def knows(self, channel: str, seconds: float) -> bool:
        """In a thread: whether the client, asked again, can publish into the topic."""
        found = self.producer.list_topics(channel, seconds).topics[channel]
        has_leaders = all(each.leader >= 0 for each in found.partitions.values())
        return found.error is None and bool(found.partitions) and has_leaders

    def stop(self, run: Callable[[Callable[[], None]], Deferred[None]]) -> Deferred[None]:
        """Give up what is not confirmed, and end. Each message has an outcome before it fires.

        ``run`` runs a function in a thread.
        """
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return succeed(None) if self.producer is None else run(self._give_up).addCallback(lambda _: self._deliver())

    def _give_up(self) -> None:
        """In a thread."""
        self.producer.purge()
        self.producer.flush(LINGER_AT_STOP)

    def _poll_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._reactor.callLater(seconds, self._poll)
        self._is_soon = seconds < POLL_SECONDS

    def _poll(self) -> None:
        self._timer = None
        self._is_soon = False
        try:
            self.producer.poll(0)
            self._pause = SOONEST_SECONDS if self._reports else min(self._pause * SLOWER, LATEST_SECONDS)
            self._deliver()
        finally:
            if not self._is_soon and not self._stopping:
                self._poll_in(self._pause if self._under_way else POLL_SECONDS)

    def _reported(self, batch: Batch, index: int, error: Any, record: Any) -> None:
        """Within ``poll``, or in the thread that gives up: nothing else is done there."""
        self._reports.append((batch, index, error))

    def _deliver(self) -> None:
        reports, self._reports = self._reports, deque()
        self._under_way -= len(reports)
        for batch, index, error in reports:
            batch.end(index, outcome(error, batch.channel))
