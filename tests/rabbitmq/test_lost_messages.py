"""RabbitMQ loses messages that a server relies on: what becomes of each request, and what operators are told."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing

from tests.brokers import RedisServer
from tests.rabbitmq.served import HOLDING, ServedOnRabbitMQ
from tests.servers import Server

LOOK_OFTEN = "from openhqm.brokered import losses; losses.LOOK_SECONDS = 0.3"
"""A purge is noticed by looking several times; by default that takes a minute and a half."""
KEEP_NOTHING = "from openhqm.brokered import leftovers; leftovers.LONGEST_WAIT = 1.0"
"""What was prefetched and is not asked for is published again after a second; by default after a minute."""
ONE_SLOT = {"OPENHQM_WORKER__COUNT": "1"}


class LosingMessages(ServedOnRabbitMQ):
    """What is done to queues, and how it is found. RabbitMQ is busy with that, and has its time to answer."""

    timeout_seconds = 10.0

    def setUp(self) -> None:
        super().setUp()
        (self.directory / "jobs.py").write_text(HOLDING)

    def delete_queues(self) -> None:
        def delete(channel: object) -> None:
            for queue in self.queues():
                channel.queue_delete(queue)  # type: ignore[attr-defined]

        self.as_operator(delete)

    def count_in(self, queue: str) -> int:
        """How many messages RabbitMQ could deliver from it."""
        found: list[int] = []
        self.as_operator(lambda channel: found.append(channel.queue_declare(queue, passive=True).method.message_count))
        return found[0]

    def warnings(self, server: Server) -> list[str]:
        found: list[str] = json.loads(server.ask("GET", "/health")[2]).get("warnings", [])
        return found

    def says_lost(self, server: Server, what: str, published: int = 0, ended: int = 0) -> None:
        """In the warnings of /health and, as critical, in the log."""

        def counts() -> tuple[int, int]:
            text = " ".join(each for each in self.warnings(server) if what in each)
            found = (re.findall(pattern, text) for pattern in (r"(\d+) requests are published", r"(\d+) have ended"))
            again, over = (sum(int(number) for number in numbers) for numbers in found)
            return again, over

        server.until(lambda: counts() == (published, ended), "what was lost is not said, or not all of it")
        lines = [line for line in server.log().splitlines() if what in line]
        self.assertTrue(lines)
        self.assertEqual({json.loads(line)["level"] for line in lines}, {"critical"})


class WithTheFileTests(LosingMessages):
    """A server that accepts and works, and its ledger in its file, which keeps every message."""

    def test_nothing_was_there(self) -> None:
        """A check, a start, and a request at once: that its queues were never there is no loss."""
        server = self.make_server()
        self.assertEqual(server.run("--check")[0], 0)
        server.launch()
        server.until(lambda: server.ask("POST", "/api/v1/submit", {"payload": 1})[0] == 202, "it accepts nothing")
        self.assertEqual(server.response(server.submit(2))["result"], 2)
        self.assertEqual(self.warnings(server), [])
        self.assertNotIn('"critical"', server.log())

    def test_empty_queues_deleted(self) -> None:
        """Queues that are deleted while they are empty are made again: callers wait, or have a 503 and repeat once."""
        server = self.started()
        for number in range(5):
            self.assertEqual(server.response(server.submit(number))["result"], number)
        for _ in range(3):
            self.delete_queues()
            ids = [self.submit(server, number, "high" if number % 2 else "normal") for number in range(20)]
            self.assertEqual([server.response(one, wait=30)["result"] for one in ids], list(range(20)))
        self.assertEqual(server.ask("GET", "/health/ready")[0], 200)
        self.assertEqual(self.warnings(server), [])

    def submit(self, server: Server, number: int, priority: str) -> str:
        """RabbitMQ 3.10 may refuse the first message for a queue that it has just made."""
        submission = {"payload": number, "metadata": {"priority": priority}}
        status, _, body = server.ask("POST", "/api/v1/submit", submission)
        if status != 202:
            self.assertEqual(status, 503)
            return server.submit(number, priority=priority)
        correlation_id: str = json.loads(body)["correlation_id"]
        return correlation_id

    def test_queue_deleted(self) -> None:
        """A queue that is deleted with requests in it, and one being worked on: each is done."""
        server = self.started(**ONE_SLOT)
        ids = self.waiting_behind_one(server)
        self.delete_queues()
        self.says_lost(server, "was gone", published=len(ids))
        self.let_go()
        self.assert_done(server, ids)
        self.recovers(server)

    def test_queue_purged(self) -> None:
        """A queue that another program empties: its requests are published again, each is done, and done once."""
        server = self.started(before=f"{LOOK_OFTEN}\n{KEEP_NOTHING}", **ONE_SLOT)
        ids = self.waiting_behind_one(server)
        # What the process had prefetched is in the queue again: else the queue is not empty after the purge.
        server.until(lambda: self.count_in(self.queues()[1]) == len(ids) - 1, "it keeps what it has prefetched")
        self.rabbitmq.control("purge_queue", self.queues()[1])
        self.says_lost(server, "was emptied by another program", published=len(ids) - 1)
        self.let_go()
        self.assert_done(server, ids)
        self.assertEqual({server.response(one)["attempt"] for one in ids}, {1})
        self.recovers(server)

    def test_everything_lost(self) -> None:
        """RabbitMQ comes back on an empty disk: what waited, in it or for its time, and what was begun is done."""
        server = self.started(**ONE_SLOT)
        ids = self.waiting_behind_one(server)
        delayed = server.submit("later", delay=1.0)
        self.rabbitmq.lose_everything()
        self.says_lost(server, "was gone", published=len(ids))
        self.let_go()
        self.assert_done(server, [*ids, delayed])
        self.recovers(server)

    def waiting_behind_one(self, server: Server) -> list[str]:
        """Requests of which the first is being worked on, and the others are known to wait in RabbitMQ."""
        ids = [self.hold(server), *(server.submit(number) for number in range(9))]
        server.until(lambda: self.count_published() == len(ids) - 1, "they are not noted as published")
        return ids

    def count_published(self) -> int:
        with closing(sqlite3.connect(f"file:{self.directory / 'data' / 'openhqm.db'}?mode=ro", uri=True)) as database:
            ((count,),) = database.execute("SELECT count(*) FROM outbox WHERE state = 1")
            return int(count)

    def assert_done(self, server: Server, ids: list[str]) -> None:
        documents = [server.response(one, wait=50) for one in ids]
        self.assertEqual({document["status"] for document in documents}, {"COMPLETED"})


class WithRedisTests(LosingMessages):
    """A listener without a worker, and its ledger in Redis, which keeps no message that RabbitMQ has."""

    def listener(self, before: str = "", **more: str) -> Server:
        self.redis = RedisServer().start()
        self.addCleanup(self.redis.close)
        ledger = {"OPENHQM_CACHE__TYPE": "redis", "OPENHQM_CACHE__REDIS_URL": self.redis.url}
        listener = self.make_server(before=before, **ledger, **more)
        listener.start("--role", "listener")
        return listener

    def test_queue_purged(self) -> None:
        """A queue that another program empties: each of its requests ends as FAILED, to be sent again."""
        listener = self.listener(LOOK_OFTEN)
        ids = self.waiting(listener)
        self.rabbitmq.control("purge_queue", self.queues()[1])
        self.says_lost(listener, "was emptied by another program", ended=len(ids))
        self.assert_failed(listener, ids)

    def test_everything_lost(self) -> None:
        """The same where RabbitMQ comes back on an empty disk; only after a while, for it may be the wrong one."""
        listener = self.listener(OPENHQM_QUEUE__CONNECTION__RABBITMQ__LOST_AFTER_SECONDS="3")
        ids = self.waiting(listener)
        delayed = listener.submit("later", delay=3600.0)
        self.rabbitmq.lose_everything()
        listener.until(lambda: self.says(listener, "check host"), "it does not say that it may be the wrong one")
        self.assertEqual(self.document(listener, ids[0])["status"], "PENDING")
        self.says_lost(listener, "was gone", ended=len(ids))
        self.assert_failed(listener, ids)
        listener.until(lambda: listener.ask("GET", "/health/ready")[0] == 200, "it is not ready")
        self.assertEqual(self.document(listener, delayed)["status"], "PENDING")
        self.assertEqual(self.document(listener, listener.submit("again"))["status"], "PENDING")

    def waiting(self, listener: Server) -> list[str]:
        """Requests that wait in RabbitMQ, when Redis has no messages of them any more."""
        ids = [listener.submit(number) for number in range(6)]
        sent = f"{{openhqm}}:sent:{self.queues()[1]}"
        listener.until(lambda: self.redis.command("ZCARD", sent) == len(ids), "they are not noted as published")
        return ids

    def assert_failed(self, listener: Server, ids: list[str]) -> None:
        for one in ids:
            document = listener.response(one, wait=50)
            self.assertEqual((document["status"], document["status_code"]), ("FAILED", 502))
            self.assertIn("send it again", document["error"])
