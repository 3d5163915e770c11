# -*- test-case-name: tests.kafka.test_producing,tests.kafka.test_contract -*-
"""Publishing: one producer, and what librdkafka says of each message.

librdkafka calls back within ``poll`` and ``flush``, once for each message. A thread that is called back for each one
takes the interpreter from the reactor, and gives it back: with many callers that costs more than all the rest of
publishing. So a thread waits for the first outcome alone, and the reactor takes the others, without waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import get_ident
from typing import Any

from twisted.internet.defer import Deferred, succeed

from openhqm.errors import NotDurable
from openhqm.interfaces.broker import Message
from openhqm.kafka.errors import STOPPED, describe, outcome
from openhqm.kafka.messages import to_record
from openhqm.runtime.threads import SerialThread

POLL_SECONDS = 0.1
"""How often the client is asked for errors, and how long the thread waits for an outcome at a time."""
LINGER_AT_STOP = 1.0
LINGER_MILLISECONDS = 5
"""How long a message waits for others where it is not sent before: the thread has all of a publish sent together."""
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


class _Reported(Exception):
    """Raised where librdkafka calls back in the thread: it comes back from there, and keeps what else it has.

    A client has one for all times: confluent-kafka 2.16 lets go of no exception that a callback has raised.
    """


class Producing:
    """``seconds`` is how long a confirmation may take; ``erred`` is called in the reactor with errors of the client.

    ``make_thread`` makes the thread that waits.
    """

    def __init__(
        self,
        properties: Mapping[str, Any],
        reactor: Any,
        seconds: float,
        largest: int,
        erred: Callable[[Any], None],
        make_thread: Callable[[Any, str], SerialThread] = SerialThread,
    ) -> None:
        self._like = (properties, reactor, seconds, largest, erred, make_thread)
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
        self._thread = make_thread(reactor, "kafka-producer")
        self._waits_in: int | None = None
        self._reported_one = _Reported()
        self._reports: deque[tuple[Batch, int, Any]] = deque()
        self._under_way = 0
        self._timer: Any = None
        self._is_waiting = self._stopping = False
        self.producer: Any = None

    def again(self) -> Producing:
        """Another one like this, not started."""
        return Producing(*self._like)

    def start(self) -> None:
        """Make the client. It begins to connect by itself."""
        from confluent_kafka import Producer

        self.producer = Producer(self._properties)
        self._timer = self._reactor.callLater(POLL_SECONDS, self._look)

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
        self._wait()
        return batch.done

    def knows(self, channel: str, seconds: float) -> bool:
        """In a thread: whether the client, asked again, can publish into the topic."""
        found = self.producer.list_topics(channel, seconds).topics[channel]
        has_leaders = all(each.leader >= 0 for each in found.partitions.values())
        return found.error is None and bool(found.partitions) and has_leaders

    def stop(self) -> Deferred[None]:
        """Give up what is not confirmed, and end. Each message has an outcome before it fires."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return succeed(None) if self.producer is None else self._thread.run(self._give_up).addCallback(self._given_up)

    def _give_up(self) -> None:
        """In the thread."""
        self.producer.purge()
        self.producer.flush(LINGER_AT_STOP)

    def _given_up(self, _: None) -> None:
        self._deliver()
        self._thread.stop()

    # What became of the messages

    def _wait(self) -> None:
        if self._under_way and not self._is_waiting and not self._stopping:
            self._is_waiting = True
            self._thread.run(self._until_reported).addCallback(self._waited)

    def _until_reported(self) -> None:
        """In the thread: what lingers is sent, and it waits for an outcome."""
        self._waits_in = get_ident()
        try:
            self.producer.flush(POLL_SECONDS)
        except _Reported as one:
            one.__traceback__ = None

    def _waited(self, _: None) -> None:
        self._is_waiting = False
        self._poll()
        self._wait()

    def _look(self) -> None:
        """While no message is under way, too: there may be errors."""
        self._timer = self._reactor.callLater(POLL_SECONDS, self._look)
        self._poll()

    def _poll(self) -> None:
        self.producer.poll(0)
        self._deliver()

    def _reported(self, batch: Batch, index: int, error: Any, record: Any) -> None:
        """Within ``poll`` or ``flush``, in either thread: nothing else is done there."""
        self._reports.append((batch, index, error))
        if get_ident() == self._waits_in and not self._stopping:
            raise self._reported_one

    def _deliver(self) -> None:
        while self._reports:
            batch, index, error = self._reports.popleft()
            self._under_way -= 1
            batch.end(index, outcome(error, batch.channel))
