"""The fast path and the routes give the same answers, to the byte."""

from __future__ import annotations

import json
import os
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from openhqm.delivery.ending_streams import EndingStreams
from openhqm.delivery.long_polling import LongPolls
from openhqm.delivery.streams import EventStreams
from openhqm.errors import NotDurable
from openhqm.http1.site import HTTP1Site
from openhqm.ingress.dead_letters import DeadLetters
from openhqm.ingress.door import Door
from openhqm.ingress.fast_path import FastPath, refused
from openhqm.ingress.health import Health
from openhqm.ingress.metrics import DoorMetrics, EndingStreamMetrics
from openhqm.ingress.routes import Routes
from openhqm.policy.ids import CorrelationIds
from openhqm.policy.own_paths import ROOT, OwnPaths
from tests.http1.memory_server import Transport
from tests.workers.bench import ManualHandler, WorkerBench

GOOD = b'{"payload": {"a": 1}, "metadata": {"priority": "high"}}'


class InMemoryServer:
    """A server in memory, with or without its fast path. Ids and time are the same in both."""

    def __init__(
        self, fast: bool, access: Any = None, own_paths: OwnPaths = ROOT, *, ending_streams: bool = True
    ) -> None:
        self.handler = ManualHandler()
        self.bench = WorkerBench(self.handler)
        backend: Any = self.bench.backend
        ids = CorrelationIds(b"the same on both")
        backend.queue._ids = backend.store._ids = backend.queue._children._ids = ids
        waiting = LongPolls(backend.store, backend.clock)
        metrics = DoorMetrics(CollectorRegistry())
        self.door = Door(backend.queue, backend.store, waiting, backend.clock, metrics, longest_wait=60)
        streams = EventStreams(backend.store, backend.clock, metrics.open_streams.set)
        self.health = Health(backend.queue, "memory", None, lambda: None, tuple)
        self.dead_letters = DeadLetters(backend.queue, backend.clock, lambda: self.door.closed)
        counts = EndingStreamMetrics(CollectorRegistry())
        endings = EndingStreams(backend.store.log, backend.store, backend.clock, counts, lambda: 0.5)
        self.ending_streams = endings if ending_streams else None
        routes = self.routes = Routes(
            self.door, streams, self.health, self.dead_letters, own_paths, ending_streams=self.ending_streams
        )
        fast_path: Any = lambda message: None  # noqa: E731
        if fast:
            fast_path = FastPath(self.door, streams, ending_streams=self.ending_streams)
        self.site = HTTP1Site(routes.resource(), backend.clock, fast_path, refused, 100_000, access_log=access)
        self.protocol = self.site.buildProtocol(None)
        self.transport = Transport(peerAddress=IPv4Address("TCP", "127.0.0.1", 1))
        self.protocol.makeConnection(self.transport)

    def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> bytes:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {headers.pop('host', 'x')}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body or method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        self.protocol.dataReceived("\r\n".join([*lines, "", ""]).encode() + body)
        return self.take()

    def take(self) -> bytes:
        self.bench.backend.turn()
        answer = self.transport.value()
        self.transport.clear()
        return b"\r\n".join(line for line in answer.split(b"\r\n") if not line.startswith(b"Date: "))


class SameAnswersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.servers = (InMemoryServer(True), InMemoryServer(False))

    def both(self, *arguments: Any, **headers: Any) -> bytes:
        fast, routed = (server.ask(*arguments, **headers) for server in self.servers)
        self.assertEqual(fast, routed)
        self.assertTrue(fast.startswith(b"HTTP/1.1 "), fast)
        return fast

    def submit(self, **headers: str) -> str:
        answer = self.both("POST", "/api/v1/submit", GOOD, content_type="application/json", **headers)
        correlation_id: str = json.loads(answer.split(b"\r\n\r\n")[1])["correlation_id"]
        return correlation_id

    def test_submit(self) -> None:
        """Accepted, replayed and respond-async are answered alike."""
        self.submit()
        self.submit(idempotency_key="k")
        self.assertIn(
            b"Idempotency-Replayed: true",
            self.both("POST", "/api/v1/submit", GOOD, content_type="application/json", idempotency_key='"k"'),
        )
        self.submit(prefer="respond-async")

    def test_refused(self) -> None:
        """Every refusal is answered alike."""
        for body, headers in (
            (b"", {"content_type": "application/json"}),
            (b"{", {"content_type": "application/json"}),
            (b'{"payload": 1, "x": 1}', {"content_type": "application/json"}),
            (GOOD, {"content_type": "text/plain"}),
            (GOOD, {}),
            (GOOD, {"content_type": "application/json", "idempotency_key": "a b"}),
            (GOOD, {"content_type": "application/json", "content_encoding": "gzip"}),
        ):
            self.both("POST", "/api/v1/submit", body, **headers)
        self.submit(idempotency_key="k")
        self.both("POST", "/api/v1/submit", b'{"payload": 2}', content_type="application/json", idempotency_key="k")
        for path in ("status", "response"):
            self.both("GET", f"/api/v1/{path}/11111111-1111-4111-8111-111111111111")
            self.both("GET", f"/api/v1/{path}/{'x' * 36}")

    def lose_the_store(self) -> None:
        """The store cannot be read any more."""
        for server in self.servers:
            store: Any = server.bench.backend.store
            store.find = store.history = lambda *asked: fail(NotDurable("the store is away"))

    def test_accepted_is_accepted(self) -> None:
        """Where the store cannot be read, a caller that asked to wait or listen gets a 202: an accepted request is
        never a 503."""
        self.lose_the_store()
        asked = ("POST", "/api/v1/submit", GOOD)
        waited = self.both(*asked, content_type="application/json", prefer="wait=5")
        self.assertIn(b"HTTP/1.1 202 ", waited)
        self.assertIn(b"Location: /api/v1/response/", waited)
        listened = self.both(*asked, content_type="application/json", accept="text/event-stream")
        self.assertIn(b"HTTP/1.1 200 ", listened)
        self.assertIn(b"event: accepted\n", listened)
        self.assertTrue(listened.endswith(b"0\r\n\r\n"), listened)
        self.assertIn(b"HTTP/1.1 503 ", self.both("GET", f"/api/v1/status/{'11111111-1111-4111-8111-111111111111'}"))

    def test_no_room(self) -> None:
        """Where an answer cannot be sent for want of memory, a caller asks again, and one that submits gets its 202."""
        correlation_id = self.submit()
        for server in self.servers:
            server.handler.answers[0].callback("x")
            server.bench.backend.turn()
            server.door._has_room = lambda size: size < 3  # the reply has three bytes
        for path in (f"/api/v1/response/{correlation_id}", f"/api/v1/response/{correlation_id}/body"):
            answer = self.both("GET", path)
            self.assertIn(b"HTTP/1.1 503 ", answer)
            self.assertIn(b"Retry-After: 1\r\n", answer)
        self.assertIn(b"HTTP/1.1 200 ", self.both("GET", f"/api/v1/status/{correlation_id}"))
        repeated: dict[str, str] = {"content_type": "application/json", "prefer": "wait=5", "idempotency_key": "k"}
        for server in self.servers:
            asked = {name: value for name, value in repeated.items() if name != "prefer"}
            server.ask("POST", "/api/v1/submit", GOOD, **asked)
            server.handler.answers[-1].callback("x")
            server.bench.backend.turn()
        refused = self.both("POST", "/api/v1/submit", GOOD, **repeated)
        self.assertIn(b"HTTP/1.1 202 ", refused, refused)
        for server in self.servers:
            server.door._has_room = lambda size: True
        self.assertIn(b"HTTP/1.1 200 ", self.both("POST", "/api/v1/submit", GOOD, **repeated))

    def test_ending_between_two_looks(self) -> None:
        """A reader that reconnects in the moment of the ending gets the ending, and not a 204."""
        correlation_id = self.submit()
        for server in self.servers:
            history = server.bench.backend.store.history

            def end_before(each: str, after: int, server: InMemoryServer = server, history: Any = history) -> Any:
                if after == 1:  # the second look
                    server.handler.answers[0].callback("x")
                    server.bench.backend.turn()
                return history(each, after)

            server.bench.backend.store.history = end_before
        answer = self.both("GET", f"/api/v1/events/{correlation_id}", last_event_id="2")
        self.assertIn(b"id: 3\nevent: completed\n", answer)

    def test_beyond_the_last_event(self) -> None:
        """A stream that resumes after an event that is not there goes on behind the last one, and ends."""
        for number in ("3", "4000000000"):  # the first is the number that the ending will have
            self.servers = (InMemoryServer(True), InMemoryServer(False))
            path = f"/api/v1/events/{self.submit()}"
            self.both("GET", path, last_event_id=number)
            for server in self.servers:
                server.handler.answers[0].callback("done")
            fast, routed = (server.take() for server in self.servers)
            self.assertEqual(fast, routed)
            self.assertIn(b"id: 3\nevent: completed\n", fast)
            self.assertTrue(fast.endswith(b"\r\n0\r\n\r\n"), fast)
            self.assertTrue(self.both("GET", path, last_event_id=number).startswith(b"HTTP/1.1 204 No Content\r\n"))

    def test_slashes(self) -> None:
        """A path with an additional slash is another path, and a 404."""
        for path in ("/health/live", f"/api/v1/status/{self.submit()}", "/"):
            for strange in (f"/{path}", f"//{path}", path.replace("/", "//")):
                answer = self.both("GET", strange)
                self.assertIn(b" 404 ", answer.split(b"\r\n")[0], strange)
                self.assertIn(b"Content-Type: application/problem+json\r\n", answer)

    def test_closed(self) -> None:
        """While the process stops, both answer alike."""
        for server in self.servers:
            server.door.closed = True
        answer = self.both("POST", "/api/v1/submit", GOOD, content_type="application/json")
        self.assertIn(b" 503 ", answer.split(b"\r\n")[0])
        self.assertIn(b"Retry-After: 1\r\n", answer)

    def test_asking(self) -> None:
        """Pending, finished and failed requests are answered alike."""
        correlation_id = self.submit()
        for path in ("status", "response"):
            self.both("GET", f"/api/v1/{path}/{correlation_id}")
        for server in self.servers:
            server.handler.answers[0].callback({"b": [1, 2]})
        for path in ("status", "response"):
            self.assertIn(b"COMPLETED", self.both("GET", f"/api/v1/{path}/{correlation_id}"))
        self.assertIn(
            b"Preference-Applied: wait=5", self.both("GET", f"/api/v1/response/{correlation_id}", prefer="wait=5")
        )

    def test_waiting(self) -> None:
        """Long polls are answered alike."""
        for server in self.servers:
            self.assertEqual(
                server.ask("POST", "/api/v1/submit", GOOD, content_type="application/json", prefer="wait=5"), b""
            )
            server.handler.answers[0].callback("done")
        fast, routed = (server.take() for server in self.servers)
        self.assertEqual(fast, routed)
        self.assertIn(b"Preference-Applied: wait=5", fast)

    def test_events(self) -> None:
        """History, live events, the end of the stream, and the next answer on the connection are alike."""
        correlation_id = self.submit()
        path = f"/api/v1/events/{correlation_id}"
        self.assertIn(b"event: processing", self.both("GET", path))
        for step in (
            lambda server: server.handler.works[0].progress(percent=1),
            lambda server: server.handler.answers[0].callback("done"),
        ):
            for server in self.servers:
                step(server)
            fast, routed = (server.take() for server in self.servers)
            self.assertEqual(fast, routed)
        self.assertTrue(fast.endswith(b"\r\n0\r\n\r\n"), fast)
        self.assertIn(b"event: completed", self.both("GET", path, last_event_id="3"))
        self.assertTrue(self.both("GET", path, last_event_id="4").startswith(b"HTTP/1.1 204 No Content\r\n"))
        self.both("GET", path, last_event_id="x")
        self.both("GET", "/api/v1/events/11111111-1111-4111-8111-111111111111")

    def test_reader_who_leaves(self) -> None:
        """A reader that closes its connection within the stream is forgotten by both."""
        correlation_id = self.submit()
        for server in self.servers:
            server.ask("GET", f"/api/v1/events/{correlation_id}")
            self.assertTrue(server.bench.backend.store._watchers)
            server.protocol.connectionLost()
            self.assertFalse(server.bench.backend.store._watchers)

    def test_half_closed(self) -> None:
        """A reader that closes its sending side reads its stream to the end."""
        correlation_id = self.submit()
        for server in self.servers:
            server.ask("GET", f"/api/v1/events/{correlation_id}")
            server.protocol.readConnectionLost()
            server.handler.answers[0].callback("done")
        fast, routed = (server.take() for server in self.servers)
        self.assertEqual(fast, routed)
        self.assertIn(b"event: completed", fast)
        self.assertTrue(all(server.transport.disconnecting for server in self.servers))

    def test_closing(self) -> None:
        """A connection with Connection: close is answered and closed alike."""
        correlation_id = self.submit()
        self.assertIn(b"Connection: close", self.both("GET", f"/api/v1/status/{correlation_id}", connection="close"))

    def test_hang_up(self) -> None:
        """A caller that closes its connection while it waits has submitted all the same."""
        for server in self.servers:
            server.ask("POST", "/api/v1/submit", GOOD, content_type="application/json", prefer="wait=5")
            server.protocol.connectionLost()
            self.assertEqual(len(server.handler.works), 1)
            self.assertFalse(server.bench.backend.store._watchers)

    def test_bug(self) -> None:
        """A bug is a 500 without details, and is logged."""
        for server in self.servers:
            server.door.store.find = lambda correlation_id: os.stat("/a/secret/path")  # type: ignore[method-assign]
        answer = self.both("GET", f"/api/v1/status/{'x' * 36}")
        self.assertIn(b" 500 ", answer.split(b"\r\n")[0])
        self.assertNotIn(b"secret", answer)
        self.assertEqual(len(self.flushLoggedErrors(FileNotFoundError)), 2)


class PrefixTests(SynchronousTestCase):
    def test_prefix(self) -> None:
        """Under a prefix the paths for operators move, and those of the API stay where they are."""
        server = InMemoryServer(True, own_paths=OwnPaths("/ops/hqm"))
        for path in ("/ops/hqm/health", "/ops/hqm/health/live", "/ops/hqm/openapi.json?a=/health"):
            self.assertTrue(server.ask("GET", path).startswith(b"HTTP/1.1 200 "), path)
        for path in (
            "/health",
            "/health/live",
            "/ops/health",
            "/ops/hqm",
            "/ops/hqm//health",
            "/ops/hqm/api/v1/submit",
        ):
            answer = server.ask("GET", path)
            self.assertTrue(answer.startswith(b"HTTP/1.1 404 "), path)
            self.assertIn(b"GET /ops/hqm/openapi.json lists all paths", answer)
        self.assertTrue(server.ask("GET", "/api/v1/submit").startswith(b"HTTP/1.1 405 "))
        submitted = server.ask("POST", "/api/v1/submit", GOOD, content_type="application/json")
        self.assertTrue(submitted.startswith(b"HTTP/1.1 202 "))


class CancelOnDisconnectTests(SynchronousTestCase):
    """A caller that waits, or reads the events, and whose connection ends"""

    def after(self, body: bytes, *, closed: bool = False, repeated: bool = False, **headers: str) -> list[str]:
        """The status of the request after that: of a caller that waits, with the fast path and without, and of one that
        reads the events. ``repeated``: it was there before.
        """
        found = []
        for fast, asked in (
            (True, {"prefer": "wait=50"}),
            (False, {"prefer": "wait=50"}),
            (True, {"accept": "text/event-stream"}),
        ):
            server = InMemoryServer(fast)
            fields = {"content_type": "application/json", "idempotency_key": "k"}
            if repeated:
                self.assertIn(b" 202 ", server.ask("POST", "/api/v1/submit", body, **fields))
            waiting = server.ask("POST", "/api/v1/submit", body, **asked, **fields, **headers)
            self.assertEqual(b"event: accepted" in waiting, "accept" in asked)
            server.door.closed = closed
            server.protocol.connectionLost()
            server.bench.backend.turn()
            server.door.closed = False
            sent = {b"content-type": b"application/json", b"idempotency-key": b"k"}
            accepted = self.successResultOf(Deferred.fromCoroutine(server.door.accept(body, sent.get)))
            self.assertTrue(accepted.replayed)
            found.append(server.bench.status(accepted.correlation_id).value)
        return found

    def test_queued(self) -> None:
        """What waits in the queue is cancelled where that was asked for, and only there."""
        later = b'{"payload":1,"metadata":{"delay":60}}'
        self.assertEqual(self.after(later, openhqm_cancel_on_disconnect="true"), ["CANCELLED"] * 3)
        self.assertEqual(self.after(later, openhqm_cancel_on_disconnect="false"), ["PENDING"] * 3)
        self.assertEqual(self.after(later), ["PENDING"] * 3)

    def test_repeated(self) -> None:
        """What an earlier caller has submitted under the same key is that one's: it may wait for it still."""
        later = b'{"payload":1,"metadata":{"delay":60}}'
        self.assertEqual(self.after(later, repeated=True, openhqm_cancel_on_disconnect="true"), ["PENDING"] * 3)

    def test_begun(self) -> None:
        """What has begun goes on."""
        self.assertEqual(self.after(GOOD, openhqm_cancel_on_disconnect="true"), ["PROCESSING"] * 3)

    def test_stopping(self) -> None:
        """A connection that the process itself cuts when it stops cancels nothing."""
        later = b'{"payload":1,"metadata":{"delay":60}}'
        self.assertEqual(self.after(later, closed=True, openhqm_cancel_on_disconnect="true"), ["PENDING"] * 3)
