"""Event streams: a client that does not read costs no memory, and misses no event when it reads again."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openhqm.delivery.documents import MOST_EVENT_RESULT_BYTES
from openhqm.delivery.streams import KEEP_ALIVE_SECONDS, PIECES_AT_ONCE, EventStreams
from openhqm.policy.history import PIECE_EVENTS
from tests.ingress.test_http import parse_events
from tests.workers.bench import ManualHandler, WorkerBench


class StreamClient:
    """The response of a stream, as its client gets it; the test pauses and resumes the stream."""

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


class EventStreamTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.handler = ManualHandler()
        self.bench = WorkerBench(self.handler)
        self.counts: list[int] = []
        self.streams = EventStreams(self.bench.backend.store, self.bench.backend.clock, self.counts.append)

    def read(self, correlation_id: str, after: int = 0) -> StreamClient:
        client = StreamClient()
        history = [event for event in self.bench.events(correlation_id) if event.number > after]
        self.streams.open(correlation_id, after, history, client)
        return client

    def test_history_then_live_then_end(self) -> None:
        """The history comes first, then each event as it happens, then the end. Open streams are counted."""
        correlation_id = self.bench.submit()
        client = self.read(correlation_id)
        self.assertTrue(client.sent.startswith(b"retry: 3000\n\n"))
        self.assertEqual(client.ids, [1, 2])
        self.handler.works[0].progress(percent=1)
        self.bench.backend.turn()
        self.assertEqual(client.ids, [1, 2, 3])
        self.assertFalse(client.finished)
        self.handler.answers[0].callback("x")
        self.bench.backend.turn()
        self.assertEqual((client.ids, client.finished, client.producer), ([1, 2, 3, 4], True, None))
        self.assertEqual(self.counts, [1, 0])

    def test_stalled(self) -> None:
        """A stalled client is sent nothing. When it reads again, it gets each missed event once, in order."""
        correlation_id = self.bench.submit()
        client = self.read(correlation_id)
        client.producer.pauseProducing()
        for percent in range(50):
            self.handler.works[0].progress(percent=percent)
            self.bench.backend.turn()
        self.assertEqual(client.ids, [1, 2])
        client.producer.resumeProducing()
        self.assertEqual(client.ids, list(range(1, 53)))
        client.producer.pauseProducing()
        self.handler.answers[0].callback("x")
        self.bench.backend.turn()
        self.assertFalse(client.finished)
        client.producer.resumeProducing()
        self.assertEqual((client.ids[-1], client.finished), (53, True))

    def test_stalls_within_history(self) -> None:
        """A client that stalls within the history gets the rest later."""
        correlation_id = self.bench.submit()
        for percent in range(10):
            self.handler.works[0].progress(percent=percent)
            self.bench.backend.turn()
        client = StreamClient()
        write = client.write

        def full_after_five(data: bytes) -> None:
            write(data)
            if client.sent.count(b"id: ") == 5:
                client.producer.pauseProducing()

        client.write = full_after_five  # type: ignore[method-assign]
        self.streams.open(correlation_id, 0, self.bench.events(correlation_id), client)
        self.assertEqual(client.ids, [1, 2, 3, 4, 5])
        client.write = write  # type: ignore[method-assign]
        client.producer.resumeProducing()
        self.assertEqual(client.ids, list(range(1, 13)))

    def test_pieces(self) -> None:
        """A long history is written piece by piece, in turn with those of other streams, and then live events."""
        correlation_id = self.bench.submit()
        for percent in range(300):
            self.handler.works[0].progress(percent=percent)
        self.bench.backend.turn()
        clients: list[StreamClient] = []
        spreads: list[int] = []
        store: Any = self.bench.backend.store
        history = store.history

        def read(each: str, after: int) -> Any:
            lengths = [len(client.ids) for client in clients]
            spreads.append(max(lengths) - min(lengths))
            return history(each, after)

        for _ in range(20):
            clients.append(StreamClient())
            self.streams.open(correlation_id, 0, [], clients[-1])
        store.history = read
        self.bench.backend.turn()
        self.assertLessEqual(max(spreads), (PIECES_AT_ONCE + 1) * PIECE_EVENTS)
        self.handler.answers[0].callback("x")
        self.bench.backend.turn()
        for client in clients:
            self.assertEqual((client.ids, client.finished), (list(range(1, 304)), True))

    def test_gone_before_its_turn(self) -> None:
        """A stream whose client is gone, or does not read, before its turn comes reads nothing."""
        correlation_id = self.bench.submit()
        store: Any = self.bench.backend.store
        history, read = store.history, []
        store.history = lambda each, after: read.append(after) or history(each, after)  # type: ignore[func-returns-value]
        clients = [StreamClient() for _ in range(PIECES_AT_ONCE + 2)]
        for client in clients:
            self.streams.open(correlation_id, 0, [], client)
        clients[-1].producer.stopProducing()
        clients[-2].producer.pauseProducing()
        del read[:]
        self.bench.backend.turn()
        self.assertEqual((clients[-1].ids, clients[-2].ids), ([], []))
        clients[-2].producer.resumeProducing()
        self.bench.backend.turn()
        self.assertEqual((clients[-1].ids, clients[-2].ids), ([], [1, 2]))

    def test_while_reading(self) -> None:
        """An event that happens after the store was read, and before its answer is here, is not missed."""
        correlation_id = self.bench.submit()
        store: Any = self.bench.backend.store
        history = store.history
        known = self.bench.events(correlation_id)
        answers: list[Any] = []

        def late(each: str, after: int) -> Deferred[Any]:
            found = self.successResultOf(history(each, after))
            answers.append((answer := Deferred[Any](), found))
            return answer

        store.history = late
        client = StreamClient()
        self.streams.open(correlation_id, 0, known, client)
        self.handler.answers[0].callback("x")
        self.bench.backend.turn()
        while answers:
            answer, found = answers.pop()
            answer.callback(found)
        self.assertEqual((client.ids, client.finished), ([1, 2, 3], True))

    def test_set_back(self) -> None:
        """Where the store has forgotten events that a client has, as after a failover of Redis, the ending ends it."""
        for stalled in (False, True):
            correlation_id = self.bench.submit()
            client = self.read(correlation_id)
            stream = next(iter(self.streams._open))
            stream._last = 7  # events 3 to 7 were forgotten
            if stalled:
                client.producer.pauseProducing()
            self.handler.answers[-1].callback("x")
            self.bench.backend.turn()
            if stalled:
                self.assertFalse(client.finished)
                client.producer.resumeProducing()
            self.assertEqual((client.ids, client.finished), ([1, 2, 3], True))

    def test_stalled_for_long(self) -> None:
        """A stalled client gets no comments, and stays until its connection ends."""
        client = self.read(self.bench.submit())
        client.producer.pauseProducing()
        self.bench.pass_time(KEEP_ALIVE_SECONDS * 5)
        self.assertEqual((client.sent.count(b"\n: "), client.finished, self.counts[-1]), (0, False, 1))
        client.producer.stopProducing()
        self.assertEqual(self.counts[-1], 0)
        self.assertEqual(self.bench.consumer.in_progress, 1)

    def test_keep_alive(self) -> None:
        """A stream without events has a comment every `KEEP_ALIVE_SECONDS`."""
        client = self.read(self.bench.submit())
        self.bench.pass_time(46)
        self.assertEqual(client.sent.count(b"\n: "), 3)
        self.assertEqual(client.ids, [1, 2])

    def test_large_result(self) -> None:
        """A result beyond the limit is left out, and the event says so."""
        correlation_id = self.bench.submit()
        client = self.read(correlation_id)
        self.handler.answers[0].callback("x" * (MOST_EVENT_RESULT_BYTES + 1))
        self.bench.backend.turn()
        document = json.loads(parse_events(client.sent)[-1]["data"])
        self.assertEqual((document["status"], document["truncated"]), ("COMPLETED", True))
        self.assertLess(len(client.sent), 2000)

    def test_stop(self) -> None:
        """Stopping ends all streams, and later ones after their history."""
        client = self.read(self.bench.submit())
        self.streams.stop()
        self.assertEqual((client.finished, self.counts[-1]), (True, 0))
        late = self.read(self.bench.submit())
        self.assertEqual((late.ids[:1], late.finished, self.counts[-1]), ([1], True, 0))

    def test_client_gone(self) -> None:
        """A stream whose client is gone ends."""
        correlation_id = self.bench.submit()
        client = self.read(correlation_id)
        client.producer.stopProducing()
        self.handler.answers[0].callback("x")
        self.bench.backend.turn()
        self.assertEqual((client.ids, self.counts[-1]), ([1, 2], 0))
