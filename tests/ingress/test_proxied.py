# -*- test-case-name: tests.ingress.test_proxied -*-
"""The asynchronous reverse proxy: what is stored of a request, and how its answer is served."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import InvalidRequest
from openhqm.http1.messages import FullRequest
from openhqm.http1.rules import check_head
from openhqm.ingress.proxied import passed_on, proxied_submission
from openhqm.messages import Reply, Status
from tests.servers import ROOT, Server, free_port

NAME = b"openhqm-test"


def message(method: bytes, target: bytes, fields: list[tuple[bytes, bytes]], body: bytes = b"") -> FullRequest:
    headers = [(b"host", b"shop.example"), *fields]
    if body:
        headers.append((b"content-length", b"%d" % len(body)))
    return FullRequest(check_head(method, target, "1.1", headers), body, True, dict(headers).get, "192.0.2.7", "http")


class ProxiedTests(SynchronousTestCase):
    """The submission that stands for a request"""

    def test_as_it_came(self) -> None:
        """Method, path, query and body are those of the client, byte for byte. No value of a header field is lost."""
        taken = proxied_submission(
            message(b"PUT", b"/a%20b/..;x?q=%2F&q", [(b"x-a", b"1"), (b"x-a", b"2")], b"\x00\xff{"), NAME
        )
        self.assertEqual(taken.body, b"\x00\xff{")
        self.assertEqual(
            {name: taken.metadata[name] for name in ("method", "path", "query")},
            {"method": "PUT", "path": "/a%20b/..;x", "query": "q=%2F&q"},
        )
        self.assertEqual((taken.headers["X-A"], taken.headers["Host"]), ("1, 2", "shop.example"))

    def test_who_asked(self) -> None:
        """The forwarding fields name the client as the gateway sees it (RFC 7239), and not as the client says."""
        taken = proxied_submission(message(b"GET", b"/", [(b"x-forwarded-for", b"10.0.0.1")]), NAME)
        self.assertEqual(taken.headers["X-Forwarded-For"], "192.0.2.7")
        self.assertEqual(taken.headers["Forwarded"], "for=192.0.2.7;proto=http;host=shop.example")

    def test_via(self) -> None:
        """The gateway names itself in Via, behind those before it, so that a request that comes back is noticed."""
        taken = proxied_submission(message(b"GET", b"/", [(b"via", b"1.0 a"), (b"via", b"1.1 b")]), NAME)
        self.assertEqual(taken.headers["Via"], "1.0 a, 1.1 b, 1.1 openhqm-test")

    def test_trusted_proxy(self) -> None:
        """What a trusted proxy says about the client, its scheme and its host is kept."""
        fields = [(b"x-forwarded-for", b"10.0.0.1"), (b"x-forwarded-proto", b"https"), (b"x-forwarded-host", b"a.b")]
        taken = proxied_submission(message(b"GET", b"/", fields), NAME, trusted=True)
        self.assertEqual(taken.headers["X-Forwarded-For"], "10.0.0.1, 192.0.2.7")
        self.assertEqual((taken.headers["X-Forwarded-Proto"], taken.headers["X-Forwarded-Host"]), ("https", "a.b"))

    def test_not_kept(self) -> None:
        """Fields of the connection and cookies are not stored."""
        fields = [(b"cookie", b"a=b"), (b"connection", b"x-own"), (b"x-own", b"1"), (b"te", b"trailers")]
        taken = proxied_submission(message(b"GET", b"/", fields), NAME)
        self.assertEqual({"Cookie", "Connection", "X-Own", "Te"} & set(taken.headers), set())

    def test_callback(self) -> None:
        """The URL of a callback is for the gateway, and not for the application; two of them are refused."""
        url = (b"x-callback-url", b"https://a.example/")
        taken = proxied_submission(message(b"GET", b"/", [url]), NAME)
        self.assertEqual(taken.metadata["callback_url"], "https://a.example/")
        self.assertNotIn("X-Callback-Url", taken.headers)
        self.assertRaises(InvalidRequest, proxied_submission, message(b"GET", b"/", [url, url]), NAME)

    def test_passed_on(self) -> None:
        """The application's answer keeps its own status, fields and bytes, also where it is an error."""
        reply = Reply("id", Status.FAILED, 1.0, body=b"\xffno", status_code=404, headers={"X-A": "1", "Server": "app"})
        answer = passed_on(reply, b"GET")
        self.assertEqual((answer.status, answer.body, answer.fields), (404, b"\xffno", ((b"X-A", b"1"),)))

    def test_bodiless(self) -> None:
        """A status that has no body goes out without one, whatever is stored, and HEAD with the announced length."""
        for status, length in ((204, 0), (304, None)):
            answer = passed_on(Reply("id", Status.COMPLETED, 1.0, body=b"abc", status_code=status), b"GET")
            self.assertEqual((answer.body, answer.length), (b"", length))
        for headers, length in (({"Content-Length": "7"}, 7), ({}, None), ({"Content-Length": "+7"}, None)):
            answer = passed_on(Reply("id", Status.COMPLETED, 1.0, body=b"", headers=headers), b"HEAD")
            self.assertEqual((answer.length, answer.fields), (length, ()))
        answer = passed_on(Reply("id", Status.COMPLETED, 1.0, body=b"abc", headers={"Content-Length": "7"}), b"GET")
        self.assertEqual((answer.length, answer.fields), (3, ()))

    def test_no_answer(self) -> None:
        """Where the application gave no answer, a problem names the reason and the request."""
        answer = passed_on(Reply("id", Status.TIMEOUT, 1.0, status_code=504, error="no answer within 5 s"), b"GET")
        document = json.loads(answer.body)
        self.assertEqual(
            (answer.status, document["detail"], document["correlation_id"]), (504, "no answer within 5 s", "id")
        )


class Application:
    """An application in a process of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self.process: Any = None

    def start(self) -> None:
        command = [sys.executable, str(ROOT / "examples" / "target.py"), str(self.port), "never"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


class InFrontTests(SynchronousTestCase):
    """A whole process in front of an application"""

    def setUp(self) -> None:
        self.application = Application()
        self.addCleanup(self.application.stop)
        directory = Path(self.mktemp())
        directory.mkdir()
        rules = [{"path": "/jobs/**"}, {"path": "/held/**", "wait": 10}]
        self.server = Server(
            directory,
            OPENHQM_PROXY__SIDECAR__ENABLED="true",
            OPENHQM_PROXY__SIDECAR__UPSTREAM=f"http://127.0.0.1:{self.application.port}",
            OPENHQM_PROXY__SIDECAR__ASYNC_RULES=json.dumps(rules),
            OPENHQM_WORKER__RETRY__BASE_SECONDS="0.1",
        )
        self.server.start()
        self.addCleanup(self.server.stop)

    def test_down_and_up(self) -> None:
        """While the application is down, pass-through answers 502. Queued requests are done once it is back."""
        status, fields, body = self.server.ask("GET", "/anything")
        self.assertEqual((status, fields["content-type"]), (502, "application/problem+json"))
        status, fields, _ = self.server.ask("POST", "/jobs/1?a=b", b'{"n": 1}')
        self.assertEqual(status, 202)
        self.application.start()
        status, _, body = self.server.ask("GET", fields["location"] + "/body?wait=20")
        self.assertEqual((status, json.loads(body)["path"], json.loads(body)["body"]), (200, "/jobs/1?a=b", {"n": 1}))
        status, _, body = self.server.ask("POST", "/anything", b'{"n": 2}')
        self.assertEqual((status, json.loads(body)["body"], json.loads(body)["attempt"]), (200, {"n": 2}, None))

    def test_held(self) -> None:
        """A client of a queued route sees the application's own answer."""
        self.application.start()
        status, fields, body = self.server.ask("PUT", "/held/2", b'{"n": 3}')
        self.assertEqual((status, fields["x-application"]), (200, "example"))
        document = json.loads(body)
        self.assertEqual((document["method"], document["attempt"], document["body"]), ("PUT", "1", {"n": 3}))

    def test_asked_for(self) -> None:
        """A client may ask for the queue: Prefer: respond-async (RFC 7240, section 4.1)."""
        self.application.start()
        status, fields, _ = self.server.ask("POST", "/anything", b"[]", {"Prefer": "respond-async"})
        self.assertEqual(status, 202)
        self.assertIn("/api/v1/response/", fields["location"])

    def test_own_paths(self) -> None:
        """The paths for operators lie below /_openhqm, and those without it are the application's. The API does not
        move.
        """
        self.application.start()
        for path in ("/health", "/health/ready", "/metrics", "/openapi.json"):
            status, fields, _ = self.server.ask("GET", f"/_openhqm{path}")
            self.assertEqual((status, "x-application" in fields), (200, False), path)
            status, fields, _ = self.server.ask("GET", path)
            self.assertEqual((status, fields["x-application"]), (200, "example"), path)
        status, fields, _ = self.server.ask("GET", "/api/v1/status/none")
        self.assertEqual((status, "x-application" in fields), (404, False))
        listed = json.loads(self.server.ask("GET", "/_openhqm/openapi.json")[2])["paths"]
        self.assertIn("/_openhqm/health", listed)
        self.assertNotIn("/health", listed)
        self.assertEqual(self.server.ask("GET", "/_openhqm/no-such-path")[0], 200)  # the application's

    def test_straight_metrics(self) -> None:
        """Requests that pass straight through are counted by status, and timed."""
        self.assertEqual(self.server.ask("GET", "/anything")[0], 502)
        self.application.start()
        for _ in range(3):
            self.assertEqual(self.server.ask("GET", "/anything")[0], 200)
        text = self.server.ask("GET", "/_openhqm/metrics")[2].decode()
        for line in (
            'openhqm_straight_requests_total{status="200"} 3.0',
            'openhqm_straight_requests_total{status="502"} 1.0',
            'openhqm_straight_requests_total{status="aborted"} 0.0',
            "openhqm_straight_request_duration_seconds_count 4.0",
        ):
            self.assertIn(line, text.splitlines())


class LoopTests(SynchronousTestCase):
    def test_loop(self) -> None:
        """A sidecar whose upstream is itself answers 508, straight and queued, and does not call itself for ever."""
        directory = Path(self.mktemp())
        directory.mkdir()
        server = Server(directory, OPENHQM_PROXY__SIDECAR__ENABLED="true")
        server.environment["OPENHQM_PROXY__SIDECAR__UPSTREAM"] = f"http://127.0.0.1:{server.port}"
        server.start()
        self.addCleanup(server.stop)
        for fields in ({}, {"Prefer": "respond-async, wait=10"}):
            status, _, body = server.ask("POST", "/a", b"x", fields)
            self.assertEqual((status, json.loads(body)["title"]), (508, "Loop Detected"), fields)
