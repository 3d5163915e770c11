"""Comments on idle streams: each has one in time, and never all at once."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.delivery.keep_alive import PARTS, KeepAlive


class Stream:
    def __init__(self) -> None:
        self.comments = 0

    def keep_alive(self) -> None:
        self.comments += 1


class KeepAliveTests(SynchronousTestCase):
    def test_spread(self) -> None:
        """Streams that began together have one comment each in 15 seconds, and a fifteenth of them in one second."""
        clock = Clock()
        keep_alive = KeepAlive(clock)
        streams = [Stream() for _ in range(10 * PARTS)]
        for stream in streams:
            keep_alive.add(stream)
        clock.advance(1)
        self.assertEqual(sum(stream.comments for stream in streams), 10)
        clock.pump([1.0] * (PARTS - 1))
        self.assertEqual({stream.comments for stream in streams}, {1})
        clock.pump([1.0] * PARTS)
        self.assertEqual({stream.comments for stream in streams}, {2})

    def test_ended(self) -> None:
        """A stream that has ended has no more comments, and without streams no timer is left."""
        clock = Clock()
        keep_alive = KeepAlive(clock)
        one, other = Stream(), Stream()
        keep_alive.add(one)
        keep_alive.add(other)
        keep_alive.discard(one)
        clock.pump([1.0] * PARTS)
        self.assertEqual((one.comments, other.comments), (0, 1))
        keep_alive.discard(other)
        keep_alive.discard(other)
        self.assertEqual(clock.getDelayedCalls(), [])
        keep_alive.add(one)
        clock.pump([1.0] * PARTS)
        self.assertEqual(one.comments, 1)
