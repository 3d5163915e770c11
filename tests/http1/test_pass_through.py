"""A request let through as it comes: in its turn, at the pace of whoever takes it, and never half for whole."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.http1.channel import LINGER_SECONDS, STALL_SECONDS
from openhqm.http1.messages import Answer
from openhqm.http1.pass_through import Relay
from openhqm.http1.rules import Head
from tests.http1.connections import MOST_BODY, Wire
from tests.http1.strictness import GET, REFUSED

UPLOAD = b"POST /through HTTP/1.1\r\nHost: x\r\n"
SIZED = UPLOAD + b"Content-Length: 10\r\n\r\n"
CHUNKED = UPLOAD + b"Transfer-Encoding: chunked\r\n\r\n"
PLAIN = b"GET /through HTTP/1.1\r\nHost: x\r\n\r\n"


class Taking:
    """Takes one request, and leaves the rest to the test."""

    passing: Relay

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.begun = self.whole = self.gone = False
        self.pauses = False

    def begin(self, passing: Relay) -> None:
        self.begun = True
        self.passing = passing
        if self.pauses:
            passing.pauseProducing()

    def write(self, piece: bytes) -> None:
        assert self.begun and not self.whole
        self.pieces.append(piece)

    def ended(self) -> None:
        assert self.begun and not self.whole
        self.whole = True

    def lost(self) -> None:
        assert not self.gone
        self.gone = True

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


class Told:
    """A producer that remembers what it was told."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def pauseProducing(self) -> None:
        self.words.append("pause")

    def resumeProducing(self) -> None:
        self.words.append("resume")

    def stopProducing(self) -> None:
        self.words.append("stop")


class Passages(SynchronousTestCase):
    """What is below ``/through`` is let through."""

    def setUp(self) -> None:
        self.wire = Wire()
        self.taken: list[Taking] = []
        self.pauses = False

        def passage(head: Head) -> Any:
            if not head.target.startswith(b"/through"):
                return None
            self.taken.append(Taking())
            self.taken[-1].pauses = self.pauses
            return self.taken[-1]

        self.wire.site.passage = passage

    def take(self, data: bytes) -> Taking:
        """Send, and what took it."""
        self.wire.send(data)
        return self.taken[-1]

    @property
    def paused(self) -> bool:
        """Whether the peer is not read from."""
        return self.wire.transport.producerState == "paused"

    def later(self, seconds: float) -> None:
        self.wire.clock.pump([1.0] * int(seconds))


class Requests(Passages):
    def test_plain(self) -> None:
        """A request without a body is whole from the start, and the connection serves on."""
        taking = self.take(PLAIN)
        self.assertTrue(taking.whole)
        taking.passing.respond(200, b"Fine", [(b"x-a", b"b"), (b"date", b"today")], 3)
        taking.passing.write(b"abc")
        taking.passing.finish()
        self.assertEqual(
            self.wire.take(), b"HTTP/1.1 200 Fine\r\nx-a: b\r\ndate: today\r\nContent-Length: 3\r\n\r\nabc"
        )
        self.assertEqual(self.wire.statuses(self.wire.send(GET + b"\r\n")), [200])

    def test_as_it_comes(self) -> None:
        """Each piece is handed on when it comes, before the body is whole; in chunks or not."""
        taking = self.take(SIZED + b"abc")
        self.assertEqual((taking.body, taking.whole), (b"abc", False))
        self.wire.send(b"defghij")
        self.assertEqual((taking.body, taking.whole), (b"abcdefghij", True))
        self.wire.connect()
        taking = self.take(CHUNKED + b"3\r\nab")
        self.assertEqual((taking.body, taking.whole), (b"ab", False))
        self.wire.send(b"c\r\n0\r\nTrailer: x\r\n\r\n")
        self.assertEqual((taking.body, taking.whole), (b"abc", True))

    def test_no_limit(self) -> None:
        """The limit is for what is collected: a body that is let through may be of any length."""
        taking = self.take(UPLOAD + b"Content-Length: %d\r\n\r\n" % (5 * MOST_BODY))
        for _ in range(50):
            self.wire.send(b"a" * (MOST_BODY // 10))
        self.assertEqual((len(taking.body), taking.whole), (5 * MOST_BODY, True))

    def test_refused_before(self) -> None:
        """What the front refuses is not let through either, whatever its target; or it is taken back."""
        for name, (status, data) in REFUSED.items():
            if status == 413:  # see above
                continue
            self.setUp()
            data = data.replace(b" / HTTP", b" /through HTTP")
            answer = self.wire.send(data)
            self.assertEqual(self.wire.statuses(answer), [status], name)
            self.assertTrue(all(taking.gone or not taking.begun for taking in self.taken), name)

    def test_refused_within(self) -> None:
        """A body that turns out to be malformed is never whole: the peer is told, or cut off once it is answered."""
        taking = self.take(CHUNKED + b"3\r\nabc\r\n")
        answer = self.wire.send(b"z\r\n")
        self.assertEqual((self.wire.statuses(answer), taking.gone, taking.whole), ([400], True, False))
        self.assertEqual(json.loads(answer.split(b"\r\n\r\n")[1])["status"], 400)
        self.wire.connect()
        taking = self.take(CHUNKED + b"3\r\nabc\r\n")
        taking.passing.respond(200, b"", [], None)
        self.assertNotIn(b" 400 ", self.wire.send(b"z\r\n"))
        self.assertEqual((self.wire.transport.aborted, taking.gone, taking.whole), (True, True, False))

    def test_continue(self) -> None:
        """Whoever asks before it sends is told to go on when the body is wanted, and not before, and once."""
        self.pauses = True
        head = UPLOAD + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        self.assertEqual(self.wire.send(head), b"")
        self.taken[0].passing.resumeProducing()
        self.assertEqual(self.wire.take(), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.taken[0].passing.pauseProducing()
        self.taken[0].passing.resumeProducing()
        self.assertEqual(self.wire.send(b"abc"), b"")
        self.assertTrue(self.taken[0].whole)

    def test_no_continue(self) -> None:
        """Not to whoever has begun to send, and not behind an answer."""
        self.assertEqual(self.wire.send(UPLOAD + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nab"), b"")
        self.wire.connect()
        self.pauses = True
        taking = self.take(UPLOAD + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        taking.passing.answer(Answer(401))
        self.assertEqual(self.wire.statuses(self.wire.take()), [401])


class ReactorBudget(Passages):
    def test_between_two(self) -> None:
        """Between two requests of other lanes: answered in order."""
        self.wire.send(GET + b"\r\n" + PLAIN + b"GET /short HTTP/1.1\r\nHost: x\r\n\r\n")
        self.taken[0].passing.answer(Answer(200, b"through"))
        answer = self.wire.take()
        self.assertEqual(self.wire.statuses(answer), [200, 200])
        self.assertTrue(answer.endswith(b"short"))

    def test_waits(self) -> None:
        """It does not begin before what came before it was answered; and no more of its body is read than has come."""
        self.wire.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n" + SIZED + b"abc")
        taking = self.taken[0]
        self.assertEqual((taking.begun, self.paused), (False, True))
        self.later(100)  # and its time has not begun either
        self.wire.application.held[0].finish()
        self.wire.take()
        self.assertEqual((taking.begun, taking.body, self.paused), (True, b"abc", False))
        self.wire.send(b"defghij")
        taking.passing.answer(Answer(204))
        self.assertEqual(self.wire.statuses(self.wire.take()), [204])

    def test_behind(self) -> None:
        """What is pipelined behind it waits for its answer; two of them too."""
        self.wire.send(PLAIN + SIZED + b"0123456789" + GET + b"\r\n")
        self.assertEqual([taking.begun for taking in self.taken], [True, False])
        self.taken[0].passing.answer(Answer(200, b"1"))
        self.wire.take()
        self.assertEqual((self.taken[1].body, self.wire.seen), (b"0123456789", []))
        self.taken[1].passing.answer(Answer(200, b"2"))
        self.assertEqual(self.wire.statuses(self.wire.take()), [200, 200])

    def test_never_begun(self) -> None:
        """A peer that leaves before its turn: nothing was begun, and nothing is told."""
        self.wire.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n" + SIZED)
        self.wire.hang_up()
        self.assertEqual((self.taken[0].begun, self.taken[0].gone), (False, False))

    def test_drain(self) -> None:
        """A server that is stopping lets it come to its end, and closes behind it."""
        taking = self.take(PLAIN)
        self.wire.site.drain()
        taking.passing.respond(200, b"", [], None)
        taking.passing.write(b"abc")
        taking.passing.finish()
        answer = self.wire.take()
        self.assertIn(b"Connection: close\r\n", answer)
        self.assertTrue(answer.endswith(b"3\r\nabc\r\n0\r\n\r\n"))
        self.assertTrue(self.wire.transport.disconnecting)


class Pace(Passages):
    def test_upload(self) -> None:
        """While the body is not taken the peer is not read from; what had come meanwhile is handed on in order."""
        taking = self.take(SIZED + b"a")
        taking.passing.pauseProducing()
        self.assertTrue(self.paused)
        self.wire.send(b"bc")  # was under way
        self.assertEqual(taking.body, b"a")
        taking.passing.resumeProducing()
        self.assertEqual((taking.body, self.paused), (b"abc", False))

    def test_paused_within_a_read(self) -> None:
        """A taker that has enough in the middle of a read gets no further piece of it."""
        taking = self.take(CHUNKED)
        pieces: list[bytes] = []

        def write(piece: bytes) -> None:
            pieces.append(piece)
            taking.passing.pauseProducing()

        taking.write = write  # type: ignore[method-assign]
        self.wire.send(b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n")
        self.assertEqual((pieces, taking.whole), ([b"a"], False))
        taking.passing.resumeProducing()
        self.assertEqual((pieces, taking.whole), ([b"a", b"b"], False))
        taking.passing.resumeProducing()
        self.assertTrue(taking.whole)

    def test_download(self) -> None:
        """Whoever makes the response is told when the peer does not keep up, and when it is gone."""
        taking, told = self.take(PLAIN), Told()
        taking.passing.respond(200, b"", [], None)
        taking.passing.registerProducer(told, True)
        self.wire.protocol.pauseProducing()
        self.wire.protocol.resumeProducing()
        self.wire.hang_up()
        self.assertEqual((told.words, taking.gone), (["pause", "resume", "stop"], True))

    def test_half_closed(self) -> None:
        """A peer that ends its side may be gone, and whoever works for it is told."""
        taking = self.take(PLAIN)
        self.wire.half_close()
        self.assertTrue(self.wire.transport.aborted)
        self.wire.hang_up()
        self.assertTrue(taking.gone)

    def test_both_ways(self) -> None:
        """A response that is not read does not hold up the body: whoever answers while it reads is not dead-locked."""
        taking = self.take(SIZED + b"a")
        taking.passing.respond(200, b"", [], None)
        self.wire.protocol.pauseProducing()
        self.assertFalse(self.paused)
        self.wire.send(b"bcdefghij")
        self.assertTrue(taking.whole)

    def test_stalled_reader(self) -> None:
        """A peer that does not read its response is given up."""
        taking = self.take(PLAIN)
        taking.passing.respond(200, b"", [], None)
        self.wire.protocol.pauseProducing()
        self.later(STALL_SECONDS + 2)
        self.assertTrue(self.wire.transport.aborted)

    def test_slow_body(self) -> None:
        """A body comes at a kibibyte a second, or not at all."""
        taking = self.take(UPLOAD + b"Content-Length: 100000\r\n\r\n")
        for _ in range(30):
            self.wire.send(b"a" * 2000)
            self.later(1)
        self.assertFalse(taking.gone)
        for _ in range(60):
            self.wire.send(b"a")
            self.later(1)
        self.assertEqual((taking.gone, self.wire.transport.closed), (True, True))

    def test_slow_taker(self) -> None:
        """A peer is not blamed for the time in which it was not read from."""
        taking = self.take(SIZED)
        taking.passing.pauseProducing()
        self.later(300)
        taking.passing.resumeProducing()
        self.later(5)
        self.wire.send(b"0123456789")
        self.assertTrue(taking.whole)
        taking.passing.answer(Answer(200))
        self.assertEqual(self.wire.statuses(self.wire.take()), [200])

    def test_next_body_has_its_time(self) -> None:
        """A collected body behind one that was held back has a deadline of its own again."""
        self.pauses = True
        post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n"
        self.wire.send(SIZED + b"0123456789" + post)
        self.taken[0].passing.resumeProducing()
        self.taken[0].passing.answer(Answer(200))
        for _ in range(25):
            self.wire.send(b"a" * 2000)
            self.later(1)
        self.assertEqual(len(self.wire.seen), 1)

    def test_long_answer(self) -> None:
        """A response has no deadline while it is read."""
        taking = self.take(PLAIN)
        taking.passing.respond(200, b"", [], None)
        self.later(1000)
        taking.passing.finish()
        self.assertFalse(self.wire.transport.closed)


class Responses(Passages):
    def respond(self, request: bytes, status: int, length: int | None, *pieces: bytes) -> bytes:
        taking = self.take(request)
        taking.passing.respond(status, b"", [(b"date", b"x")], length)
        for piece in pieces:
            taking.passing.write(piece)
        taking.passing.finish()
        return self.wire.take()

    def test_framing(self) -> None:
        """A known length is said; an unknown one is chunked, or as long as the connection for HTTP/1.0."""
        self.assertTrue(self.respond(PLAIN, 200, 2, b"a", b"b").endswith(b"Content-Length: 2\r\n\r\nab"))
        self.assertTrue(self.respond(PLAIN, 200, 0).endswith(b"Content-Length: 0\r\n\r\n"))
        chunks = self.respond(PLAIN, 200, None, b"a", b"", b"bc")
        self.assertTrue(chunks.endswith(b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"))
        self.assertEqual(
            self.respond(PLAIN.replace(b"1.1", b"1.0"), 200, None, b"abc"),
            b"HTTP/1.0 200 OK\r\nConnection: close\r\ndate: x\r\n\r\nabc",
        )
        self.assertTrue(self.wire.transport.disconnecting)

    def test_without_body(self) -> None:
        """HEAD, 204 and 304 have none, whatever is said of it; the next answer follows at once."""
        head = PLAIN.replace(b"GET", b"HEAD")
        self.assertTrue(self.respond(head, 200, 5, b"abcde").endswith(b"Content-Length: 5\r\n\r\n"))
        self.assertTrue(self.respond(head, 200, None).endswith(b"date: x\r\n\r\n"))
        self.assertTrue(self.respond(PLAIN, 304, 5).endswith(b"Content-Length: 5\r\n\r\n"))
        self.assertTrue(self.respond(PLAIN, 204, 0).endswith(b"date: x\r\n\r\n"))
        taking = self.take(head)
        taking.passing.answer(Answer(502, b"problem"))
        self.assertTrue(self.wire.take().endswith(b"\r\n\r\n"))
        self.assertEqual(self.wire.statuses(self.wire.send(GET + b"\r\n")), [200])

    def test_date(self) -> None:
        """A response that was not dated is (RFC 9110, section 6.6.1)."""
        taking = self.take(PLAIN)
        taking.passing.respond(200, b"", [], 0)
        self.assertIn(b"\r\nDate: ", self.wire.take())

    def test_cut(self) -> None:
        """What is not whole does not look whole: given up, too short, too long."""
        for pieces, end in (([b"a"], "abort"), ([b"a"], "finish"), ([b"abcdef"], "finish")):
            self.wire.connect()
            taking = self.take(PLAIN)
            taking.passing.respond(200, b"", [], 5)
            for piece in pieces:
                taking.passing.write(piece)
            getattr(taking.passing, end)()
            self.assertTrue(self.wire.transport.aborted, (pieces, end))
            self.wire.hang_up()
            self.assertEqual(taking.gone, end == "finish")
        self.wire.connect()
        taking = self.take(PLAIN)
        taking.passing.respond(200, b"", [], None)
        taking.passing.write(b"abc")
        taking.passing.abort()
        self.assertFalse(self.wire.take().endswith(b"0\r\n\r\n"))

    def test_early_answer(self) -> None:
        """An answer before the end of the body closes in order: the peer can read it while it still sends."""
        taking = self.take(SIZED + b"abc")
        taking.passing.pauseProducing()
        taking.passing.answer(Answer(413, b"too long"))
        self.assertIn(b"Connection: close\r\n", self.wire.take())
        self.assertEqual((self.wire.transport.half_closed, self.paused), (True, False))
        self.wire.protocol.dataReceived(b"defghij" + GET + b"\r\n")
        self.assertEqual((taking.body, self.wire.seen, self.wire.take()), (b"abc", [], b""))
        self.later(LINGER_SECONDS + 2)
        self.assertTrue(self.wire.transport.aborted)

    def test_answer_while_sending(self) -> None:
        """One that begins before the end of the body and ends behind it is whole, and then the connection ends."""
        taking = self.take(SIZED)
        taking.passing.respond(200, b"", [], None)
        self.wire.send(b"0123456789")
        taking.passing.finish()
        self.assertTrue(self.wire.take().endswith(b"0\r\n\r\n"))
        self.assertTrue(self.wire.transport.disconnecting)

    def test_gone(self) -> None:
        """A peer that leaves in the middle is told of, once; what is still said goes nowhere."""
        taking = self.take(SIZED + b"abc")
        self.wire.hang_up()
        self.assertTrue(taking.gone)
        taking.passing.respond(200, b"", [], 1)
        taking.passing.write(b"a")
        taking.passing.finish()
        taking.passing.answer(Answer(200))
        taking.passing.abort()
        self.assertEqual((self.wire.take(), taking.whole), (b"", False))

    def test_bug(self) -> None:
        """A taker that breaks is a bug: it is not blamed on the request, the connection ends by it."""
        taking = self.take(SIZED)

        def write(piece: bytes) -> None:
            raise KeyError("ours")

        taking.write = write  # type: ignore[method-assign]
        self.assertRaises(KeyError, self.wire.send, b"abc")
