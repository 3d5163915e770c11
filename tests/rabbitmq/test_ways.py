"""Ways to a RabbitMQ: users with few rights, and TLS; with real servers."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from openhqm.messages import Priority
from tests.brokered.broker_contract import Q, publish
from tests.brokers import RabbitMQServer, shared_rabbitmq
from tests.rabbitmq.test_rabbitmq import Real, new_broker
from tests.redis.test_ways import certify


class WaysTests(Real):
    """Who may, and over what"""

    async def test_rights(self) -> None:
        """A user with the rights that docs/rabbitmq.md names can do everything that is needed."""
        server = shared_rabbitmq()
        server.control("add_user", "gateway", "p@ss")
        self.addCleanup(server.control, "delete_user", "gateway")
        rights = (r"^openhqm\.", r"^(openhqm\..*|amq\.default)$", r"^openhqm\.")
        server.control("set_permissions", "-p", "/", "gateway", *rights)
        url = f"amqp://gateway:p%40ss@127.0.0.1:{server.port}/%2F"
        broker = new_broker(self, url, prefix="openhqm.")
        await broker.when_probed()
        self.assertIsNone(broker.unavailable_reason)
        await publish(broker, b"1", priority=Priority.HIGH)
        await publish(broker, b"2", delay=0.6)
        for body in (b"1", b"2"):
            (delivery,) = await broker.receive(Q, 1)
            self.assertEqual(delivery.body, body)
            await delivery.ack()
        self.assertEqual((await broker.depth(Q)).ready, 0)

    async def test_without_rights(self) -> None:
        """A user who may not make queues is told so, with the name of the queue, and loses nothing else by it."""
        server = shared_rabbitmq()
        server.control("add_user", "guesser", "p")
        self.addCleanup(server.control, "delete_user", "guesser")
        server.control("set_permissions", "-p", "/", "guesser", "^$", ".*", ".*")
        broker = new_broker(self, f"amqp://guesser:p@127.0.0.1:{server.port}/%2F", prefix="openhqm.")
        await broker.when_probed()
        error = await self.refused(publish(broker, b"1", "elsewhere"))
        self.assertIn("ACCESS_REFUSED", str(error))
        self.assertIn("openhqm.elsewhere", str(error))
        self.assertIsNone(broker.unavailable_reason)

    async def test_tls(self) -> None:
        """TLS to a server whose authority is known; refused where it is not, or where the name is another."""
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        certificate, key = certify(directory)
        server: RabbitMQServer = self.server(certificate=certificate, key=key)
        login = "amqps://guest:guest@"
        known = new_broker(self, f"{login}localhost:{server.tls_port}/%2F?ca={certificate}")
        await known.when_probed()
        self.assertIsNone(known.unavailable_reason)
        await publish(known, b"1")
        for place in (f"localhost:{server.tls_port}/", f"127.0.0.1:{server.tls_port}/?ca={certificate}"):
            other = new_broker(self, login + place)
            await other.when_probed()
            self.assertIn("TLS", str(other.unavailable_reason))
            await self.refused(publish(other, b"2"))
