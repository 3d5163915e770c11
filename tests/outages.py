"""Test cases for outages of a broker: what callers and operators of a real server see over HTTP."""

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
"""How many seconds the load tests keep a broker away."""
TIMEOUT = 2.0
"""How long a broker may take for an answer: long for one that works, on a machine that other tests keep busy."""
NO_HANG = TIMEOUT + 2.0
CALLERS = 4
SLOW = """
import random
from twisted.internet.task import deferLater

async def handle(work):
    from twisted.internet import reactor
    await deferLater(reactor, random.uniform(0, 0.02))
    return work.payload
"""


class ServerCase(SynchronousTestCase):
    """A server with listener and workers, and what it answers while its broker cannot be used."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        (self.directory / "jobs.py").write_text(SLOW)

    def server_on(self, backend: Mapping[str, str], before: str = "") -> Server:
        """A server on the backend that the settings name. Not started. ``before``: Python that runs in it first."""
        server = Server(
            self.directory,
            before,
            OPENHQM_QUEUE__LEASE_SECONDS="2",
            OPENHQM_WORKER__HANDLER="jobs:handle",
            OPENHQM_WORKER__MAX_RETRIES="1000",
            **backend,
        )
        self.addCleanup(lambda: server.process and server.process.poll() is None and server.kill())
        return server

    def launch(self, server: Server) -> None:
        """Start a server that cannot become ready. It listens all the same."""
        server.launch()
        server.until(lambda: server.ask("GET", "/health/live")[0] == 200, "it does not listen")

    def refuses(self, server: Server, *expected: str) -> None:
        """The server becomes not ready, and the reason contains all of ``expected``.

        A submission is a 503 with Retry-After. Neither request hangs.
        """
        server.until(lambda: self.says(server, *expected), "the outage is not noticed")
        status, fields, body = server.ask("POST", "/api/v1/submit", {"payload": 1}, timeout=NO_HANG)
        self.assertEqual((status, fields["content-type"]), (503, "application/problem+json"), body)
        self.assertGreater(int(fields["retry-after"]), 0)
        self.assertEqual(server.ask("GET", "/health/live")[0], 200)  # a restart would not help

    def says(self, server: Server, *expected: str) -> bool:
        status, _, body = server.ask("GET", "/health/ready", timeout=NO_HANG)
        return status == 503 and all(text in body.decode() for text in expected)

    def recovers(self, server: Server) -> None:
        """The server accepts requests again by itself, becomes ready, and works."""
        again = {"payload": "again"}
        server.until(lambda: server.ask("POST", "/api/v1/submit", again)[0] == 202, "it did not recover", 60)
        server.until(lambda: server.ask("GET", "/health/ready")[0] == 200, "it is not ready")
        self.assertEqual(server.response(server.submit("again"))["result"], "again")

    def status(self, server: Server, correlation_id: str) -> int:
        return server.ask("GET", f"/api/v1/status/{correlation_id}")[0]

    def refuses_once_asked(self, server: Server, *expected: str) -> None:
        """The outage is noticed when a write is refused, and not before."""
        self.assertEqual(server.ask("POST", "/api/v1/submit", {"payload": 1}, timeout=NO_HANG)[0], 503)
        self.refuses(server, *expected)


class LoadedServerCase(ServerCase):
    """A server under load: callers go on submitting while the broker is away."""

    server: Server

    def setUp(self) -> None:
        super().setUp()
        self.accepted: dict[str, int] = {}
        self.answers: Counter[int] = Counter()
        self.wrong: list[str] = []
        self.finished = threading.Event()

    def call(self, first: int) -> None:
        """Submit one number after the other. Each has an answer within `NO_HANG` seconds, a 202 or a 503."""
        number = first
        while not self.finished.is_set():
            try:
                status, _, body = self.server.ask("POST", "/api/v1/submit", {"payload": number}, timeout=NO_HANG)
            except (OSError, http.client.HTTPException) as error:
                self.wrong.append(f"submission {number} had no answer: {error!r}")
                continue
            self.answers[status] += 1
            if status == 202:
                self.accepted[json.loads(body)["correlation_id"]] = number
            elif status != 503:
                self.wrong.append(f"submission {number}: {status} {body!r}")
            number += CALLERS
            time.sleep(0.02)

    def under_load(self, begin: Callable[[], object], end: Callable[[], object]) -> None:
        """Run ``begin`` and, after `PAUSE_SECONDS`, ``end`` under load.

        Every answer is a 202 or a 503, and each 202 ends with its own result.
        """
        callers = [threading.Thread(target=self.call, args=(first,)) for first in range(CALLERS)]
        for caller in callers:
            caller.start()
        try:
            self.server.until(lambda: self.answers[202] > 50, "nothing is accepted")
            begin()
            time.sleep(PAUSE_SECONDS)  # the length of the outage, and not a wait for something
            refused, accepted = self.answers[503], self.answers[202]
            end()
            self.server.until(lambda: self.answers[202] > accepted + 50, "nothing is accepted any more", 60)
        finally:
            self.finished.set()
            for caller in callers:
                caller.join()
        self.assertEqual(self.wrong, [])
        self.assertGreater(refused, 0)
        for correlation_id, number in self.accepted.items():
            self.assertEqual(self.server.response(correlation_id, wait=30)["result"], number)
        self.recovers(self.server)
