"""Rate limits that several processes on one Redis keep together."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase, TestCase

from openhqm.policy.api_keys import Role
from openhqm.redis.taken import SILENT_SECONDS, Taken
from tests.brokers import RedisServer
from tests.ingress.test_access import made, write
from tests.redis.bench import RedisBench
from tests.servers import Server

RATE = 20
SECONDS = 3.0
JSON = {"Content-Type": "application/json"}


class TakenTests(TestCase):
    """The count in Redis, by its time"""

    timeout = 60

    async def test_owed(self) -> None:
        """What was taken adds up over processes and is paid for by the time that passes; each limit has its own."""
        bench = RedisBench()
        await bench.open()
        self.addCleanup(bench.close)
        redis = bench.instance.redis
        count = Taken(redis)
        self.assertEqual(await count([(b"tenant acme", 2.5), (b"tenant b", 1.0)]), (1, [2.5, 1.0]))
        redis.process = "another"
        self.assertEqual(await count([(b"tenant acme", 0.5)]), (2, [3.0]))
        await bench.pass_time(2)
        self.assertEqual(await count([(b"tenant acme", 0.0), (b"tenant b", 0.25)]), (2, [1.0, 0.25]))
        await bench.pass_time(SILENT_SECONDS)
        self.assertEqual(await count([]), (1, []), "the other one says nothing any more")

    async def test_nothing_left_behind(self) -> None:
        """What was paid for is in Redis no more."""
        bench = RedisBench()
        await bench.open()
        self.addCleanup(bench.close)
        await Taken(bench.instance.redis)([(b"tenant acme", 0.05), (b"tenant b", 0.0)])
        self.assertEqual(bench.server.command("EXISTS", f"{bench.prefix}limit:tenant b"), 0)
        left = bench.server.command("PTTL", f"{bench.prefix}limit:tenant acme")
        self.assertTrue(-2 <= left <= 50, left)


class TwoProcessesTests(SynchronousTestCase):
    """Two listeners"""

    def setUp(self) -> None:
        self.redis = RedisServer().start()
        self.addCleanup(self.redis.close)
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        self.secret, key = made("a", frozenset({Role.SUBMIT, Role.ADMIN}))
        write(directory / "keys.json", key)
        self.servers = []
        for _ in range(2):
            server = Server(
                directory,
                OPENHQM_AUTH__TYPE="api_key",
                OPENHQM_AUTH__KEYS_FILE=str(directory / "keys.json"),
                OPENHQM_QUEUE__TYPE="redis",
                OPENHQM_QUEUE__REDIS_URL=self.redis.url,
                OPENHQM_TENANTS=json.dumps([{"name": "acme", "limits": {"requests_per_second": RATE}}]),
            )
            server.launch("--role", "listener")
            self.addCleanup(server.stop)
            self.servers.append(server)
        for server in self.servers:
            server.until(lambda server=server: server.ask("GET", "/health/ready")[0] == 200, "not ready")
        for server in self.servers:
            server.until(lambda server=server: self.left(server) == RATE - 2, "it does not know that there are two")

    def left(self, server: Server) -> int:
        """How many more the process would let pass after one, which counts twice where there are two of them.

        What was asked before has been paid for by then.
        """
        time.sleep(0.3)
        _, fields, _ = server.ask("POST", "/api/v1/submit", {"payload": 1}, {**JSON, "OpenHQM-Key": self.secret})
        return int(fields["ratelimit"].split(";")[1].removeprefix("r="))

    def hammer(self, server: Server) -> int:
        """How many submissions are accepted of as many as can be sent in `SECONDS`, or until some are refused."""
        found, refused = 0, False
        connection = server.connection()
        end, latest = (time.monotonic() + seconds for seconds in (SECONDS, 20))
        while time.monotonic() < end or not refused:
            self.assertLess(time.monotonic(), latest, "nothing is refused")
            connection.request("POST", "/api/v1/submit", b'{"payload": 1}', {**JSON, "OpenHQM-Key": self.secret})
            response = connection.getresponse()
            response.read()
            self.assertIn(response.status, (202, 429))
            found += response.status == 202
            refused = refused or response.status == 429
        connection.close()
        return found

    def test_together(self) -> None:
        """Both together accept what the limit allows and at most a share more, though no request waits for Redis."""
        began = time.monotonic()
        with ThreadPoolExecutor(2) as threads:
            accepted = sum(threads.map(self.hammer, self.servers))
        passed = time.monotonic() - began
        self.assertLessEqual(accepted, RATE + RATE * passed + RATE / 2)
        self.assertGreaterEqual(accepted, RATE)
        self.redis.kill()
        warned = lambda: b"which lets one in 2 of what they allow" in self.health(0)  # noqa: E731
        self.servers[0].until(warned, "it does not say that each keeps the limits for itself")

    def health(self, number: int) -> bytes:
        return self.servers[number].ask("GET", "/health", None, {"OpenHQM-Key": self.secret})[2]
