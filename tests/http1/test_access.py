"""The access log: one event for each request, on whichever way it was served."""

from __future__ import annotations

import io
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from openhqm.http1.access import Served
from openhqm.ingress.access_log import note
from openhqm.runtime.logs import json_line, observer, text_line
from tests import hypothesis_profile  # noqa: F401
from tests.http1.connections import Wire
from tests.http1.test_pass_through import Taking
from tests.ingress.test_fast_path import GOOD, Lane

ID = "0a7dd4f0-6d62-4ad0-8b16-0f0cbb3c2b5e"


class Told(SynchronousTestCase):
    """What is told of a request"""

    def wire(self) -> Wire:
        wire = Wire()
        self.served: list[Served] = []
        wire.site.access = self.served.append
        wire.connect()
        return wire

    def told(self) -> list[tuple[Any, ...]]:
        return [(each.method, each.path, each.status, each.size) for each in self.served]

    def test_both_lanes(self) -> None:
        """Each request once, in order, without its query."""
        wire = self.wire()
        for line in (b"GET /short", b"GET /a?key=secret", b"HEAD /short", b"HEAD /a"):
            wire.send(line + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual(
            self.told(),
            [("GET", "/short", 200, 5), ("GET", "/a", 200, 17), ("HEAD", "/short", 200, 0), ("HEAD", "/a", 200, 0)],
        )

    def test_seconds(self) -> None:
        """From its turn to its answer: what it waited behind another is the other's."""
        wire = self.wire()
        wire.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        for seconds in (3.0, 2.0):
            wire.clock.advance(seconds)
            wire.application.held[-1].finish()
            wire.take()
        self.assertEqual([each.seconds for each in self.served], [3.0, 2.0])

    def test_refused(self) -> None:
        """Nothing of what was no request gets into the log but its status."""
        wire = self.wire()
        wire.send(b"GET /\x07 HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual(self.told(), [("-", "-", 400, 0)])

    def test_gone(self) -> None:
        """Whoever goes before the answer has no status; one that was answered is not told of twice."""
        wire = self.wire()
        wire.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        wire.hang_up()
        self.assertEqual(self.told(), [("GET", "/slow", 0, 0)])
        wire = self.wire()
        wire.send(b"GET /short HTTP/1.1\r\nHost: x\r\n\r\n")
        wire.hang_up()
        self.assertEqual(len(self.served), 1)

    def test_passage(self) -> None:
        """What is let through is told of when its response is complete."""
        wire, taking = self.wire(), Taking()
        wire.site.passage = lambda head: taking  # type: ignore[assignment]
        wire.send(b"GET /through?a=b HTTP/1.1\r\nHost: x\r\n\r\n")
        taking.passing.respond(404, b"", [], None)
        taking.passing.write(b"abc")
        taking.passing.write(b"de")
        self.assertEqual(self.told(), [])
        taking.passing.finish()
        self.assertEqual(self.told(), [("GET", "/through", 404, 5)])

    def test_lanes(self) -> None:
        """The lanes of the real door tell the same, streams too."""
        told: list[list[Any]] = []
        for short in (True, False):
            self.served = []
            lane = Lane(short, self.served.append)
            lane.ask("POST", "/api/v1/submit", GOOD, content_type="application/json")
            location = (self.served[0].location or b"").decode()
            lane.hand.answers[0].callback("done")
            for path in (location, location.replace("response", "events"), "/api/v1/cancel/x", "/nowhere"):
                lane.ask("GET", path)
            told.append([(each.method, each.path, each.status, each.location) for each in self.served])
            self.assertTrue(all(each.size for each in self.served))
        self.assertEqual(told[0], told[1])
        self.assertEqual([each[2] for each in told[0]], [202, 200, 200, 405, 404])

    def test_off(self) -> None:
        """Off, nothing is made for it."""
        self.assertIsNone(Wire().protocol._accesses)


class NoteTests(SynchronousTestCase):
    """`note`"""

    def lines(self, served: Served) -> tuple[str, str]:
        """As JSON, and as text."""
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
        """All that is promised, under the names that are documented."""
        line, text = self.lines(Served("GET", f"/api/v1/status/{ID}", 200, 17, 0.25, None))
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

    def test_which_request(self) -> None:
        """By where its answer will be, or by its path; and none where it is about none."""
        for path, location, found in (
            ("/api/v1/submit", f"/api/v1/response/{ID}", ID),
            (f"/api/v1/response/{ID}/body", None, ID),
            (f"/api/v1/events/{ID}", None, ID),
            ("/api/v1/status/x", None, None),
            (f"/api/v1/status/{ID}x", None, None),
            ("/health", "/elsewhere", None),
        ):
            event = json.loads(self.lines(Served("GET", path, 200, 0, 0.0, location and location.encode()))[0])
            self.assertEqual(event.get("correlation_id"), found, path)

    @given(st.text())
    def test_one_line(self, path: str) -> None:
        """Whatever a path has in it: one line, and no control character."""
        for line in self.lines(Served("GET", path, 200, 0, 0.0, path.encode("utf-8", "replace"))):
            self.assertEqual(line.count("\n"), 1)
            self.assertFalse([character for character in line[:-1] if ord(character) < 32 or ord(character) == 127])
