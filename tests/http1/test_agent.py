"""The client in memory: what it writes, what it takes for an answer, and that it is an `IAgent` that treq can use."""

from __future__ import annotations

import tracemalloc
from typing import Any

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IResponse
from zope.interface import implementer
from zope.interface.verify import verifyObject

from openhqm.http1.bodies import content_producer, read_body
from openhqm.http1.client import MOST_SERVERS, Client, Server, pools
from openhqm.http1.failures import AnswerTooLong, CallFailed, NotConnected, describe_failure, root_cause, was_cancelled
from openhqm.http1.upstream_pool import IDLE_SECONDS
from tests.http1.test_upstream import BAD, GOOD, OK, MemoryEndpoint

EMPTY = OK + b"Content-Length: 0\r\n\r\n"
URL = b"http://app.test/a?b"


class Rig:
    """A client whose connections are in memory."""

    def __init__(self, kept: int = 8) -> None:
        self.clock, self.endpoint = Clock(), MemoryEndpoint()
        self.servers: list[Server] = []
        self.client = Client(pools(self.connect_to, self.clock, kept), kept=kept)

    def connect_to(self, server: Server) -> MemoryEndpoint:
        self.servers.append(server)
        return self.endpoint

    def fetch(
        self, method: bytes = b"GET", url: bytes = URL, fields: Any = (), content: bytes | None = None
    ) -> Deferred[Any]:
        return self.client.fetch(method, url, fields, content, 1000)

    def written(self, number: int = -1) -> bytes:
        """What was written to a connection since this was last asked."""
        transport = self.endpoint.made[number]
        data: bytes = transport.value()
        transport.clear()
        return data

    def answer(self, *pieces: bytes, number: int = -1) -> None:
        for piece in pieces:
            if not self.endpoint.made[number].closed:
                self.endpoint.protocols[number].dataReceived(piece)

    def lose(self, error: type[Exception] = ConnectionDone, number: int = -1) -> None:
        self.endpoint.protocols[number].connectionLost(Failure(error()))


class WritingTests(SynchronousTestCase):
    def test_request(self) -> None:
        """The target goes out as it stands in the URL, the fields in their order, and the content with its length."""
        rig = Rig()
        for url, target, host in (
            (b"http://app.test", b"/", b"app.test"),
            (b"http://app.test:80//a;?", b"//a;?", b"app.test"),
            (b"http://my_app:8080/%7e?x={y}", b"/%7e?x={y}", b"my_app:8080"),
            (b"http://[::1]:81?q", b"/?q", b"[::1]:81"),
        ):
            rig.fetch(b"PUT", url, [(b"X-B", b"\xff"), (b"X-A", b"1"), (b"X-B", b"2")], b"abc")
            expected = b"PUT %b HTTP/1.1\r\nHost: %b\r\nX-B: \xff\r\nX-A: 1\r\nX-B: 2\r\nContent-Length: 3\r\n\r\nabc"
            self.assertEqual(rig.written(), expected % (target, host))
            rig.answer(EMPTY)
        hosts = [(each.secure, each.host, each.port) for each in rig.servers]
        self.assertEqual(hosts, [(False, b"app.test", 80)] * 2 + [(False, b"my_app", 8080), (False, b"::1", 81)])

    def test_framing(self) -> None:
        """What frames the request is the client's to say. A ``Host`` of the caller's replaces that of the URL."""
        rig = Rig(kept=0)
        fields = [(b"Content-Length", b"7"), (b"transfer-encoding", b"chunked"), (b"Host", b"other")]
        rig.fetch(fields=fields)
        self.assertEqual(rig.written(), b"GET /a?b HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n")

    def test_unwritable(self) -> None:
        """What would be read as another request fails, and no connection is made."""
        rig = Rig()
        for arguments in (
            {"method": b"GET /x HTTP/1.1\r\nA:"},
            {"method": b""},
            {"fields": [(b"A", b"b\r\nX: y")]},
            {"fields": [(b"A\r\nX", b"y")]},
            {"fields": [(b"A: b", b"y")]},
            {"fields": [(b"", b"y")]},
            {"url": b"http://app.test/a b"},
            {"url": b"http://app.test/a\r\nX: y"},
            {"url": b"http://user@app.test/"},
            {"url": b"http:///a"},
            {"url": b"http://:80/"},
            {"url": b"http://app.test:99999/"},
            {"url": b"ftp://app.test/"},
        ):
            self.failureResultOf(rig.fetch(**arguments), ValueError)
        self.assertEqual(rig.endpoint.made, [])


class AnswerTests(SynchronousTestCase):
    def test_good(self) -> None:
        """A valid response is the answer, in one piece or byte by byte, and its connection is used again, or closed."""
        for name, (data, status, body, kept) in GOOD.items():
            for pieces in ([data], [data[index : index + 1] for index in range(len(data))]):
                rig = Rig()
                answer = rig.fetch()
                rig.answer(*pieces)
                fetched = self.successResultOf(answer)
                self.assertEqual((fetched.status, fetched.body), (status, body), name)
                if len(pieces) == 1:
                    self.assertEqual(rig.endpoint.made[0].aborted, not kept, name)

    def test_bad(self) -> None:
        """An invalid one is a failed call, cut anywhere, and its connection is closed."""
        for name, data in BAD.items():
            cuts = [(data[:at], data[at:]) for at in range(len(data))] if len(data) < 1000 else [(data, b"")]
            for pieces in cuts:
                rig = Rig()
                answer = rig.fetch()
                rig.answer(*(piece for piece in pieces if piece))
                self.failureResultOf(answer, CallFailed, AnswerTooLong)
                self.assertTrue(rig.endpoint.made[0].aborted, name)

    def test_without_a_length(self) -> None:
        """An answer without a length ends with its connection (RFC 9112, section 8). A reset is no such end."""
        for error, complete in ((ConnectionDone, True), (ConnectionLost, False)):
            rig = Rig()
            answer = rig.fetch()
            rig.answer(OK + b"\r\n", b'{"total": 1')
            rig.lose(error)
            if complete:
                self.assertEqual(self.successResultOf(answer).body, b'{"total": 1')
            else:
                self.failureResultOf(answer, CallFailed)

    def test_small_pieces(self) -> None:
        """A body costs its length, however small the pieces are that it comes in."""
        rig = Rig()
        answer = rig.client.fetch(b"GET", URL, (), None, 1 << 20)
        rig.answer(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        data = b"2\r\nab\r\n" * 4000
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for _ in range(100):
            rig.answer(data)
        self.assertLess(tracemalloc.get_traced_memory()[1], 4_000_000)
        rig.answer(b"0\r\n\r\n")
        self.assertEqual(self.successResultOf(answer).body, b"ab" * 400_000)

    def test_field(self) -> None:
        """A field is found by its name in any case; of a repeated one, the last counts."""
        rig = Rig()
        answer = rig.fetch()
        rig.answer(OK + b"X-A: 1\r\nx-a: 2\r\nContent-Length: 0\r\n\r\n")
        fetched = self.successResultOf(answer)
        self.assertEqual((fetched.field(b"x-a"), fetched.field(b"x-b")), (b"2", None))


class ConnectionTests(SynchronousTestCase):
    def test_reused(self) -> None:
        """One connection carries one call after the other, and is closed when it was idle for too long."""
        rig = Rig()
        for _ in range(3):
            rig.fetch()
            rig.answer(EMPTY)
        self.assertEqual(len(rig.endpoint.made), 1)
        rig.clock.advance(IDLE_SECONDS)
        self.assertTrue(rig.endpoint.made[0].disconnecting)

    def test_bounds(self) -> None:
        """So many idle connections are kept to one server, and to so many servers."""
        rig = Rig(kept=2)
        for _ in range(4):
            rig.fetch()
        for number in range(4):
            rig.answer(EMPTY, number=number)
        self.assertEqual([each.disconnecting for each in rig.endpoint.made], [False, False, True, True])
        rig = Rig()
        for number in range(MOST_SERVERS + 1):
            rig.fetch(url=b"http://app%d.test/" % number)
            rig.answer(EMPTY)
        closed = [each.disconnecting for each in rig.endpoint.made]
        self.assertEqual(closed, [True] + [False] * MOST_SERVERS)

    def test_none_kept(self) -> None:
        """A client that keeps none has a new connection for each call."""
        rig = Rig(kept=0)
        for number in range(2):
            rig.fetch()
            rig.answer(EMPTY)
            self.assertTrue(rig.endpoint.made[number].disconnecting)

    def test_closed_while_idle(self) -> None:
        """A connection that the server closed while it was idle is not used."""
        rig = Rig()
        rig.fetch()
        rig.answer(EMPTY)
        rig.lose()
        rig.fetch()
        self.assertEqual(len(rig.endpoint.made), 2)

    def test_not_connected(self) -> None:
        """A call without a connection says so: nothing of it was sent."""
        rig = Rig()
        rig.endpoint.connect = lambda factory: fail(ConnectionRefusedError())  # type: ignore[method-assign]
        error = self.failureResultOf(rig.fetch(), NotConnected).value
        self.assertIsInstance(root_cause(error), ConnectionRefusedError)
        rig = Rig()
        rig.endpoint.now = False
        answer = rig.fetch()
        rig.clock.advance(11)
        self.assertIn("not connected within 10 s", describe_failure(self.failureResultOf(answer, NotConnected).value))

    def test_cancelled(self) -> None:
        """Cancelling ends the connecting, or closes the connection."""
        rig = Rig()
        rig.endpoint.now = False
        answer = rig.fetch()
        answer.cancel()
        self.assertTrue(was_cancelled(self.failureResultOf(answer, NotConnected).value))
        self.assertTrue(rig.endpoint.waiting[0].called)
        rig = Rig()
        answer = rig.fetch()
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertTrue(rig.endpoint.made[0].aborted)
        rig.lose()

    def test_connect(self) -> None:
        """A connection that was made ahead is the one of the next call. Where there is none, the failure says so."""
        rig = Rig()
        self.successResultOf(rig.client.connect(URL))
        rig.fetch()
        self.assertEqual(len(rig.endpoint.made), 1)
        rig.endpoint.connect = lambda factory: fail(ConnectionRefusedError())  # type: ignore[method-assign]
        self.failureResultOf(rig.client.connect(URL), NotConnected)
        self.failureResultOf(rig.client.connect(b"nowhere"), ValueError)

    def test_close_idle(self) -> None:
        """Closing the idle connections fires when they are closed, and leaves calls under way alone."""
        rig = Rig()
        rig.fetch()
        answer = rig.fetch()
        rig.answer(EMPTY, number=0)
        closed = rig.client.close_idle()
        self.assertNoResult(closed)
        rig.lose(number=0)
        self.successResultOf(closed)
        rig.answer(EMPTY, number=1)
        self.assertEqual(self.successResultOf(answer).status, 200)


class Receiver(Protocol):
    """Receives a body in pieces."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.reason: Any = None

    def dataReceived(self, data: bytes) -> None:
        self.pieces.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason


@implementer(IBodyProducer)
class Upload:
    """A body of which the test sends each piece."""

    def __init__(self, length: Any = UNKNOWN_LENGTH) -> None:
        self.length = length
        self.calls: list[str] = []
        self.done: Deferred[None] = Deferred()

    def startProducing(self, consumer: Any) -> Deferred[None]:
        self.consumer = consumer
        return self.done

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


class AgentTests(SynchronousTestCase):
    """`Client.request`"""

    def test_interfaces(self) -> None:
        """The client is an agent, and its responses are responses."""
        rig = Rig()
        verifyObject(IAgent, rig.client)
        asking = rig.client.request(b"POST", URL, Headers({"X-A": ["1", "2"]}), content_producer(b"abc"))
        written = b"POST /a?b HTTP/1.1\r\nHost: app.test\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 3\r\n\r\nabc"
        self.assertEqual(rig.written(), written)
        rig.answer(b"HTTP/1.1 404 No\r\nContent-Length: 2\r\nX-B: 1\r\n\r\n")
        response: Any = self.successResultOf(asking)
        verifyObject(IResponse, response)
        self.assertEqual((response.code, response.phrase, response.length), (404, b"No", 2))
        self.assertEqual((response.request.method, response.request.absoluteURI), (b"POST", URL))

    def test_streaming(self) -> None:
        """The body waits in the network until it is asked for, and while its receiver pauses."""
        rig = Rig()
        asking = rig.client.request(b"GET", URL)
        rig.answer(OK + b"Content-Length: 6\r\n\r\nab")
        transport = rig.endpoint.made[0]
        self.assertEqual(transport.producerState, "paused")
        response, receiver = self.successResultOf(asking), Receiver()
        response.deliverBody(receiver)
        self.assertEqual((receiver.pieces, transport.producerState), ([b"ab"], "producing"))
        receiver.transport.pauseProducing()  # type: ignore[union-attr]
        self.assertEqual(transport.producerState, "paused")
        receiver.transport.resumeProducing()  # type: ignore[union-attr]
        rig.answer(b"cdef")
        self.assertEqual(receiver.pieces, [b"ab", b"cdef"])
        receiver.reason.trap(ResponseDone)
        rig.fetch()
        self.assertEqual(len(rig.endpoint.made), 1)

    def test_without_a_body(self) -> None:
        """The answer to HEAD, 204 and 304 have none, whatever length they announce."""
        for method, head in (
            (b"HEAD", OK + b"Content-Length: 5\r\n\r\n"),
            (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
            (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        ):
            rig = Rig()
            asking = rig.client.request(method, URL)
            rig.answer(head)
            self.assertEqual(self.successResultOf(read_body(self.successResultOf(asking), 10)), b"")

    def test_broken_body(self) -> None:
        """A body that breaks off fails, before or after it was asked for."""
        for early in (True, False):
            rig = Rig()
            asking = rig.client.request(b"GET", URL)
            rig.answer(OK + b"Content-Length: 6\r\n\r\nab")
            response = self.successResultOf(asking)
            reading = None if early else read_body(response, 10)
            rig.lose()
            error = self.failureResultOf(reading or read_body(response, 10)).value
            self.assertIsInstance(root_cause(error), CallFailed)

    def test_upload(self) -> None:
        """A body of a producer goes out as it comes (without a length, in chunks), and waits for the server."""
        for length, framing, expected in (
            (UNKNOWN_LENGTH, b"Transfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n"),
            (3, b"Content-Length: 3", b"abc"),
        ):
            rig, upload = Rig(), Upload(length)
            asking = rig.client.request(b"PUT", URL, None, upload)
            self.assertEqual(rig.written(), b"PUT /a?b HTTP/1.1\r\nHost: app.test\r\n%b\r\n\r\n" % framing)
            upload.consumer.write(b"abc")
            rig.endpoint.made[0].producer.pauseProducing()
            rig.endpoint.made[0].producer.resumeProducing()
            upload.done.callback(None)
            self.assertEqual((rig.written(), upload.calls), (expected, ["pause", "resume"]))
            rig.answer(EMPTY)
            self.assertEqual(self.successResultOf(asking).code, 200)

    def test_wrong_upload(self) -> None:
        """A body that is not as long as announced, or breaks, ends the call: the server would wait, or misread."""
        for spoil in (
            lambda upload: upload.done.callback(None),
            lambda upload: upload.consumer.write(b"abcd"),
            lambda upload: upload.done.errback(ValueError()),
        ):
            rig, upload = Rig(), Upload(3)
            asking = rig.client.request(b"PUT", URL, None, upload)
            spoil(upload)
            self.failureResultOf(asking, ValueError)
            self.assertTrue(rig.endpoint.made[0].aborted)

    def test_answered_early(self) -> None:
        """An answer before the end of the body counts, and the rest of the body is not read."""
        rig, upload = Rig(), Upload(3)
        asking = rig.client.request(b"PUT", URL, None, upload)
        rig.answer(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual((self.successResultOf(asking).code, upload.calls), (413, ["stop"]))

    def test_treq(self) -> None:
        """treq rides on it: its requests, its decompression and its documents."""
        rig = Rig()
        client: Any = HTTPClient(rig.client)
        asking = client.post(URL, data=b"x", headers={"X-A": "1"}, params={"c": "d"})
        self.assertIn(b"POST /a?b&c=d HTTP/1.1\r\n", rig.written())
        rig.answer(OK + b'Content-Type: application/json\r\nContent-Length: 8\r\n\r\n{"a": 1}')
        self.assertEqual(self.successResultOf(self.successResultOf(asking).json()), {"a": 1})
