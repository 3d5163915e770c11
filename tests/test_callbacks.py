"""Callbacks of whole processes, to a receiver on a real port that verifies them by the library of Standard Webhooks."""

from __future__ import annotations

import json
import shutil
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Condition, Thread
from typing import Any

from standardwebhooks import Webhook
from twisted.trial.unittest import SynchronousTestCase

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
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
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
            assert self.came.wait_for(lambda: len(self.received) >= count, 30), f"{len(self.received)} of {count}"
            return [(fields, Webhook(SECRET).verify(content, fields)) for fields, content in self.received]


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
