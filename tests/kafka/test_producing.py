"""When the client of a producer is asked what became of its messages. The client is a double, and the clock is fake."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread, get_ident
from typing import Any

import confluent_kafka
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.interfaces import Message
from openhqm.kafka.producing import POLL_SECONDS, Producing


class Client:
    """librdkafka's: it says what became of a message within ``poll`` and ``flush``, and keeps what it has not said when
    it is interrupted. ``polled`` is when it was asked, ``told_in`` the thread in which it said each outcome, and
    ``kept`` what it was interrupted with: confluent-kafka keeps that.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.waiting: list[Callable[[Any, Any], None]] = []
        self.confirms = False
        self.polled: list[float] = []
        self.told_in: list[int] = []
        self.kept: list[BaseException] = []

    def produce(self, topic: str, *about: Any, on_delivery: Any, **more: Any) -> None:
        self.waiting.append(on_delivery)

    def poll(self, seconds: float) -> None:
        assert seconds == 0, "it would block the reactor"
        self.polled.append(self._clock.seconds())
        if self.confirms:
            self._tell()

    def purge(self) -> None:
        """Nothing is sent any more."""
        self.confirms = True

    def flush(self, seconds: float) -> None:
        assert 0 < seconds <= 1, "nothing could end it in time"
        if self.confirms:
            try:
                self._tell()
            except BaseException as error:
                self.kept.append(error)
                raise

    def _tell(self) -> None:
        while self.waiting:
            self.told_in.append(get_ident())
            self.waiting.pop(0)(None, None)


class HeldThread:
    """As `SerialThread`. Each function runs in a thread, once `go` is called."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        self.stopped = False

    def run(self, function: Callable[[], Any]) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.jobs.append((function, done))
        return done

    def go(self) -> None:
        """Run the first function, and have its result delivered."""
        function, done = self.jobs.pop(0)
        results: list[Any] = []
        thread = Thread(target=lambda: results.append(function()))
        thread.start()
        thread.join()
        done.callback(*results)

    def stop(self) -> None:
        self.stopped = True


class ProducingTests(SynchronousTestCase):
    """`Producing`"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.client = Client(self.clock)
        self.thread = HeldThread()
        self.patch(confluent_kafka, "Producer", lambda properties: self.client)
        make_thread: Any = lambda reactor, name: self.thread  # noqa: E731
        self.producing = Producing({}, self.clock, 5.0, 1000, lambda error: None, make_thread)
        self.producing.start()

    def test_at_rest(self) -> None:
        """While nothing is under way, it is asked for errors now and then, and no thread waits."""
        self.clock.pump([0.01] * 100)
        self.assertIn(len(self.client.polled), (9, 10))
        self.assertEqual(self.thread.jobs, [])

    def test_first_in_the_thread(self) -> None:
        """The thread takes one outcome, however many there are, and the reactor the others, without waiting."""
        outcomes = self.producing.publish("a", [Message(b"%d" % number) for number in range(5)])
        self.client.confirms = True
        self.thread.go()
        self.assertEqual(self.successResultOf(outcomes), [None] * 5)
        self.assertEqual([told == get_ident() for told in self.client.told_in], [False, True, True, True, True])
        self.assertEqual(self.thread.jobs, [])

    def test_nothing_is_kept(self) -> None:
        """However often the client is interrupted, it keeps one exception and no frame."""
        self.client.confirms = True
        for _ in range(3):
            outcomes = self.producing.publish("a", [Message(b"1"), Message(b"2")])
            self.thread.go()
            self.assertEqual(self.successResultOf(outcomes), [None, None])
        self.assertEqual(len(self.client.kept), 3)
        (one,) = set(self.client.kept)
        self.assertIsNone(one.__traceback__)

    def test_not_confirmed(self) -> None:
        """The thread goes on to wait while a message is under way, for a while at a time."""
        outcomes = self.producing.publish("a", [Message(b"1")])
        for _ in range(3):
            self.thread.go()
        self.assertNoResult(outcomes)
        self.client.confirms = True
        self.thread.go()
        self.assertEqual(self.successResultOf(outcomes), [None])

    def test_published_in_between(self) -> None:
        """What is published while the thread waits is waited for as well, by the same thread."""
        first = self.producing.publish("a", [Message(b"1")])
        second = self.producing.publish("a", [Message(b"2")])
        self.assertEqual(len(self.thread.jobs), 1)
        self.client.confirms = True
        self.thread.go()
        self.assertEqual(self.successResultOf(first) + self.successResultOf(second), [None, None])
        third = self.producing.publish("a", [Message(b"3")])
        self.thread.go()
        self.assertEqual(self.successResultOf(third), [None])

    def test_thread_is_late(self) -> None:
        """An outcome that the reactor learns of first is delivered then."""
        outcomes = self.producing.publish("a", [Message(b"1")])
        self.client.confirms = True
        self.clock.advance(POLL_SECONDS)
        self.assertEqual(self.successResultOf(outcomes), [None])
        self.thread.go()
        self.assertEqual(self.thread.jobs, [])

    def test_stopped(self) -> None:
        """Once it has stopped each message has an outcome, it is asked nothing more, and takes nothing more."""
        outcomes = self.producing.publish("a", [Message(b"1"), Message(b"2")])
        stopping = self.producing.stop()
        self.thread.go()  # which waited for an outcome, and has none
        self.assertNoResult(stopping)
        self.thread.go()
        self.successResultOf(stopping)
        self.assertEqual(self.successResultOf(outcomes), [None, None])
        (refused,) = self.successResultOf(self.producing.publish("a", [Message(b"3")]))
        self.assertIn("was stopped", refused.reason)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.thread.jobs, [])
        self.assertTrue(self.thread.stopped)
