"""The short lane and the routes give the same answers, to the byte."""

from __future__ import annotations

import json
import os
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.address import IPv4Address
from twisted.internet.defer import fail
from twisted.trial.unittest import SynchronousTestCase

from openhqm.delivery.streams import Streams
from openhqm.delivery.waiting import Waiting
from openhqm.errors import NotDurable
from openhqm.http1.site import HTTP1Site
from openhqm.ingress.door import Door
from openhqm.ingress.fast_path import FastPath, refused
from openhqm.ingress.health import Health
from openhqm.ingress.metrics import DoorMetrics
from openhqm.ingress.routes import Routes
from openhqm.policy.ids import CorrelationIds
from tests.http1.connections import Transport
from tests.workers.bench import Hand, Workshop

GOOD = b'{"payload": {"a": 1}, "metadata": {"priority": "high"}}'


class Lane:
    """A server in memory, with or without its short lane, and always with the same ids and the same time."""

    def __init__(self, short: bool, access: Any = None) -> None:
        self.hand = Hand()
        self.shop = Workshop(self.hand)
        bench: Any = self.shop.bench
        bench.queue._ids = bench.store._ids = CorrelationIds(b"the same on both")
        waiting = Waiting(bench.store, bench.clock)
        metrics = DoorMetrics(CollectorRegistry())
        self.door = Door(bench.queue, bench.store, waiting, bench.clock, metrics, longest_wait=60)
        streams = Streams(bench.store, bench.clock, metrics.open_streams.set)
        self.health = Health(bench.queue, "memory", None, lambda: None, tuple)
        routes = Routes(self.door, streams, self.health)
        lane: Any = FastPath(self.door, streams) if short else lambda message: None
        self.site = HTTP1Site(routes.resource(), bench.clock, lane, refused, 100_000, access=access)
        self.protocol = self.site.buildProtocol(None)
        self.transport = Transport(peerAddress=IPv4Address("TCP", "127.0.0.1", 1))
        self.protocol.makeConnection(self.transport)

    def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> bytes:
        lines = [f"{method} {target} HTTP/1.1", "Host: x"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body or method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        self.protocol.dataReceived("\r\n".join([*lines, "", ""]).encode() + body)
        return self.take()

    def take(self) -> bytes:
        self.shop.bench.turn()
        answer = self.transport.value()
        self.transport.clear()
        return b"\r\n".join(line for line in answer.split(b"\r\n") if not line.startswith(b"Date: "))


class Same(SynchronousTestCase):
    def setUp(self) -> None:
        self.lanes = (Lane(True), Lane(False))

    def both(self, *arguments: Any, **headers: Any) -> bytes:
        short, routed = (lane.ask(*arguments, **headers) for lane in self.lanes)
        self.assertEqual(short, routed)
        self.assertTrue(short.startswith(b"HTTP/1.1 "), short)
        return short

    def submit(self, **headers: str) -> str:
        answer = self.both("POST", "/api/v1/submit", GOOD, content_type="application/json", **headers)
        correlation_id: str = json.loads(answer.split(b"\r\n\r\n")[1])["correlation_id"]
        return correlation_id

    def test_submit(self) -> None:
        """Accepted, replayed, acknowledged: the same."""
        self.submit()
        self.submit(idempotency_key="k")
        self.assertIn(
            b"Idempotency-Replayed: true",
            self.both("POST", "/api/v1/submit", GOOD, content_type="application/json", idempotency_key='"k"'),
        )
        self.submit(prefer="respond-async")

    def test_refused(self) -> None:
        """Every way to be refused: the same."""
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
        """Nothing can be looked up any more."""
        for lane in self.lanes:
            store: Any = lane.shop.bench.store
            store.find = store.history = lambda *asked: fail(NotDurable("the store is away"))

    def test_accepted_is_accepted(self) -> None:
        """Who would wait or listen, and cannot, is told where to look: what is safe is never answered with a 503."""
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

    def test_ending_between_two_looks(self) -> None:
        """A reader that comes back just when the request ends gets the ending, and not a 204 that keeps it away."""
        correlation_id = self.submit()
        for lane in self.lanes:
            find = lane.shop.bench.store.find

            def end_before(each: str, lane: Lane = lane, find: Any = find) -> Any:
                lane.hand.answers[0].callback("x")
                lane.shop.bench.turn()
                return find(each)

            lane.shop.bench.store.find = end_before
        answer = self.both("GET", f"/api/v1/events/{correlation_id}", last_event_id="2")
        self.assertIn(b"id: 3\nevent: completed\n", answer)

    def test_slashes(self) -> None:
        """A path is what it is: with a slash more it is another, which there is not."""
        for path in ("/health/live", f"/api/v1/status/{self.submit()}", "/"):
            for strange in (f"/{path}", f"//{path}", path.replace("/", "//")):
                answer = self.both("GET", strange)
                self.assertIn(b" 404 ", answer.split(b"\r\n")[0], strange)
                self.assertIn(b"Content-Type: application/problem+json\r\n", answer)

    def test_closed(self) -> None:
        """While the process is stopping: the same."""
        for lane in self.lanes:
            lane.door.closed = True
        answer = self.both("POST", "/api/v1/submit", GOOD, content_type="application/json")
        self.assertIn(b" 503 ", answer.split(b"\r\n")[0])
        self.assertIn(b"Retry-After: 1\r\n", answer)

    def test_asking(self) -> None:
        """Pending, finished and failed: the same."""
        correlation_id = self.submit()
        for path in ("status", "response"):
            self.both("GET", f"/api/v1/{path}/{correlation_id}")
        for lane in self.lanes:
            lane.hand.answers[0].callback({"b": [1, 2]})
        for path in ("status", "response"):
            self.assertIn(b"COMPLETED", self.both("GET", f"/api/v1/{path}/{correlation_id}"))
        self.assertIn(
            b"Preference-Applied: wait=5", self.both("GET", f"/api/v1/response/{correlation_id}", prefer="wait=5")
        )

    def test_waiting(self) -> None:
        """An answer that is waited for: the same."""
        for lane in self.lanes:
            self.assertEqual(
                lane.ask("POST", "/api/v1/submit", GOOD, content_type="application/json", prefer="wait=5"), b""
            )
            lane.hand.answers[0].callback("done")
        short, routed = (lane.take() for lane in self.lanes)
        self.assertEqual(short, routed)
        self.assertIn(b"Preference-Applied: wait=5", short)

    def test_events(self) -> None:
        """History, live events, the end of the stream, and the next answer behind it: the same."""
        correlation_id = self.submit()
        path = f"/api/v1/events/{correlation_id}"
        self.assertIn(b"event: processing", self.both("GET", path))
        for step in (
            lambda lane: lane.hand.works[0].progress(percent=1),
            lambda lane: lane.hand.answers[0].callback("done"),
        ):
            for lane in self.lanes:
                step(lane)
            short, routed = (lane.take() for lane in self.lanes)
            self.assertEqual(short, routed)
        self.assertTrue(short.endswith(b"\r\n0\r\n\r\n"), short)
        self.assertIn(b"event: completed", self.both("GET", path, last_event_id="3"))
        self.assertTrue(self.both("GET", path, last_event_id="4").startswith(b"HTTP/1.1 204 No Content\r\n"))
        self.both("GET", path, last_event_id="x")
        self.both("GET", "/api/v1/events/11111111-1111-4111-8111-111111111111")

    def test_reader_who_leaves(self) -> None:
        """A reader who goes in the middle of its stream is forgotten, on both."""
        correlation_id = self.submit()
        for lane in self.lanes:
            lane.ask("GET", f"/api/v1/events/{correlation_id}")
            self.assertTrue(lane.shop.bench.store._watchers)
            lane.protocol.connectionLost()
            self.assertFalse(lane.shop.bench.store._watchers)

    def test_half_closed(self) -> None:
        """A reader who has nothing more to send reads its stream to the end: the same."""
        correlation_id = self.submit()
        for lane in self.lanes:
            lane.ask("GET", f"/api/v1/events/{correlation_id}")
            lane.protocol.readConnectionLost()
            lane.hand.answers[0].callback("done")
        short, routed = (lane.take() for lane in self.lanes)
        self.assertEqual(short, routed)
        self.assertIn(b"event: completed", short)
        self.assertTrue(all(lane.transport.disconnecting for lane in self.lanes))

    def test_closing(self) -> None:
        """A connection that is to be closed: the same."""
        correlation_id = self.submit()
        self.assertIn(b"Connection: close", self.both("GET", f"/api/v1/status/{correlation_id}", connection="close"))

    def test_hang_up(self) -> None:
        """A caller who hangs up while it waits has submitted all the same."""
        for lane in self.lanes:
            lane.ask("POST", "/api/v1/submit", GOOD, content_type="application/json", prefer="wait=5")
            lane.protocol.connectionLost()
            self.assertEqual(len(lane.hand.works), 1)
            self.assertFalse(lane.shop.bench.store._watchers)

    def test_bug(self) -> None:
        """A bug is a 500 that tells the caller nothing and the log everything."""
        for lane in self.lanes:
            lane.door.store.find = lambda correlation_id: os.stat("/a/secret/path")  # type: ignore[method-assign]
        answer = self.both("GET", f"/api/v1/status/{'x' * 36}")
        self.assertIn(b" 500 ", answer.split(b"\r\n")[0])
        self.assertNotIn(b"secret", answer)
        self.assertEqual(len(self.flushLoggedErrors(FileNotFoundError)), 2)
