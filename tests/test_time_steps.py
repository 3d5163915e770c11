"""A process whose machine has its clock set, an hour forward or back, while it works."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.brokers import RedisServer
from tests.servers import Server

STEP = 3600
SETTABLE = f"""
import signal, time
_time, _step = time.time, [0.0]
time.time = lambda: _time() + _step[0]
signal.signal(signal.SIGUSR1, lambda number, frame: _step.append(_step.pop() + {STEP}))
signal.signal(signal.SIGUSR2, lambda number, frame: _step.append(_step.pop() - {STEP}))
"""
JOBS = """
from twisted.internet import reactor
from twisted.internet.task import deferLater
from openhqm.errors import RetryLater

async def handle(work):
    if work.payload == "again" and work.attempt == 1:
        raise RetryLater(3)
    if work.payload == "slow":
        await deferLater(reactor, 60)
    return {"deadline": work.deadline, "attempt": work.attempt}
"""


class StepsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="openhqm-steps-"))
        self.addCleanup(shutil.rmtree, self.directory)
        (self.directory / "jobs.py").write_text(JOBS)
        self.threads = ThreadPoolExecutor(8)
        self.addCleanup(self.threads.shutdown)

    def start(self, step: float = 0, **environment: str) -> Server:
        settable = f"{SETTABLE}_step[0] = {step}\n"
        server = Server(self.directory, settable, OPENHQM_WORKER__HANDLER="jobs:handle", **environment)
        self.addCleanup(lambda: server.process and server.process.poll() is None and server.kill())
        server.start()
        return server

    def step(self, server: Server, number: signal.Signals) -> None:
        assert server.process is not None
        server.process.send_signal(number)
        server.ask("GET", "/health/live")

    def ending(self, server: Server, correlation_id: str) -> tuple[float, dict[str, Any]]:
        """When the request ended, by the time of this process, and its response."""
        document = server.response(correlation_id, 20)
        return time.monotonic(), document

    def near(self, found: float, expected: float) -> None:
        """A step is an hour; half a minute is for a machine that does other work, too."""
        self.assertLess(abs(found - expected), 30, (found, expected))

    def on_time(self, at: float, due: float) -> None:
        """Not early, but for the part of a second that a text leaves open; not later than such a machine may be."""
        self.assertGreater(at, due - 1.2)
        self.assertLess(at, due + 10)

    def ahead(self, text: str) -> float:
        """How far a time in a document is ahead of the real time of day."""
        return datetime.fromisoformat(text).timestamp() - time.time()


class StepTests(StepsCase):
    def _steps(self, number: signal.Signals, step: float, shown: float | None = None, **environment: str) -> None:
        shown = step if shown is None else shown
        server = self.start(OPENHQM_SERVER__DRAIN_SECONDS="1", **environment)
        began = time.monotonic()
        submitted = {
            "delayed": server.submit("delayed", delay=3),
            "again": server.submit("again"),
            "slow": server.submit("slow", timeout=3),
        }
        stream = self.threads.submit(server.ask, "GET", f"/api/v1/events/{submitted['delayed']}")
        self.step(server, number)
        later = server.submit("now")
        at, document = self.ending(server, later)
        self.on_time(at, began)
        self.near(self.ahead(document["completed_at"]), shown)
        self.near(document["result"]["deadline"] - time.time() - step, 300)
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + step + 3))
        submitted["not before"] = server.submit("named", not_before=moment)
        endings = {
            name: self.threads.submit(self.ending, server, correlation_id) for name, correlation_id in submitted.items()
        }
        for name, ending in endings.items():
            at, document = ending.result(30)
            self.on_time(at, began + 3)
            self.assertEqual(document["status"], "TIMEOUT" if name == "slow" else "COMPLETED", name)
            self.near(self.ahead(document["completed_at"]), shown)
        self.assertIn(b"event: completed", stream.result(5)[2])
        status = json.loads(server.ask("GET", f"/api/v1/status/{submitted['delayed']}")[2])
        self.near(self.ahead(status["submitted_at"]), shown)
        if "expires_at" in status:
            self.near(self.ahead(status["expires_at"]), shown + 3600)
        server.submit("slow")
        began = time.monotonic()
        self.assertEqual(server.stop(), 0)
        self.assertLess(time.monotonic() - began, 15)

    def test_back(self) -> None:
        """Set back by an hour: delays, retries, deadlines, streams and the stop take as long as they should."""
        self._steps(signal.SIGUSR2, -STEP)

    def test_forward(self) -> None:
        """Set forward by an hour: nothing falls due before its time."""
        self._steps(signal.SIGUSR1, STEP)

    def test_in_memory(self) -> None:
        """The same without a file."""
        self._steps(signal.SIGUSR2, -STEP, OPENHQM_QUEUE__TYPE="memory")
        self._steps(signal.SIGUSR1, STEP, OPENHQM_QUEUE__TYPE="memory")

    def test_redis(self) -> None:
        """The same over Redis, whose time decides, and is shown."""
        redis = RedisServer()
        self.addCleanup(redis.close)
        redis.start()
        for number, step in ((signal.SIGUSR2, -STEP), (signal.SIGUSR1, STEP)):
            self._steps(number, step, 0, OPENHQM_QUEUE__TYPE="redis", OPENHQM_QUEUE__REDIS_URL=redis.url)

    def test_restarted(self) -> None:
        """Set while a process runs that is then killed, and while none runs: a delay takes as long as it should."""
        server = self.start()
        began = time.monotonic()
        delayed = server.submit("delayed", delay=8)
        self.step(server, signal.SIGUSR2)
        named = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - STEP + 8))
        submitted = [delayed, server.submit("named", not_before=named)]
        server.kill()
        server = self.start(-STEP)
        self.assertEqual(server.stop(), 0)
        server = self.start(STEP)
        ready = time.monotonic()
        for correlation_id in submitted:
            at, document = self.ending(server, correlation_id)
            self.on_time(at, max(began + 8, ready))
            self.assertEqual(document["status"], "COMPLETED")
            self.near(self.ahead(document["completed_at"]), STEP)
