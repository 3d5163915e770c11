"""The HTTP API of a real server, over real sockets."""

from __future__ import annotations

import atexit
import http.client
import json
import shutil
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.servers import Server

HANDLERS = """
from twisted.internet.task import deferLater
from twisted.internet import reactor
from openhqm.workers.handlers import Response
from openhqm.errors import Reject
from openhqm.workers.handlers import echo

async def handle(work):
    payload = work.payload if isinstance(work.payload, dict) else {}
    if "sleep" in payload:
        work.progress(step="asleep")
        await deferLater(reactor, payload["sleep"])
    if "raise" in payload:
        raise ValueError(payload["raise"])
    if "reject" in payload:
        raise Reject(payload["reject"])
    if "body" in payload:
        return Response(body=payload["body"].encode("latin-1"), status_code=payload.get("status", 200),
                        headers={"Content-Type": "text/plain", "Set-Cookie": "a=b", "X-Own": "1", "ETag": '"e"'})
    if "headers" in payload:
        return {"headers": work.headers, "metadata": work.metadata, "attempt": work.attempt}
    return echo(work)
"""


@cache
def _server_for(name: str) -> Server:
    """A server for all tests of a class, which is stopped after the tests."""
    directory = tempfile.mkdtemp(prefix="openhqm-http-")
    with open(f"{directory}/jobs.py", "w") as file:
        file.write(HANDLERS)
    server = Server(
        directory,
        OPENHQM_WORKER__HANDLER="jobs:handle",
        OPENHQM_WORKER__MAX_RETRIES="1",
        OPENHQM_WORKER__RETRY__BASE_SECONDS="0.2",
        OPENHQM_SERVER__MAX_BODY_BYTES="100000",
    )
    server.start()
    atexit.register(shutil.rmtree, directory)
    atexit.register(server.kill)
    return server


class Case(SynchronousTestCase):
    """The base of test cases whose tests share a server."""

    server: Server

    def setUp(self) -> None:
        self.server = _server_for(type(self).__name__)
        self.directory = str(self.server.directory)

    def ask(self, *arguments: Any, **named: Any) -> tuple[int, dict[str, str], bytes]:
        return self.server.ask(*arguments, **named)

    def post(self, body: Any, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
        return self.ask("POST", "/api/v1/submit", body, headers)

    def problem(self, answer: tuple[int, dict[str, str], bytes], status: int) -> dict[str, Any]:
        """Check a problem document (RFC 9457), and that no request was accepted."""
        self.assertEqual((answer[0], answer[1]["content-type"]), (status, "application/problem+json"), answer)
        document: dict[str, Any] = json.loads(answer[2])
        self.assertEqual(document["status"], status)
        for member in ("type", "title", "detail"):
            self.assertIsInstance(document[member], str)
        return document

    def events(self, correlation_id: str, headers: dict[str, str] | None = None) -> list[dict[str, str]]:
        """The events of a stream that ends."""
        status, fields, body = self.ask("GET", f"/api/v1/events/{correlation_id}", headers=headers)
        self.assertEqual((status, fields["content-type"]), (200, "text/event-stream"))
        return parse_events(body)


def parse_events(body: bytes) -> list[dict[str, str]]:
    """Parse an event stream (HTML standard, section 9.2.6), for streams without unusual lines."""
    events = []
    for block in body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            events.append(fields)
    return events


class SubmittingTests(Case):
    def test_accepted(self) -> None:
        """The 202 holds the id, and header fields that say where the answer and the events will be."""
        status, fields, body = self.post({"payload": {"a": 1}})
        self.assertEqual((status, fields["content-type"]), (202, "application/json"))
        document = json.loads(body)
        correlation_id = document["correlation_id"]
        self.assertEqual((document["status"], uuid.UUID(correlation_id).version), ("PENDING", 4))
        self.assertEqual(fields["location"], f"/api/v1/response/{correlation_id}")
        self.assertEqual(fields["link"], f'</api/v1/events/{correlation_id}>; rel="monitor"')
        self.assertEqual(fields["retry-after"], "1")
        self.assertEqual(self.server.response(correlation_id)["result"], {"a": 1})

    def test_not_json(self) -> None:
        """A body that is not JSON is a 400 that names the position."""
        for body in (
            b"",
            b"{",
            b'{"payload": 1} x',
            b"\xef\xbb\xbf{}",
            '{"payload": 1}'.encode("utf-16"),
            b'{"payload": NaN}',
            b'{"payload": "\\ud800"}',
            b'{"payload": 1, "payload": 2}',
            b'{"payload": ' + b"[" * 70 + b"]" * 70 + b"}",
            b'{"payload": ' + b"[" * 90_000,
            b'{"payload": "\xff"}',
            b"[1]",
        ):
            self.problem(self.post(body), 400)

    def test_not_a_request(self) -> None:
        """JSON that is not a submission is a 422 that names the field."""
        for body, field in (
            ({}, "payload"),
            ({"payload": 1, "paylaod": 2}, "paylaod"),
            ({"payload": 1, "metadata": []}, "metadata"),
            ({"payload": 1, "metadata": {"timeout": 0}}, "metadata.timeout"),
            ({"payload": 1, "metadata": {"timeout": 1e300}}, "metadata.timeout"),
            ({"payload": 1, "metadata": {"timeout": "soon"}}, "metadata.timeout"),
            ({"payload": 1, "metadata": {"priority": "urgent"}}, "metadata.priority"),
            ({"payload": 1, "metadata": {"endpoint": "x"}}, "metadata.endpoint"),
            ({"payload": 1, "metadata": {"callback_url": "https://x"}}, "metadata.callback_url"),
            ({"payload": 1, "headers": {"a b": "c"}}, "headers.a b"),
            ({"payload": 1, "headers": {"a": "b\r\nc: d"}}, "headers.a"),
        ):
            self.assertEqual(self.problem(self.post(body), 422)["field"], field)

    def test_content_type(self) -> None:
        """Content other than JSON in UTF-8 is a 415 that names what is taken."""
        for kind in ("text/plain", "application/x-www-form-urlencoded", "", "application/json; charset=utf-16"):
            answer = self.post(b'{"payload": 1}', {"Content-Type": kind})
            self.problem(answer, 415)
            self.assertEqual(answer[1]["accept-post"], "application/json")
        self.assertEqual(self.post(b'{"payload": 1}', {"Content-Type": "Application/JSON; charset=UTF-8"})[0], 202)

    def test_too_large_at_once(self) -> None:
        """A body with too large a Content-Length is refused before it is read."""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=10) as connection:
            connection.sendall(
                b"POST /api/v1/submit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: 100001\r\n\r\n"
            )
            answer = connection.recv(65536)
            self.assertIn(b" 413 ", answer.split(b"\r\n")[0])
            while connection.recv(65536):
                pass  # and the connection is closed

    def test_too_large_while_streaming(self) -> None:
        """A body in chunks is refused as soon as it is too long."""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=10) as connection:
            connection.sendall(
                b"POST /api/v1/submit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
            answer = b""
            try:
                for _ in range(5):
                    connection.sendall(chunk)
                answer = connection.recv(65536)
            except ConnectionError:
                self.fail("it hung up without an answer")
            self.assertIn(b" 413 ", answer.split(b"\r\n")[0])

    def test_headers_travel(self) -> None:
        """Headers, metadata and the trace context reach the handler."""
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        body = {"payload": {"headers": 1}, "headers": {"X-A": "b"}, "metadata": {"own": {"deep": [1]}}}
        _, _, answer = self.post(body, {"traceparent": trace, "X-Not-Sent": "c"})
        result = self.server.response(json.loads(answer)["correlation_id"])["result"]
        self.assertEqual(
            result, {"headers": {"traceparent": trace, "X-A": "b"}, "metadata": {"own": {"deep": [1]}}, "attempt": 1}
        )

    def test_bytes_travel(self) -> None:
        """The payload is carried byte for byte."""
        payload = b'{"n": 12345678901234567890123,  "f": 1.10, "u": "\\u00e4\xc3\xa4"}'
        correlation_id = json.loads(self.post(b'{"payload": %b }' % payload)[2])["correlation_id"]
        _, _, document = self.ask("GET", f"/api/v1/response/{correlation_id}?wait=10")
        self.assertIn(b'"result":%b,' % payload, document)
        self.assertEqual(self.ask("GET", f"/api/v1/response/{correlation_id}/body")[2], payload)

    def test_prefer_wait(self) -> None:
        """With Prefer: wait the response is the answer where it comes in time; else the 202 is."""
        status, fields, body = self.post({"payload": {"sleep": 0.05}}, {"Prefer": "wait=10"})
        self.assertEqual((status, fields["preference-applied"]), (200, "wait=10"))
        self.assertEqual(json.loads(body)["result"], {"sleep": 0.05})
        started = time.monotonic()
        status, fields, body = self.post({"payload": {"sleep": 5}}, {"Prefer": "wait=1"})
        self.assertEqual(status, 202)
        self.assertTrue(0.9 < time.monotonic() - started < 3)
        self.ask("POST", f"/api/v1/cancel/{json.loads(body)['correlation_id']}")

    def test_respond_async(self) -> None:
        """Prefer: respond-async is acknowledged."""
        status, fields, _ = self.post({"payload": 1}, {"Prefer": "respond-async"})
        self.assertEqual((status, fields["preference-applied"]), (202, "respond-async"))

    def test_event_stream_as_answer(self) -> None:
        """A caller that accepts an event stream gets one, which begins with the acceptance."""
        status, fields, body = self.post({"payload": {"sleep": 0.05}}, {"Accept": "text/event-stream"})
        self.assertEqual((status, fields["content-type"]), (200, "text/event-stream"))
        events = parse_events(body)
        self.assertEqual(events[0]["event"], "accepted")
        self.assertEqual([event["event"] for event in events[-2:]], ["progress", "completed"])
        self.assertEqual(fields["location"][-36:], json.loads(events[0]["data"])["correlation_id"])

    def test_idempotency(self) -> None:
        """The same key and body is the same request. With another body it is refused."""
        key = {"Idempotency-Key": f'"{uuid.uuid4()}"'}
        first = self.post({"payload": "once"}, key)
        again = self.post({"payload": "once"}, {"Idempotency-Key": key["Idempotency-Key"].strip('"')})
        self.assertEqual((first[0], again[0], again[2]), (202, 202, first[2]))
        self.assertEqual((first[1].get("idempotency-replayed"), again[1]["idempotency-replayed"]), (None, "true"))
        self.assertNotIn("/api", self.problem(self.post({"payload": "other"}, key), 422)["detail"])
        for bad in ("", "x" * 256, "a b"):
            self.problem(self.post({"payload": 1}, {"Idempotency-Key": bad}), 400)

    def test_idempotency_in_parallel(self) -> None:
        """A hundred duplicates at once make one request."""
        key = {"Idempotency-Key": str(uuid.uuid4())}
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: self.post({"payload": "once"}, key), range(100)))
        self.assertEqual({answer[0] for answer in answers}, {202})
        self.assertEqual(len({answer[2] for answer in answers}), 1)
        self.assertEqual(sum("idempotency-replayed" not in answer[1] for answer in answers), 1)

    def test_hanging_up(self) -> None:
        """A caller that closes its connection at once has submitted completely or not at all."""
        before = self._accepted()
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", self.server.port)) as connection:
                body = b'{"payload": 1}'
                connection.sendall(
                    b"POST /api/v1/submit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                    b"Prefer: wait=5\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
                )
        self.assertEqual(self.server.response(self.server.submit("after"))["result"], "after")
        self.assertLessEqual(self._accepted(), before + 21)

    def _accepted(self) -> float:
        for line in self.ask("GET", "/metrics")[2].decode().splitlines():
            if line.startswith('openhqm_submissions_total{outcome="accepted"}'):
                return float(line.split()[-1])
        raise AssertionError("not counted")


class AskingTests(Case):
    def test_unknown(self) -> None:
        """An id that was never given out is a 404 on every route, whatever its form."""
        for correlation_id in (str(uuid.uuid4()), "nonsense", "%20", "a" * 500):
            for method, path in (
                ("GET", "/api/v1/status/"),
                ("GET", "/api/v1/response/"),
                ("GET", "/api/v1/events/"),
                ("POST", "/api/v1/cancel/"),
            ):
                self.problem(self.ask(method, path + correlation_id), 404)
        self.problem(self.ask("GET", f"/api/v1/response/{uuid.uuid4()}/body"), 404)

    def test_no_route(self) -> None:
        """An unknown path is a 404, and an unknown method a 405 with Allow."""
        self.problem(self.ask("GET", "/api/v2/submit"), 404)
        self.problem(self.ask("GET", "/api/v1/status/%ff"), 400)
        answer = self.ask("GET", "/api/v1/submit")
        self.problem(answer, 405)
        self.assertIn("POST", answer[1]["allow"])

    def test_status(self) -> None:
        """The status document follows a request, also between attempts."""
        correlation_id = self.server.submit({"raise": "no luck"})
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            document = json.loads(self.ask("GET", f"/api/v1/status/{correlation_id}")[2])
            if "next_attempt_at" in document:
                break
        self.assertEqual((document["status"], document["attempt"]), ("PROCESSING", 1))
        response = self.server.response(correlation_id)
        self.assertEqual((response["status"], response["error"], response["attempt"]), ("FAILED", "no luck", 2))

    def test_response_pending(self) -> None:
        """A request that has not ended is a 202 with the status document, at once or after the wait."""
        correlation_id = self.server.submit({"sleep": 5})
        for path in (f"/api/v1/response/{correlation_id}", f"/api/v1/response/{correlation_id}/body"):
            status, fields, body = self.ask("GET", path)
            self.assertEqual((status, fields["retry-after"]), (202, "1"))
            self.assertIn(json.loads(body)["status"], ("PENDING", "PROCESSING"))
        started = time.monotonic()
        self.assertEqual(self.ask("GET", f"/api/v1/response/{correlation_id}?wait=1")[0], 202)
        self.assertGreater(time.monotonic() - started, 0.9)
        self.problem(self.ask("GET", f"/api/v1/response/{correlation_id}?wait=soon"), 422)
        self.ask("POST", f"/api/v1/cancel/{correlation_id}")

    def test_response_prefer(self) -> None:
        """Prefer: wait waits for a response as the query does, and is acknowledged."""
        correlation_id = self.server.submit({"sleep": 0.1})
        status, fields, _ = self.ask("GET", f"/api/v1/response/{correlation_id}", headers={"Prefer": "wait=10"})
        self.assertEqual((status, fields["preference-applied"]), (200, "wait=10"))

    def test_many_waiters(self) -> None:
        """All long polls are answered by the one ending."""
        correlation_id = self.server.submit({"sleep": 0.3})
        with ThreadPoolExecutor(30) as pool:
            answers = list(pool.map(lambda _: self.ask("GET", f"/api/v1/response/{correlation_id}?wait=10"), range(30)))
        self.assertEqual({(answer[0], answer[2]) for answer in answers}, {(200, answers[0][2])})

    def test_body(self) -> None:
        """The body is served as the handler gave it, with the header fields that describe it and no others."""
        correlation_id = self.server.submit({"body": "caf\xe9\x00", "status": 201})
        self.server.response(correlation_id)
        status, fields, body = self.ask("GET", f"/api/v1/response/{correlation_id}/body")
        self.assertEqual((status, fields["content-type"], body), (201, "text/plain", b"caf\xe9\x00"))
        self.assertEqual((fields["etag"], fields["x-content-type-options"]), ('"e"', "nosniff"))
        self.assertNotIn("set-cookie", fields)
        self.assertNotIn("x-own", fields)
        rejected = self.server.submit({"reject": "never"})
        self.server.response(rejected)
        self.assertEqual(self.problem(self.ask("GET", f"/api/v1/response/{rejected}/body"), 502)["detail"], "never")

    def test_cancel(self) -> None:
        """Cancelling is 200 for a request that waits, 202 for one in progress, and 409 for one that has ended."""
        waiting = self.server.submit(1, delay=100)
        status, _, body = self.ask("POST", f"/api/v1/cancel/{waiting}")
        self.assertEqual((status, json.loads(body)["status"]), (200, "CANCELLED"))
        self.assertEqual(self.server.response(waiting)["status"], "CANCELLED")
        self.problem(self.ask("POST", f"/api/v1/cancel/{waiting}"), 409)
        working = self.server.submit({"sleep": 30})
        while json.loads(self.ask("GET", f"/api/v1/status/{working}")[2])["status"] == "PENDING":
            pass
        self.assertEqual(self.ask("POST", f"/api/v1/cancel/{working}")[0], 202)
        self.assertEqual(self.server.response(working)["status"], "CANCELLED")

    def test_deadline(self) -> None:
        """A request ends at its own deadline."""
        correlation_id = self.server.submit({"sleep": 30}, timeout=0.3)
        self.assertEqual(self.server.response(correlation_id)["status"], "TIMEOUT")

    def test_head(self) -> None:
        """HEAD has the header fields of GET and no body."""
        correlation_id = self.server.submit(1)
        self.server.response(correlation_id)
        status, fields, body = self.ask("HEAD", f"/api/v1/response/{correlation_id}")
        self.assertEqual((status, body), (200, b""))
        self.assertGreater(int(fields["content-length"]), 0)


class ListeningTests(Case):
    def test_whole_history(self) -> None:
        """A stream has all events in order with their ids, and ends with the ending and its result."""
        correlation_id = self.server.submit({"sleep": 0.05})
        events = self.events(correlation_id)
        self.assertEqual([event["event"] for event in events], ["pending", "processing", "progress", "completed"])
        self.assertEqual([event["id"] for event in events], ["1", "2", "3", "4"])
        self.assertEqual(json.loads(events[2]["data"])["step"], "asleep")
        self.assertEqual(json.loads(events[3]["data"])["result"], {"sleep": 0.05})
        self.assertEqual(self.events(correlation_id), events)

    def test_resume(self) -> None:
        """A reader that reconnects gets the events that it missed, and none twice. One that has all gets a 204."""
        correlation_id = self.server.submit({"sleep": 0.05})
        self.server.response(correlation_id)
        events = self.events(correlation_id, {"Last-Event-ID": "2"})
        self.assertEqual([event["id"] for event in events], ["3", "4"])
        self.assertEqual(self.ask("GET", f"/api/v1/events/{correlation_id}?last_event_id=4")[0], 204)
        self.assertEqual(self.ask("GET", f"/api/v1/events/{correlation_id}", headers={"Last-Event-ID": "4"})[0], 204)
        self.problem(self.ask("GET", f"/api/v1/events/{correlation_id}", headers={"Last-Event-ID": "x"}), 422)

    def test_live(self) -> None:
        """Events are sent when they happen, and not at the end."""
        correlation_id = self.server.submit({"sleep": 1.0})
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        connection.request("GET", f"/api/v1/events/{correlation_id}")
        response = connection.getresponse()
        self.assertEqual(response.getheader("cache-control"), "no-store")
        self.assertEqual(response.getheader("x-accel-buffering"), "no")
        started, seen = time.monotonic(), {}
        for line in iter(response.readline, b""):
            if line.startswith(b"event: "):
                seen[line[7:].strip().decode()] = time.monotonic() - started
        connection.close()
        self.assertLess(seen["progress"], 0.7)
        self.assertGreater(seen["completed"], 0.5)

    def test_reader_who_leaves(self) -> None:
        """A reader that closes its connection leaves nothing behind."""
        correlation_id = self.server.submit({"sleep": 2.0})
        sockets = []
        for _ in range(20):
            connection = socket.create_connection(("127.0.0.1", self.server.port), timeout=10)
            connection.sendall(b"GET /api/v1/events/%b HTTP/1.1\r\nHost: x\r\n\r\n" % correlation_id.encode())
            connection.recv(100)
            sockets.append(connection)
        self.assertEqual(self._open_streams(), 20)
        for connection in sockets:
            connection.close()
        deadline = time.monotonic() + 5
        while self._open_streams() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertEqual(self._open_streams(), 0)
        self.ask("POST", f"/api/v1/cancel/{correlation_id}")

    def _open_streams(self) -> float:
        for line in self.ask("GET", "/metrics")[2].decode().splitlines():
            if line.startswith("openhqm_open_streams "):
                return float(line.split()[1])
        raise AssertionError("not counted")


class OperatingTests(Case):
    def test_health(self) -> None:
        """A healthy process says so on three routes."""
        self.assertEqual(json.loads(self.ask("GET", "/health")[2])["status"], "ok")
        self.assertEqual(self.ask("GET", "/health/live")[0], 200)
        self.assertEqual(self.ask("GET", "/health/ready")[0], 200)

    def test_metrics(self) -> None:
        """Every documented metric is there, and no id is a label."""
        correlation_id = self.server.submit({"raise": "x"})
        self.server.response(correlation_id)
        _, fields, body = self.ask("GET", "/metrics")
        self.assertTrue(fields["content-type"].startswith("text/plain; version=0.0.4"))
        text = body.decode()
        for name in (
            'openhqm_submissions_total{outcome="accepted"} 1.0',
            'openhqm_requests_total{outcome="failed"} 1.0',
            "openhqm_retries_total 1.0",
            "openhqm_dead_letters_total 1.0",
            "openhqm_ingest_duration_seconds_count 1.0",
            "openhqm_publish_duration_seconds_count 1.0",
            "openhqm_processing_duration_seconds_count 2.0",
            "openhqm_request_duration_seconds_count 1.0",
            'openhqm_queue_depth{queue="openhqm-dlq",state="ready"} 1.0',
            'openhqm_queue_oldest_age_seconds{queue="openhqm-requests"} 0.0',
            "openhqm_open_streams 0.0",
            "openhqm_connections ",
            "openhqm_buffered_bytes 0.0",
            "openhqm_build_info{",
            "process_resident_memory_bytes",
        ):
            self.assertIn(name, text)
        self.assertNotIn(correlation_id, text)


class DrainingTests(Case):
    def test_waiters_are_answered(self) -> None:
        """A process that is told to stop answers its long polls, and ends with 0 within its limit."""
        server = Server(
            tempfile.mkdtemp(dir=self.directory),
            OPENHQM_WORKER__HANDLER="jobs:handle",
            OPENHQM_SERVER__DRAIN_SECONDS="5",
            PYTHONPATH=f"{self.directory}:{self.server.variables()['PYTHONPATH']}",
        )
        server.start()
        quick, slow = server.submit({"sleep": 1}), server.submit({"sleep": 60})
        answers: dict[str, Any] = {}

        def wait(correlation_id: str) -> None:
            answers[correlation_id] = server.ask("GET", f"/api/v1/response/{correlation_id}?wait=50", timeout=60)

        waiters = [threading.Thread(target=wait, args=(one,)) for one in (quick, slow)]
        for waiter in waiters:
            waiter.start()
        time.sleep(0.3)  # until both wait, which cannot be seen from outside
        started = time.monotonic()
        self.assertEqual(server.stop(), 0)
        self.assertLess(time.monotonic() - started, 12)
        for waiter in waiters:
            waiter.join()
        self.assertEqual((answers[quick][0], answers[slow][0]), (200, 202))
        server.start()
        self.assertEqual(server.response(quick, wait=0)["result"], {"sleep": 1})
        status = json.loads(server.ask("GET", f"/api/v1/status/{slow}")[2])
        self.assertEqual((status["status"], status["attempt"]), ("PROCESSING", 1))
        server.kill()


class FullTests(Case):
    def test_shed(self) -> None:
        """Where a request waits in its queue, none is taken behind it: 503, metric, warning. Repeats are answered."""
        server = Server(
            tempfile.mkdtemp(dir=self.directory),
            OPENHQM_WORKER__HANDLER="jobs:handle",
            OPENHQM_WORKER__COUNT="1",
            OPENHQM_QUEUE__LIMITS__SHED_WAITING="1",
            PYTHONPATH=f"{self.directory}:{self.server.variables()['PYTHONPATH']}",
        )
        server.start()
        self.addCleanup(server.kill)
        held = server.submit({"sleep": 60})
        self.wait_for(lambda: json.loads(server.ask("GET", f"/api/v1/status/{held}")[2])["status"] == "PROCESSING")
        fields = {"Content-Type": "application/json"}

        def submit(key: str) -> tuple[int, Any, bytes]:
            return server.ask("POST", "/api/v1/submit", {"payload": 1}, {**fields, "Idempotency-Key": f'"{key}"'})

        self.wait_for(lambda: submit("first")[0] == 202)  # what began since the queue was looked at is not known
        status, answered, _ = submit("second")
        self.assertEqual((status, answered["retry-after"]), (503, "5"))
        self.assertEqual(submit("first")[0], 202)
        self.assertIn("queue.limits.shed_waiting", str(json.loads(server.ask("GET", "/health")[2])["warnings"]))
        self.assertIn('openhqm_requests_shed_total{reason="waiting"}', server.ask("GET", "/metrics")[2].decode())

    def wait_for(self, condition: Callable[[], bool]) -> None:
        due = time.monotonic() + 30
        while not condition():
            self.assertLess(time.monotonic(), due)
            time.sleep(0.05)

    def test_full(self) -> None:
        """A full queue answers 503 and when to repeat, stays ready, and says how full it is; reads go on."""
        server = Server(
            tempfile.mkdtemp(dir=self.directory),
            OPENHQM_WORKER__HANDLER="jobs:handle",
            OPENHQM_QUEUE__LIMITS__REQUESTS="1",
            PYTHONPATH=f"{self.directory}:{self.server.variables()['PYTHONPATH']}",
        )
        server.start()
        self.addCleanup(server.kill)
        held = server.submit({"sleep": 60})
        body, fields = {"payload": 1}, {"Content-Type": "application/json"}
        status, answered, document = server.ask("POST", "/api/v1/submit", body, fields)
        self.assertEqual((status, answered["retry-after"]), (503, "5"))
        self.assertNotIn("limits", document.decode())
        self.assertEqual(server.ask("GET", "/health/ready")[0], 200)
        queue = json.loads(server.ask("GET", "/health")[2])["queue"]
        self.assertEqual(queue["requests"], {"open": 1, "limit": 1})
        self.assertEqual(server.ask("GET", f"/api/v1/status/{held}")[0], 200)
        text = server.ask("GET", "/metrics")[2].decode()
        for sample in ('openhqm_submissions_total{outcome="unavailable"} 1.0', "openhqm_requests_open 1.0"):
            self.assertIn(sample, text)
        self.assertEqual(server.ask("POST", f"/api/v1/cancel/{held}")[0], 202)
        server.submit({"sleep": 0})
