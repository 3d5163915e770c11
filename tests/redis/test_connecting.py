"""Connecting to a Redis over TLS, as an ACL user and through Sentinel; with real servers."""

from __future__ import annotations

import os
import re
from pathlib import Path

from twisted.internet.defer import CancelledError
from twisted.logger import capturedLogs
from twisted.trial.unittest import SkipTest

from openhqm.messages import Status, Submission
from tests.authorities import Authority
from tests.brokers import RedisServer, Sentinel
from tests.certificates import certify
from tests.redis.real_server import RealRedisTestCase
from tests.redis.test_outages import WholeServerTestCase
from tests.servers import ROOT, free_port


def tls_server() -> tuple[RedisServer, int, Path]:
    """A Redis that speaks TLS on a port besides; the port, and the authority to trust."""
    server = RedisServer()
    certificate, key = certify(server.directory)
    port = free_port()
    server.settings |= {
        "tls-port": str(port),
        "tls-cert-file": str(certificate),
        "tls-key-file": str(key),
        "tls-auth-clients": "no",
    }
    try:
        server.start()
    except AssertionError as error:
        server.close()
        if os.environ.get("CI") == "true":
            raise
        raise SkipTest("this redis-server has no TLS") from error
    return server, port, certificate


def rights() -> list[str]:
    """What docs/redis.md says that a Redis user needs, on the keys of the prefix and on the inbox."""
    found = re.search(r"A Redis user needs `([^`]+)`", (ROOT / "docs" / "redis.md").read_text())
    assert found is not None
    return found[1].split()


class ConnectingTests(RealRedisTestCase):
    """One instance, and a Redis that is reached in a special way"""

    async def test_acl_user(self) -> None:
        """A user with the rights that docs/redis.md names can do everything that is needed."""
        server = await self.server()
        server.say("ACL", "SETUSER", "gateway", "on", ">p@ss", "~t:*", "&*", *rights())
        one = await self.instance(f"redis://gateway:p%40ss@127.0.0.1:{server.port}/0")
        self.assertIsNone(one.queue.unavailable_reason)
        accepted = await one.queue.accept(Submission(b"1"), None)
        (delivery,) = await one.queue.receive("contract-requests", 1)
        await delivery.settle(self.reply(delivery))
        self.assertEqual((await one.store.find(accepted.correlation_id)).status, Status.COMPLETED)
        self.assertEqual(one.queue.warnings, ())

    async def test_acl_user_without_channels(self) -> None:
        """A user without the right to channels is logged once; the work of others is found all the same, later."""
        server = await self.server()
        server.say("ACL", "SETUSER", "gateway", "on", ">p", "~t:*", "resetchannels", *rights())
        with capturedLogs() as events:
            one = await self.instance(f"redis://gateway:p@127.0.0.1:{server.port}/0")
            waiting = [one.queue.receive(f"contract-requests{name}", 1) for name in ("", ".a")]
            await one.quiet()
        reasons = [str(event.get("reason")) for event in events if "no messages from" in (event["log_format"] or "")]
        self.assertEqual(len(reasons), 1)
        self.assertIn("the Redis user may not do what is needed", reasons[0])
        accepted = await one.queue.accept(Submission(b"1"), None)
        (delivery,) = await waiting.pop(0)
        self.assertTrue(await delivery.settle(self.reply(delivery)))
        self.assertEqual((await one.store.find(accepted.correlation_id)).status, Status.COMPLETED)
        for each in waiting:
            self.assertFalse(each.called)
            each.addErrback(lambda failure: failure.trap(CancelledError)).cancel()

    async def test_acl_user_without_config(self) -> None:
        """Where CONFIG is refused, as by managed services, it works and says what it does not know."""
        server = await self.server()
        server.say("ACL", "SETUSER", "gateway", "on", ">p", "~t:*", "&*", "+@all", "-@admin", "+info")
        one = await self.instance(f"redis://gateway:p@127.0.0.1:{server.port}/0")
        await one.queue.accept(Submission(b"1"), None)
        self.assertIn("could not be read", " ".join(one.queue.warnings))

    async def test_tls(self) -> None:
        """TLS to a server whose authority is known; refused where it is not, or where the name is another."""
        server, port, certificate = tls_server()
        self.addCleanup(server.close)
        bundle = server.directory / "authorities.pem"
        bundle.write_bytes(Authority(server.directory).ca.read_bytes() + certificate.read_bytes())
        known = await self.instance(f"rediss://localhost:{port}/0?ca={bundle}")
        self.assertIsNone(known.queue.unavailable_reason)
        await known.queue.accept(Submission(b"1"), None)
        for url in (f"rediss://localhost:{port}/0", f"rediss://127.0.0.1:{port}/0?ca={certificate}"):
            other = await self.instance(url)
            self.assertIn("cannot use", other.queue.unavailable_reason or "")
            await self.refused(other.queue.accept(Submission(b"2"), None))

    async def test_sentinel(self) -> None:
        """The master that Sentinel names is used, and after a failover the next one."""
        first, second = await self.server(), await self.server()
        second.say("REPLICAOF", "127.0.0.1", str(first.port))
        sentinel = Sentinel(first).start()
        self.addCleanup(sentinel.close)
        one = await self.instance(sentinel.url)
        accepted = await self.patiently(lambda: one.queue.accept(Submission(b"1"), None))
        known = f"slave0:ip=127.0.0.1,port={second.port},state=online"
        await self.until(lambda: known.encode() in first.say("INFO", "replication"), "no replica")
        await self.until(sentinel.knows_a_replica, "Sentinel knows no replica")
        await one.redis.command("WAIT", 1, 1000)
        first.kill()
        await self.patiently(lambda: one.queue.accept(Submission(b"2"), None))
        self.assertEqual((await one.store.find(accepted.correlation_id)).status, Status.PENDING)


class WholeServerTests(WholeServerTestCase):
    """The same with a whole server that is asked over HTTP"""

    def works(self, url: str) -> None:
        server = self.server(url)
        server.start()
        self.assertEqual(server.response(server.submit("done"))["result"], "done")
        self.assertEqual(server.stop(), 0)

    def test_unix_socket(self) -> None:
        """A socket in the file system."""
        redis = self.redis_server().start()
        self.works(f"unix://{redis.socket}")

    def test_tls(self) -> None:
        """TLS that is verified; a Redis that cannot be verified is not used, and that is said."""
        redis, port, certificate = tls_server()
        self.addCleanup(redis.close)
        self.works(f"rediss://localhost:{port}/0?ca={certificate}")
        for url in (f"rediss://localhost:{port}/0", f"rediss://127.0.0.1:{port}/0?ca={certificate}"):
            server = self.server(url)
            server.launch()
            server.until(lambda each=server: each.ask("GET", "/health/live")[0] == 200, "the door is closed")
            self.refuses(server, "cannot use")
            server.kill()

    def test_acl_user(self) -> None:
        """A user with the rights that docs/redis.md names, and no other; the default user is off."""
        redis = self.redis_server().start()
        allowed = ["~{openhqm}:*", "~openhqm-requests", "&*", *rights()]
        redis.say("ACL", "SETUSER", "gateway", "on", ">p@ss", *allowed)
        redis.say("ACL", "SETUSER", "default", "off")
        self.works(f"redis://gateway:p%40ss@127.0.0.1:{redis.port}/0")
        self.assertNotIn("NOPERM", (self.directory / "log").read_text())

    def test_failover(self) -> None:
        """The master killed: by the word of Sentinel the replica is used, with all that it had, and work goes on."""
        first, second = self.redis_server().start(), self.redis_server().start()
        second.say("REPLICAOF", "127.0.0.1", str(first.port))
        sentinel = Sentinel(first).start()
        self.addCleanup(sentinel.close)
        server = self.server(sentinel.url)
        server.start()
        known = f"slave0:ip=127.0.0.1,port={second.port},state=online"
        server.until(lambda: known.encode() in first.say("INFO", "replication"), "there is no replica")
        server.until(sentinel.knows_a_replica, "Sentinel knows no replica")
        ids = [server.submit(number) for number in range(20)]
        server.until(lambda: offsets(first) == offsets(second), "the replica is behind")
        first.kill()
        self.recovers(server)
        self.assertEqual([server.response(one, wait=30)["result"] for one in ids], list(range(20)))


def offsets(redis: RedisServer) -> bytes:
    """How far its replication has come."""
    return next(
        line for line in redis.say("INFO", "replication").splitlines() if line.startswith(b"master_repl_offset")
    )
