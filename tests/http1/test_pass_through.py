"""Relayed requests: their order, their pace, and that an incomplete body or response never looks complete."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.http1.backpressure import STALL_SECONDS
from openhqm.http1.closing import LINGER_SECONDS
from openhqm.http1.messages import Answer
from openhqm.http1.pass_through import Relay
from openhqm.http1.request_reader import HEAD_SECONDS
from openhqm.http1.rules import Head
from tests.http1.memory_server import MOST_BODY, MemoryServer
from tests.http1.request_cases import GET, REFUSED

UPLOAD = b"POST /through HTTP/1.1\r\nHost: x\r\n"
SIZED = UPLOAD + b"Content-Length: 10\r\n\r\n"
CHUNKED = UPLOAD + b"Transfer-Encoding: chunked\r\n\r\n"
PLAIN = b"GET /through HTTP/1.1\r\nHost: x\r\n\r\n"


class RecordingSink:
    """A `RequestSink` that records its calls, and leaves the response to the test."""

    relay: Relay

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.begun = self.complete = self.abandoned = False
        self.pauses = False

    def begin(self, relay: Relay) -> None:
        self.begun = True
        self.relay = relay
        if self.pauses:
            relay.pauseProducing()

    def write(self, piece: bytes) -> None:
        assert self.begun and not self.complete
        self.pieces.append(piece)

    def ended(self) -> None:
        assert self.begun and not self.complete
        self.complete = True

    def lost(self) -> None:
        assert not self.abandoned
        self.abandoned = True

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


class RecordingProducer:
    """A producer that records its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


class RelayCase(SynchronousTestCase):
    """A server that relays requests for ``/through``"""

    def setUp(self) -> None:
        self.server = MemoryServer()
        self.sinks: list[RecordingSink] = []
        self.pauses = False

        def select_sink(head: Head) -> Any:
            if not head.target.startswith(b"/through"):
                return None
            self.sinks.append(RecordingSink())
            self.sinks[-1].pauses = self.pauses
            return self.sinks[-1]

        self.server.site.select_sink = select_sink

    def start(self, data: bytes) -> RecordingSink:
        """Send a request, and return the sink that got it."""
        self.server.send(data)
        return self.sinks[-1]

    @property
    def paused(self) -> bool:
        """Whether the server does not read from the client."""
        return self.server.transport.producerState == "paused"

    def later(self, seconds: float) -> None:
        self.server.clock.pump([1.0] * int(seconds))


class RequestTests(RelayCase):
    def test_no_request_body(self) -> None:
        """A request without a body is complete from the start, and the connection serves further requests."""
        sink = self.start(PLAIN)
        self.assertTrue(sink.complete)
        sink.relay.respond(200, b"Fine", [(b"x-a", b"b"), (b"date", b"today")], 3)
        sink.relay.write(b"abc")
        sink.relay.finish()
        self.assertEqual(
            self.server.take(), b"HTTP/1.1 200 Fine\r\nx-a: b\r\ndate: today\r\nContent-Length: 3\r\n\r\nabc"
        )
        self.assertEqual(self.server.statuses(self.server.send(GET + b"\r\n")), [200])

    def test_relayed_as_read(self) -> None:
        """Each piece of a body, chunked or not, goes on when it is read, before the body is complete."""
        sink = self.start(SIZED + b"abc")
        self.assertEqual((sink.body, sink.complete), (b"abc", False))
        self.server.send(b"defghij")
        self.assertEqual((sink.body, sink.complete), (b"abcdefghij", True))
        self.server.connect()
        sink = self.start(CHUNKED + b"3\r\nab")
        self.assertEqual((sink.body, sink.complete), (b"ab", False))
        self.server.send(b"c\r\n0\r\nTrailer: x\r\n\r\n")
        self.assertEqual((sink.body, sink.complete), (b"abc", True))

    def test_no_limit(self) -> None:
        """`most_body` limits collected bodies only: a relayed body may have any length."""
        sink = self.start(UPLOAD + b"Content-Length: %d\r\n\r\n" % (5 * MOST_BODY))
        for _ in range(50):
            self.server.send(b"a" * (MOST_BODY // 10))
        self.assertEqual((len(sink.body), sink.complete), (5 * MOST_BODY, True))

    def test_refused_before(self) -> None:
        """A malformed request is refused, and its sink is not begun, or told that the request is lost."""
        for name, (status, data) in REFUSED.items():
            if status == 413:  # see above
                continue
            self.setUp()
            data = data.replace(b" / HTTP", b" /through HTTP")
            answer = self.server.send(data)
            self.assertEqual(self.server.statuses(answer), [status], name)
            self.assertTrue(all(sink.abandoned or not sink.begun for sink in self.sinks), name)

    def test_refused_within(self) -> None:
        """A body that becomes malformed is never complete. The client gets 400, or is cut off where a response has
        begun.
        """
        sink = self.start(CHUNKED + b"3\r\nabc\r\n")
        answer = self.server.send(b"z\r\n")
        self.assertEqual((self.server.statuses(answer), sink.abandoned, sink.complete), ([400], True, False))
        self.assertEqual(json.loads(answer.split(b"\r\n\r\n")[1])["status"], 400)
        self.server.connect()
        sink = self.start(CHUNKED + b"3\r\nabc\r\n")
        sink.relay.respond(200, b"", [], None)
        self.assertNotIn(b" 400 ", self.server.send(b"z\r\n"))
        self.assertEqual((self.server.transport.aborted, sink.abandoned, sink.complete), (True, True, False))

    def test_any_method(self) -> None:
        """A method that the parser does not know is relayed. One that does not end has the time of a head."""
        self.server.site.is_own = lambda path: not path.startswith(b"/through")
        sink = self.start(b"BREW /through HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
        self.assertEqual((sink.relay.head.method, sink.body), (b"BREW", b"abc"))
        sink.relay.answer(Answer(200))
        self.server.take()
        self.assertEqual(self.server.statuses(self.server.send(b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n")), [501])
        for beginning in (b"BR", b"GE"):
            self.server.connect()
            self.assertEqual(self.server.send(beginning), b"")
            self.later(HEAD_SECONDS + 2)
            self.assertEqual(self.server.statuses(self.server.take()), [408])

    def test_continue(self) -> None:
        """A client that expects 100 Continue gets it once, when the sink takes the body."""
        self.pauses = True
        head = UPLOAD + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        self.assertEqual(self.server.send(head), b"")
        self.sinks[0].relay.resumeProducing()
        self.assertEqual(self.server.take(), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.sinks[0].relay.pauseProducing()
        self.sinks[0].relay.resumeProducing()
        self.assertEqual(self.server.send(b"abc"), b"")
        self.assertTrue(self.sinks[0].complete)

    def test_no_continue(self) -> None:
        """100 Continue is not sent where the body has begun, or behind a response."""
        self.assertEqual(self.server.send(UPLOAD + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nab"), b"")
        self.server.connect()
        self.pauses = True
        sink = self.start(UPLOAD + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        sink.relay.answer(Answer(401))
        self.assertEqual(self.server.statuses(self.server.take()), [401])


class OrderTests(RelayCase):
    def test_between_two(self) -> None:
        """A relayed request between two others is answered in order."""
        self.server.send(GET + b"\r\n" + PLAIN + b"GET /fast HTTP/1.1\r\nHost: x\r\n\r\n")
        self.sinks[0].relay.answer(Answer(200, b"through"))
        answer = self.server.take()
        self.assertEqual(self.server.statuses(answer), [200, 200])
        self.assertTrue(answer.endswith(b"fast"))

    def test_waits(self) -> None:
        """A relayed request begins once the earlier one was answered. Until then no more of its body is read."""
        self.server.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n" + SIZED + b"abc")
        sink = self.sinks[0]
        self.assertEqual((sink.begun, self.paused), (False, True))
        self.later(100)  # and its time has not begun either
        self.server.application.held[0].finish()
        self.server.take()
        self.assertEqual((sink.begun, sink.body, self.paused), (True, b"abc", False))
        self.server.send(b"defghij")
        sink.relay.answer(Answer(204))
        self.assertEqual(self.server.statuses(self.server.take()), [204])

    def test_behind(self) -> None:
        """Requests behind a relayed one, relayed or not, wait for its response."""
        self.server.send(PLAIN + SIZED + b"0123456789" + GET + b"\r\n")
        self.assertEqual([sink.begun for sink in self.sinks], [True, False])
        self.sinks[0].relay.answer(Answer(200, b"1"))
        self.server.take()
        self.assertEqual((self.sinks[1].body, self.server.seen), (b"0123456789", []))
        self.sinks[1].relay.answer(Answer(200, b"2"))
        self.assertEqual(self.server.statuses(self.server.take()), [200, 200])

    def test_never_begun(self) -> None:
        """Where the client is gone before a relayed request begins, its sink is not called."""
        self.server.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n" + SIZED)
        self.server.hang_up()
        self.assertEqual((self.sinks[0].begun, self.sinks[0].abandoned), (False, False))

    def test_drain(self) -> None:
        """A draining site lets a relayed response end, and closes its connection."""
        sink = self.start(PLAIN)
        self.server.site.drain()
        sink.relay.respond(200, b"", [], None)
        sink.relay.write(b"abc")
        sink.relay.finish()
        answer = self.server.take()
        self.assertIn(b"Connection: close\r\n", answer)
        self.assertTrue(answer.endswith(b"3\r\nabc\r\n0\r\n\r\n"))
        self.assertTrue(self.server.transport.disconnecting)


class BackpressureTests(RelayCase):
    def test_upload(self) -> None:
        """While the sink is paused, the client is not read from. Pieces read before are kept in order."""
        sink = self.start(SIZED + b"a")
        sink.relay.pauseProducing()
        self.assertTrue(self.paused)
        self.server.send(b"bc")  # was under way
        self.assertEqual(sink.body, b"a")
        sink.relay.resumeProducing()
        self.assertEqual((sink.body, self.paused), (b"abc", False))

    def test_paused_within_a_read(self) -> None:
        """A sink that pauses in the middle of a read gets no further piece of it."""
        sink = self.start(CHUNKED)
        pieces: list[bytes] = []

        def write(piece: bytes) -> None:
            pieces.append(piece)
            sink.relay.pauseProducing()

        sink.write = write  # type: ignore[method-assign]
        self.server.send(b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n")
        self.assertEqual((pieces, sink.complete), ([b"a"], False))
        sink.relay.resumeProducing()
        self.assertEqual((pieces, sink.complete), ([b"a", b"b"], False))
        sink.relay.resumeProducing()
        self.assertTrue(sink.complete)

    def test_download(self) -> None:
        """The producer of a response is paused while the client does not read, and stopped when it is gone."""
        sink, producer = self.start(PLAIN), RecordingProducer()
        sink.relay.respond(200, b"", [], None)
        sink.relay.registerProducer(producer, True)
        self.server.protocol.pauseProducing()
        self.server.protocol.resumeProducing()
        self.server.hang_up()
        self.assertEqual((producer.calls, sink.abandoned), (["pause", "resume", "stop"], True))

    def test_half_closed(self) -> None:
        """A client that closes its side may be gone, so a relayed request is lost with it."""
        sink = self.start(PLAIN)
        self.server.half_close()
        self.assertTrue(self.server.transport.aborted)
        self.server.hang_up()
        self.assertTrue(sink.abandoned)

    def test_body_while_response_stalls(self) -> None:
        """A response that the client does not read does not stop the body: an upstream server that answers while it
        reads is not deadlocked.
        """
        sink = self.start(SIZED + b"a")
        sink.relay.respond(200, b"", [], None)
        self.server.protocol.pauseProducing()
        self.assertFalse(self.paused)
        self.server.send(b"bcdefghij")
        self.assertTrue(sink.complete)

    def test_stalled_reader(self) -> None:
        """A client that does not read its response is cut off after `STALL_SECONDS`."""
        sink = self.start(PLAIN)
        sink.relay.respond(200, b"", [], None)
        self.server.protocol.pauseProducing()
        self.later(STALL_SECONDS + 2)
        self.assertTrue(self.server.transport.aborted)

    def test_slow_body(self) -> None:
        """A body slower than 1 KiB a second is given up."""
        sink = self.start(UPLOAD + b"Content-Length: 100000\r\n\r\n")
        for _ in range(30):
            self.server.send(b"a" * 2000)
            self.later(1)
        self.assertFalse(sink.abandoned)
        for _ in range(60):
            self.server.send(b"a")
            self.later(1)
        self.assertEqual((sink.abandoned, self.server.transport.closed), (True, True))

    def test_slow_sink(self) -> None:
        """The time for which a sink is paused does not count against the client."""
        sink = self.start(SIZED)
        sink.relay.pauseProducing()
        self.later(300)
        sink.relay.resumeProducing()
        self.later(5)
        self.server.send(b"0123456789")
        self.assertTrue(sink.complete)
        sink.relay.answer(Answer(200))
        self.assertEqual(self.server.statuses(self.server.take()), [200])

    def test_next_body_has_its_time(self) -> None:
        """A collected body behind a paused relayed one has a deadline of its own again."""
        self.pauses = True
        post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n"
        self.server.send(SIZED + b"0123456789" + post)
        self.sinks[0].relay.resumeProducing()
        self.sinks[0].relay.answer(Answer(200))
        for _ in range(25):
            self.server.send(b"a" * 2000)
            self.later(1)
        self.assertEqual(len(self.server.seen), 1)

    def test_long_answer(self) -> None:
        """A response that the client reads has no deadline."""
        sink = self.start(PLAIN)
        sink.relay.respond(200, b"", [], None)
        self.later(1000)
        sink.relay.finish()
        self.assertFalse(self.server.transport.closed)


class ResponseTests(RelayCase):
    def respond(self, request: bytes, status: int, length: int | None, *pieces: bytes) -> bytes:
        sink = self.start(request)
        sink.relay.respond(status, b"", [(b"date", b"x")], length)
        for piece in pieces:
            sink.relay.write(piece)
        sink.relay.finish()
        return self.server.take()

    def test_framing(self) -> None:
        """A known length is announced. A response of unknown length is chunked, or ended by the connection for
        HTTP/1.0.
        """
        self.assertTrue(self.respond(PLAIN, 200, 2, b"a", b"b").endswith(b"Content-Length: 2\r\n\r\nab"))
        self.assertTrue(self.respond(PLAIN, 200, 0).endswith(b"Content-Length: 0\r\n\r\n"))
        chunks = self.respond(PLAIN, 200, None, b"a", b"", b"bc")
        self.assertTrue(chunks.endswith(b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"))
        self.assertEqual(
            self.respond(PLAIN.replace(b"1.1", b"1.0"), 200, None, b"abc"),
            b"HTTP/1.0 200 OK\r\nConnection: close\r\ndate: x\r\n\r\nabc",
        )
        self.assertTrue(self.server.transport.disconnecting)

    def test_without_body(self) -> None:
        """Responses to HEAD, and those with 204 or 304, have no body. The next response follows at once."""
        head = PLAIN.replace(b"GET", b"HEAD")
        self.assertTrue(self.respond(head, 200, 5, b"abcde").endswith(b"Content-Length: 5\r\n\r\n"))
        self.assertTrue(self.respond(head, 200, None).endswith(b"date: x\r\n\r\n"))
        self.assertTrue(self.respond(PLAIN, 304, 5).endswith(b"Content-Length: 5\r\n\r\n"))
        self.assertTrue(self.respond(PLAIN, 204, 0).endswith(b"date: x\r\n\r\n"))
        sink = self.start(head)
        sink.relay.answer(Answer(502, b"problem"))
        self.assertTrue(self.server.take().endswith(b"\r\n\r\n"))
        self.assertEqual(self.server.statuses(self.server.send(GET + b"\r\n")), [200])

    def test_date(self) -> None:
        """A response without a Date gets one (RFC 9110, section 6.6.1)."""
        sink = self.start(PLAIN)
        sink.relay.respond(200, b"", [], 0)
        self.assertIn(b"\r\nDate: ", self.server.take())

    def test_wrong_length(self) -> None:
        """A response that is aborted, too short or too long does not look complete: the connection is cut."""
        for pieces, end in (([b"a"], "abort"), ([b"a"], "finish"), ([b"abcdef"], "finish")):
            self.server.connect()
            sink = self.start(PLAIN)
            sink.relay.respond(200, b"", [], 5)
            for piece in pieces:
                sink.relay.write(piece)
            getattr(sink.relay, end)()
            self.assertTrue(self.server.transport.aborted, (pieces, end))
            self.server.hang_up()
            self.assertEqual(sink.abandoned, end == "finish")
        self.server.connect()
        sink = self.start(PLAIN)
        sink.relay.respond(200, b"", [], None)
        sink.relay.write(b"abc")
        sink.relay.abort()
        self.assertFalse(self.server.take().endswith(b"0\r\n\r\n"))

    def test_early_answer(self) -> None:
        """A response before the end of the body closes the connection so that the client can read it while it sends."""
        sink = self.start(SIZED + b"abc")
        sink.relay.pauseProducing()
        sink.relay.answer(Answer(413, b"too long"))
        self.assertIn(b"Connection: close\r\n", self.server.take())
        self.assertEqual((self.server.transport.half_closed, self.paused), (True, False))
        self.server.protocol.dataReceived(b"defghij" + GET + b"\r\n")
        self.assertEqual((sink.body, self.server.seen, self.server.take()), (b"abc", [], b""))
        self.later(LINGER_SECONDS + 2)
        self.assertTrue(self.server.transport.aborted)

    def test_answer_while_sending(self) -> None:
        """A response that begins before the end of the body is complete, and the connection ends behind it."""
        sink = self.start(SIZED)
        sink.relay.respond(200, b"", [], None)
        self.server.send(b"0123456789")
        sink.relay.finish()
        self.assertTrue(self.server.take().endswith(b"0\r\n\r\n"))
        self.assertTrue(self.server.transport.disconnecting)

    def test_connection_lost(self) -> None:
        """A sink is told once that the client is gone. What it still sends goes nowhere."""
        sink = self.start(SIZED + b"abc")
        self.server.hang_up()
        self.assertTrue(sink.abandoned)
        sink.relay.respond(200, b"", [], 1)
        sink.relay.write(b"a")
        sink.relay.finish()
        sink.relay.answer(Answer(200))
        sink.relay.abort()
        self.assertEqual((self.server.take(), sink.complete), (b"", False))

    def test_bug(self) -> None:
        """An unexpected error in a sink is not blamed on the request: it ends the connection."""
        sink = self.start(SIZED)

        def write(piece: bytes) -> None:
            raise KeyError("ours")

        sink.write = write  # type: ignore[method-assign]
        self.assertRaises(KeyError, self.server.send, b"abc")
