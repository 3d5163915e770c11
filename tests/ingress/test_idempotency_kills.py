"""A hundred callers repeat one submission at the same time, and a process is killed in the middle: one request."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import apsw
from twisted.trial.unittest import SynchronousTestCase

from tests.brokers import RedisServer
from tests.servers import Server

CALLERS = 100
BODY = b'{"payload": "once"}'
FIELDS = {"Content-Type": "application/json", "Idempotency-Key": "order-17"}


class KillTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()

    def server(self, **environment: str) -> Server:
        server = Server(self.directory, **environment)
        self.addCleanup(lambda: server.process and server.process.poll() is None and server.kill())
        self.launch(server)
        return server

    def launch(self, server: Server) -> None:
        server.launch("--role", "listener")
        server.until(lambda: server.ask("GET", "/health/ready")[0] == 200, "not ready")

    def repeat(self, servers: Sequence[Server], number: int, first: Event) -> tuple[str, bool]:
        """Submit it at the next process, until there is an answer. The id, and whether it is a repeat."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            number += 1
            try:
                status, fields, body = servers[number % len(servers)].ask("POST", "/api/v1/submit", BODY, FIELDS)
            except (OSError, http.client.HTTPException):
                time.sleep(0.01)  # the process is killed, or not yet there again; the deadline stands above
                continue
            if status == 202:
                first.set()
                return json.loads(body)["correlation_id"], fields.get("idempotency-replayed") == "true"
            self.assertEqual(status, 503, body)
        raise AssertionError("no answer in time")

    def one_id(self, servers: Sequence[Server], again: bool) -> str:
        """The id that all callers get. The first of ``servers`` is killed once one of them has it."""
        first = Event()
        with ThreadPoolExecutor(CALLERS) as callers:
            asked = [callers.submit(self.repeat, servers, number, first) for number in range(CALLERS)]
            self.assertTrue(first.wait(60))
            servers[0].kill()
            if again:
                self.launch(servers[0])
            answers = [each.result() for each in asked]
        ids = {id for id, _ in answers}
        self.assertEqual(len(ids), 1, ids)
        self.assertGreaterEqual(sum(replayed for _, replayed in answers), CALLERS - 1)
        (id,) = ids
        return id

    def test_file(self) -> None:
        """The process with the embedded file is killed, and another one comes after it."""
        server = self.server()
        id = self.one_id([server], again=True)
        self.assertEqual(server.ask("GET", f"/api/v1/status/{id}")[0], 200)
        server.kill()
        (path,) = self.directory.rglob("openhqm.db")
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        self.addCleanup(connection.close)
        self.assertEqual(connection.execute("SELECT count(*) FROM messages").fetchall(), [(1,)])

    def test_redis(self) -> None:
        """Two processes share a Redis, and one of them is killed: the other one knows the key."""
        redis = RedisServer().start()
        self.addCleanup(redis.close)
        store = {"OPENHQM_QUEUE__TYPE": "redis", "OPENHQM_QUEUE__REDIS_URL": redis.url}
        killed, other = self.server(**store), self.server(**store)
        id = self.one_id([killed, other], again=False)
        self.assertEqual(other.ask("GET", f"/api/v1/status/{id}")[0], 200)
        (key,) = redis.command("KEYS", "*:open")
        self.assertEqual(int(redis.command("ZCARD", key)), 1)
