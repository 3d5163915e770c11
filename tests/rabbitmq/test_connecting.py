"""Ways to a RabbitMQ, with real servers: nodes, TLS, users and their rights; and what cannot be one."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol

from openhqm.interfaces import IBroker, Message
from openhqm.testing.broker_case import BrokerCase
from tests.authorities import Authority
from tests.brokers import RabbitMQServer, shared_rabbitmq
from tests.rabbitmq.bench import RabbitMQBench
from tests.redis.test_connecting import certify


class OldServer(Protocol):
    """What a RabbitMQ 3.9 says until the login is over."""

    def dataReceived(self, data: bytes) -> None:
        from pika.frame import Method
        from pika.spec import Connection

        says = {
            b"AMQP": Connection.Start(0, 9, {"product": "RabbitMQ", "version": "3.9.27"}, "PLAIN", "en_US"),
            b"\x00\x0a\x00\x0b": Connection.Tune(2047, 131072, 60),  # to StartOk
            b"\x00\x0a\x00\x28": Connection.OpenOk(),  # to Open
        }
        for asked, answer in says.items():
            if asked in data:
                self.transport.write(Method(0, answer).marshal())  # type: ignore[union-attr]


class ConnectingTests(BrokerCase):
    """Who may connect, and over what"""

    bench: RabbitMQBench

    def make_bench(self) -> RabbitMQBench:
        return RabbitMQBench(shared_rabbitmq())

    async def probed(self, url: str) -> Any:
        """A client by that URL, after its first attempt."""
        broker = self.bench.new_at(url)
        await self.done(broker.when_probed())
        return broker

    async def test_rights(self) -> None:
        """A user with the rights that docs/rabbitmq.md names can do everything that is needed."""
        server = self.bench.server
        server.control("add_user", "gateway", "p@ss")
        self.addCleanup(server.control, "delete_user", "gateway")
        name = self.bench.channel("q").rpartition(".")[0]
        rights = (rf"^{name}\.", rf"^({name}\..*|amq\.default)$", rf"^{name}\.")
        server.control("set_permissions", "-p", "/", "gateway", *rights)
        broker = await self.probed(f"amqp://gateway:p%40ss@127.0.0.1:{server.port}/%2F")
        self.assertIsNone(broker.unavailable_reason)
        channel = self.bench.channel("q")
        await self.done(broker.ensure(channel))
        await self.publish(channel, [b"1", b"2"], broker=broker)
        self.assertEqual(await self.done(broker.depth(channel)), 2)
        self.assertEqual(await self.remaining(channel, broker), [b"1", b"2"])

    async def test_without_rights(self) -> None:
        """A user who may not make or read queues is told so, with the name of the queue, and loses nothing else."""
        server = self.bench.server
        server.control("add_user", "guesser", "p")
        self.addCleanup(server.control, "delete_user", "guesser")
        server.control("set_permissions", "-p", "/", "guesser", "^$", ".*", "^$")
        broker = await self.probed(f"amqp://guesser:p@127.0.0.1:{server.port}/%2F")
        error = await self.refused(broker.ensure(self.bench.channel("elsewhere")))
        self.assertIn("ACCESS_REFUSED", str(error))
        self.assertIn(self.bench.channel("elsewhere"), str(error))
        channel = await self.channel()
        self.consume(channel, 1, broker)
        await self.until(lambda: broker.warnings, "nothing is said of it")
        self.assertIn(channel, broker.warnings[0])
        self.assertIn("ACCESS_REFUSED", broker.warnings[0])
        await self.publish(channel, [b"1"], broker=broker)
        self.assertIsNone(broker.unavailable_reason)
        server.control("set_permissions", "-p", "/", "guesser", "^$", ".*", ".*")
        await self.until(lambda: not broker.warnings, "it is still warned of")

    async def test_tls(self) -> None:
        """TLS to a server whose authority is known; refused where it is not, or where the name is another."""
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        certificate, key = certify(directory)
        server = RabbitMQServer(certificate=certificate, key=key)
        self.addCleanup(server.close)
        server.start()
        login = "amqps://guest:guest@"
        bundle = directory / "authorities.pem"
        bundle.write_bytes(Authority(directory).ca.read_bytes() + certificate.read_bytes())
        known = await self.probed(f"{login}localhost:{server.tls_port}/%2F?ca={bundle}")
        self.assertIsNone(known.unavailable_reason)
        await self.done(known.ensure("q"))
        await self.publish("q", [b"1"], broker=known)
        for place in (f"localhost:{server.tls_port}/", f"127.0.0.1:{server.tls_port}/?ca={certificate}"):
            other: IBroker = await self.probed(login + place)
            self.assertIn("TLS", str(other.unavailable_reason))
            (outcome,) = await self.done(other.publish("q", [Message(b"2")]))
            self.assertIsNotNone(outcome)

    async def test_who_we_are(self) -> None:
        """A wrong password and a virtual host that is none are told apart, in words without the password."""
        port = self.bench.server.port
        for login, path, words in (
            ("nobody:hush", "%2F", "password of user nobody"),
            ("guest:hush", "%2F", "password of user guest"),
            ("guest:guest", "none", "none"),
        ):
            broker = await self.probed(f"amqp://{login}@127.0.0.1:{port}/{path}")
            self.assertIn(words, str(broker.unavailable_reason))
            self.assertNotIn("hush", str(broker.unavailable_reason))
            self.assertIn("127.0.0.1", str(broker.unavailable_reason))

    async def test_the_next_node(self) -> None:
        """A node that is down is passed over; where all are, each is in the reason."""
        url = self.bench.server.url
        broker = await self.probed(url.replace("127.0.0.1", "127.0.0.1:1,127.0.0.1"))
        self.assertIsNone(broker.unavailable_reason)
        broker = await self.probed("amqp://127.0.0.1:1,127.0.0.1:2/")
        self.assertIn("127.0.0.1:1: Connection was refused", str(broker.unavailable_reason))
        self.assertIn("127.0.0.1:2: Connection was refused", str(broker.unavailable_reason))

    async def test_too_old(self) -> None:
        """A server older than 3.10 is refused, with its version."""
        listening = reactor.listenTCP(0, Factory.forProtocol(OldServer), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(listening.stopListening)
        broker = await self.probed(f"amqp://127.0.0.1:{listening.getHost().port}/")
        self.assertIn("it is RabbitMQ 3.9.27, and RabbitMQ 3.10 or newer is needed", str(broker.unavailable_reason))

    async def test_something_else(self) -> None:
        """What closes the connection without a word is not taken for a wrong password."""
        listening = reactor.listenTCP(0, Factory.forProtocol(Closing), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(listening.stopListening)
        broker = await self.probed(f"amqp://127.0.0.1:{listening.getHost().port}/")
        self.assertIn("is that the port of AMQP?", str(broker.unavailable_reason))


class Closing(Protocol):
    """It does not speak AMQP."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.loseConnection()  # type: ignore[union-attr]
