"""What happens to a Redis, as callers and operators meet it: through a whole server, over HTTP.

    PAUSE_SECONDS=60 python -m tests tests.test_redis_faults.LoadTests

keeps Redis away, and frozen, for a minute each under load. Without it: three seconds.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.brokers import RedisServer
from tests.servers import Server

PAUSE_SECONDS = float(os.environ.get("PAUSE_SECONDS", "3"))
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


class Whole(SynchronousTestCase):
    """One server that accepts and works, on one Redis."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        (self.directory / "jobs.py").write_text(SLOW)

    def redis_server(self, **settings: str) -> RedisServer:
        redis = RedisServer(**settings)
        self.addCleanup(redis.close)
        return redis

    def server(self, url: str, **settings: str) -> Server:
        server = Server(
            self.directory,
            OPENHQM_QUEUE__TYPE="redis",
            OPENHQM_QUEUE__REDIS_URL=url,
            OPENHQM_QUEUE__LEASE_SECONDS="2",
            OPENHQM_QUEUE__CONNECTION__REDIS__TIMEOUT_SECONDS=str(TIMEOUT),
            OPENHQM_WORKER__HANDLER="jobs:handle",
            OPENHQM_WORKER__MAX_RETRIES="1000",
            **settings,
        )
        self.addCleanup(lambda: server.process and server.process.poll() is None and server.kill())
        return server

    def both(self, **settings: str) -> tuple[RedisServer, Server]:
        redis = self.redis_server(**settings).start()
        server = self.server(redis.url)
        server.start()
        return redis, server

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


class FaultTests(Whole):
    """One thing after the other that happens to servers."""

    def test_down_at_the_start(self) -> None:
        """No Redis at the start: the door is open and says 503, and the log why; once there is one, all is well."""
        redis = self.redis_server()
        server = self.server(redis.url)
        server.launch()
        server.until(lambda: server.ask("GET", "/health/live")[0] == 200, "the door is closed")
        self.refuses(server, "refused")
        said, *_ = [line for line in server.log().splitlines() if "a submission was not accepted (503)" in line]
        self.assertIn("refused", said)
        redis.start()
        self.recovers(server)

    def test_slow(self) -> None:
        """A Redis that takes its time makes callers wait; one that takes longer than the limit is 503, then well."""
        redis, server = self.both()
        redis.say("CLIENT", "PAUSE", str(int(TIMEOUT * 500)), "ALL")
        self.assertEqual(server.response(server.submit("slow"))["result"], "slow")
        redis.say("CLIENT", "PAUSE", str(int(TIMEOUT * 4000)), "ALL")
        self.refuses(server, "answer")
        self.recovers(server)

    def test_full(self) -> None:
        """At maxmemory nothing is accepted, and what is known still answers."""
        redis, server = self.both()
        before = server.submit("before")
        self.assertEqual(server.response(before)["result"], "before")
        redis.say("CONFIG", "SET", "maxmemory", "1")
        self.refuses_once_asked(server, "maxmemory")
        self.assertEqual(server.response(before)["result"], "before")
        redis.say("CONFIG", "SET", "maxmemory", "0")
        self.recovers(server)

    def refuses_once_asked(self, server: Server, *words: str) -> None:
        """It is noticed when a write is refused, and not before."""
        self.assertEqual(server.ask("POST", "/api/v1/submit", {"payload": 1}, timeout=NO_HANG)[0], 503)
        self.refuses(server, *words)

    def test_replica(self) -> None:
        """A master that became a read-only replica is 503, and well again when it is a master."""
        redis, server = self.both()
        before = server.submit("before")
        server.response(before)
        redis.say("REPLICAOF", "127.0.0.1", "1")
        self.refuses_once_asked(server, "replica")
        redis.say("REPLICAOF", "NO", "ONE")
        self.recovers(server)
        self.assertEqual(server.response(before)["result"], "before")

    def test_no_replica(self) -> None:
        """With min-replicas-to-write, a master without its replica is 503, until there is one again."""
        redis, server = self.both()
        redis.say("CONFIG", "SET", "min-replicas-to-write", "1")
        self.refuses_once_asked(server, "min-replicas-to-write")
        redis.say("CONFIG", "SET", "min-replicas-to-write", "0")
        self.recovers(server)

    def test_cannot_save(self) -> None:
        """A Redis that cannot write to its disk takes no writes: 503, and well again when it can."""
        redis, server = self.both(save="3600 1")
        in_the_way = redis.directory / "dump.rdb"
        in_the_way.mkdir()
        redis.say("BGSAVE")
        server.until(lambda: b"rdb_last_bgsave_status:err" in redis.say("INFO", "persistence"), "it can save")
        self.refuses_once_asked(server, "disk")
        server.until(lambda: server.log().count("MISCONF") > 0, "the log does not say why")
        in_the_way.rmdir()
        redis.say("BGSAVE")
        self.recovers(server)
        self.assertNotIn("Traceback", server.log())

    def test_held_up(self) -> None:
        """Somebody's endless script is 503, and over when it is killed."""
        redis, server = self.both()
        redis.say("CONFIG", "SET", "busy-reply-threshold", "100")
        with socket.create_connection(("127.0.0.1", redis.port), timeout=5) as somebody:
            somebody.sendall(b"EVAL 'while true do end' 0\r\n")
            server.until(lambda: redis.say("PING").startswith(b"-BUSY"), "it is not busy")
            self.refuses_once_asked(server)
            redis.say("SCRIPT", "KILL")
        self.recovers(server)

    def test_wrong_password(self) -> None:
        """503 in words, without the password in them or in the log; well again once the password is right."""
        redis = self.redis_server(requirepass="right").start()
        server = self.server(f"redis://:hush-hush@127.0.0.1:{redis.port}/0")
        server.launch()
        server.until(lambda: server.ask("GET", "/health/live")[0] == 200, "the door is closed")
        self.refuses(server, "password")
        self.assertNotIn(b"hush-hush", server.ask("GET", "/health")[2])
        redis.restart(requirepass="hush-hush")
        self.recovers(server)
        self.assertNotIn("hush-hush", server.log())

    def test_noscript(self) -> None:
        """Scripts that Redis has forgotten, again and again, and no caller notices."""
        redis, server = self.both()
        ids = []
        for number in range(30):
            redis.say("SCRIPT", "FLUSH")
            ids.append(server.submit(number))
        self.assertEqual([server.response(one)["result"] for one in ids], list(range(30)))

    def test_queue_deleted(self) -> None:
        """A queue deleted underneath: what waited in it ends all the same, and what comes after; with an alarm."""
        redis, server = self.both()
        server.stop()
        server.start("--role", "listener")
        ids = [server.submit(number) for number in range(20)]
        for lane in ("high", "normal", "low"):
            redis.command("DEL", f"{{openhqm}}:q:openhqm-requests:ready:{lane}")
        server.stop()
        server.start()
        self.assertEqual([server.response(one, wait=30)["result"] for one in ids], list(range(20)))
        self.recovers(server)
        self.assertIn("stood in no line", server.log())

    def test_trimmed(self) -> None:
        """Entries trimmed off a stream: their requests end all the same, each once."""
        redis, server = self.both()
        server.stop()
        server.start("--role", "listener")
        ids = [server.submit(number) for number in range(20)]
        redis.command("XTRIM", "{openhqm}:q:openhqm-requests:ready:normal", "MAXLEN", "5")
        server.stop()
        server.start()
        self.assertEqual([server.response(one, wait=30)["result"] for one in ids], list(range(20)))
        for one in ids:
            stream = server.ask("GET", f"/api/v1/events/{one}")[2]
            self.assertEqual(stream.count(b"event: completed"), 1)

    def test_data_lost(self) -> None:
        """Redis back without anything is an alarm that lasts; a start anew is the word that the loss is known."""
        redis, server = self.both()
        before = server.submit("before")
        server.response(before)
        redis.kill()
        redis.forget()
        redis.start()
        self.refuses(server, "forgotten")
        self.assertEqual(server.ask("GET", f"/api/v1/status/{before}", timeout=NO_HANG)[0], 503)  # not 404: unknown
        self.assertIn('"critical"', server.log())
        server.stop()
        server.start()
        self.assertEqual(self.status(server, before), 404)
        self.recovers(server)

    def test_last_second_lost(self) -> None:
        """Redis back without its last second: it goes on, with a warning that stays, and gives out no id twice."""
        redis, server = self.both()
        ids = [server.submit(number) for number in range(10)]
        number = int(redis.command("GET", "{openhqm}:number"))
        redis.command("SET", "{openhqm}:number", str(number - 5))  # as if the last five had not been synced
        redis.kill()
        redis.start()
        self.recovers(server)
        more = [server.submit(number) for number in range(10)]
        self.assertEqual(len({*ids, *more}), 20)
        warnings = json.loads(server.ask("GET", "/health")[2])["warnings"]
        self.assertIn("Redis has lost what it took last", " ".join(warnings))


class LoadTests(Whole):
    """Callers who do not stop while Redis is away."""

    def setUp(self) -> None:
        super().setUp()
        self.redis, self.at = self.both()
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

    def test_down(self) -> None:
        """Redis killed, and started again after a while."""
        self.under_load(self.redis.kill, self.redis.start)

    def test_frozen(self) -> None:
        """Redis stopped in its tracks (SIGSTOP): connections stay, and nobody answers."""
        self.under_load(self.redis.freeze, self.redis.thaw)
