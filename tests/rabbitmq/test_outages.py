"""RabbitMQ is down, frozen, out of memory or refuses the login: what callers and operators are told, over HTTP.

    PAUSE_SECONDS=60 python -m tests tests.rabbitmq.test_outages.LoadTests

keeps RabbitMQ away, and frozen, for a minute each under load. Without it: three seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.outages import NO_HANG, TIMEOUT, LoadedServerCase
from tests.rabbitmq.served import HOLDING, ServedOnRabbitMQ
from tests.servers import Server


class OutageTests(ServedOnRabbitMQ):
    """A server that accepts and works, with its ledger in its file."""

    def test_down_at_the_start(self) -> None:
        """No RabbitMQ at the start: submissions get a 503 and the log says why; with RabbitMQ the server recovers."""
        self.rabbitmq.kill()
        server = self.make_server()
        self.launch(server)
        self.refuses(server, "refused")
        refusal = "a submission was not accepted (503)"
        server.until(lambda: refusal in server.log(), "the log does not say so")  # lines go through a thread
        said, *_ = [line for line in server.log().splitlines() if refusal in line]
        self.assertIn("refused", said)
        self.rabbitmq.start()
        self.recovers(server)
        self.assertNotIn("Traceback", server.log())

    def test_slow(self) -> None:
        """While RabbitMQ is slow callers wait; past the time limit they get a 503, and then the server recovers."""
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
        """The first callers, who come together, wait no longer for a frozen RabbitMQ than those after them."""
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
        """Out of memory: nothing is accepted, and it is said why; what is being worked on ends; then it recovers."""
        self.under_alarm(self.rabbitmq.run_out_of_memory, self.rabbitmq.have_memory_again, "low on memory")

    def test_disk(self) -> None:
        """Out of disk the same."""
        self.under_alarm(self.rabbitmq.run_out_of_disk, self.rabbitmq.have_disk_again, "low on disk")

    def under_alarm(self, begin: Callable[[], None], end: Callable[[], None], reason: str) -> None:
        (self.directory / "jobs.py").write_text(HOLDING)
        server = self.started()
        held = self.hold(server)
        self.addCleanup(end)
        begin()
        self.refuses_once_asked(server, reason)
        self.let_go()
        document = server.response(held)
        self.assertEqual((document["result"], document["attempt"]), ("held", 1))
        self.refuses(server, reason)
        end()
        self.recovers(server)
        self.assertEqual(server.response(held), document)

    def test_connections_closed(self) -> None:
        """An operator closes all connections: what was being worked on is delivered again, and the server recovers."""
        (self.directory / "jobs.py").write_text(HOLDING)
        server = self.started()
        held = self.hold(server)
        self.rabbitmq.control("close_all_connections", "maintenance")
        server.until(lambda: self.document(server, held)["attempt"] == 2, "it is not delivered again")
        self.let_go()
        document = server.response(held)
        self.assertEqual((document["result"], document["attempt"]), ("held", 2))
        self.recovers(server)
        self.assertIn("maintenance", server.log())

    def test_wrong_password(self) -> None:
        """503 with the reason, and without the password in it or in the log; with the right one it recovers."""
        self.rabbitmq.control("add_user", "gateway", "right")
        self.addCleanup(self.rabbitmq.control, "delete_user", "gateway")
        server = self.make_server(self.rabbitmq.url.replace("guest:guest", "gateway:hush-hush"))
        self.launch(server)
        self.refuses(server, "password", "gateway")
        self.assertNotIn(b"hush-hush", server.ask("GET", "/health")[2])
        self.rabbitmq.control("change_password", "gateway", "hush-hush")
        server.until(lambda: not self.says(server, "password"), "the password is right")
        self.refuses(server, "access")
        self.rabbitmq.control("set_permissions", "gateway", ".*", ".*", ".*")
        self.recovers(server)
        self.assertNotIn("hush-hush", server.log())


class LoadTests(ServedOnRabbitMQ, LoadedServerCase):
    """Callers who do not stop while RabbitMQ is away, with the ledger in the file."""

    def setUp(self) -> None:
        super().setUp()
        self.server = self.started(**self.ledger())
        self.assertEqual(self.server.response(self.server.submit("first"))["result"], "first")
        self.rabbitmq.know_its_queues()

    def ledger(self) -> dict[str, str]:
        return {}

    def test_down(self) -> None:
        """RabbitMQ is killed, and started again after a while."""
        self.under_load(self.rabbitmq.kill, self.rabbitmq.start)

    def test_frozen(self) -> None:
        """RabbitMQ is frozen: connections stay, and it does not answer."""
        self.under_load(self.freeze, self.rabbitmq.thaw)


class LoadWithRedisTests(LoadTests):
    """The same with the ledger in Redis."""

    def ledger(self) -> dict[str, str]:
        return self.in_redis()
