"""One whole server on a broker that things happen to, as callers and operators meet it: over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.servers import Server

PAUSE_SECONDS = float(os.environ.get("PAUSE_SECONDS", "3"))
"""How long the load tests keep a broker away."""
TIMEOUT = 1.0
NO_HANG = 2.0
CALLERS = 4
SLOW = """
import random
from twisted.internet.task import deferLater

async def handle(work):
    from twisted.internet import reactor
    await deferLater(reactor, random.uniform(0, 0.02))
    return work.payload
"""


class Served(SynchronousTestCase):
    """A server that accepts and works, and what it says when the broker under it is in unavailable_reason."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        (self.directory / "jobs.py").write_text(SLOW)

    def server_on(self, backend: Mapping[str, str]) -> Server:
        """One whose settings name that backend. It is not started."""
        server = Server(
            self.directory,
            OPENHQM_QUEUE__LEASE_SECONDS="2",
            OPENHQM_WORKER__HANDLER="jobs:handle",
            OPENHQM_WORKER__MAX_RETRIES="1000",
            **backend,
        )
        self.addCleanup(lambda: server.process and server.process.poll() is None and server.kill())
        return server

    def launch(self, server: Server) -> None:
        """Start it where it cannot be ready: the door opens all the same."""
        server.launch()
        server.until(lambda: server.ask("GET", "/health/live")[0] == 200, "the door is closed")

    def refuses(self, server: Server, *words: str) -> None:
        """Not ready, with words; a submission is 503 with a time to come back, and neither hangs."""
        server.until(lambda: self.says(server, *words), "nobody noticed")
        status, fields, body = server.ask("POST", "/api/v1/submit", {"payload": 1}, timeout=NO_HANG)
        self.assertEqual((status, fields["content-type"]), (503, "application/problem+json"), body)
        self.assertGreater(int(fields["retry-after"]), 0)
        self.assertEqual(server.ask("GET", "/health/live")[0], 200)  # to start anew would not help

    def says(self, server: Server, *words: str) -> bool:
        status, _, body = server.ask("GET", "/health/ready", timeout=NO_HANG)
        return status == 503 and all(word in body.decode() for word in words)

    def recovers(self, server: Server) -> None:
        """Accepting again by itself, and ready; what is accepted then is worked on."""
        again = {"payload": "again"}
        server.until(lambda: server.ask("POST", "/api/v1/submit", again)[0] == 202, "it did not recover", 60)
        server.until(lambda: server.ask("GET", "/health/ready")[0] == 200, "it is not ready")
        self.assertEqual(server.response(server.submit("again"))["result"], "again")

    def status(self, server: Server, correlation_id: str) -> int:
        return server.ask("GET", f"/api/v1/status/{correlation_id}")[0]

    def refuses_once_asked(self, server: Server, *words: str) -> None:
        """It is noticed when a write is refused, and not before."""
        self.assertEqual(server.ask("POST", "/api/v1/submit", {"payload": 1}, timeout=NO_HANG)[0], 503)
        self.refuses(server, *words)


class Loaded(Served):
    """Callers who do not stop while the broker is away."""

    at: Server

    def setUp(self) -> None:
        super().setUp()
        self.told: dict[str, int] = {}
        self.answers: Counter[int] = Counter()
        self.wrong: list[str] = []
        self.enough = threading.Event()

    def call(self, first: int) -> None:
        """Submit one number after the other. Each has an answer within the limit: 202, or 503."""
        number = first
        while not self.enough.is_set():
            try:
                status, _, body = self.at.ask("POST", "/api/v1/submit", {"payload": number}, timeout=NO_HANG)
            except (OSError, http.client.HTTPException) as error:
                self.wrong.append(f"submission {number} had no answer: {error!r}")
                continue
            self.answers[status] += 1
            if status == 202:
                self.told[json.loads(body)["correlation_id"]] = number
            elif status != 503:
                self.wrong.append(f"submission {number}: {status} {body!r}")
            number += CALLERS
            time.sleep(0.02)

    def under_load(self, away: Callable[[], object], back: Callable[[], object]) -> None:
        """Every answer is 202 or 503, and each 202 ends with its own result."""
        callers = [threading.Thread(target=self.call, args=(first,)) for first in range(CALLERS)]
        for caller in callers:
            caller.start()
        try:
            self.at.until(lambda: self.answers[202] > 50, "nothing is accepted")
            away()
            time.sleep(PAUSE_SECONDS)  # it is the time that it is away, and not a wait for something
            refused, accepted = self.answers[503], self.answers[202]
            back()
            self.at.until(lambda: self.answers[202] > accepted + 50, "nothing is accepted any more", 60)
        finally:
            self.enough.set()
            for caller in callers:
                caller.join()
        self.assertEqual(self.wrong, [])
        self.assertGreater(refused, 0)
        for correlation_id, number in self.told.items():
            self.assertEqual(self.at.response(correlation_id, wait=30)["result"], number)
        self.recovers(self.at)
