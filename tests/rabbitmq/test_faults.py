"""What happens to a RabbitMQ, as callers and operators meet it: through a whole server, over HTTP.

    PAUSE_SECONDS=60 python -m tests tests.rabbitmq.test_faults.LoadTests tests.rabbitmq.test_faults.LoadWithRedisTests

keeps RabbitMQ away, and frozen, for a minute each under load. Without it: three seconds.
"""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.brokers import RedisServer, shared_rabbitmq
from tests.servers import Server
from tests.whole_server import NO_HANG, TIMEOUT, Loaded, Served

HOLDING = """
from pathlib import Path
from twisted.internet.task import deferLater

async def handle(work):
    from twisted.internet import reactor
    while work.payload == "held" and not Path("go").exists():
        await deferLater(reactor, 0.01)
    return work.payload
"""


class Whole(Served):
    """One server that accepts and works, on the RabbitMQ that all tests share, with the books in its file."""

    def setUp(self) -> None:
        super().setUp()
        self.rabbitmq = shared_rabbitmq()
        self.addCleanup(self.mend)

    def mend(self) -> None:
        """Whatever was done to it: the next test finds it in order."""
        if self.rabbitmq.process is None or self.rabbitmq.process.poll() is not None:
            self.rabbitmq.start()

    def server(self, url: str = "", **more: str) -> Server:
        return self.server_on(
            {
                "OPENHQM_QUEUE__TYPE": "rabbitmq",
                "OPENHQM_QUEUE__RABBITMQ_URL": url or self.rabbitmq.url,
                "OPENHQM_QUEUE__CONNECTION__RABBITMQ__PREFIX": f"{self.id()}.",
                "OPENHQM_QUEUE__CONNECTION__RABBITMQ__TIMEOUT_SECONDS": str(TIMEOUT),
                **more,
            }
        )

    def started(self) -> Server:
        server = self.server()
        server.start()
        return server

    def freeze(self) -> None:
        self.addCleanup(self.rabbitmq.thaw)
        self.rabbitmq.freeze()


class FaultTests(Whole):
    """One thing after the other that happens to servers."""

    def test_down_at_the_start(self) -> None:
        """No RabbitMQ at the start: the door is open and says 503, and the log why; once there is one, all is well."""
        self.rabbitmq.kill()
        server = self.server()
        self.launch(server)
        self.refuses(server, "refused")
        said, *_ = [line for line in server.log().splitlines() if "a submission was not accepted (503)" in line]
        self.assertIn("refused", said)
        self.rabbitmq.start()
        self.recovers(server)
        self.assertNotIn("Traceback", server.log())

    def test_slow(self) -> None:
        """A RabbitMQ that takes its time makes callers wait; one that takes longer than the limit is 503, then well."""
        server = self.started()
        server.submit("before")
        self.freeze()
        thaw = threading.Timer(TIMEOUT / 2, self.rabbitmq.thaw)
        thaw.start()
        self.assertEqual(server.response(server.submit("slow"))["result"], "slow")
        thaw.join()
        self.rabbitmq.freeze()
        self.refuses_once_asked(server, "does not answer")
        self.rabbitmq.thaw()
        self.recovers(server)

    def test_frozen_before_the_first(self) -> None:
        """Nobody who comes first, together with others, waits longer for a frozen RabbitMQ than those after him."""
        server = self.started()
        self.freeze()
        with ThreadPoolExecutor(8) as callers:
            answers = list(callers.map(lambda number: self.first(server, number), range(8)))
        self.assertEqual({status for status, _, _ in answers}, {503})
        self.refuses(server, "does not answer")
        self.rabbitmq.thaw()
        self.recovers(server)

    def first(self, server: Server, number: int) -> tuple[int, dict[str, str], bytes]:
        priority = ("high", "normal", "low")[number % 3]
        submission = {"payload": number, "metadata": {"priority": priority}}
        return server.ask("POST", "/api/v1/submit", submission, timeout=NO_HANG)

    def test_memory(self) -> None:
        """Out of memory it accepts nothing and says why; what is in work ends, and is answered; then it is well."""
        self.under_alarm(self.rabbitmq.run_out_of_memory, self.rabbitmq.have_memory_again, "low on memory")

    def test_disk(self) -> None:
        """Out of disk the same."""
        self.under_alarm(self.rabbitmq.run_out_of_disk, self.rabbitmq.have_disk_again, "low on disk")

    def under_alarm(self, begin: Any, end: Any, words: str) -> None:
        (self.directory / "jobs.py").write_text(HOLDING)
        server = self.started()
        held = server.submit("held")
        server.until(lambda: self.status_of(server, held) == "PROCESSING", "it has not begun")
        self.addCleanup(end)
        begin()
        self.refuses_once_asked(server, words)
        (self.directory / "go").touch()
        document = server.response(held)
        self.assertEqual((document["result"], document["attempt"]), ("held", 1))
        self.refuses(server, words)
        end()
        self.recovers(server)
        self.assertEqual(server.response(held), document)

    def status_of(self, server: Server, correlation_id: str) -> str:
        status: str = json.loads(server.ask("GET", f"/api/v1/status/{correlation_id}")[2])["status"]
        return status

    def test_wrong_password(self) -> None:
        """503 in words, without the password in them or in the log; well again once it is right, and may do all."""
        self.rabbitmq.control("add_user", "gateway", "right")
        self.addCleanup(self.rabbitmq.control, "delete_user", "gateway")
        server = self.server(self.rabbitmq.url.replace("guest:guest", "gateway:hush-hush"))
        self.launch(server)
        self.refuses(server, "password", "gateway")
        self.assertNotIn(b"hush-hush", server.ask("GET", "/health")[2])
        self.rabbitmq.control("change_password", "gateway", "hush-hush")
        server.until(lambda: not self.says(server, "password"), "the password is right")
        self.refuses(server, "access")
        self.rabbitmq.control("set_permissions", "gateway", ".*", ".*", ".*")
        self.recovers(server)
        self.assertNotIn("hush-hush", server.log())

    def test_queue_deleted(self) -> None:
        """The queues deleted underneath while nothing is in them: callers do not notice, whatever they come for."""
        server = self.started()
        for number in range(5):
            self.assertEqual(server.response(server.submit(number))["result"], number)
        for first in range(0, 60, 20):
            self.delete_queues()
            ids = [server.submit(number, priority="high" if number % 2 else "normal") for number in range(20)]
            self.assertEqual([server.response(one, wait=30)["result"] for one in ids], list(range(20)), first)
        self.assertEqual(server.ask("GET", "/health/ready")[0], 200)
        self.assertIn("was deleted, and is made anew", server.log())

    def test_data_lost(self) -> None:
        """RabbitMQ comes back on an empty disk: all that was accepted is done, and somebody is told of it."""
        (self.directory / "jobs.py").write_text(HOLDING)
        server = self.started()
        ids = [server.submit("held"), *(server.submit("later", delay=1.0) for _ in range(3)), server.submit("done")]
        self.assertEqual(server.response(ids.pop())["result"], "done")
        self.rabbitmq.lose_everything()
        (self.directory / "go").touch()
        self.assertEqual([server.response(one, wait=50)["result"] for one in ids], ["held", *["later"] * 3])
        self.told(server, f"{len(ids)} requests are published anew")
        self.recovers(server)

    def test_data_lost_books_elsewhere(self) -> None:
        """With the books in Redis, which keeps no message twice, each of them ends, and callers are told to repeat."""
        redis = RedisServer().start()
        self.addCleanup(redis.close)
        server = self.server(
            OPENHQM_CACHE__TYPE="redis",
            OPENHQM_CACHE__REDIS_URL=redis.url,
            OPENHQM_QUEUE__CONNECTION__RABBITMQ__LOST_AFTER_SECONDS="1",
        )
        server.start()
        ids = [server.submit("later", delay=3600.0) for _ in range(3)]
        time.sleep(1.5)  # what is published is noted once a second, and has its message here until then
        self.rabbitmq.lose_everything()
        for one in ids:
            document = server.response(one, wait=50)
            self.assertEqual((document["status"], document["status_code"]), ("FAILED", 502))
            self.assertIn("sent again", document["error"])
        self.told(server, "3 have ended as FAILED")
        self.recovers(server)

    def told(self, server: Server, words: str) -> None:
        server.until(lambda: words in server.ask("GET", "/health")[2].decode(), "nobody is told")
        (line,) = [line for line in server.log().splitlines() if "the broker has lost everything" in line]
        self.assertIn('"critical"', line)

    def delete_queues(self) -> None:
        """As somebody does who takes them for his own."""
        import pika

        connection = pika.BlockingConnection(pika.URLParameters(self.rabbitmq.url))
        channel = connection.channel()
        for suffix in ("!high", "", "!low"):
            channel.queue_delete(f"{self.id()}.openhqm-requests{suffix}")
        connection.close()


class LoadTests(Whole, Loaded):
    """Callers who do not stop while RabbitMQ is away."""

    def setUp(self) -> None:
        super().setUp()
        self.at = self.started()
        self.assertEqual(self.at.response(self.at.submit("first"))["result"], "first")
        self.rabbitmq.know_its_queues()

    def test_down(self) -> None:
        """RabbitMQ killed, and started again after a while."""
        self.under_load(self.rabbitmq.kill, self.rabbitmq.start)

    def test_frozen(self) -> None:
        """RabbitMQ stopped in its tracks (SIGSTOP): connections stay, and nobody answers."""
        self.under_load(self.freeze, self.rabbitmq.thaw)


class LoadWithRedisTests(LoadTests):
    """The same with the books in Redis."""

    def server(self, url: str = "", **more: str) -> Server:
        redis = RedisServer().start()
        self.addCleanup(redis.close)
        return super().server(url, OPENHQM_CACHE__TYPE="redis", OPENHQM_CACHE__REDIS_URL=redis.url)
