"""A real server is killed while it redrives: no dead letter is lost, and none is redriven twice."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
from collections import defaultdict
from http.client import HTTPException
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.redis.bench import shared_redis
from tests.servers import Server

LETTERS = 60
HANDLERS = """
import json, os
from openhqm.errors import Reject

def handle(work):
    if not os.path.exists("mended"):
        raise Reject("not yet")
    with open("done", "a") as file:
        file.write(json.dumps([work.metadata["redriven_from"], work.correlation_id]) + "\\n")
"""


class KillTests(SynchronousTestCase):
    def killed(self, kills: int = 2, **environment: str) -> None:
        """Fail requests, and redrive all of them by a server that is killed again and again."""
        directory = Path(tempfile.mkdtemp(prefix="openhqm-dead-"))
        self.addCleanup(shutil.rmtree, directory)
        (directory / "jobs.py").write_text(HANDLERS)
        server = Server(
            directory,
            OPENHQM_WORKER__HANDLER="jobs:handle",
            OPENHQM_WORKER__EXECUTOR="reactor",
            OPENHQM_QUEUE__LEASE_SECONDS="1",
            **environment,
        )
        server.start()
        self.addCleanup(lambda: server.process and server.process.poll() is None and server.kill())
        ids = [server.submit(number) for number in range(LETTERS)]
        server.until(lambda: len(self.letters(server)) == LETTERS, "not all have failed")
        (directory / "mended").touch()
        for _ in range(kills):
            asking = threading.Thread(target=self.redrive, args=(server, 100.0))
            before = len(self.letters(server))
            asking.start()
            server.until(lambda: len(self.letters(server)) < before, "nothing is redriven")  # noqa: B023
            server.kill()
            asking.join()
            server.start()
        self.assertGreater(len(self.letters(server)), 0, "it was killed too late to show anything")
        server.until(lambda: self.redrive(server) is None and not self.letters(server), "some are left")
        path = directory / "done"
        new: dict[str, set[str]] = defaultdict(set)

        def all_done() -> bool:
            new.clear()
            for line in path.read_text().splitlines():
                old, correlation_id = json.loads(line)
                new[old].add(correlation_id)
            return len(new) == LETTERS

        server.until(all_done, "not all were handled again")
        self.assertEqual(sorted(new), sorted(ids))
        self.assertEqual({len(each) for each in new.values()}, {1}, "one was redriven twice")

    def letters(self, server: Server) -> list[int]:
        status, _, body = server.ask("GET", "/api/v1/dead-letters?limit=1000")
        self.assertEqual(status, 200, body)
        return [letter["number"] for letter in json.loads(body)["dead_letters"]]

    def redrive(self, server: Server, rate: float | None = None) -> None:
        body = {"filter": {}, "rate": rate, "limit": 1000}
        with contextlib.suppress(OSError, HTTPException):
            server.ask("POST", "/api/v1/dead-letters/redrive", body)

    def test_embedded_file(self) -> None:
        """In the embedded file"""
        self.killed()

    def test_redis(self) -> None:
        """In Redis"""
        self.killed(OPENHQM_QUEUE__TYPE="redis", OPENHQM_QUEUE__REDIS_URL=shared_redis().url)
