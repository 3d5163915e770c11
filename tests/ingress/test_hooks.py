"""Webhooks of others, at the door of a process."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.policy.test_hook_signatures import FORM, github, slack, twilio
from tests.servers import Server

JOBS = """
def handle(work):
    return {"metadata": work.metadata, "payload": work.payload, "event": work.header("X-GitHub-Event")}
"""
HOOKS = {
    "code": {"preset": "github", "secrets": ["one", "two"], "operation": "built"},
    "calls": {"preset": "twilio", "secrets": ["12345"], "url": "https://mycompany.com/myapp.php"},
    "chat": {"preset": "slack", "secrets": ["three"]},
}


class HooksTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        (directory / "jobs.py").write_text(JOBS)
        self.server = Server(directory, OPENHQM_HOOKS=json.dumps(HOOKS), OPENHQM_WORKER__HANDLER="jobs:handle")
        self.server.start()
        self.addCleanup(self.server.stop)

    def deliver(self, name: str, body: bytes, fields: dict[str, str]) -> tuple[int, dict[str, str], Any]:
        status, got, answer = self.server.ask("POST", f"/hooks/{name}", body, fields)
        return status, got, json.loads(answer)

    def response(self, accepted: Any) -> Any:
        path = f"/api/v1/response/{accepted['correlation_id']}?wait=20"
        return json.loads(self.server.ask("GET", path)[2])

    def test_accepted(self) -> None:
        """What is signed is accepted as a request, with its bytes as the payload and the sender's fields."""
        body = b'{"b": 1.10,  "a": 2}'
        fields = {**github("two", body, 0), "X-GitHub-Event": "push", "Content-Type": "application/json"}
        status, _, accepted = self.deliver("code", body, fields)
        self.assertEqual((status, accepted["status"]), (202, "PENDING"))
        result = self.response(accepted)["result"]
        self.assertEqual(result["payload"], {"b": 1.1, "a": 2})
        self.assertEqual((result["metadata"], result["event"]), ({"hook": "code", "operation": "built"}, "push"))

    def test_signed_url(self) -> None:
        """Where the URL is signed, it is the configured one with the query that came: a proxy may have rewritten it."""
        fields = {**twilio("12345", FORM, 0), "Content-Type": "application/x-www-form-urlencoded"}
        self.assertEqual(self.deliver("calls?foo=1&bar=2", FORM, fields)[0], 202)
        self.assertEqual(self.deliver("calls?foo=1&bar=3", FORM, fields)[0], 401)

    def test_once(self) -> None:
        """A delivery that the sender repeats is the same request, also where it tells more this time."""
        body = b'{"a": 1}'
        first = self.deliver("code", body, github("one", body, 0))
        again = self.deliver("code", body, github("two", body, 0))
        self.assertEqual(again[2], first[2])
        self.assertEqual(again[1]["idempotency-replayed"], "true")
        self.assertEqual(self.deliver("code", b"{}", github("one", b"{}", 0))[2], first[2])
        body, at = b'{"event_id": "Ev9"}', int(time.time())
        one, two = (self.deliver("chat", body, slack("three", body, at + each))[2] for each in (0, 1))
        self.assertEqual(one, two)
        body = b"command=%2Fdeploy"
        one, two = (self.deliver("chat", body, slack("three", body, at))[2] for _ in range(2))
        self.assertEqual(one, two)
        self.assertNotEqual(one, self.deliver("chat", body, slack("three", body, at + 1))[2])

    def test_refused(self) -> None:
        """A wrong signature, none, an old one, and one of another hook get the same words, and are not accepted."""
        body, now = b'{"event_id": "Ev1"}', int(time.time())
        answers = [
            self.deliver("code", body, github("three", body, 0)),
            self.deliver("code", body, {}),
            self.deliver("chat", body, slack("three", body, now - 400)),
            self.deliver("chat", body, github("one", body, 0)),
        ]
        self.assertEqual({answer[0] for answer in answers}, {401})
        self.assertEqual({answer[2]["detail"] for answer in answers}, {"the signature does not hold"})
        self.assertEqual(self.deliver("other", body, github("one", body, 0))[0], 404)
        metrics = self.server.ask("GET", "/metrics")[2]
        self.assertIn(b'openhqm_submissions_total{outcome="accepted"} 0.0', metrics)
        self.assertEqual(self.server.ask("GET", "/hooks/code")[0], 405)
        self.assertNotIn("three", self.server.log())
