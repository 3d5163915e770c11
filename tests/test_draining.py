"""A process that is told to stop, while its door serves callers."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

from twisted.trial.unittest import SynchronousTestCase

from tests.brokers import RedisServer
from tests.servers import Server

LARGE = 9_000_000
JOBS = f"""
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from twisted.internet.threads import deferToThread
from openhqm.workers.handlers import Response

def large(work):
    return Response(body=b"x" * {LARGE})

def slow(work):
    time.sleep(1.5)
    return "done"

async def deferring(work):
    print("deferring", flush=True)
    await deferToThread(time.sleep, 30)

def holding(work):
    print("holding", flush=True)
    while True:
        time.sleep(0.1)

async def leaving(work):
    ThreadPoolExecutor(1).submit(time.sleep, 30)
    threading.Thread(target=time.sleep, args=(30,), name="left").start()
    print("left behind", flush=True)
    return "done"
"""


def refuses(port: int) -> bool:
    """Whether nothing listens there any more."""
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return True
    return False


class Application(BaseHTTPRequestHandler):
    """Answers in its own time: ``/head`` late, ``/body`` in pieces, ``/events`` by events, ``/endless`` for ever."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/head":
            time.sleep(1.5)
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        count = 10**6 if self.path == "/endless" else 8
        try:
            for number in range(count):
                self._chunk(b"data: %d\n\n" % number)
                time.sleep(0.2)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True  # the gateway has cut the connection

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def log_message(self, *arguments: object) -> None:
        pass


class DrainCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="openhqm-draining-"))
        self.addCleanup(shutil.rmtree, self.directory)
        (self.directory / "jobs.py").write_text(JOBS)
        self.threads = ThreadPoolExecutor(8)
        self.addCleanup(self.threads.shutdown)

    def start(self, *arguments: str, **environment: str) -> Server:
        server = Server(self.directory, OPENHQM_MONITORING__LOG_FORMAT="text", **environment)
        self.addCleanup(lambda: server.process and server.process.poll() is None and server.kill())
        server.start(*arguments)
        return server

    def sidecar(self, drain: str) -> Server:
        application = ThreadingHTTPServer(("127.0.0.1", 0), Application)
        application.daemon_threads = True
        Thread(target=application.serve_forever, daemon=True).start()
        self.addCleanup(application.server_close)
        self.addCleanup(application.shutdown)
        return self.start(
            OPENHQM_SERVER__DRAIN_SECONDS=drain,
            OPENHQM_PROXY__SIDECAR__ENABLED="true",
            OPENHQM_PROXY__SIDECAR__UPSTREAM=f"http://127.0.0.1:{application.server_port}",
        )

    def served(self, server: Server, path: str) -> tuple[Event, Future[bytes]]:
        """Request ``path``. An event when the server has the request, and the body of the answer in the future."""
        begun = Event()

        def ask() -> bytes:
            connection = server.connection()
            connection.request("GET", path)
            begun.set()
            return connection.getresponse().read()

        return begun, self.threads.submit(ask)


class DrainTests(DrainCase):
    def test_application(self) -> None:
        """The application's answers that are under way arrive whole: those that have not begun, those that have."""
        server = self.sidecar("20")
        asked = [self.served(server, path) for path in ("/head", "/body", "/events")]
        for begun, _ in asked:
            begun.wait(5)
        server.until(lambda: b"openhqm_connections 4.0" in server.ask("GET", "/_openhqm/metrics")[2], "not begun")
        began = time.monotonic()
        self.assertEqual(server.stop(), 0)
        self.assertLess(time.monotonic() - began, 15, "it waited for more than the answers")
        for _, answer in asked:
            self.assertEqual(answer.result(5), b"".join(b"data: %d\n\n" % number for number in range(8)))
        self.assertRegex(server.log(), "0 requests are being worked on, 3 connections are being served")

    def test_endless(self) -> None:
        """What is served beyond the limit is cut, so that its client can tell; the log says so, and the exit is 0."""
        server = self.sidecar("1")
        begun, answer = self.served(server, "/endless")
        begun.wait(5)
        server.until(lambda: b"openhqm_connections 2.0" in server.ask("GET", "/_openhqm/metrics")[2], "not begun")
        began = time.monotonic()
        self.assertEqual(server.stop(), 0)
        self.assertLess(time.monotonic() - began, 10)
        self.assertRaises((http.client.IncompleteRead, ConnectionError), answer.result, 5)
        self.assertRegex(server.log(), "1 connection is still being served after 1 s")

    def test_slow_reader(self) -> None:
        """A caller that reads a large body slowly gets all of it."""
        server = self.start(OPENHQM_WORKER__HANDLERS='{"large": "jobs:large"}', OPENHQM_SERVER__DRAIN_SECONDS="20")
        done = server.submit(None, operation="large")
        server.response(done)
        for keep_alive in (b"keep-alive", b"close"):
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
                client.settimeout(20)
                client.connect(("127.0.0.1", server.port))
                request = b"GET /api/v1/response/%b/body HTTP/1.1\r\nHost: x\r\nConnection: %b\r\n\r\n"
                client.sendall(request % (done.encode(), keep_alive))
                head = client.recv(1000)
                assert server.process is not None
                server.process.send_signal(signal.SIGTERM)
                server.until(lambda: "openhqm is stopping" in server.log(), "it does not stop")
                body = head.partition(b"\r\n\r\n")[2]
                size, pauses = len(body), 0
                while piece := client.recv(1_000_000):
                    size += len(piece)
                    pauses += 1
                    if pauses < 15:
                        time.sleep(0.05)  # a slow reader, not a wait
                self.assertEqual(size, LARGE, keep_alive)
                self.assertEqual(server.process.wait(20), 0)
                server.start()

    def test_attempts(self) -> None:
        """The log counts the requests that are worked on, and the connections of callers that wait for them."""
        server = self.start(
            OPENHQM_WORKER__HANDLER="jobs:slow",
            OPENHQM_WORKER__EXECUTOR="thread",
            OPENHQM_SERVER__DRAIN_SECONDS="20",
        )
        _, answer = self.served(server, "/health/live")
        answer.result(5)
        waited = server.submit(None)
        _, answer = self.served(server, f"/api/v1/response/{waited}?wait=10")
        server.until(lambda: b"openhqm_connections 2.0" in server.ask("GET", "/metrics")[2], "not begun")
        self.assertEqual(server.stop(), 0)
        self.assertIn(b'"result":"done"', answer.result(5))
        self.assertRegex(server.log(), "1 request is being worked on, 1 connection is being served")

    def test_listener(self) -> None:
        """A caller of a process without workers gets the answer that another process makes in that time."""
        redis = RedisServer()
        self.addCleanup(redis.close)
        redis.start()
        shared = {"OPENHQM_QUEUE__TYPE": "redis", "OPENHQM_QUEUE__REDIS_URL": redis.url}
        server = self.start("--role", "listener", **shared, OPENHQM_SERVER__DRAIN_SECONDS="20")
        worker = Server(self.directory, **shared, OPENHQM_WORKER__HANDLER="jobs:slow")
        self.addCleanup(lambda: worker.process and worker.process.poll() is None and worker.kill())
        worker.launch("--role", "worker")
        server.response(server.submit(None), 20)  # the worker has started
        waiting = self.threads.submit(server.ask, "POST", "/api/v1/submit", {"payload": None}, {"Prefer": "wait=15"})
        server.until(lambda: b"openhqm_connections 2.0" in server.ask("GET", "/metrics")[2], "not begun")
        began = time.monotonic()
        self.assertEqual(server.stop(), 0)
        self.assertLess(time.monotonic() - began, 15)
        status, _, body = waiting.result(5)
        self.assertEqual((status, json.loads(body)["result"]), (200, "done"))

    def test_kept_connections(self) -> None:
        """The next request on a connection that is kept is accepted where the store is shared, because other processes
        go on with it, and refused where this process has the store for itself. The answer ends the connection."""
        redis = RedisServer()
        self.addCleanup(redis.close)
        redis.start()
        shared = {"OPENHQM_QUEUE__TYPE": "redis", "OPENHQM_QUEUE__REDIS_URL": redis.url}
        for role, settings, expected in (("listener", shared, 202), ("all", shared, 202), ("all", {}, 503)):
            slow = {"OPENHQM_WORKER__HANDLER": "jobs:slow", "OPENHQM_WORKER__EXECUTOR": "thread"}
            server = self.start("--role", role, **settings, **slow, OPENHQM_SERVER__DRAIN_SECONDS="20")
            kept, busy = server.connection(), server.connection()
            kept.request("GET", "/health/live")
            self.assertEqual(kept.getresponse().read(), b'{"status":"live"}')
            if expected == 503:  # a connection that is idle once nothing is worked on is closed
                fields = {"Content-Type": "application/json", "Prefer": "wait=15"}
                busy.request("POST", "/api/v1/submit", b'{"payload": null}', fields)
                server.until(lambda server=server: b"openhqm_connections 3.0" in server.ask("GET", "/metrics")[2], "no")
            assert server.process is not None
            server.process.send_signal(signal.SIGTERM)
            server.until(lambda server=server: refuses(server.port), "the port is open")
            kept.request("POST", "/api/v1/submit", b'{"payload": 1}', {"Content-Type": "application/json"})
            response = kept.getresponse()
            self.assertEqual((response.status, response.getheader("Connection")), (expected, "close"), response.read())
            self.assertEqual(server.process.wait(20), 0)

    def test_new_connections(self) -> None:
        """A connection that was made before the port is closed is answered; a later one is refused. None is reset."""
        server = self.start(OPENHQM_SERVER__DRAIN_SECONDS="5")
        outcomes: list[str] = []
        over = Event()

        def call() -> None:
            while not over.is_set():
                try:
                    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
                        client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                        outcomes.append("answered" if client.recv(1000) else "closed")
                except ConnectionRefusedError:
                    outcomes.append("refused")
                    return
                except OSError as error:
                    outcomes.append(repr(error))

        for _ in range(3):
            callers = [self.threads.submit(call) for _ in range(8)]
            server.until(lambda: outcomes.count("answered") > 200, "no answers")
            self.assertEqual(server.stop(), 0)
            over.set()
            for caller in callers:
                caller.result(20)
            self.assertEqual(set(outcomes), {"answered", "refused"})
            outcomes.clear()
            over.clear()
            server.start()


class ThreadsTests(DrainCase):
    """Functions of handlers that run in threads, and do not return"""

    def until_said(self, server: Server, text: str, times: int = 1) -> None:
        server.until(lambda: server.log().count(text) >= times, "the handler was not called")

    def test_limit(self) -> None:
        """The process ends with 0 inside its limit, and the log names the threads that it left."""
        for handler, said in (("deferring", "deferring"), ("leaving", "left behind")):
            server = self.start(OPENHQM_WORKER__HANDLER=f"jobs:{handler}", OPENHQM_SERVER__DRAIN_SECONDS="1")
            server.submit(None)
            self.until_said(server, said)
            began = time.monotonic()
            self.assertEqual(server.stop(), 0)
            self.assertLess(time.monotonic() - began, 15, handler)
            if handler == "leaving":
                self.assertRegex(server.log(), "does not wait for these threads, which are not its own: .*left")

    def test_held_up(self) -> None:
        """A handler that holds the reactor for ever does not keep the process from ending: with 1, and said so."""
        server = Server(
            self.directory,
            "from openhqm.runtime import ending\nending.LATE_SECONDS = 1",
            OPENHQM_WORKER__HANDLER="jobs:holding",
            OPENHQM_WORKER__EXECUTOR="reactor",
            OPENHQM_SERVER__DRAIN_SECONDS="0.5",
        )
        self.addCleanup(lambda: server.process and server.process.poll() is None and server.kill())
        server.start()
        server.submit(None)
        self.until_said(server, "holding")
        began = time.monotonic()
        self.assertEqual(server.stop(), 1)
        self.assertLess(time.monotonic() - began, 15)
        self.assertIn("the process has not stopped 1 s after its drain limit", server.log())

    def test_connecting(self) -> None:
        """Handlers that wait in threads keep no request from being forwarded, by name or by address."""
        application = ThreadingHTTPServer(("127.0.0.1", 0), Application)
        application.daemon_threads = True
        Thread(target=application.serve_forever, daemon=True).start()
        self.addCleanup(application.server_close)
        self.addCleanup(application.shutdown)
        port = application.server_port
        server = self.start(
            OPENHQM_WORKER__HANDLER="jobs:deferring",
            OPENHQM_WORKER__COUNT="14",
            OPENHQM_SERVER__DRAIN_SECONDS="0",
            OPENHQM_PROXY__ENABLED="true",
            OPENHQM_PROXY__ENDPOINTS=json.dumps(
                {
                    "named": {"url": f"http://localhost:{port}/body", "method": "GET"},
                    "addressed": {"url": f"http://127.0.0.1:{port}/body", "method": "GET"},
                }
            ),
        )
        for _ in range(12):
            server.submit(None)
        self.until_said(server, "deferring", 12)
        for endpoint in ("named", "addressed"):
            self.assertEqual(server.response(server.submit(None, endpoint=endpoint))["status"], "COMPLETED")
