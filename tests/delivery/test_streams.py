"""Event streams keep nothing for a reader who does not read, and lose nothing for one who comes back."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.delivery.documents import MOST_EVENT_RESULT_BYTES
from openhqm.delivery.streams import KEEP_ALIVE_SECONDS, Streams
from tests.ingress.test_http import parse_events
from tests.workers.bench import Hand, Workshop


class Reader:
    """The far end of a stream: what it was sent, and whether it reads."""

    def __init__(self) -> None:
        self.sent = b""
        self.finished = False
        self.producer: Any = None

    def write(self, data: bytes) -> None:
        self.sent += data

    def finish(self) -> None:
        self.finished = True

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    @property
    def ids(self) -> list[int]:
        return [int(event["id"]) for event in parse_events(self.sent)]


class Stream(SynchronousTestCase):
    def setUp(self) -> None:
        self.hand = Hand()
        self.shop = Workshop(self.hand)
        self.counts: list[int] = []
        self.streams = Streams(self.shop.bench.store, self.shop.bench.clock, self.counts.append)

    def read(self, correlation_id: str, after: int = 0) -> Reader:
        reader = Reader()
        history = [event for event in self.shop.events(correlation_id) if event.number > after]
        self.streams.open(correlation_id, after, history, reader)
        return reader

    def test_history_then_live_then_end(self) -> None:
        """History first, then what happens, then the end of the stream; and the books are straight."""
        correlation_id = self.shop.submit()
        reader = self.read(correlation_id)
        self.assertTrue(reader.sent.startswith(b"retry: 3000\n\n"))
        self.assertEqual(reader.ids, [1, 2])
        self.hand.works[0].progress(percent=1)
        self.shop.bench.turn()
        self.assertEqual(reader.ids, [1, 2, 3])
        self.assertFalse(reader.finished)
        self.hand.answers[0].callback("x")
        self.shop.bench.turn()
        self.assertEqual((reader.ids, reader.finished, reader.producer), ([1, 2, 3, 4], True, None))
        self.assertEqual(self.counts, [1, 0])

    def test_stalled(self) -> None:
        """A reader who stalls is sent nothing; reading again it gets what it missed, in order, once."""
        correlation_id = self.shop.submit()
        reader = self.read(correlation_id)
        reader.producer.pauseProducing()
        for percent in range(50):
            self.hand.works[0].progress(percent=percent)
            self.shop.bench.turn()
        self.assertEqual(reader.ids, [1, 2])
        reader.producer.resumeProducing()
        self.assertEqual(reader.ids, list(range(1, 53)))
        reader.producer.pauseProducing()
        self.hand.answers[0].callback("x")
        self.shop.bench.turn()
        self.assertFalse(reader.finished)
        reader.producer.resumeProducing()
        self.assertEqual((reader.ids[-1], reader.finished), (53, True))

    def test_stalls_in_the_middle(self) -> None:
        """A reader who stalls while history is written gets the rest later."""
        correlation_id = self.shop.submit()
        for percent in range(10):
            self.hand.works[0].progress(percent=percent)
            self.shop.bench.turn()
        reader = Reader()
        write = reader.write

        def full_after_five(data: bytes) -> None:
            write(data)
            if reader.sent.count(b"id: ") == 5:
                reader.producer.pauseProducing()

        reader.write = full_after_five  # type: ignore[method-assign]
        self.streams.open(correlation_id, 0, self.shop.events(correlation_id), reader)
        self.assertEqual(reader.ids, [1, 2, 3, 4, 5])
        reader.write = write  # type: ignore[method-assign]
        reader.producer.resumeProducing()
        self.assertEqual(reader.ids, list(range(1, 13)))

    def test_stalled_for_long(self) -> None:
        """A reader who stalls is kept as long as its connection is, and is sent no comments meanwhile."""
        reader = self.read(self.shop.submit())
        reader.producer.pauseProducing()
        self.shop.pass_time(KEEP_ALIVE_SECONDS * 5)
        self.assertEqual((reader.sent.count(b"\n: "), reader.finished, self.counts[-1]), (0, False, 1))
        reader.producer.stopProducing()
        self.assertEqual(self.counts[-1], 0)
        self.assertEqual(self.shop.consumer.in_hand, 1)

    def test_keep_alive(self) -> None:
        """A quiet stream has a comment every fifteen seconds."""
        reader = self.read(self.shop.submit())
        self.shop.pass_time(46)
        self.assertEqual(reader.sent.count(b"\n: "), 3)
        self.assertEqual(reader.ids, [1, 2])

    def test_large_result(self) -> None:
        """A result that would hold up the stream is left out, and the event says so."""
        correlation_id = self.shop.submit()
        reader = self.read(correlation_id)
        self.hand.answers[0].callback("x" * (MOST_EVENT_RESULT_BYTES + 1))
        self.shop.bench.turn()
        document = json.loads(parse_events(reader.sent)[-1]["data"])
        self.assertEqual((document["status"], document["truncated"]), ("COMPLETED", True))
        self.assertLess(len(reader.sent), 2000)

    def test_stop(self) -> None:
        """When the process stops, readers are let go in order, to come back elsewhere."""
        reader = self.read(self.shop.submit())
        self.streams.stop()
        self.assertEqual((reader.finished, self.counts[-1]), (True, 0))
        late = self.read(self.shop.submit())
        self.assertEqual((late.ids[:1], late.finished, self.counts[-1]), ([1], True, 0))

    def test_leaves(self) -> None:
        """A reader who leaves is forgotten."""
        correlation_id = self.shop.submit()
        reader = self.read(correlation_id)
        reader.producer.stopProducing()
        self.hand.answers[0].callback("x")
        self.shop.bench.turn()
        self.assertEqual((reader.ids, self.counts[-1]), ([1, 2], 0))
