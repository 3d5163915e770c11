"""The HTTP server: which requests reach the application, in which order, within which deadlines and limits."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings
from twisted.trial.unittest import SynchronousTestCase

from openhqm.http1 import request_reader
from openhqm.http1.backpressure import LEAST_READ_PER_SECOND, STALL_SECONDS
from openhqm.http1.channel import HEAD_SECONDS, IDLE_SECONDS
from openhqm.http1.closing import LINGER_SECONDS
from openhqm.http1.messages import Answer
from openhqm.http1.pipeline import MOST_PIPELINED
from openhqm.http1.site import CHECKED_AT_ONCE, POLL_SECONDS
from tests import hypothesis_profile  # noqa: F401
from tests.http1.memory_server import MemoryServer, Transport
from tests.http1.request_cases import GET, POST, REFUSED, SERVED


class StrictnessTests(SynchronousTestCase):
    def test_refused(self) -> None:
        """A malformed request gets its status as a problem document. Its connection is closed, and no handler runs."""
        for name, (status, data) in REFUSED.items():
            server = MemoryServer()
            answer = server.send(data)
            self.assertEqual(server.statuses(answer), [status], (name, answer))
            self.assertEqual(server.seen, [], name)
            self.assertTrue(server.transport.closed, name)
            head, body = answer.split(b"\r\n\r\n", 1)
            self.assertIn(b"Content-Type: application/problem+json", head)
            self.assertIn(b"Connection: close", head)
            self.assertIn(b"Content-Length: %d\r\n" % len(body), head)
            self.assertEqual(json.loads(body)["status"], status)

    def test_served(self) -> None:
        """A valid request is served, and its connection stays open as its HTTP version demands."""
        for name, data in SERVED.items():
            server = MemoryServer()
            self.assertEqual(server.statuses(server.send(data)), [200], name)
            self.assertEqual(len(server.seen), 1, name)
            self.assertEqual(server.transport.closed, name == "HTTP/1.0", name)

    def test_request_as_sent(self) -> None:
        """The application gets a request as the client sent it, with the host of an absolute target as Host."""
        server = MemoryServer()
        head = b"PUT http://y/a?b HTTP/1.1\r\nHost: x\r\nA: 1\r\na: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
        server.send(head + b"2\r\nhi\r\n0\r\n\r\n")
        (seen,) = server.seen
        self.assertEqual((seen.method, seen.target, seen.body), (b"PUT", b"/a?b", b"hi"))
        self.assertEqual(
            seen.headers, [(b"a", b"1"), (b"a", b"2"), (b"host", b"y"), (b"transfer-encoding", b"chunked")]
        )

    def test_upgrade_with_a_body(self) -> None:
        """The body of a request that asks for an upgrade is its body, and never the next request."""
        ask = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
        body = GET + b"\r\n"
        for framed in (
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body),
            b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
        ):
            server = MemoryServer()
            self.assertEqual(server.statuses(server.send(POST + ask + framed + body)), [200, 200])
            self.assertEqual([(seen.method, seen.body) for seen in server.seen], [(b"POST", body), (b"GET", b"")])
        self.assertIn(b"upgrade", dict(server.application.seen[0].headers))
        server = MemoryServer()
        server.send(POST + b"Connection: Upgrade, close\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc" + body)
        self.assertEqual((len(server.seen), server.transport.closed), (1, True))

    def test_many_upgrades(self) -> None:
        """Requests for an upgrade, as many as one read can bring, are all answered."""
        server = MemoryServer()
        answer = server.send(b"GET / HTTP/1.1\r\nHost:\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n" * 1100)
        for _ in range(30):
            answer += server.take()
        self.assertEqual(server.statuses(answer), [200] * 1100)

    def test_chunk_lines_are_for_chunks(self) -> None:
        """Reads without a chunked request do not pay for chunk lines, and an idle connection keeps no bytes."""
        self.patch(request_reader, "chunks_begin", None)
        self.patch(request_reader, "ChunkLines", None)
        for name, data in SERVED.items():
            if not _chunked(name):
                server = MemoryServer()
                answer = server.send(data[:20]) + server.send(data[20:])
                self.assertEqual(server.statuses(answer), [200], name)
                self.assertEqual((server.protocol._reader._read, server.protocol._reader._earlier), (b"", []))

    def test_nothing_behind_a_refusal(self) -> None:
        """Bytes behind a refused request are ignored."""
        for _, data in REFUSED.values():
            server = MemoryServer()
            server.send(data)
            server.protocol.dataReceived(GET + b"\r\n")
            self.assertEqual((server.seen, server.take()), ([], b""))

    def test_linger(self) -> None:
        """A refused client can read its response. It is cut off when it goes on sending."""
        server = MemoryServer()
        server.send(REFUSED["announced long body"][1])
        self.assertTrue(server.transport.half_closed)
        server.clock.pump([1.0] * int(LINGER_SECONDS + 2))
        self.assertTrue(server.transport.aborted)

    def test_linger_while_response_is_read(self) -> None:
        """A slow client gets as long for the last responses as it keeps reading."""
        server = MemoryServer()
        server.transport.dataBuffer = b"a" * 100_000
        server.send(b"GET /fast HTTP/1.1\r\nHost: x\r\n\r\n" + REFUSED["no host"][1])
        self.assertTrue(server.transport.half_closed)
        for left in (70_000, 40_000, 10_000):
            server.transport.dataBuffer = b"a" * left
            server.clock.pump([1.0] * int(STALL_SECONDS - 2))
            self.assertFalse(server.transport.aborted)
        server.transport.dataBuffer = b""
        server.clock.pump([1.0] * 2)
        self.assertTrue(server.transport.aborted)


@st.composite
def split(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """A strategy for ``data`` in pieces."""
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(data) - 1)), max_size=12)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


class SplitReadsTests(SynchronousTestCase):
    """The same bytes are the same requests, wherever reads split them"""

    @settings(max_examples=300)
    @given(st.data())
    def test_splits(self, data: st.DataObject) -> None:
        """A stream in one piece or in several has the same responses, requests and end of the connection."""
        names = data.draw(st.lists(st.sampled_from([*SERVED, *REFUSED]), min_size=1, max_size=4))
        stream = b"".join(SERVED[name] if name in SERVED else REFUSED[name][1] for name in names)
        whole, pieces = MemoryServer(), MemoryServer()
        expected = whole.send(stream)
        found = b"".join(pieces.send(piece) for piece in data.draw(split(stream)))
        self.assertEqual(_without_date(found), _without_date(expected))
        self.assertEqual(pieces.seen, whole.seen)
        self.assertEqual(pieces.transport.closed, whole.transport.closed)

    @settings(max_examples=200)
    @given(st.data())
    def test_where_requests_are_relayed(self, data: st.DataObject) -> None:
        """A site that relays requests, and reads one at a time, serves and refuses its own ones as any other does."""
        names = data.draw(st.lists(st.sampled_from([*SERVED, *REFUSED]), min_size=1, max_size=4))
        stream = b"".join(SERVED[name] if name in SERVED else REFUSED[name][1] for name in names)
        plain, relaying = MemoryServer(), MemoryServer()
        relaying.site.select_sink = lambda head: None
        expected = plain.send(stream)
        found = b"".join(relaying.send(piece) for piece in data.draw(split(stream)))
        self.assertEqual(_without_date(found), _without_date(expected))
        self.assertEqual(relaying.seen, plain.seen)
        self.assertEqual(relaying.transport.closed, plain.transport.closed)

    @settings(max_examples=300)
    @given(st.data())
    def test_any_method(self, data: st.DataObject) -> None:
        """For an application any token is a method, wherever the bytes are split, and whatever stands around it."""
        token = st.text("ABCGETPOSgetbrew-_.!#$%&'*+^`|~019", min_size=1, max_size=12).map(str.encode)
        methods = data.draw(st.lists(token | st.sampled_from([b"GET", b"PROPFIND", b"PRI", b"SETUP"]), max_size=4))
        framings = [data.draw(st.sampled_from(FRAMINGS)) for _ in methods]
        requests = [
            b"%b%b /a HTTP/1.1\r\nHost: x\r\n%b" % (data.draw(st.sampled_from([b"", b"\r\n"])), method, framing)
            for method, (framing, _) in zip(methods, framings, strict=True)
        ]
        server = MemoryServer()
        server.site.select_sink = lambda head: None
        server.site.is_own = lambda path: False
        for piece in data.draw(split(b"".join(requests))):
            server.send(piece)
        self.assertEqual(
            [(seen.method, seen.body) for seen in server.seen],
            [(method, body) for method, (_, body) in zip(methods, framings, strict=True)],
        )
        self.assertFalse(server.transport.closed)

    @settings(max_examples=300)
    @given(st.data())
    def test_chunk_lines(self, data: st.DataObject) -> None:
        """A chunked body with random bytes in it, among other requests, means the same as a whole and in pieces."""
        names = data.draw(st.lists(st.sampled_from([*SERVED]), max_size=3))
        names.insert(data.draw(st.integers(0, len(names))), data.draw(st.sampled_from([*filter(_chunked, SERVED)])))
        stream = b"".join(SERVED[name] for name in names if name != "HTTP/1.0")
        place = data.draw(st.integers(stream.lower().index(b"chunked"), len(stream)))
        stream = stream[:place] + data.draw(st.binary(max_size=2) | st.sampled_from([b";", b"fffff"])) + stream[place:]
        whole, pieces = MemoryServer(), MemoryServer()
        expected = whole.send(stream)
        found = b"".join(pieces.send(piece) for piece in data.draw(split(stream)))
        self.assertEqual(_without_date(found), _without_date(expected))
        self.assertEqual(pieces.seen, whole.seen)

    @settings(max_examples=300)
    @given(st.binary(max_size=300))
    def test_noise(self, noise: bytes) -> None:
        """Random bytes raise no exception, and make no more requests than they have request lines."""
        server = MemoryServer()
        server.send(noise)
        self.assertLessEqual(len(server.seen), noise.count(b"HTTP/1."))

    @settings(max_examples=300)
    @given(st.sampled_from(sorted(SERVED)), st.integers(0, 10_000), st.binary(max_size=3))
    def test_mutations(self, name: str, place: int, inserted: bytes) -> None:
        """A few random bytes in a valid request raise no exception, and never make two requests of one."""
        data = SERVED[name]
        place %= len(data)
        server = MemoryServer()
        server.send(data[:place] + inserted + data[place:])
        self.assertLessEqual(len(server.seen), 1)


FRAMINGS = (
    (b"\r\n", b""),
    (b"Content-Length: 7\r\n\r\nFOO / H", b"FOO / H"),
    (b"Transfer-Encoding: chunked\r\n\r\n7\r\nFOO / H\r\n0\r\nA: b\r\n\r\n", b"FOO / H"),
)
"""How a request may go on behind its Host, and the body that it has then."""


def _chunked(name: str) -> bool:
    return b"chunked" in SERVED[name].lower()


def _without_date(answer: bytes) -> list[bytes]:
    return [line for line in answer.split(b"\r\n") if not line.startswith(b"Date: ")]


class OrderTests(SynchronousTestCase):
    def test_pipelined(self) -> None:
        """Pipelined requests are answered in order, also where they are served in different ways."""
        server = MemoryServer()
        answer = server.send(
            b"".join(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in (b"/a", b"/fast", b"/b"))
        )
        self.assertEqual(answer.split(b"HTTP/1.1 ")[1][-6:], b"web:/a")
        self.assertEqual(answer.split(b"HTTP/1.1 ")[2][-4:], b"fast")
        self.assertEqual(answer.split(b"HTTP/1.1 ")[3][-6:], b"web:/b")

    def test_one_at_a_time(self) -> None:
        """A request waits for the one before it, on the fast path and in the application."""
        for first in (b"/hold", b"/slow"):
            server = MemoryServer()
            self.assertEqual(server.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % first + GET + b"\r\n"), b"")
            self.assertEqual(len(server.seen), 1)
            if first == b"/hold":
                server.application.held[0].finish()
            else:
                server.slow[0].callback(Answer(200, b"slow"))
            self.assertEqual(server.statuses(server.take()), [200, 200])

    def test_pipeline_is_bounded(self) -> None:
        """Behind a slow request only `MOST_PIPELINED` requests are read; then the client is paused."""
        server = MemoryServer()
        server.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
        server.send((GET + b"\r\n") * (MOST_PIPELINED - 1))
        self.assertEqual(server.transport.producerState, "producing")
        server.send(GET + b"\r\n")
        self.assertEqual(server.transport.producerState, "paused")
        server.application.held[0].finish()
        self.assertEqual(len(server.statuses(server.take())), MOST_PIPELINED + 1)
        self.assertEqual(server.transport.producerState, "producing")

    def test_pipelined_bodies_are_bounded(self) -> None:
        """Behind a slow request only about `MOST_PIPELINED_BYTES` of bodies are kept."""
        server = MemoryServer()
        server.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
        sent = 0
        while server.transport.producerState == "producing":
            server.send(POST + b"Content-Length: 100000\r\n\r\n" + b"a" * 100_000)
            sent += 1
        self.assertEqual(sent, 11)
        server.application.held[0].finish()
        self.assertEqual(len(server.statuses(server.take())), sent + 1)
        self.assertEqual(server.transport.producerState, "producing")
        self.assertEqual(server.protocol._queue.size, 0)

    def test_refusal_behind_a_request(self) -> None:
        """A refusal does not overtake the responses to earlier requests."""
        server = MemoryServer()
        self.assertEqual(
            server.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n" + GET + b"\r\nGET / HTTP/1.1\r\n\r\n"), b""
        )
        server.send(GET + b"\r\n")
        server.application.held[0].finish()
        self.assertEqual(server.statuses(server.take()), [200, 200, 400])
        self.assertEqual((len(server.seen), server.transport.half_closed), (2, True))

    def test_close(self) -> None:
        """``Connection: close`` in a request ends the connection behind its response, which repeats the field."""
        for path in (b"/", b"/fast"):
            server = MemoryServer()
            answer = server.send(b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path)
            self.assertIn(b"Connection: close\r\n", answer)
            self.assertTrue(server.transport.disconnecting)

    def test_drain(self) -> None:
        """A draining site answers current requests, announces the end of their connections, and closes idle ones."""
        busy = MemoryServer()
        busy.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
        idle = busy.site.buildProtocol(None)
        idle_transport = Transport()
        idle.makeConnection(idle_transport)
        busy.site.drain()
        self.assertTrue(idle_transport.disconnecting)
        self.assertFalse(busy.transport.closed)
        busy.application.held[0].finish()
        self.assertEqual(busy.statuses(busy.take()), [200])
        self.assertTrue(busy.transport.disconnecting)

    def test_disable_keep_alive(self) -> None:
        """With keep-alive disabled, a connection serves one more request, and its response announces the end."""
        for path in (b"/", b"/fast"):
            server = MemoryServer()
            server.site.disable_keep_alive()
            self.assertFalse(server.transport.closed)
            answer = server.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            self.assertEqual(server.statuses(answer), [200])
            self.assertIn(b"connection: close\r\n", answer.lower())
            self.assertTrue(server.transport.disconnecting)

    def test_disable_keep_alive_while_serving(self) -> None:
        """The response to a request that came before announces the end, too: no client sends the next request into a
        closing connection.
        """
        for path in (b"/hold", b"/slow"):
            server = MemoryServer()
            server.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            server.site.disable_keep_alive()
            for request in server.application.held:
                request.finish()
            for waiting in server.slow:
                waiting.callback(Answer(200, b"slow"))
            answer = server.take()
            self.assertEqual(server.statuses(answer), [200])
            self.assertIn(b"connection: close\r\n", answer.lower())
            self.assertTrue(server.transport.disconnecting)

    def test_disable_keep_alive_behind_head(self) -> None:
        """A client whose response had begun without ``Connection: close`` may send one more request, unless the site
        drains.
        """
        for drained in (False, True):
            server = MemoryServer()
            server.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
            server.application.held[0].write(b"begun")
            server.site.disable_keep_alive()
            server.application.held[0].finish()
            self.assertNotIn(b"connection: close", server.take().lower())
            self.assertFalse(server.transport.closed)
            if drained:
                server.site.drain()
            else:
                self.assertIn(b"connection: close\r\n", server.send(GET + b"\r\n").lower())
            self.assertTrue(server.transport.disconnecting)

    def test_wait_for_connections(self) -> None:
        """Waiting for idle connections, and for all connections, ends when they are gone or after its time."""
        server = MemoryServer()
        idle, empty = server.site.wait_until_none_idle(5), server.site.wait_until_closed(5)
        server.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
        server.clock.advance(POLL_SECONDS)
        self.successResultOf(idle)
        self.assertNoResult(empty)
        server.hang_up()
        server.clock.advance(POLL_SECONDS)
        self.successResultOf(empty)
        server.connect()
        idle, empty = server.site.wait_until_none_idle(5), server.site.wait_until_closed(5)
        server.clock.pump([POLL_SECONDS] * round(5 / POLL_SECONDS - 1))
        self.assertNoResult(idle)
        server.clock.pump([POLL_SECONDS] * 2)
        self.successResultOf(idle)
        self.successResultOf(empty)

    def test_expect(self) -> None:
        """A client that expects 100 Continue gets it once its head was found valid."""
        server = MemoryServer()
        self.assertEqual(
            server.send(POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"), b"HTTP/1.1 100 Continue\r\n\r\n"
        )
        self.assertEqual(server.statuses(server.send(b"abc")), [200])
        server = MemoryServer()
        answer = server.send(POST + b"Expect: 100-continue\r\nContent-Length: 100001\r\n\r\n")
        self.assertEqual(server.statuses(answer), [413])

    def test_head(self) -> None:
        """HEAD is answered without a body, and the next response follows at once."""
        server = MemoryServer()
        answer = server.send(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n" + GET + b"\r\n")
        first, second = answer.split(b"HTTP/1.1 ")[1:]
        self.assertTrue(first.endswith(b"\r\n\r\n"))
        self.assertTrue(second.endswith(b"web:/"))

    def test_connection_lost(self) -> None:
        """A lost connection cancels the request it serves, and drops its pipelined requests."""
        server = MemoryServer()
        server.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n" + GET + b"\r\n")
        server.hang_up()
        self.assertEqual((server.application.lost, len(server.seen)), (server.application.held, 1))
        server = MemoryServer()
        server.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        server.hang_up()
        self.assertTrue(server.slow[0].called)
        self.assertEqual(server.site.connections, set())


class DeadlineTests(SynchronousTestCase):
    def drip(self, server: MemoryServer, data: bytes, seconds: float) -> bytes:
        """Send ``data`` byte by byte over ``seconds``."""
        answer = b""
        for index in range(len(data)):
            if server.transport.closed:
                break
            answer += server.send(data[index : index + 1])
            server.clock.advance(seconds / len(data))
            answer += server.take()
        return answer

    def test_slow_head(self) -> None:
        """A head must be complete after `HEAD_SECONDS`, although bytes keep coming."""
        server = MemoryServer()
        answer = self.drip(server, GET + b"A: " + b"b" * 1000, HEAD_SECONDS * 2)
        self.assertEqual((server.statuses(answer), server.transport.closed), ([408], True))

    def test_silent_connection(self) -> None:
        """A connection without a request is closed without a response."""
        server = MemoryServer()
        server.clock.pump([1.0] * int(HEAD_SECONDS + 2))
        self.assertEqual((server.take(), server.transport.disconnecting), (b"", True))

    def test_many_stalled(self) -> None:
        """Thousands of silent connections are closed in time, `CHECKED_AT_ONCE` in one iteration of the reactor."""
        server = MemoryServer()
        transports = [server.transport]
        for _ in range(10 * CHECKED_AT_ONCE):
            server.connect()
            transports.append(server.transport)
        most = closed = 0
        for _ in range(int((HEAD_SECONDS + 3) * 1000)):
            server.clock.advance(0.001)
            before, closed = closed, sum(transport.disconnecting for transport in transports)
            most = max(most, closed - before)
            if closed == len(transports):
                break
        self.assertEqual((closed, most), (len(transports), CHECKED_AT_ONCE))

    def test_slow_body(self) -> None:
        """A body slower than 1 KiB a second is refused with 408."""
        server = MemoryServer()
        answer = server.send(POST + b"Content-Length: 50000\r\n\r\n")
        answer += self.drip(server, b"a" * 5000, 60)
        self.assertEqual(server.statuses(answer), [408])
        server = MemoryServer()
        server.send(POST + b"Content-Length: 50000\r\n\r\n")
        for _ in range(25):
            server.send(b"a" * 2000)
            server.clock.advance(1.0)
        self.assertEqual(len(server.seen), 1)

    def test_idle(self) -> None:
        """An idle connection stays open for `IDLE_SECONDS` behind its last request."""
        server = MemoryServer()
        server.send(GET + b"\r\n")
        server.clock.pump([1.0] * int(IDLE_SECONDS - 2))
        self.assertEqual(server.statuses(server.send(GET + b"\r\n")), [200])
        server.clock.pump([1.0] * int(IDLE_SECONDS + 2))
        self.assertTrue(server.transport.disconnecting)

    def test_slow_application(self) -> None:
        """The connection sets no deadline for a request that is being served."""
        server = MemoryServer()
        server.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        server.clock.pump([1.0] * 200)
        self.assertFalse(server.transport.closed)
        server.slow[0].callback(Answer(200, b"done"))
        self.assertEqual(server.statuses(server.take()), [200])

    def test_stalled_reader(self) -> None:
        """A client that stops reading gets no further request served, and is cut off after `STALL_SECONDS`."""
        server = MemoryServer()
        server.send(GET + b"\r\n")
        server.protocol.pauseProducing()
        server.send((GET + b"\r\n") * 3)
        self.assertEqual(len(server.seen), 1)
        self.assertEqual(server.transport.producerState, "paused")
        server.clock.pump([1.0] * int(STALL_SECONDS + 2))
        self.assertTrue(server.transport.aborted)

    def test_slow_reader(self) -> None:
        """A client that reads `LEAST_READ_PER_SECOND` is served to the end; one that stops is cut off after
        `STALL_SECONDS`, whatever it has read before.
        """
        server = MemoryServer()
        server.transport.dataBuffer = b"a" * 1_000_000
        server.protocol.pauseProducing()
        for _ in range(10):
            server.transport.dataBuffer = server.transport.dataBuffer[: -20 * LEAST_READ_PER_SECOND]
            server.clock.pump([1.0] * 20)
        self.assertFalse(server.transport.aborted)
        server.transport.dataBuffer = server.transport.dataBuffer[: -100 * LEAST_READ_PER_SECOND]
        server.clock.pump([1.0] * int(STALL_SECONDS - 2))
        self.assertFalse(server.transport.aborted)
        server.clock.pump([1.0] * 4)
        self.assertTrue(server.transport.aborted)

    def test_dripping_reader(self) -> None:
        """Any progress at all is not enough: a client that takes 600 bytes each 5 seconds is cut off."""
        server = MemoryServer()
        server.transport.dataBuffer = b"a" * 1_000_000
        server.protocol.pauseProducing()
        for _ in range(7):
            self.assertFalse(server.transport.aborted)
            server.transport.dataBuffer = server.transport.dataBuffer[:-600]
            server.clock.pump([1.0] * 5)
        self.assertTrue(server.transport.aborted)

    def test_slow_reader_of_last_response(self) -> None:
        """That holds for the last response of a connection, too."""
        for path in (b"/fast", b"/"):
            server = MemoryServer()
            server.transport.dataBuffer = b"a" * 1_000_000
            server.send(b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path)
            for _ in range(5):
                server.transport.dataBuffer = server.transport.dataBuffer[: -20 * LEAST_READ_PER_SECOND]
                server.clock.pump([1.0] * 20)
            self.assertFalse(server.transport.aborted)
            server.clock.pump([1.0] * int(STALL_SECONDS + 2))
            self.assertTrue(server.transport.aborted)

    def test_idle_reader(self) -> None:
        """A client that leaves a small response unread is not kept for ever: it is idle, and then late."""
        server = MemoryServer()
        server.send(GET + b"\r\n")
        server.transport.dataBuffer = b"a" * 1000
        server.clock.pump([1.0] * int(IDLE_SECONDS + 2))
        self.assertEqual((server.transport.disconnecting, server.transport.aborted), (True, False))
        server.clock.pump([1.0] * int(STALL_SECONDS + 2))
        self.assertTrue(server.transport.aborted)

    def test_process_was_stopped(self) -> None:
        """Time in which this process did not run does not count: what the client sent in it is not read yet."""
        for sent in (b"", b"GET / HT", POST + b"Content-Length: 3\r\n\r\na"):
            server = MemoryServer()
            server.send(sent)
            server.clock.pump([1.0] * 5)
            server.clock.advance(60.0)
            self.assertEqual((server.take(), server.transport.closed), (b"", False))
            server.clock.pump([1.0] * 2)
            rest = (GET + b"\r\n")[len(sent) :] if not sent.startswith(b"POST") else b"bc"
            self.assertEqual(server.statuses(server.send(rest)), [200])
            server.clock.pump([1.0] * int(IDLE_SECONDS + 2))
            self.assertTrue(server.transport.closed)
        server = MemoryServer()
        server.transport.dataBuffer = b"a" * 100_000
        server.protocol.pauseProducing()
        server.clock.advance(STALL_SECONDS * 2)
        self.assertFalse(server.transport.closed)
        server.clock.pump([1.0] * int(STALL_SECONDS + 2))
        self.assertTrue(server.transport.aborted)

    def test_reader_resumes(self) -> None:
        """A client that reads again has its pipelined requests served."""
        server = MemoryServer()
        server.protocol.pauseProducing()
        server.send((GET + b"\r\n") * 3)
        self.assertEqual(len(server.seen), 0)
        server.protocol.resumeProducing()
        self.assertEqual(server.statuses(server.take()), [200] * 3)


class SharedLimitsTests(SynchronousTestCase):
    """Limits over all connections of a site"""

    def another(self, server: MemoryServer) -> Any:
        """Open one more connection to the same server."""
        protocol = server.site.buildProtocol(None)
        transport = Transport()
        protocol.makeConnection(transport)
        return protocol, transport

    def test_connections(self) -> None:
        """A connection beyond the limit gets 503 with Retry-After. Once another has closed, there is room."""
        server = MemoryServer()
        server.site.most_connections = 2
        other, _ = self.another(server)
        _, refused = self.another(server)
        answer = refused.value()
        self.assertEqual((server.statuses(answer), refused.disconnecting), ([503], True))
        self.assertIn(b"Retry-After: 1\r\n", answer)
        self.assertEqual(len(server.site.connections), 2)
        other.connectionLost()
        protocol, transport = self.another(server)
        protocol.dataReceived(GET + b"\r\n")
        self.assertEqual(server.statuses(transport.value()), [200])

    def test_announced(self) -> None:
        """A body whose announced size exceeds the limit with those under way is refused before it is read."""
        server = MemoryServer()
        server.site.most_buffered = 1000
        server.send(POST + b"Content-Length: 900\r\n\r\n" + b"a" * 800)
        self.assertEqual(server.site.buffered, 800)
        protocol, transport = self.another(server)
        protocol.dataReceived(POST + b"Expect: 100-continue\r\nContent-Length: 201\r\n\r\n")
        self.assertEqual(server.statuses(transport.value()), [503])
        self.assertIn(b"Retry-After: 1\r\n", transport.value())
        protocol, transport = self.another(server)
        protocol.dataReceived(POST + b"Content-Length: 200\r\n\r\n" + b"a" * 200)
        self.assertEqual(server.statuses(transport.value()), [200])
        self.assertEqual(server.statuses(server.send(b"a" * 100)), [200])
        self.assertEqual(server.site.buffered, 0)

    def test_unannounced(self) -> None:
        """A body that exceeds the limit as it is read is refused then, and its memory is released."""
        for head in (b"Transfer-Encoding: chunked\r\n\r\n384\r\n", b"Content-Length: 900\r\n\r\n"):
            server = MemoryServer()
            server.site.most_buffered = 1000
            protocol, transport = self.another(server)
            protocol.dataReceived(POST + b"Content-Length: 900\r\n\r\n")
            server.send(POST + head + b"a" * 800)
            protocol.dataReceived(b"a" * 300)
            self.assertEqual((server.statuses(transport.value()), server.site.buffered), ([503], 800))
            server.hang_up()
            self.assertEqual(server.site.buffered, 0)

    def test_waiting_behind_others(self) -> None:
        """Bodies of pipelined requests count until they are served or their connection ends."""
        server = MemoryServer()
        server.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n" + (POST + b"Content-Length: 3\r\n\r\nabc") * 5)
        self.assertGreater(server.site.buffered, 15)  # their heads count, too
        server.application.held[0].finish()
        self.assertEqual(len(server.statuses(server.take())), 6)
        self.assertEqual(server.site.buffered, 0)
        server = MemoryServer()
        server.send(b"GET /hold HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        server.application.held[0].finish()
        self.assertEqual(server.site.buffered, 0)

    @settings(max_examples=200)
    @given(st.data())
    def test_buffered_returns_to_zero(self, data: st.DataObject) -> None:
        """For any input in any pieces, a lost connection leaves no buffered bytes counted."""
        names = data.draw(st.lists(st.sampled_from([*SERVED, *REFUSED]), min_size=1, max_size=4))
        stream = b"".join(SERVED[name] if name in SERVED else REFUSED[name][1] for name in names)
        server = MemoryServer()
        for piece in data.draw(split(stream))[: data.draw(st.integers(1, 13))]:
            server.send(piece)
            self.assertEqual(server.site.buffered, server.protocol._buffered)
        server.hang_up()
        self.assertEqual(server.site.buffered, 0)


class HalfClosedTests(SynchronousTestCase):
    """A client that closes its side behind its last request, as ``nc -N`` does"""

    def test_answered(self) -> None:
        """Its requests are answered in order, and the last response announces the end of the connection."""
        for path in (b"/slow", b"/hold"):
            server = MemoryServer()
            server.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path + GET + b"\r\n")
            self.assertEqual((server.half_close(), server.transport.closed), (b"", False))
            self.assertEqual(server.application.lost, [])
            if path == b"/slow":
                server.slow[0].callback(Answer(200, b"slow"))
            else:
                server.application.held[0].finish()
            answer = server.take()
            self.assertEqual((server.statuses(answer), server.transport.disconnecting), ([200, 200], True))
            self.assertEqual(answer.count(b"Connection: close"), 1)
        server = MemoryServer()
        server.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        server.half_close()
        server.slow[0].callback(Answer(200, b"slow"))
        self.assertIn(b"Connection: close", server.take())

    def test_nothing_pending(self) -> None:
        """The connection is closed where all requests were answered."""
        server = MemoryServer()
        server.send(GET + b"\r\n")
        self.assertEqual((server.half_close(), server.transport.disconnecting), (b"", True))

    def test_within_a_request(self) -> None:
        """An incomplete request gets 400 behind the earlier responses, and reaches no application."""
        for half in (b"GET / HT", POST + b"Content-Length: 3\r\n\r\nab", POST + b"Transfer-Encoding: chunked\r\n\r\n"):
            server = MemoryServer()
            server.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" + half)
            self.assertEqual(server.half_close(), b"")
            server.slow[0].callback(Answer(200, b"slow"))
            self.assertEqual(server.statuses(server.take()), [200, 400])
            self.assertEqual((len(server.seen), server.transport.disconnecting), (1, True))

    def test_not_resumed(self) -> None:
        """A half-closed transport is not resumed: the reactor would report the end of its input again and again."""
        server = MemoryServer()
        server.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" + (GET + b"\r\n") * MOST_PIPELINED)
        self.assertEqual(server.transport.producerState, "paused")
        server.half_close()
        server.slow[0].callback(Answer(200, b"slow"))
        self.assertEqual(len(server.statuses(server.take())), MOST_PIPELINED + 1)
        self.assertEqual(server.transport.producerState, "paused")

    def test_after_a_refusal(self) -> None:
        """A refused client that closes its side is not lingered for."""
        server = MemoryServer()
        server.send(REFUSED["no host"][1])
        server.half_close()
        self.assertTrue(server.transport.disconnecting)

    def test_slow_application(self) -> None:
        """The connection sets no deadline for a request that is being served."""
        server = MemoryServer()
        server.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        server.half_close()
        server.clock.pump([1.0] * 200)
        self.assertFalse(server.transport.closed)


BEHIND = {
    "nothing": b"",
    "a request without Host": REFUSED["no host"][1],
    "bytes that are not HTTP": REFUSED["not HTTP at all"][1],
    "a body that is too long": REFUSED["announced long body"][1],
    "half a request": b"GET / HT",
    "another request": GET + b"\r\n",
    "megabytes": b"a" * 2_000_000,
}
"""What a client may send behind a valid request, in the same write."""


class AcceptedTests(SynchronousTestCase):
    """RFC 9112, section 9.6: what was accepted is answered before the connection ends"""

    def test_answered(self) -> None:
        """A valid request is answered, whatever comes behind it, and whether or not the client closes its side."""
        heads = (
            b"HTTP/1.1\r\nHost: x\r\n\r\n",
            b"HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            b"HTTP/1.0\r\n\r\n",
        )
        for path in (b"/slow", b"/hold"):
            for head in heads:
                for name, behind in BEHIND.items():
                    for half_closed in (False, True):
                        case = (path, head, name, half_closed)
                        server = MemoryServer()
                        self.assertEqual(server.send(b"GET %b %b" % (path, head) + behind), b"", case)
                        if half_closed:
                            self.assertEqual(server.half_close(), b"", case)
                        self.assertFalse(server.transport.closed, case)
                        for request in server.application.held:
                            request.finish()
                        for waiting in server.slow:
                            waiting.callback(Answer(200, b"slow"))
                        self.assertEqual(server.statuses(server.take())[:1], [200], case)
                        kept = head is heads[0] and name in ("nothing", "half a request", "another request")
                        self.assertEqual(server.transport.closed, half_closed or not kept, case)

    def test_closed_in_stages(self) -> None:
        """Where more has come than is served, the connection is closed in stages, or a reset would take the last
        response from the client.
        """
        server = MemoryServer()
        server.send(b"GET /slow HTTP/1.0\r\n\r\n" + GET + b"\r\n")
        server.slow[0].callback(Answer(200, b"slow"))
        self.assertEqual(server.statuses(server.take()), [200])
        self.assertEqual((server.transport.half_closed, server.transport.disconnecting), (True, False))
        self.assertEqual(server.send(GET + b"\r\n"), b"")
        server.clock.pump([1.0] * int(LINGER_SECONDS + 2))
        self.assertTrue(server.transport.aborted)
        self.assertEqual(len(server.seen), 1)


class ProducerTests(SynchronousTestCase):
    def held(self) -> tuple[MemoryServer, Any]:
        server = MemoryServer()
        server.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
        return server, server.application.held[0]

    def test_push(self) -> None:
        """A push producer is paused while the client does not read, resumed, and stopped when the
        connection is lost.
        """
        server, request = self.held()
        told: list[str] = []

        class Producer:
            def pauseProducing(self) -> None:
                told.append("pause")

            def resumeProducing(self) -> None:
                told.append("resume")

            def stopProducing(self) -> None:
                told.append("stop")

        request.registerProducer(Producer(), True)
        server.protocol.pauseProducing()
        server.protocol.resumeProducing()
        server.hang_up()
        self.assertEqual(told, ["pause", "resume", "stop"])

    def test_pull(self) -> None:
        """A pull producer is asked piece by piece, and not while the client does not read."""
        server, request = self.held()
        pieces = [b"a", b"b", b"c", b"d"]

        class Producer:
            def resumeProducing(self) -> None:
                if pieces:
                    request.write(pieces.pop(0))
                    if len(pieces) == 3:  # as a full transport does, in the middle of a write
                        server.protocol.pauseProducing()
                else:
                    request.unregisterProducer()
                    request.finish()

            def stopProducing(self) -> None:
                pass

        request.registerProducer(Producer(), False)
        server.take()
        self.assertEqual(len(pieces), 3)
        server.protocol.resumeProducing()
        self.assertTrue(server.take().endswith(b"1\r\nb\r\n1\r\nc\r\n1\r\nd\r\n0\r\n\r\n"))
        self.assertEqual(server.statuses(server.send(GET + b"\r\n")), [200])

    def test_streaming(self) -> None:
        """A response without a length is chunked for HTTP/1.1, and ended by the connection's end for HTTP/1.0."""
        server, request = self.held()
        request.write(b"abc")
        request.finish()
        self.assertIn(b"3\r\nabc\r\n0\r\n\r\n", server.take())
        server = MemoryServer()
        server.send(b"GET /hold HTTP/1.0\r\n\r\n")
        server.application.held[0].write(b"abc")
        server.application.held[0].finish()
        self.assertTrue(server.take().endswith(b"\r\n\r\nabc"))
        self.assertTrue(server.transport.disconnecting)

    def test_bug(self) -> None:
        """An unexpected error on the fast path closes the connection and is logged; the server goes on."""
        server = MemoryServer()
        server.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        server.slow[0].errback(KeyError("ours"))
        self.assertTrue(server.transport.aborted)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
