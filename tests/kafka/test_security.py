"""Who is let in: TLS, SCRAM, a connection string over TLS, and servers that are none. On a Kafka of its own."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openhqm.event_hubs.broker import EventHubsBroker
from openhqm.event_hubs.settings import EventHubsSettings
from openhqm.interfaces import Message
from openhqm.kafka.broker import KafkaBroker
from openhqm.kafka.errors import describe, refuses
from openhqm.kafka.settings import LARGEST_MESSAGE, KafkaSettings, Security
from tests.authorities import Authority
from tests.kafka.programs import Programs
from tests.kafka.server import CONNECTION_STRING, KafkaServer, shared_secured_kafka

OURS: dict[str, Any] = {"group": "g", "seconds": 5.0, "largest": LARGEST_MESSAGE}


class SecurityCase(TestCase):
    """On one server"""

    timeout = 240

    def setUp(self) -> None:
        self.server = shared_secured_kafka()

    def client(self, port: int, **security: Any) -> KafkaBroker:
        settings = KafkaSettings(bootstrap_servers=[f"localhost:{port}"], security=Security(**security))
        return self.ends(KafkaBroker(settings.properties, reactor, random.random, **OURS))

    def ends(self, broker: KafkaBroker) -> KafkaBroker:
        self.addCleanup(broker.stop)
        return broker

    async def let_in(self, broker: KafkaBroker, channel: str) -> None:
        """A message is published."""
        await broker.start()
        await broker.when_probed()
        self.assertIsNone(broker.unavailable_reason)
        await broker.ensure(channel)
        self.assertEqual(await broker.publish(channel, [Message(b"1")]), [None])

    async def kept_out(self, broker: KafkaBroker, reason: str) -> None:
        """It is said why, within 5 s, and without a secret."""
        began = reactor.seconds()  # type: ignore[attr-defined]
        await broker.start()
        await broker.when_probed()
        self.assertLess(reactor.seconds() - began, 5.5)  # type: ignore[attr-defined]
        self.assertIn(reason, broker.unavailable_reason or "")
        self.assertNotIn("wr0ng", broker.unavailable_reason or "")


class SecurityTests(SecurityCase):
    """Each way in"""

    def copy(self, file: Path, to: Path) -> None:
        to.write_bytes(file.read_bytes())

    async def test_tls(self) -> None:
        """The certificate of the server is verified with the file, and without it nothing is sent."""
        await self.let_in(self.client(self.server.tls_port, tls=True, ca=str(self.server.ca)), "tls")
        await self.kept_out(self.client(self.server.tls_port, tls=True), "certificate verify failed")

    async def test_other_authority(self) -> None:
        """A file of authorities that is exchanged counts from the next connection on, without a restart."""
        ca = Path(self.mktemp())
        self.copy(Authority(ca.parent).ca, ca)
        broker = self.client(self.server.tls_port, tls=True, ca=str(ca))
        await self.kept_out(broker, "certificate verify failed")
        self.copy(self.server.ca, ca)
        due = reactor.seconds() + 60  # type: ignore[attr-defined]
        while broker.unavailable_reason is not None:
            self.assertLess(reactor.seconds(), due, broker.unavailable_reason)  # type: ignore[attr-defined]
            await deferLater(reactor, 0.1)  # type: ignore[arg-type]
        await self.let_in(broker, "renewed")

    async def test_no_tls(self) -> None:
        """A client without TLS is told so at a port that wants it, and one with TLS at a port that has none."""
        await self.kept_out(self.client(self.server.tls_port), "")
        await self.kept_out(self.client(self.server.port, tls=True, ca=str(self.server.ca)), "")

    async def test_scram(self) -> None:
        """User name and password, by SCRAM; a wrong password is the reason."""
        user = {"mechanism": "SCRAM-SHA-512", "username": "alice"}
        await self.let_in(self.client(self.server.scram_port, password="scr4m", **user), "scram")
        await self.kept_out(self.client(self.server.scram_port, password="wr0ng", **user), "refuses user name")

    async def test_connection_string(self) -> None:
        """As Event Hubs is reached: SASL PLAIN with a connection string, over TLS; what is wrong is said."""
        Programs(self.server, "").topic("hub")
        ca = str(self.server.ca)
        for secret, authorities, reason in (
            (CONNECTION_STRING, ca, None),
            (CONNECTION_STRING.replace("s3cret", "wr0ng"), ca, "refuses user"),
            (CONNECTION_STRING, None, "certificate verify failed"),
        ):
            settings = EventHubsSettings(
                connection_string=secret, endpoint=f"localhost:{self.server.hubs_port}", ca=authorities
            )
            broker = self.ends(EventHubsBroker(settings.properties, reactor, random.random, **OURS))
            await (self.let_in(broker, "hub") if reason is None else self.kept_out(broker, reason))

    async def test_stopped_in_its_tracks(self) -> None:
        """A server that answers nothing any more (SIGSTOP) refuses in time, and takes messages once it goes on."""
        server = KafkaServer().start()  # one that was stopped takes a while until it is of use to other tests
        self.addCleanup(server.close)
        broker = self.client(server.port)
        await self.let_in(broker, "frozen")
        server.freeze()
        try:
            (outcome,) = await broker.publish("frozen", [Message(b"2")])
            self.assertIsNotNone(outcome)
        finally:
            server.thaw()
        while (await broker.publish("frozen", [Message(b"3")])) != [None]:
            await deferLater(reactor, 0.1)  # type: ignore[arg-type]
        self.assertIsNone(broker.unavailable_reason)

    async def test_http(self) -> None:
        """A server that answers HTTP is named as such."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    connection.recv(100)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        await self.kept_out(self.client(listening.getsockname()[1]), "it answers HTTP, and is no Kafka broker")


class Said:
    """A ``KafkaError``"""

    def __init__(self, name: str, text: str) -> None:
        self.name = lambda: name
        self.str = lambda: text


class ForeignServerTests(SynchronousTestCase):
    def test_told_apart(self) -> None:
        """The first bytes of what is no Kafka say what it is."""
        for begins, text in ((b"HTTP", "HTTP"), (b"\x15\x03\x03\x00", "TLS"), (b"SSH-", "something else")):
            error = Said("_BAD_MSG", f"x: Receive failed: Invalid response size {int.from_bytes(begins, 'big')} (0..1)")
            self.assertTrue(refuses(error))
            self.assertIn(text, describe(error))
        self.assertFalse(refuses(Said("_BAD_MSG", "a batch is broken")))
