"""The examples, run as the README of theirs says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.servers import ROOT, free_port

EXAMPLES = ROOT / "examples"


def run(name: str) -> str:
    """What an example prints; `AssertionError` with all of it where it fails."""
    # The environment's own programs, as they lie beside the Python that runs this.
    environment = {**os.environ, "BIN": str(Path(sys.executable).parent)}
    environment |= {"PORT": str(free_port()), "TARGET_PORT": str(free_port())}
    done = subprocess.run(
        ["bash", str(EXAMPLES / name / "run.sh")], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class ExamplesTests(SynchronousTestCase):
    """Three patterns: HTTP -> queue, queue -> HTTP, both; and the sidecar"""

    def test_http_to_queue(self) -> None:
        """Callers see progress and the answer, and nothing of an attempt that failed."""
        out = run("http-to-queue")
        self.assertIn('"percent":100', out)
        self.assertIn('"result":{"image":"cat.png","size":"small"}', out)
        self.assertIn('"result":{"words":3,"attempts":2}', out)

    def test_queue_to_http(self) -> None:
        """What others put into the queue arrives, and what one customer did in the order in which it was done."""
        out = run("queue-to-http")
        arrived = re.findall(r'^200 .*"customer": "(\w+)", "event": "(\w+)"', out, re.MULTILINE)
        self.assertEqual([event for customer, event in arrived if customer == "ada"], ["ordered", "paid", "shipped"])
        self.assertEqual([event for customer, event in arrived if customer == "bob"], ["ordered"])
        self.assertIn("503 ", out)

    def test_async_proxy(self) -> None:
        """Callers get the service's answers, also where it failed before, and a route has its own way."""
        out = run("async-proxy")
        self.assertEqual(
            re.findall(r'"path": "/orders/(\d)", "attempt": "(\d)"', out), [("1", "1"), ("2", "1"), ("3", "2")]
        )
        self.assertIn('"method": "PUT", "path": "/mail"', out)
        self.assertIn('"body": {"to": "ada@example.org", "subject": "Hello"}', out)

    def test_sidecar(self) -> None:
        """Most goes straight through; what a rule or the client says waits in the queue, and is done."""
        out = run("sidecar")
        self.assertIn('"path": "/shop?item=1", "attempt": null', out)
        self.assertRegex(out, r'"path": "/reports/2026", "attempt": "\d", "body": \{"year": 2026\}')
        self.assertEqual(out.count("HTTP/1.1 202 Accepted"), 2)

    def test_each_is_tried(self) -> None:
        """No example is left out above."""
        self.assertEqual(
            {path.parent.name for path in EXAMPLES.glob("*/run.sh")},
            {"http-to-queue", "queue-to-http", "async-proxy", "sidecar"},
        )
