"""When the client of a producer is asked what became of its messages. The client is a double, and the clock is fake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import confluent_kafka
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.interfaces import Message
from openhqm.kafka.producing import LATEST_SECONDS, POLL_SECONDS, SOONEST_SECONDS, Producing


class Client:
    """librdkafka's: it says what became of a message within ``poll``. ``polled``: when it was asked."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.waiting: list[Callable[[Any, Any], None]] = []
        self.confirms = False
        self.polled: list[float] = []

    def produce(self, topic: str, *about: Any, on_delivery: Any, **more: Any) -> None:
        self.waiting.append(on_delivery)

    def poll(self, seconds: float) -> None:
        assert seconds == 0, "it would block the reactor"
        self.polled.append(self._clock.seconds())
        if self.confirms:
            self.flush(0)

    def purge(self) -> None:
        """Nothing is sent any more."""

    def flush(self, seconds: float) -> None:
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each(None, None)


class PollingTests(SynchronousTestCase):
    """`Producing`"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.client = Client(self.clock)
        self.patch(confluent_kafka, "Producer", lambda properties: self.client)
        self.producing = Producing({}, self.clock, 5.0, 1000, lambda error: None)
        self.producing.start()

    def turn(self, seconds: float, step: float = SOONEST_SECONDS) -> None:
        self.clock.pump([step] * round(seconds / step))

    def test_at_rest(self) -> None:
        """While nothing is under way, it is asked for errors now and then."""
        self.turn(1, 0.01)
        self.assertIn(len(self.client.polled), (9, 10))

    def test_under_way(self) -> None:
        """Once a message is under way it is asked at once, and less often the longer nothing comes; then it rests."""
        outcomes = self.producing.publish("a", [Message(b"1"), Message(b"2")])
        self.turn(2)
        first, last = self.client.polled[0], self.client.polled[-2:]
        self.assertAlmostEqual(first, SOONEST_SECONDS)
        self.assertLessEqual(last[1] - last[0], LATEST_SECONDS + 1.1 * SOONEST_SECONDS)
        self.assertGreater(last[1] - last[0], LATEST_SECONDS / 2)
        self.assertNoResult(outcomes)
        self.client.confirms = True
        self.turn(0.1)
        self.assertEqual(self.successResultOf(outcomes), [None, None])
        asked = len(self.client.polled)
        self.turn(1)
        self.assertLessEqual(len(self.client.polled) - asked, 1.1 / POLL_SECONDS)

    def test_published_in_between(self) -> None:
        """What is published while another message is waited for is asked for at once, too."""
        self.producing.publish("a", [Message(b"1")])
        self.turn(1)
        asked = len(self.client.polled)
        self.client.confirms = True
        outcomes = self.producing.publish("a", [Message(b"2")])
        self.turn(2 * SOONEST_SECONDS)
        self.assertEqual(self.successResultOf(outcomes), [None])
        self.assertGreater(len(self.client.polled), asked)

    def test_stopped(self) -> None:
        """Once it has stopped each message has an outcome, it is asked nothing more, and takes nothing more."""
        outcomes = self.producing.publish("a", [Message(b"1")])
        self.successResultOf(self.producing.stop(maybeDeferred))
        self.assertEqual(self.successResultOf(outcomes), [None])
        (refused,) = self.successResultOf(self.producing.publish("a", [Message(b"2")]))
        self.assertIn("was stopped", refused.reason)
        self.assertEqual(self.clock.getDelayedCalls(), [])
