"""The examples, run as their README says."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.brokers import find_mosquitto
from tests.custom.beanstalkd import find_beanstalkd
from tests.kafka.server import shared_kafka
from tests.servers import ROOT, free_port

EXAMPLES = ROOT / "examples"


def run(name: str, directory: str | None = None, **more: str) -> str:
    """The output of an example, run in ``directory``. `AssertionError` with all of it where the example fails."""
    # The programs of the environment, which lie beside the Python that runs this test.
    environment = {**os.environ, "BIN": str(Path(sys.executable).parent)}
    environment |= {"PORT": str(free_port()), "TARGET_PORT": str(free_port()), "MQTT_PORT": str(free_port())}
    environment |= {"BEANSTALKD_PORT": str(free_port()), **more}
    done = subprocess.run(
        ["bash", str(EXAMPLES / name / "run.sh")],
        env=environment,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
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

    def test_in_its_own_folder(self) -> None:
        """A ``jobs.py`` where the reader is does not take the place of the one in the folder of the example."""
        here = Path(self.mktemp())
        here.mkdir()
        (here / "jobs.py").write_text("def resize(work):\n    return 'of the reader'\n\n\ncount = resize\n")
        self.assertIn('"result":{"words":3,"attempts":2}', run("http-to-queue", str(here)))

    def test_can_be_pasted(self) -> None:
        """A shell reads what is printed behind ``$`` as the command that was run."""
        lines = [line[2:] for line in run("async-proxy").splitlines() if line.startswith("$ ")]
        self.assertEqual(lines[0], f"cd {EXAMPLES / 'async-proxy'}")
        *_, payload = shlex.split(lines[-1])
        self.assertEqual(json.loads(payload)["payload"]["address"], "ada@example.org")
        self.assertIn("Content-Type: application/json", shlex.split(lines[-1]))

    def test_ports(self) -> None:
        """Each example has ports of its own, the same in script and configuration; none is 8000 or 8080."""
        found: list[str] = []
        for name in ("http-to-queue", "queue-to-http", "async-proxy", "sidecar"):
            ports = re.compile(r"PORT:-(\d+)\}")
            scripted, configured = (
                ports.findall((EXAMPLES / name / file).read_text()) for file in ("run.sh", "cfg.yaml")
            )
            self.assertEqual(set(scripted), set(configured), name)
            found += scripted
        self.assertEqual(len(set(found) - {"8000", "8080"}), len(found), found)

    def test_port_in_use(self) -> None:
        """An example does not talk to what else listens on its port: it says so, and fails."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            environment = {**os.environ, "BIN": str(Path(sys.executable).parent), "PORT": str(port)}
            command = ["bash", str(EXAMPLES / "http-to-queue" / "run.sh")]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"port {port} is in use", done.stderr)

    def test_mqtt_edge(self) -> None:
        """Readings arrive, also those from the time without a line, in order; a command comes back answered."""
        find_mosquitto()
        if shutil.which("mosquitto_pub") is None:
            raise SkipTest("mosquitto_pub is not installed: apt-get install mosquitto-clients")
        out = run("mqtt-edge")
        arrived = re.findall(r'^200 .*"path": "/readings/(\d)", "attempt": "\d+", "body": ([\d.]+)', out, re.MULTILINE)
        self.assertEqual([value for sensor, value in arrived if sensor == "1"], ["20.5", "20.7", "21", "21.5", "22"])
        self.assertEqual([value for sensor, value in arrived if sensor == "2"], ["18.25"])
        self.assertIn('"result":{"lamp": 7, "done": {"id": 7, "on": true}}', out)

    def test_beanstalkd(self) -> None:
        """A product that OpenHQM does not know holds the queue, and jobs of other programs are answered in a tube."""
        find_beanstalkd()
        out = run("beanstalkd")
        self.assertRegex(out, r'"status":"COMPLETED","result":\{.*"body": \{"customer": "ada"\}')
        self.assertRegex(out, r'WATCHING 2\nRESERVED \d+ \d+\n\{.*"path": "/bills".*"body": \{"customer": "bob"\}')
        self.assertIn("- openhqm-requests\n", out)

    def test_kafka_orders(self) -> None:
        """Orders of another program reach the service in the order of their keys, and are answered in a topic."""
        out = run("kafka-orders", KAFKA=shared_kafka().bootstrap)
        answered = re.findall(r"^(\w+-\w+) COMPLETED \{", out, re.MULTILINE)
        self.assertEqual(sorted(answered), ["ada-chair", "ada-lamp", "ada-table", "bob-clock"])
        items = re.findall(r'^200 .*"customer": "ada", "item": "(\w+)"', out, re.MULTILINE)
        self.assertEqual(items, ["lamp", "table", "chair"])

    def test_all_are_run(self) -> None:
        """Every example is run by a test above."""
        self.assertEqual(
            {path.parent.name for path in EXAMPLES.glob("*/run.sh")},
            {"http-to-queue", "queue-to-http", "async-proxy", "sidecar", "mqtt-edge", "beanstalkd", "kafka-orders"},
        )
