"""A batch is one step: after a kill at any moment all of it is there, or nothing."""

from __future__ import annotations

import http.client
import random
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import apsw
from twisted.trial.unittest import SynchronousTestCase

from tests.brokers import RedisServer
from tests.servers import Server

IN_A_BATCH = 600
ROUNDS = 3
LINES = b'{"payload": "once"}\n' * IN_A_BATCH


class Sender:
    """Sends batches one after the other, until the connection fails; ``accepted`` counts those with a 202."""

    def __init__(self, server: Server) -> None:
        self.accepted = 0
        self.first = Event()
        self._connection = server.connection()
        self._thread = Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        try:
            while self._sent():
                self.accepted += 1
                self.first.set()
        except (OSError, http.client.HTTPException):
            pass  # the process was killed

    def _sent(self) -> bool:
        self._connection.request("POST", "/api/v1/batch", LINES, {"Content-Type": "application/x-ndjson"})
        answer = self._connection.getresponse()
        answer.read()
        return answer.status == 202

    def ended(self) -> int:
        """How many batches have a 202, once none is sent any more."""
        self._thread.join(30)
        assert not self._thread.is_alive()
        self._connection.close()
        return self.accepted


class KillTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()

    def server(self, **environment: str) -> Server:
        server = Server(self.directory, **environment)
        self.addCleanup(lambda: server.process and server.process.poll() is None and server.kill())
        return server

    def rounds(self, server: Server, kill: Callable[[], None], count: Callable[[], int]) -> None:
        moments = random.Random(7)
        accepted = 0
        for _ in range(ROUNDS):
            server.launch("--role", "listener")
            server.until(lambda: server.ask("GET", "/health/ready")[0] == 200, "not ready")
            sender = Sender(server)
            self.assertTrue(sender.first.wait(30), server.log())
            time.sleep(moments.uniform(0, 0.1))  # the moment of the kill is chance, and any of them has to do
            kill()
            accepted += sender.ended()
            found = count()
            self.assertEqual(found % IN_A_BATCH, 0, f"{found} requests of batches of {IN_A_BATCH}")
            self.assertGreaterEqual(found, accepted * IN_A_BATCH)
            accepted = found // IN_A_BATCH  # with those whose answer was lost

    def test_process(self) -> None:
        """The process with the embedded file is killed."""
        server = self.server()

        def count() -> int:
            (path,) = self.directory.rglob("openhqm.db")
            connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
            try:
                ((found,),) = connection.execute("SELECT count(*) FROM messages").fetchall()
                return int(found)
            finally:
                connection.close()

        self.rounds(server, server.kill, count)

    def test_redis(self) -> None:
        """Redis itself is killed, and comes back with what it has written."""
        redis = RedisServer().start()
        self.addCleanup(redis.close)
        server = self.server(OPENHQM_QUEUE__TYPE="redis", OPENHQM_QUEUE__REDIS_URL=redis.url)

        def kill() -> None:
            redis.kill()
            server.kill()

        def count() -> int:
            redis.start()
            keys = redis.command("KEYS", "*:open")
            return int(redis.command("ZCARD", keys[0])) if keys else 0

        self.rounds(server, kill, count)
