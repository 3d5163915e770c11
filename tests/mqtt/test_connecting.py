"""Ways to a Mosquitto: TLS, client certificates, websockets, users; and what is said where it cannot be reached."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from openhqm.errors import NotDurable
from openhqm.mqtt.address import Address, TLSFiles
from openhqm.mqtt.client import Client
from openhqm.mqtt.reason_codes import NO_SUBSCRIBERS
from tests.brokers import Mosquitto, find_mosquitto
from tests.certificates import certify
from tests.servers import free_port


class ConnectingTests(TestCase):
    """A server of its own for each test"""

    timeout = 240

    def setUp(self) -> None:
        find_mosquitto()
        self.directory = Path(tempfile.mkdtemp(dir=Path.cwd()))
        self.cert, self.key = certify(self.directory)
        self.port = free_port()

    def start(self, *lines: str, **settings: str) -> Mosquitto:
        # Its websockets take an interface, and not an address, to listen on.
        address = "" if "protocol websockets" in lines else " 127.0.0.1"
        server = Mosquitto(f"listener {self.port}{address}", *lines, **settings)
        self.addCleanup(server.close)
        return server.start()

    async def works(self, address: Address, size: int = 100_000) -> None:
        """Messages are published and received at that address."""
        messages: list[bytes] = []
        client = await self.connected(address, messages)
        await client.subscribe("a")
        self.assertEqual(await gatherResults([client.publish("a", bytes(size)) for _ in range(30)]), [0] * 30)
        await client.unsubscribe("a")  # what was published before has come by then
        self.assertEqual([len(each) for each in messages], [size] * 30)
        client.close()
        await client.lost

    async def connected(self, address: Address, messages: list[bytes]) -> Client:
        def received(message: object) -> None:
            messages.append(message.payload)  # type: ignore[attr-defined]
            client.acknowledge(message.mid)  # type: ignore[attr-defined]

        client = Client(address, "me", reactor, received)
        return await client.connect(deferToThread, 10)

    async def refused(self, address: Address) -> str:
        """Why there is no connection."""
        try:
            await self.connected(address, [])
        except NotDurable as error:
            return error.reason
        raise self.failureException("it is connected")

    def tls(self, *lines: str) -> None:
        files = (f"certfile {self.cert}", f"keyfile {self.key}", f"cafile {self.cert}")
        self.start(*files, *lines)

    async def test_tls(self) -> None:
        """TLS is verified: the authority, and the name."""
        self.tls()
        ours = TLSFiles(str(self.cert))
        await self.works(Address("localhost", self.port, tls=ours))
        reason = await self.refused(Address("localhost", self.port, tls=TLSFiles()))
        self.assertIn("self-signed", reason)
        self.assertIn("name the authority of its certificate in tls.ca", reason)
        self.assertIn("TLS: ", await self.refused(Address("127.0.0.1", self.port, tls=ours)))

    async def test_client_certificate(self) -> None:
        """A broker that asks for a certificate is shown one; without it, it refuses."""
        self.tls("require_certificate true")
        ours = TLSFiles(str(self.cert), str(self.cert), str(self.key))
        await self.works(Address("localhost", self.port, tls=ours))
        reason = await self.refused(Address("localhost", self.port, tls=TLSFiles(str(self.cert))))
        self.assertIn("closes the connection", reason)

    async def test_renewed_certificate(self) -> None:
        """The files are read again for each connection."""
        self.tls()
        wrong = self.directory / "wrong"
        wrong.mkdir()
        trusted, _ = certify(wrong)
        address = Address("localhost", self.port, tls=TLSFiles(str(trusted)))
        self.assertIn("TLS: ", await self.refused(address))
        trusted.write_bytes(self.cert.read_bytes())
        await self.works(address)

    async def test_unusable_files(self) -> None:
        """A file that is missing or holds no certificate is a reason, with the key, the file and what is wrong."""
        self.tls()
        missing = str(self.directory / "none.pem")
        for files, key, reason in (
            (TLSFiles(missing), f"tls.ca {missing}", "No such file"),
            (TLSFiles(str(self.key)), f"tls.ca {self.key}", "TLS: "),
            (TLSFiles(str(self.cert), missing, str(self.key)), f"tls.cert {missing}", "No such file"),
            (TLSFiles(str(self.cert), str(self.cert), missing), f"tls.key {missing}", "No such file"),
        ):
            found = await self.refused(Address("localhost", self.port, tls=files))
            self.assertIn(key, found)
            self.assertIn(reason, found)

    async def test_websockets(self) -> None:
        """MQTT over websockets, in either version. A broker that reads nothing for a while has it all in the end."""
        server = self.start("protocol websockets")
        for protocol in (5, 4):
            address = Address("localhost", self.port, path="/mqtt", protocol=protocol)
            await self.works(address, 1000)  # Mosquitto writes 40 KB a second to a websocket
            client = await self.connected(address, [])
            server.freeze()
            reactor.callLater(1, server.thaw)  # type: ignore[attr-defined]
            published = [client.publish("b", bytes(1_000_000)) for _ in range(8)]
            self.assertEqual(set(await gatherResults(published)) - {0, NO_SUBSCRIBERS}, set())
            client.close()
            await client.lost

    async def test_websockets_with_tls(self) -> None:
        """The same with TLS."""
        self.tls("protocol websockets")
        await self.works(Address("localhost", self.port, path="/mqtt", tls=TLSFiles(str(self.cert))), 1000)

    def users(self) -> Path:
        """A file with one user, gateway, whose password is s3cret."""
        file = self.directory / "users"
        tool = Path(find_mosquitto()).parent.parent / "bin" / "mosquitto_passwd"
        subprocess.run([str(tool), "-b", "-c", str(file), "gateway", "s3cret"], check=True, capture_output=True)
        file.chmod(0o644)
        return file

    async def test_users(self) -> None:
        """User and password are shown. Where they are wrong the reason says so, without the password."""
        self.start(allow_anonymous="false", password_file=str(self.users()))
        for protocol in (5, 4):
            address = Address("localhost", self.port, "gateway", "s3cret", protocol=protocol)
            await self.works(address)
            for username, password in (("gateway", "gue55"), (None, None)):
                wrong = Address("localhost", self.port, username, password, protocol=protocol)
                reason = await self.refused(wrong)
                self.assertIn("it refuses the connection: ", reason)
                self.assertIn("check username, password", reason)
                self.assertNotIn("gue55", reason)

    async def test_unreachable(self) -> None:
        """Where no server listens, or the name is not known, the reason says that."""
        self.assertEqual(await self.refused(Address("127.0.0.1", self.port)), "Connection refused")
        self.assertIn("not known", await self.refused(Address("nowhere.invalid", 1)))

    async def test_same_client_id(self) -> None:
        """A client whose client id another one takes says so, as a question where the broker gives no reason."""
        self.start()
        for protocol in (5, 4):
            address = Address("localhost", self.port, protocol=protocol)
            first = await self.connected(address, [])
            second = await self.connected(address, [])
            self.assertRegex(await first.lost, "Session taken over|another client has the same client id")
            second.close()
            await second.lost

    async def test_another_protocol(self) -> None:
        """A server that speaks no MQTT, such as one for HTTP, is told with the question whether that is the port."""
        port = await self.talker(b"<!DOCTYPE html>" + bytes(100))
        for protocol in (5, 4):
            reason = await self.refused(Address("127.0.0.1", port, protocol=protocol))
            self.assertIn("is that the port of MQTT?", reason)

    async def talker(self, answer: bytes) -> int:
        """The port of a server that answers whatever it reads with ``answer``."""

        class Answer(Protocol):
            def dataReceived(self, data: bytes) -> None:
                assert self.transport is not None
                self.transport.write(answer)

        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(Answer))
        self.addCleanup(listening.stopListening)
        return int(listening.getHost().port)

    async def test_plain_to_tls(self) -> None:
        """Plain MQTT to a port with TLS, and the other way round, ends with a reason."""
        self.tls()
        self.assertIn("closes the connection", await self.refused(Address("localhost", self.port)))
        server = Mosquitto().start()
        self.addCleanup(server.close)
        self.assertNotEqual(await self.refused(Address("localhost", server.port, tls=TLSFiles())), "")
