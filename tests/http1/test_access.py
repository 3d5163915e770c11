"""The access log: one event for each request, however it is served."""

from __future__ import annotations

import io
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from openhqm.http1.access import AccessRecord
from openhqm.ingress.access_log import note
from openhqm.runtime.logs import json_line, observer, text_line
from tests import hypothesis_profile  # noqa: F401
from tests.http1.memory_server import MemoryServer
from tests.http1.test_pass_through import RecordingSink
from tests.ingress.test_fast_path import GOOD, InMemoryServer

ID = "0a7dd4f0-6d62-4ad0-8b16-0f0cbb3c2b5e"


class AccessRecordTests(SynchronousTestCase):
    """What `HTTP1Site` records of a request"""

    def start_server(self) -> MemoryServer:
        server = MemoryServer()
        self.served: list[AccessRecord] = []
        server.site.access_log = self.served.append
        server.connect()
        return server

    def recorded(self) -> list[tuple[Any, ...]]:
        return [(each.method, each.path, each.status, each.size) for each in self.served]

    def test_fast_path_and_resource(self) -> None:
        """Each request is recorded once, in order, without its query."""
        server = self.start_server()
        for line in (b"GET /fast", b"GET /a?key=secret", b"HEAD /fast", b"HEAD /a"):
            server.send(line + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual(
            self.recorded(),
            [("GET", "/fast", 200, 4), ("GET", "/a", 200, 17), ("HEAD", "/fast", 200, 0), ("HEAD", "/a", 200, 0)],
        )

    def test_seconds(self) -> None:
        """The time begins when the request is served: it does not count the wait behind an earlier request."""
        server = self.start_server()
        server.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        for seconds in (3.0, 2.0):
            server.clock.advance(seconds)
            server.application.held[-1].finish()
            server.take()
        self.assertEqual([each.seconds for each in self.served], [3.0, 2.0])

    def test_refused(self) -> None:
        """Of a refused request, only the status is recorded."""
        server = self.start_server()
        server.send(b"GET /\x07 HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual(self.recorded(), [("-", "-", 400, 0)])

    def test_connection_lost(self) -> None:
        """A request whose connection was lost before its response has status 0. An answered one is not
        recorded again.
        """
        server = self.start_server()
        server.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        server.hang_up()
        self.assertEqual(self.recorded(), [("GET", "/slow", 0, 0)])
        server = self.start_server()
        server.send(b"GET /fast HTTP/1.1\r\nHost: x\r\n\r\n")
        server.hang_up()
        self.assertEqual(len(self.served), 1)

    def test_relayed(self) -> None:
        """A relayed request is recorded when its response is complete."""
        server, sink = self.start_server(), RecordingSink()
        server.site.select_sink = lambda head: sink  # type: ignore[assignment]
        server.send(b"GET /through?a=b HTTP/1.1\r\nHost: x\r\n\r\n")
        sink.relay.respond(404, b"", [], None)
        sink.relay.write(b"abc")
        sink.relay.write(b"de")
        self.assertEqual(self.recorded(), [])
        sink.relay.finish()
        self.assertEqual(self.recorded(), [("GET", "/through", 404, 5)])

    def test_routes(self) -> None:
        """The gateway's routes are recorded alike on the fast path and by ``twisted.web``, streams included."""
        records: list[list[Any]] = []
        for on_fast_path in (True, False):
            self.served = []
            server = InMemoryServer(on_fast_path, self.served.append)
            server.ask("POST", "/api/v1/submit", GOOD, content_type="application/json")
            location = (self.served[0].location or b"").decode()
            server.handler.answers[0].callback("done")
            for path in (location, location.replace("response", "events"), "/api/v1/cancel/x", "/nowhere"):
                server.ask("GET", path)
            records.append([(each.method, each.path, each.status, each.location) for each in self.served])
            self.assertTrue(all(each.size for each in self.served))
        self.assertEqual(records[0], records[1])
        self.assertEqual([each[2] for each in records[0]], [202, 200, 200, 405, 404])

    def test_off(self) -> None:
        """Without an access log, a connection makes no recorder."""
        self.assertIsNone(MemoryServer().protocol._recorder)


class NoteTests(SynchronousTestCase):
    """`note`"""

    def lines(self, served: AccessRecord) -> tuple[str, str]:
        """The event as a line of JSON, and as a line of text."""
        streams = io.StringIO(), io.StringIO()
        observers = [
            observer(line, "INFO", stream) for line, stream in zip((json_line, text_line), streams, strict=True)
        ]
        for each in observers:
            globalLogPublisher.addObserver(each)
        try:
            note(served)
        finally:
            for each in observers:
                globalLogPublisher.removeObserver(each)
        return streams[0].getvalue(), streams[1].getvalue()

    def test_fields(self) -> None:
        """The event has the fields that the documentation promises, under their documented names."""
        line, text = self.lines(AccessRecord("GET", f"/api/v1/status/{ID}", 200, 17, 0.25, None))
        event = json.loads(line)
        self.assertEqual(
            {name: event[name] for name in ("method", "path", "status", "bytes", "seconds", "correlation_id")},
            {
                "method": "GET",
                "path": f"/api/v1/status/{ID}",
                "status": 200,
                "bytes": 17,
                "seconds": 0.25,
                "correlation_id": ID,
            },
        )
        self.assertIn(f"GET /api/v1/status/{ID} 200, 17 bytes in 0.25 s [{ID}]\n", text)

    def test_credential(self) -> None:
        """A key or a token that a client has put into the path is hidden; anything else stays."""
        key, token = f"ohqm_{'A1' * 24}x", "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJhIn0.c2lnbmF0dXJl-_"
        for secret in (key, token):
            line, text = self.lines(AccessRecord("GET", f"/hooks/{secret}/x", 400, 17, 0.25, None))
            self.assertEqual(json.loads(line)["path"], "/hooks/(a-credential)/x")
            self.assertNotIn(secret, line + text)
        line, _ = self.lines(AccessRecord("GET", "/orders/eyJ", 404, 0, 0.25, None))
        self.assertEqual(json.loads(line)["path"], "/orders/eyJ")

    def test_correlation_id(self) -> None:
        """The correlation id comes from the Location of the response, or from the path; other requests have none."""
        for path, location, found in (
            ("/api/v1/submit", f"/api/v1/response/{ID}", ID),
            (f"/api/v1/response/{ID}/body", None, ID),
            (f"/api/v1/events/{ID}", None, ID),
            ("/api/v1/status/x", None, None),
            (f"/api/v1/status/{ID}x", None, None),
            ("/health", "/elsewhere", None),
        ):
            event = json.loads(self.lines(AccessRecord("GET", path, 200, 0, 0.0, location and location.encode()))[0])
            self.assertEqual(event.get("correlation_id"), found, path)

    @given(st.text())
    def test_single_line(self, path: str) -> None:
        """A path of any characters makes one line without control characters."""
        for line in self.lines(AccessRecord("GET", path, 200, 0, 0.0, path.encode("utf-8", "replace"))):
            self.assertEqual(line.count("\n"), 1)
            self.assertFalse([character for character in line[:-1] if ord(character) < 32 or ord(character) == 127])
