"""Outages of a Redis, as callers and operators meet them: through a whole server, over HTTP.

    PAUSE_SECONDS=60 python -m tests tests.redis.test_outages.LoadTests

keeps Redis away, and frozen, for a minute each under load. Without it: three seconds.
"""

from __future__ import annotations

import json
import socket

from tests.brokers import RedisServer
from tests.outages import NO_HANG, TIMEOUT, LoadedServerCase, ServerCase
from tests.servers import Server
from tests.small_disk import small_disk


class WholeServerTestCase(ServerCase):
    """One server that accepts and works, on one Redis."""

    def redis_server(self, **settings: str) -> RedisServer:
        redis = RedisServer(**settings)
        self.addCleanup(redis.close)
        return redis

    def server(self, url: str) -> Server:
        return self.server_on(
            {
                "OPENHQM_QUEUE__TYPE": "redis",
                "OPENHQM_QUEUE__REDIS_URL": url,
                "OPENHQM_QUEUE__CONNECTION__REDIS__TIMEOUT_SECONDS": str(TIMEOUT),
            }
        )

    def both(self, **settings: str) -> tuple[RedisServer, Server]:
        redis = self.redis_server(**settings).start()
        server = self.server(redis.url)
        server.start()
        return redis, server


class OutageTests(WholeServerTestCase):
    """One outage each"""

    def test_down_at_the_start(self) -> None:
        """No Redis at the start: the door is open and says 503, and the log why; once there is one, all is well."""
        redis = self.redis_server()
        server = self.server(redis.url)
        self.launch(server)
        self.refuses(server, "refused")
        refusal = "a submission was not accepted (503)"
        server.until(lambda: refusal in server.log(), "the log does not say so")  # lines go through a thread
        said, *_ = [line for line in server.log().splitlines() if refusal in line]
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

    def test_full_disk(self) -> None:
        """Redis's own disk is full: nothing is accepted, and what was accepted ends, once there is room again.

        A Redis that syncs each second refuses until then. One that syncs each write exits, and is started again.
        """
        for appendfsync in ("everysec", "always"):
            redis = self.redis_server(appendfsync=appendfsync)
            grow = small_disk(self, redis.directory / "disk", "4m")
            redis.settings["dir"] = str(redis.directory / "disk")
            redis.start()
            server = self.server(redis.url)
            server.start()
            accepted, status = [], 202
            for number in range(200):
                document = {"payload": {"number": number, "filling": "x" * 400_000}}
                status, fields, body = server.ask("POST", "/api/v1/submit", document)
                if status != 202:
                    break
                accepted.append(json.loads(body)["correlation_id"])
            self.assertEqual(status, 503, body)
            self.assertIn("retry-after", fields)
            self.assertGreater(len(accepted), 1)
            grow("64m")
            if appendfsync == "always":
                self.assertEqual(redis.process.wait(10), 1)
                redis.start()
            self.recovers(server)
            for number, one in enumerate(accepted):
                self.assertEqual(server.response(one, wait=30)["result"]["number"], number)
            self.assertNotIn("Traceback", server.log())

    def test_busy(self) -> None:
        """A script that does not end is 503, and over when it is killed."""
        redis, server = self.both()
        redis.say("CONFIG", "SET", "busy-reply-threshold", "100")
        with socket.create_connection(("127.0.0.1", redis.port), timeout=5) as other:
            other.sendall(b"EVAL 'while true do end' 0\r\n")
            server.until(lambda: redis.say("PING").startswith(b"-BUSY"), "it is not busy")
            self.refuses_once_asked(server)
            redis.say("SCRIPT", "KILL")
        self.recovers(server)

    def test_wrong_password(self) -> None:
        """503 with the reason, without the password in it or in the log; well again once the password is right."""
        redis = self.redis_server(requirepass="right").start()
        server = self.server(f"redis://:hush-hush@127.0.0.1:{redis.port}/0")
        self.launch(server)
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
        for priority in ("high", "normal", "low"):
            redis.command("DEL", f"{{openhqm}}:q:openhqm-requests:ready:{priority}")
        server.stop()
        server.start()
        self.assertEqual([server.response(one, wait=30)["result"] for one in ids], list(range(20)))
        self.recovers(server)
        self.assertIn("stood in no queue", server.log())

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
        """Redis back without its data is an alarm that lasts, until a restart says that the loss is known."""
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


class LoadTests(WholeServerTestCase, LoadedServerCase):
    """Callers who do not stop while Redis is away."""

    def setUp(self) -> None:
        super().setUp()
        self.redis, self.server = self.both()

    def test_down(self) -> None:
        """Redis killed, and started again after a while."""
        self.under_load(self.redis.kill, self.redis.start)

    def test_frozen(self) -> None:
        """Redis stopped (SIGSTOP): connections stay, and no command is answered."""
        self.under_load(self.redis.freeze, self.redis.thaw)
