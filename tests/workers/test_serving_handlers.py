"""A server whose handlers block, hang and crash in each place where handlers run: it goes on serving."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.servers import Server

JOBS = """
import asyncio, os, time

def block(work):
    time.sleep(work.payload["seconds"])
    return "done"

async def nap(work):
    await asyncio.sleep(work.payload["seconds"])
    return "slept"

def apart(work):
    work.progress(pid=os.getpid())
    if work.payload["seconds"] < 0:
        os.abort()
    time.sleep(work.payload["seconds"])
    return os.getpid()
"""
HANDLERS = {
    name: f"jobs:{function}"
    for name, function in (("thread", "block"), ("reactor", "block"), ("asyncio", "nap"), ("process", "apart"))
}


class ServingHandlersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="openhqm-handlers-"))
        self.addCleanup(shutil.rmtree, self.directory)
        (self.directory / "jobs.py").write_text(JOBS)
        self.server = Server(
            self.directory,
            OPENHQM_WORKER__HANDLERS=json.dumps({**HANDLERS, "nap": "jobs:nap"}),
            OPENHQM_WORKER__EXECUTORS='{"reactor": "reactor", "asyncio": "asyncio", "process": "process"}',
            OPENHQM_WORKER__COUNT="1",
            OPENHQM_WORKER__TIMEOUT_SECONDS="2",
            OPENHQM_WORKER__MAX_RETRIES="0",
        )
        self.server.start()
        self.addCleanup(self.stop)

    def stop(self) -> None:
        self.assertEqual(self.server.stop(), 0)

    def submit(self, operation: str, seconds: float) -> str:
        return self.server.submit({"seconds": seconds}, operation=operation)

    def response(self, operation: str, seconds: float) -> Any:
        return self.server.response(self.submit(operation, seconds))

    def test_answers(self) -> None:
        """Each handler answers where it runs."""
        for operation, result in (("thread", "done"), ("reactor", "done"), ("asyncio", "slept")):
            self.assertEqual(self.response(operation, 0.01)["result"], result)
        pid = self.response("process", 0)["result"]
        self.assertNotEqual(pid, self.server.process and self.server.process.pid)
        self.assertEqual(self.response("process", 0)["result"], pid)
        self.stop()
        self.assertRaises(ProcessLookupError, os.kill, pid, 0)

    def test_time_outs(self) -> None:
        """While a handler hangs, everything else is served, and the time-out holds. Only a thread keeps its slot."""
        for operation in ("process", "asyncio", "thread"):
            began = time.monotonic()
            hanging, behind = self.submit(operation, 4), self.submit("asyncio", 0)
            self.assertEqual(self.server.ask("GET", "/health/live")[0], 200)
            self.assertLess(time.monotonic() - began, 1)
            document = self.server.response(hanging)
            self.assertEqual((document["status"], document["error"]), ("TIMEOUT", "no answer within 2 s"))
            self.assertLess(time.monotonic() - began, 3.5)
            self.assertEqual(self.server.response(behind)["status"], "COMPLETED")
            (self.assertGreater if operation == "thread" else self.assertLess)(time.monotonic() - began, 3.8)

    def test_crash(self) -> None:
        """A process that crashes is a failed attempt of its request, and of no other one."""
        document = self.response("process", -1)
        self.assertEqual(document["status"], "FAILED")
        self.assertEqual(document["error"], "the process of the handler ended with signal 6")
        self.assertEqual(self.response("process", 0)["status"], "COMPLETED")

    def test_holding(self) -> None:
        """A handler that holds the reactor is named in the log, and one that needs asyncio gets the cure."""
        self.assertEqual(self.response("reactor", 1.2)["result"], "done")
        self.assertIn("the handler jobs:block has held the reactor for 1.", self.server.log())
        document = self.response("nap", 0.01)
        self.assertEqual(document["status"], "FAILED")
        self.assertIn("NeedsAsyncio: no running event loop", document["error"])
        self.assertIn("Set worker.executor: asyncio", document["error"])
