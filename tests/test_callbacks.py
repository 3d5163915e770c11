"""Callbacks of whole processes, to a receiver on a real port that verifies them by the library of Standard Webhooks."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Condition, Thread
from typing import Any

from standardwebhooks import Webhook
from twisted.trial.unittest import SynchronousTestCase

from tests.brokers import Mosquitto, RedisServer
from tests.config.test_callbacks import SECRET
from tests.servers import Server, free_port

JOBS = """
from openhqm.errors import Reject

def work(job):
    if job.payload == "refuse":
        raise Reject("not today")
    return {"done": job.payload}
"""


class Receiver:
    """Answers each callback with the next of ``statuses``, and with the last one for ever."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.came = Condition()
        self.on_callback: Callable[[], object] = lambda: None
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.on_callback()
                with receiver.came:
                    receiver.received.append(({name.lower(): value for name, value in self.headers.items()}, content))
                    status = receiver.statuses.pop(0) if len(receiver.statuses) > 1 else receiver.statuses[0]
                    receiver.came.notify_all()
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.port = free_port()
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        Thread(target=self._server.serve_forever, daemon=True).start()
        self.origin = f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait(self, count: int) -> list[tuple[dict[str, str], Any]]:
        """The header fields and the verified documents of the callbacks, once so many have come."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.received) >= count, 60), f"{len(self.received)} of {count}"
            return [(fields, Webhook(SECRET).verify(content, fields)) for fields, content in self.received]


class BadReceiver:
    """Hangs, redirects to ``elsewhere``, or answers 10 GiB; it counts ``requests``, and the bytes it has ``sent``."""

    def __init__(self, kind: str, elsewhere: str) -> None:
        self.requests = self.sent = 0
        self._kind = kind
        self._elsewhere = elsewhere
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._kept: list[socket.socket] = []
        self.origin = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._kept.append(connection)
            Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        try:
            while connection.recv(65536):
                self.requests += 1
                if self._kind == "redirect":
                    head = f"HTTP/1.1 307 Elsewhere\r\nLocation: {self._elsewhere}/\r\nContent-Length: 0\r\n\r\n"
                    connection.sendall(head.encode())
                elif self._kind == "endless":
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n")
                    while True:
                        self.sent += connection.send(b"x" * 65536)
        except OSError:
            pass

    def close(self) -> None:
        self._socket.close()
        for each in self._kept:
            each.close()


class CallbackTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="openhqm-callbacks-"))
        self.addCleanup(shutil.rmtree, self.directory)
        (self.directory / "jobs.py").write_text(JOBS)

    def receiver(self, *statuses: int) -> Receiver:
        receiver = Receiver(*statuses)
        self.addCleanup(receiver.close)
        return receiver

    def server(self, receiver: Receiver, **environment: str) -> Server:
        callbacks = {"secrets": [SECRET], "allow": [receiver.origin], "schedule": [1, 1, 1]}
        server = Server(
            self.directory,
            **{
                "OPENHQM_WORKER__HANDLER": "jobs:work",
                "OPENHQM_CALLBACKS": json.dumps(callbacks),
                **environment,
            },
        )
        self.addCleanup(lambda: server.process and server.process.poll() is None and server.kill())
        server.start()
        return server

    def submit(self, server: Server, payload: Any, url: str, **metadata: Any) -> tuple[int, Any]:
        body = {"payload": payload, "metadata": {"callback_url": url, **metadata}}
        status, _, answer = server.ask("POST", "/api/v1/submit", body, {"Content-Type": "application/json"})
        return status, json.loads(answer)

    def test_each_ending(self) -> None:
        """The receiver gets the response document of a request, however it has ended, and under the id of the 202."""
        receiver = self.receiver(204)
        server = self.server(receiver)
        expected = {}
        for payload, status, metadata in (
            ("well", "COMPLETED", {}),
            ("refuse", "FAILED", {}),
            ("late", "TIMEOUT", {"timeout": 0.5, "delay": 0.4}),
            ("never", "CANCELLED", {"delay": 3600}),
        ):
            code, accepted = self.submit(server, payload, f"{receiver.origin}/done?for={payload}", **metadata)
            self.assertEqual(code, 202, accepted)
            expected[accepted["correlation_id"]] = status
            if status == "CANCELLED":
                server.ask("POST", f"/api/v1/cancel/{accepted['correlation_id']}")
        found = {fields["webhook-id"]: document for fields, document in receiver.wait(len(expected))}
        for id, status in expected.items():
            shown = json.loads(server.ask("GET", f"/api/v1/response/{id}")[2])
            shown.pop("expires_at")
            self.assertEqual(found[id], shown)
            if status != "TIMEOUT":  # it may have begun, and been done, before its deadline
                self.assertEqual(found[id]["status"], status)

    def elsewhere(self, **queue: str) -> None:
        """An attempt is refused, the process is killed, and the next one sends the callback under the same id."""
        receiver = self.receiver(503, 200)
        server = self.server(receiver, **queue)
        code, accepted = self.submit(server, "well", f"{receiver.origin}/")
        self.assertEqual(code, 202, accepted)
        receiver.wait(1)
        server.kill()
        server.start()
        (first, before), (second, after) = receiver.wait(2)[:2]
        self.assertEqual((first["webhook-id"], before), (second["webhook-id"], after))
        self.assertEqual(first["webhook-id"], accepted["correlation_id"])

    def test_redis(self) -> None:
        """In Redis."""
        redis = RedisServer().start()
        self.addCleanup(redis.close)
        # It may be killed before the outcome of the attempt is stored: then its lease has to end.
        lease = {"OPENHQM_QUEUE__LEASE_SECONDS": "3"}
        self.elsewhere(OPENHQM_QUEUE__TYPE="redis", OPENHQM_QUEUE__REDIS_URL=redis.url, **lease)

    def test_over_a_broker(self) -> None:
        """Over a broker, with the ledger in the file, and in Redis."""
        for ledger in ("file", "redis"):
            mosquitto, redis = Mosquitto().start(), RedisServer().start()
            self.addCleanup(mosquitto.close)
            self.addCleanup(redis.close)
            beside = {"OPENHQM_CACHE__TYPE": "redis", "OPENHQM_CACHE__REDIS_URL": redis.url}
            self.elsewhere(
                OPENHQM_QUEUE__TYPE="mqtt",
                OPENHQM_QUEUE__MQTT_HOST="127.0.0.1",
                OPENHQM_QUEUE__CONNECTION__MQTT__PORT=str(mosquitto.port),
                **(beside if ledger == "redis" else {}),
            )

    def test_killed(self) -> None:
        """The process is killed after an attempt that the receiver refused: the next process sends it, under one id."""
        receiver = self.receiver(503, 200)
        server = self.server(receiver)
        _, accepted = self.submit(server, "well", f"{receiver.origin}/")
        receiver.wait(1)
        server.kill()
        server.start()
        (first, before), (second, after) = receiver.wait(2)[:2]
        self.assertEqual((first["webhook-id"], before), (second["webhook-id"], after))
        self.assertEqual(first["webhook-id"], accepted["correlation_id"])

    def test_killed_before_it_is_sent(self) -> None:
        """The process is killed after the ending, before any worker was there: the next one sends the callback.

        It is the workers that send callbacks: a process without them keeps them for one that has some.
        """
        receiver = self.receiver(204)
        server = self.server(receiver, OPENHQM_WORKER__ENABLED="false", OPENHQM_WORKER__HANDLER="")
        _, accepted = self.submit(server, "well", f"{receiver.origin}/")
        status, _, _ = server.ask("POST", f"/api/v1/cancel/{accepted['correlation_id']}")
        self.assertEqual(status, 200)
        server.kill()
        self.assertEqual(receiver.received, [])
        self.server(receiver)
        ((fields, document),) = receiver.wait(1)
        self.assertEqual((fields["webhook-id"], document["status"]), (accepted["correlation_id"], "CANCELLED"))

    def test_killed_before_it_is_noted(self) -> None:
        """The process is killed when the receiver has the callback, before that is stored: it comes again."""
        receiver = self.receiver(204)
        server = self.server(receiver)
        receiver.on_callback = server.kill
        self.submit(server, "well", f"{receiver.origin}/")
        receiver.wait(1)
        receiver.on_callback = lambda: None
        server.start()
        (first, before), (second, after) = receiver.wait(2)
        self.assertEqual((first["webhook-id"], before), (second["webhook-id"], after))

    def test_bad_receivers(self) -> None:
        """One that hangs, redirects to loopback or answers 10 GiB holds up no request, and is called by the schedule.

        The redirect is not followed, and no more of the long answer is read than is allowed.
        """
        elsewhere = self.receiver(204)
        for kind in ("hang", "redirect", "endless"):
            bad = BadReceiver(kind, elsewhere.origin)
            self.addCleanup(bad.close)
            callbacks = {"secrets": [SECRET], "allow": [bad.origin], "schedule": [0.1], "timeout": 1}
            server = self.server(elsewhere, OPENHQM_CALLBACKS=json.dumps(callbacks), OPENHQM_WORKER__COUNT="1")
            for _ in range(3):
                self.submit(server, "well", f"{bad.origin}/")
            began = time.monotonic()
            status, _, answer = server.ask(
                "POST", "/api/v1/submit", {"payload": 1}, {"Content-Type": "application/json", "Prefer": "wait=20"}
            )
            self.assertEqual((status, json.loads(answer)["status"]), (200, "COMPLETED"), kind)
            self.assertLess(time.monotonic() - began, 20)
            server.until(lambda: self.dead(server) == 3, f"{kind}: no dead letters")  # noqa: B023
            self.assertEqual(bad.requests, 6, kind)
            self.assertLess(bad.sent, 64 << 20)
            server.kill()
            shutil.rmtree(self.directory / "data")
        self.assertEqual(elsewhere.received, [])

    def dead(self, server: Server) -> int:
        """How many callbacks are dead letters."""
        return len(json.loads(server.ask("GET", "/api/v1/dead-letters?endpoint=callbacks")[2])["dead_letters"])

    def test_dead(self) -> None:
        """What no attempt delivers is a dead letter of the callbacks; redriven, it is sent again under the same id."""
        receiver = self.receiver(500)
        server = self.server(receiver, OPENHQM_CALLBACKS__SCHEDULE="[0.1]")
        self.submit(server, "well", f"{receiver.origin}/")
        receiver.wait(2)

        def letters() -> Any:
            return json.loads(server.ask("GET", "/api/v1/dead-letters?endpoint=callbacks")[2])["dead_letters"]

        server.until(lambda: len(letters()) == 1, "no dead letter")
        receiver.statuses = [200]
        self.assertEqual(letters()[0]["reason_class"], "attempts_exhausted")
        answer = server.ask(
            "POST",
            "/api/v1/dead-letters/redrive",
            {"filter": {"endpoint": "callbacks"}},
            {"Content-Type": "application/json"},
        )
        self.assertEqual(answer[0], 200, answer)
        ids = {fields["webhook-id"] for fields, _ in receiver.wait(3)}
        self.assertEqual(len(ids), 1)
        server.until(lambda: not letters(), "it is dead again")

    def test_refused(self) -> None:
        """A URL that must not be called is 422 at once, always with the same words; nothing is accepted."""
        receiver = self.receiver(204)
        server = self.server(receiver)
        port = receiver.port
        for url in (
            "http://example.com/",
            "https://127.0.0.1/",
            f"https://127.0.0.1:{port}/",
            f"http://localhost:{port}/",
            f"http://2130706433:{port}/",
            f"http://0x7f.1:{port}/",
            f"http://[::ffff:127.0.0.1]:{port}/",
            f"http://user@127.0.0.1:{port}/",
            "https://169.254.169.254/latest/meta-data",
            "https://example.com:22/",
            "file:///etc/passwd",
            "https://example.com/#fragment",
            "",
        ):
            status, problem = self.submit(server, 1, url)
            self.assertEqual((status, problem["field"]), (422, "metadata.callback_url"), url)
            self.assertIn("the destination is not allowed", problem["detail"])
        for url in (1, None, ["https://example.com/"]):
            self.assertEqual(self.submit(server, 1, url)[0], 422, url)  # type: ignore[arg-type]
        self.assertEqual(receiver.received, [])

    def test_without_secrets(self) -> None:
        """Without a secret to sign with, a callback is refused, and the way out is named."""
        server = Server(self.directory)
        self.addCleanup(lambda: server.process and server.process.poll() is None and server.kill())
        server.start()
        status, problem = self.submit(server, 1, "https://example.com/")
        self.assertEqual(status, 422)
        self.assertIn("callbacks.secrets", problem["detail"])

    def test_sidecar(self) -> None:
        """``X-Callback-Url`` of a request in the queue is its callback, and the application does not see it."""
        application, receiver = self.receiver(201), self.receiver(204)
        server = self.server(
            receiver,
            OPENHQM_WORKER__HANDLER="",
            OPENHQM_PROXY__SIDECAR__ENABLED="true",
            OPENHQM_PROXY__SIDECAR__UPSTREAM=application.origin,
            OPENHQM_PROXY__SIDECAR__ASYNC_RULES=json.dumps([{"path": "/orders/*"}]),
        )
        fields = {"X-Callback-Url": f"{receiver.origin}/done", "Content-Type": "application/json"}
        status, _, answer = server.ask("POST", "/orders/1", {"a": 1}, fields)
        self.assertEqual(status, 202, answer)
        ((received, document),) = receiver.wait(1)
        self.assertEqual(received["webhook-id"], json.loads(answer)["correlation_id"])
        self.assertEqual(document["status_code"], 201)
        self.assertNotIn("x-callback-url", application.received[0][0])
        refused = server.ask("POST", "/orders/1", {"a": 1}, {**fields, "X-Callback-Url": "http://10.0.0.1/"})
        self.assertEqual(refused[0], 422, refused)
