"""The examples, run as their README says."""

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
    """The output of an example. `AssertionError` with all of it where the example fails."""
    # The programs of the environment, which lie beside the Python that runs this test.
    environment = {**os.environ, "BIN": str(Path(sys.executable).parent)}
    environment |= {"PORT": str(free_port()), "TARGET_PORT": str(free_port())}
    done = subprocess.run(
        ["bash", str(EXAMPLES / name / "run.sh")], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class ExamplesTests(SynchronousTestCase):
    """The three patterns (HTTP -> queue, queue -> HTTP, both) and the sidecar"""

    def test_http_to_queue(self) -> None:
        """Callers see progress and the answer, and not the attempt that failed."""
        out = run("http-to-queue")
        self.assertIn('"percent":100', out)
        self.assertIn('"result":{"image":"cat.png","size":"small"}', out)
        self.assertIn('"result":{"words":3,"attempts":2}', out)

    def test_queue_to_http(self) -> None:
        """Events from another program arrive, those of each customer in order."""
        out = run("queue-to-http")
        arrived = re.findall(r'^200 .*"customer": "(\w+)", "event": "(\w+)"', out, re.MULTILINE)
        self.assertEqual([event for customer, event in arrived if customer == "ada"], ["ordered", "paid", "shipped"])
        self.assertEqual([event for customer, event in arrived if customer == "bob"], ["ordered"])
        self.assertIn("503 ", out)

    def test_async_proxy(self) -> None:
        """Callers get the service's answers, also after a failure, and a route has its own endpoint and content."""
        out = run("async-proxy")
        self.assertEqual(
            re.findall(r'"path": "/orders/(\d)", "attempt": "(\d)"', out), [("1", "1"), ("2", "1"), ("3", "2")]
        )
        self.assertIn('"method": "PUT", "path": "/mail"', out)
        self.assertIn('"body": {"to": "ada@example.org", "subject": "Hello"}', out)

    def test_sidecar(self) -> None:
        """Most requests are passed through. Those that a rule or the client queues are done later."""
        out = run("sidecar")
        self.assertIn('"path": "/shop?item=1", "attempt": null', out)
        self.assertRegex(out, r'"path": "/reports/2026", "attempt": "\d", "body": \{"year": 2026\}')
        self.assertEqual(out.count("HTTP/1.1 202 Accepted"), 2)

    def test_all_are_run(self) -> None:
        """Every example is run by a test above."""
        self.assertEqual(
            {path.parent.name for path in EXAMPLES.glob("*/run.sh")},
            {"http-to-queue", "queue-to-http", "async-proxy", "sidecar"},
        )
