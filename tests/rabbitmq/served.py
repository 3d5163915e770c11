"""A whole server, over HTTP, on the RabbitMQ that all tests share: its ledger is in its own file, or in Redis."""

from __future__ import annotations

import json
from typing import Any

import pika

from tests.brokers import RedisServer, shared_rabbitmq
from tests.outages import TIMEOUT, ServerCase
from tests.servers import Server

HOLDING = """
from pathlib import Path
from twisted.internet.task import deferLater

async def handle(work):
    from twisted.internet import reactor
    while work.payload == "held" and not Path("go").exists():
        await deferLater(reactor, 0.01)
    return work.payload
"""
"""The handler does not return for the payload "held" until there is a file ``go``."""


class ServedOnRabbitMQ(ServerCase):
    """Its queues begin with the name of the test. ``timeout_seconds``: how long RabbitMQ may take for an answer."""

    timeout_seconds = TIMEOUT

    def setUp(self) -> None:
        super().setUp()
        self.rabbitmq = shared_rabbitmq()
        self.addCleanup(self._repair)

    def _repair(self) -> None:
        if self.rabbitmq.process is None or self.rabbitmq.process.poll() is not None:
            self.rabbitmq.start()

    def make_server(self, url: str = "", before: str = "", **more: str) -> Server:
        """One that is not started. ``before`` is Python that runs in its process first."""
        return self.server_on(
            {
                "OPENHQM_QUEUE__TYPE": "rabbitmq",
                "OPENHQM_QUEUE__RABBITMQ_URL": url or self.rabbitmq.url,
                "OPENHQM_QUEUE__CONNECTION__RABBITMQ__PREFIX": f"{self.id()}.",
                "OPENHQM_QUEUE__CONNECTION__RABBITMQ__TIMEOUT_SECONDS": str(self.timeout_seconds),
                **more,
            },
            before,
        )

    def started(self, **more: str) -> Server:
        """One that is ready."""
        server = self.make_server(**more)
        server.start()
        return server

    def in_redis(self) -> dict[str, str]:
        """Settings for a ledger in a Redis of its own."""
        redis = RedisServer().start()
        self.addCleanup(redis.close)
        return {"OPENHQM_CACHE__TYPE": "redis", "OPENHQM_CACHE__REDIS_URL": redis.url}

    def freeze(self) -> None:
        """Stop RabbitMQ in its tracks (SIGSTOP)."""
        self.addCleanup(self.rabbitmq.thaw)
        self.rabbitmq.freeze()

    def hold(self, server: Server) -> str:
        """The id of a request that is being worked on until `let_go`."""
        held = server.submit("held")
        server.until(lambda: self.document(server, held)["status"] == "PROCESSING", "it has not begun")
        return held

    def let_go(self) -> None:
        """Let the handler return."""
        (self.directory / "go").touch()

    def document(self, server: Server, correlation_id: str) -> dict[str, Any]:
        """What the server says of a request."""
        found: dict[str, Any] = json.loads(server.ask("GET", f"/api/v1/status/{correlation_id}")[2])
        return found

    def queues(self) -> list[str]:
        """The names of the queues in which requests wait."""
        return [f"{self.id()}.openhqm-requests{suffix}" for suffix in ("._high", "", "._low")]

    def as_operator(self, do: Any) -> None:
        """Do it over an AMQP channel of another program."""
        connection = pika.BlockingConnection(pika.URLParameters(self.rabbitmq.url))
        try:
            do(connection.channel())
        finally:
            connection.close()
