"""The guarded client, against hostile resolvers and with a listener that it must never reach."""

from __future__ import annotations

import datetime
import socket
from collections.abc import Sequence
from functools import partial
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import reactor as real_reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionRefusedError, DNSLookupError
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, PrivateCertificate
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase
from twisted.web.client import BrowserLikePolicyForHTTPS, readBody
from twisted.web.iweb import IAgent
from zope.interface import implementer
from zope.interface.verify import verifyObject

from openhqm.errors import DestinationRefused
from openhqm.http1 import checked_pool
from openhqm.http1.checked_pool import KNOWN_SECONDS, OPEN_SECONDS, RESOLVE_SECONDS
from openhqm.http1.failures import NotConnected, root_cause
from openhqm.http1.guarded import CONNECT_SECONDS, MOST_TRIED, guarded_client
from openhqm.http1.upstream_pool import IDLE_SECONDS
from openhqm.policy.destinations import Destination, DestinationPolicy

reactor: Any = real_reactor
PUBLIC, ANOTHER, PUBLIC6 = "93.184.215.14", "1.1.1.1", "2606:4700:4700::1111"
Answer = Sequence[str] | Exception | None


@implementer(IHostResolution)
class Resolution:
    """A resolution that cannot be cancelled, as Twisted's own cannot."""

    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        raise NotImplementedError


@implementer(IHostnameResolver)
class Zone:
    """A name server controlled by an attacker: a list of answers for each name, one for each query.

    An answer is addresses or one other name (an alias), an error, or None for silence. The last answer repeats.
    """

    def __init__(self, **answers: list[Answer]) -> None:
        self.answers = {name.replace("_", "."): left for name, left in answers.items()}
        self.asked: list[str] = []
        self.waiting: list[IResolutionReceiver] = []

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        self.asked.append(hostName)
        resolution = Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        answer = self._answer(hostName)
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            self.waiting.append(resolutionReceiver)
            return resolution
        self.tell(resolutionReceiver, answer)
        return resolution

    def tell(self, receiver: IResolutionReceiver, answer: Sequence[str]) -> None:
        for address in answer:
            kind: Any = IPv6Address if ":" in address else UNIXAddress if "/" in address else IPv4Address
            receiver.addressResolved(kind(address) if kind is UNIXAddress else kind("TCP", address, 0))
        receiver.resolutionComplete()

    def _answer(self, name: str) -> Answer:
        left = self.answers.get(name, [()])
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Sequence) and len(answer) == 1 and answer[0] in self.answers:
            return self._answer(answer[0])
        return answer


class Fixture:
    """An agent on a reactor in memory, with the names that it resolved and the addresses that it connected to."""

    def __init__(self, policy: DestinationPolicy | None = None, kept: int = 0, **answers: list[Answer]) -> None:
        self.reactor = MemoryReactorClock()
        self.zone = Zone(**answers)
        self.servers: list[Any] = []
        policy = policy or DestinationPolicy(("https", "http"), (443, 80))
        self.agent = guarded_client(self.reactor, policy.check, policy.permits, resolver=self.zone, kept=kept)

    def get(self, url: str) -> Deferred[Any]:
        return self.agent.request(b"GET", url.encode())

    @property
    def connected_to(self) -> list[tuple[str, int]]:
        return [(host, port) for host, port, *_ in self.reactor.tcpClients]

    def connect(self, peer: str, number: int = -1) -> StringTransport:
        """The connection is made, and ``peer`` is the address at its other end."""
        kind: Any = IPv6Address if ":" in peer else IPv4Address
        address = kind("TCP", peer, 80)
        transport = StringTransport(peerAddress=address)
        protocol: Any = self.reactor.tcpClients[number][2].buildProtocol(address)
        protocol.makeConnection(transport)
        self.servers.append(protocol)
        return transport

    def fail(self, number: int = -1, error: Exception | None = None) -> None:
        """The connection fails."""
        factory, connector = self.reactor.tcpClients[number][2], self.reactor.connectors[number]
        factory.clientConnectionFailed(connector, Failure(error or ConnectionRefusedError()))


class InMemoryTests(SynchronousTestCase):
    """`guarded_client`, without a network"""

    def refused(self, fixture: Fixture, url: str) -> DestinationRefused:
        error: DestinationRefused = self.failureResultOf(fixture.get(url), DestinationRefused).value
        self.assertEqual(str(error), "the destination is not allowed")
        self.assertEqual(fixture.reactor.getDelayedCalls(), [])
        return error

    def test_interfaces(self) -> None:
        """The agent provides `IAgent`, and the resolver of these tests `IHostnameResolver`."""
        fixture = Fixture()
        verifyObject(IAgent, fixture.agent)
        verifyObject(IHostnameResolver, fixture.zone)

    def test_checked_address(self) -> None:
        """The name is resolved once, the connection goes to the checked address, and Host is the name."""
        fixture = Fixture(hooks_example_com=[[PUBLIC], ["127.0.0.1"]])
        answer = fixture.get("http://Hooks.example.com/a?b")
        self.assertEqual(fixture.connected_to, [(PUBLIC, 80)])
        self.assertEqual(fixture.zone.asked, ["hooks.example.com"])
        transport = fixture.connect(PUBLIC)
        self.assertEqual(fixture.zone.asked, ["hooks.example.com"])
        request = transport.value()
        self.assertTrue(request.startswith(b"GET /a?b HTTP/1.1\r\n"), request)
        self.assertIn(b"\r\nHost: hooks.example.com\r\n", request)
        self.assertIn(b"\r\nConnection: close\r\n", request)
        self.assertNoResult(answer)

    def test_rebinding(self) -> None:
        """A name that is public at the first attempt and loopback at the second gets one connection."""
        fixture = Fixture(hooks_example_com=[[PUBLIC], ["127.0.0.1"]])
        fixture.get("http://hooks.example.com/")
        self.refused(fixture, "http://hooks.example.com/")
        self.assertEqual(fixture.connected_to, [(PUBLIC, 80)])

    def test_every_address(self) -> None:
        """One address that is not allowed, at any place among the others, prevents all connections."""
        for answer in (
            [PUBLIC, "127.0.0.1"],
            ["10.0.0.1", PUBLIC],
            [PUBLIC, "::1"],
            [PUBLIC, PUBLIC6, "::ffff:169.254.169.254"],
            [PUBLIC6, "fe80::1"],
            [PUBLIC] * 50 + ["0.0.0.0"],
            [PUBLIC, "/run/docker.sock"],
        ):
            fixture = Fixture(hooks_example_com=[answer])
            self.refused(fixture, "https://hooks.example.com/")
            self.assertEqual(fixture.connected_to, [], answer)

    def test_aliases(self) -> None:
        """The address at the end of a chain of aliases is checked, at every attempt."""
        fixture = Fixture(
            a_example_com=[["b.example.net"]], b_example_net=[["c.example.org"]], c_example_org=[["10.0.0.5"]]
        )
        self.refused(fixture, "http://a.example.com/")
        self.assertEqual(fixture.connected_to, [])
        fixture = Fixture(a_example_com=[["b.example.net"]], b_example_net=[[PUBLIC], ["::1"]])
        fixture.get("http://a.example.com/")
        self.refused(fixture, "http://a.example.com/")
        self.assertEqual(fixture.connected_to, [(PUBLIC, 80)])

    def test_literals(self) -> None:
        """An address in the URL is checked without asking the resolver."""
        fixture = Fixture()
        fixture.get("http://1.1.1.1/")
        fixture.get(f"https://[{PUBLIC6}]/")
        self.assertEqual(fixture.connected_to, [("1.1.1.1", 80), (PUBLIC6, 443)])
        for url in ("http://127.0.0.1/", "http://[::1]/", "http://127.1/", "https://[::ffff:10.0.0.1]/"):
            self.refused(fixture, url)
        self.assertEqual((len(fixture.connected_to), fixture.zone.asked), (2, []))

    def test_url_checked_first(self) -> None:
        """An invalid URL reaches neither the resolver nor a connection, and fails as a Deferred."""
        fixture = Fixture(hooks_example_com=[[PUBLIC]])
        for url in (
            "ftp://hooks.example.com/",
            "http://a@hooks.example.com/",
            "http://hooks.example.com/\n",
            "http://b\xfc/",
        ):
            self.refused(fixture, url)
        self.assertEqual((fixture.connected_to, fixture.zone.asked), ([], []))

    def test_invalid_a_label(self) -> None:
        """An invalid A-label cannot be verified by TLS, so it is refused."""
        answers: dict[str, Any] = {"xn--a_example": [[PUBLIC]]}
        fixture = Fixture(**answers)
        self.refused(fixture, "https://xn--a.example/")
        self.assertEqual(fixture.connected_to, [])

    def test_no_address(self) -> None:
        """A name that does not exist or cannot be resolved is refused with the text for a private address."""
        answers: tuple[Answer, ...] = ((), DNSLookupError("no"), OSError("no"), ValueError("no"))
        for answer in answers:
            fixture = Fixture(hooks_example_com=[answer])
            self.assertIn("name", self.refused(fixture, "https://hooks.example.com/").reason)
            self.assertEqual(fixture.connected_to, [])

    def test_silent_resolver(self) -> None:
        """A silent resolver is waited for `RESOLVE_SECONDS`. A later answer is ignored."""
        fixture = Fixture(hooks_example_com=[None])
        answer = fixture.get("https://hooks.example.com/")
        fixture.reactor.advance(RESOLVE_SECONDS - 0.01)
        self.assertNoResult(answer)
        fixture.reactor.advance(0.01)
        self.failureResultOf(answer, DestinationRefused)
        fixture.zone.tell(fixture.zone.waiting[0], [PUBLIC])
        self.assertEqual((fixture.connected_to, fixture.reactor.getDelayedCalls()), ([], []))

    def test_slow_resolver(self) -> None:
        """A resolver may take its time within that limit."""
        fixture = Fixture(hooks_example_com=[None])
        fixture.get("https://hooks.example.com/")
        fixture.reactor.advance(RESOLVE_SECONDS - 0.01)
        fixture.zone.tell(fixture.zone.waiting[0], [PUBLIC])
        self.assertEqual((fixture.connected_to, fixture.reactor.getDelayedCalls()), ([(PUBLIC, 443)], []))

    def test_cancelled(self) -> None:
        """A request cancelled while its name is resolved makes no connection later."""
        fixture = Fixture(hooks_example_com=[None])
        answer = fixture.get("https://hooks.example.com/")
        answer.cancel()
        self.assertNotIsInstance(self.failureResultOf(answer).value, DestinationRefused)
        fixture.zone.tell(fixture.zone.waiting[0], [PUBLIC])
        self.assertEqual((fixture.connected_to, fixture.reactor.getDelayedCalls()), ([], []))

    def test_next_address(self) -> None:
        """Where an address does not answer, the next one is tried: up to `MOST_TRIED`, within one time limit."""
        addresses = [f"1.1.1.{number}" for number in range(1, 10)]
        fixture = Fixture(hooks_example_com=[[*addresses[:2], *addresses]])
        answer = fixture.get("http://hooks.example.com/")
        limits = []
        for _ in range(MOST_TRIED):
            self.assertNoResult(answer)
            limits.append(fixture.reactor.tcpClients[-1][3])
            fixture.reactor.advance(limits[-1])
            fixture.fail()
        self.assertIsInstance(root_cause(self.failureResultOf(answer, NotConnected).value), ConnectError)
        self.assertEqual(fixture.connected_to, [(address, 80) for address in addresses[:MOST_TRIED]])
        self.assertAlmostEqual(sum(limits), CONNECT_SECONDS)

    def test_next_address_answers(self) -> None:
        """The request goes to the first address that accepts the connection, and to no other."""
        fixture = Fixture(hooks_example_com=[[PUBLIC6, PUBLIC]])
        fixture.get("http://hooks.example.com/")
        fixture.fail()
        self.assertIn(b"GET / HTTP/1.1", fixture.connect(PUBLIC).value())
        self.assertEqual(fixture.connected_to, [(PUBLIC6, 80), (PUBLIC, 80)])

    def test_other_peer(self) -> None:
        """A connection that leads to another address is closed before the request is sent."""
        for peer in ("127.0.0.1", "::1", "10.0.0.1", "::ffff:127.0.0.1"):
            fixture = Fixture(hooks_example_com=[[PUBLIC, ANOTHER]])
            answer = fixture.get("http://hooks.example.com/")
            transport = fixture.connect(peer)
            self.failureResultOf(answer, DestinationRefused)
            self.assertEqual((transport.value(), transport.disconnecting), (b"", True), peer)
            self.assertEqual(fixture.connected_to, [(PUBLIC, 80)])

    def test_allowed_private_address(self) -> None:
        """Hosts and networks that the operator allows are called at private addresses."""
        fixture = Fixture(DestinationPolicy(("http",), (80,), allow=("redis", "10.1.0.0/16")), redis=[["10.9.9.9"]])
        fixture.get("http://redis/")
        fixture.get("http://10.1.0.1/")
        self.assertEqual(fixture.connected_to, [("10.9.9.9", 80), ("10.1.0.1", 80)])


class KeptTests(SynchronousTestCase):
    """A client that keeps connections, whose server answers each request with 204."""

    def setUp(self) -> None:
        self.answers: list[Deferred[Any]] = []

    def ask(self, fixture: Fixture, host: str = "hooks.example.com") -> Deferred[Any]:
        answer = fixture.agent.fetch(b"POST", f"http://{host}/a".encode(), (), b"1", 1000)
        self.answers.append(answer)
        return answer

    def served(self, fixture: Fixture, host: str = "hooks.example.com", number: int = -1) -> None:
        """A request is sent over the connection ``number``, and answered."""
        transport = fixture.servers[number].transport
        self.assertTrue(transport.value().startswith(b"POST /a HTTP/1.1\r\n"), transport.value())
        self.assertIn(f"\r\nHost: {host}\r\n".encode(), transport.value())
        self.assertNotIn(b"Connection:", transport.value())
        transport.clear()
        fixture.servers[number].dataReceived(b"HTTP/1.1 204 No Content\r\n\r\n")
        self.assertEqual(self.successResultOf(self.answers.pop()).status, 204)

    def first(self, peer: str = PUBLIC, kept: int = 4, **answers: list[Answer]) -> Fixture:
        """A connection to ``peer`` has served a request, and is idle."""
        fixture = Fixture(kept=kept, **answers)
        self.ask(fixture)
        fixture.connect(peer)
        self.served(fixture)
        return fixture

    def busy(self, fixture: Fixture, seconds: float) -> None:
        """So much time passes, in which the connection is used every second."""
        for _ in range(int(seconds)):
            fixture.reactor.advance(1)
            self.ask(fixture)
            self.served(fixture)
        fixture.reactor.advance(seconds % 1)

    def closed(self, fixture: Fixture, number: int = 0) -> None:
        self.assertTrue(fixture.servers[number].transport.disconnecting)
        fixture.servers[number].connectionLost(Failure(ConnectionDone()))

    def test_kept(self) -> None:
        """The next request goes over the same connection, and the resolver is not asked again so soon."""
        fixture = self.first(hooks_example_com=[[PUBLIC]])
        self.ask(fixture)
        self.served(fixture)
        self.assertEqual((fixture.connected_to, fixture.zone.asked), ([(PUBLIC, 80)], ["hooks.example.com"]))

    def test_idle(self) -> None:
        """An idle connection is closed after a short time, and no timer is left behind."""
        fixture = self.first(hooks_example_com=[[PUBLIC]])
        fixture.reactor.advance(IDLE_SECONDS)
        self.closed(fixture)
        self.assertEqual(fixture.reactor.getDelayedCalls(), [])

    def test_rebinding(self) -> None:
        """A name that changes to a private address gets nothing more than what it was checked for.

        Until the resolver is asked again, requests go to the address that was checked. Then they are refused, the
        connection is closed, and there was never one to another address.
        """
        for private in (["127.0.0.1"], ["169.254.169.254"], [PUBLIC, "10.0.0.1"], ["::1", PUBLIC]):
            fixture = self.first(hooks_example_com=[[PUBLIC], private])
            self.busy(fixture, KNOWN_SECONDS - 0.1)
            self.ask(fixture)
            self.served(fixture)
            fixture.reactor.advance(0.1)
            self.failureResultOf(self.ask(fixture), DestinationRefused)
            self.closed(fixture)
            self.failureResultOf(self.ask(fixture), DestinationRefused)
            self.assertEqual(fixture.connected_to, [(PUBLIC, 80)], private)

    def test_busy_while_it_changes(self) -> None:
        """A connection that is in use while its name changes carries no other request."""
        fixture = self.first(hooks_example_com=[[PUBLIC], [ANOTHER], [ANOTHER]])
        slow = self.ask(fixture)
        fixture.reactor.advance(KNOWN_SECONDS)
        self.ask(fixture)
        fixture.connect(ANOTHER)
        self.served(fixture)
        fixture.servers[0].dataReceived(b"HTTP/1.1 204 No Content\r\n\r\n")
        self.assertEqual(self.successResultOf(slow).status, 204)
        self.ask(fixture)
        self.served(fixture)
        self.closed(fixture)
        self.assertEqual(fixture.connected_to, [(PUBLIC, 80), (ANOTHER, 80)])

    def test_moved(self) -> None:
        """A name that moves to another public address is followed there, and the old connection is closed."""
        fixture = self.first(hooks_example_com=[[PUBLIC], [ANOTHER]])
        self.busy(fixture, KNOWN_SECONDS - 1)
        fixture.reactor.advance(1)
        self.ask(fixture)
        self.closed(fixture)
        fixture.connect(ANOTHER)
        self.served(fixture)
        self.assertEqual(fixture.connected_to, [(PUBLIC, 80), (ANOTHER, 80)])

    def test_still_there(self) -> None:
        """A name that still has the address, beside others, keeps its connection."""
        fixture = self.first(hooks_example_com=[[PUBLIC], [ANOTHER, PUBLIC]])
        self.busy(fixture, 4 * KNOWN_SECONDS)
        self.assertEqual((fixture.connected_to, len(fixture.zone.asked)), ([(PUBLIC, 80)], 5))

    def test_no_name_any_more(self) -> None:
        """Where the name has no address any more, or the resolver fails, nothing is sent."""
        for answer in ((), DNSLookupError("no")):
            fixture = self.first(hooks_example_com=[[PUBLIC], answer])
            self.busy(fixture, KNOWN_SECONDS - 1)
            fixture.reactor.advance(1)
            self.failureResultOf(self.ask(fixture), DestinationRefused)
            self.closed(fixture)

    def test_old(self) -> None:
        """A connection that is always in use is replaced after `OPEN_SECONDS`: all is checked from the beginning."""
        fixture = self.first(hooks_example_com=[[PUBLIC]])
        self.busy(fixture, OPEN_SECONDS - 1)
        fixture.reactor.advance(1)
        self.ask(fixture)
        self.closed(fixture)
        fixture.connect(PUBLIC)
        self.served(fixture)
        self.assertEqual(len(fixture.connected_to), 2)

    def test_url_is_checked_each_time(self) -> None:
        """A kept connection to a host is no way around the check of the URL."""
        fixture = self.first(hooks_example_com=[[PUBLIC]])
        for url in (b"http://a@hooks.example.com/", b"http://hooks.example.com:22/", b"http://hooks.example.com/#a"):
            self.failureResultOf(fixture.agent.fetch(b"POST", url, (), b"1", 1000), DestinationRefused)
        self.assertEqual(fixture.servers[0].transport.value(), b"")

    def test_each_server(self) -> None:
        """Another port, scheme or name of the same address has a connection of its own."""
        fixture = self.first(hooks_example_com=[[PUBLIC]], other_example_com=[[PUBLIC]])
        self.ask(fixture, "other.example.com")
        fixture.agent.fetch(b"POST", b"https://hooks.example.com/a", (), b"1", 1000)
        self.assertEqual(fixture.connected_to, [(PUBLIC, 80), (PUBLIC, 80), (PUBLIC, 443)])

    def test_most(self) -> None:
        """No more idle connections are kept than ``kept``, however many hosts callers name."""
        hosts = {f"h{number}_example_com": [[PUBLIC]] for number in range(50)}
        fixture = Fixture(kept=3, **hosts)  # type: ignore[arg-type]
        for host in hosts:
            self.ask(fixture, host.replace("_", "."))
            fixture.connect(PUBLIC)
            self.served(fixture, host.replace("_", "."))
        opened = [number for number in range(50) if not fixture.servers[number].transport.disconnecting]
        self.assertEqual(opened, [0, 1, 2])
        fixture.reactor.advance(IDLE_SECONDS)
        for number in range(50):
            self.closed(fixture, number)
        self.ask(fixture, "h49.example.com")
        fixture.connect(PUBLIC)
        self.served(fixture, "h49.example.com")
        self.assertFalse(fixture.servers[-1].transport.disconnecting)

    def test_one_look_up(self) -> None:
        """Requests that wait for a name wait for one look-up; one that is cancelled takes nothing from the others."""
        for answer in ([PUBLIC], ["127.0.0.1"]):
            fixture = Fixture(kept=4, hooks_example_com=[None])
            asked = [self.ask(fixture) for _ in range(5)]
            asked[0].cancel()
            asked[3].cancel()
            self.assertEqual(len(fixture.zone.asked), 1)
            fixture.zone.tell(fixture.zone.waiting[0], answer)
            for cancelled in (asked[0], asked[3]):
                self.assertNotIsInstance(self.failureResultOf(cancelled).value, DestinationRefused)
            if answer == [PUBLIC]:
                self.assertEqual(len(fixture.connected_to), 3)
            else:
                for each in (asked[1], asked[2], asked[4]):
                    self.failureResultOf(each, DestinationRefused)
                self.assertEqual(fixture.reactor.getDelayedCalls(), [])

    def test_closed_at_the_end(self) -> None:
        """The idle connections are closed when the process stops."""
        fixture = self.first(hooks_example_com=[[PUBLIC]])
        closing = fixture.agent.close_idle()
        self.assertNoResult(closing)
        self.closed(fixture)
        self.successResultOf(closing)
        self.assertEqual(fixture.reactor.getDelayedCalls(), [])


class Server(Protocol):
    """Answers a request with a redirect, and closes the connection."""

    factory: Listener
    transport: Any

    def connectionMade(self) -> None:
        self.factory.connections += 1
        self.factory.connected.callback(None)

    def dataReceived(self, data: bytes) -> None:
        self.factory.received += data
        if b"\r\n\r\n" in self.factory.received:
            handle = self.transport.getHandle()
            self.factory.server_name = getattr(handle, "get_servername", lambda: None)()
            self.transport.write(b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 2\r\n\r\nhi")
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.lost.callback(None)


class KeepingServer(Server):
    """Answers each request with 204, over one connection."""

    def dataReceived(self, data: bytes) -> None:
        self.factory.received += data
        if self.factory.received.endswith(b"\r\n\r\n1"):
            self.factory.received = b""
            self.transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")


class Listener(Factory):
    """Counts its connections. The Deferreds are for one connection: `expect` prepares for the next."""

    protocol: Any = Server

    def __init__(self) -> None:
        self.port = self.connections = 0
        self.expect()

    def expect(self) -> None:
        self.received, self.server_name = b"", None
        self.connected: Deferred[None] = Deferred()
        self.lost: Deferred[None] = Deferred()


def certificate(name: str) -> PrivateCertificate:
    """A self-signed certificate for ``name``."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    found: PrivateCertificate = PrivateCertificate.loadPEM(made.public_bytes(serialization.Encoding.PEM) + private)
    return found


def any_url(destination: Destination, url: str) -> Destination:
    """A URL check that accepts everything."""
    return destination


class OverTheNetworkTests(TestCase):
    """`guarded_client`, with real sockets"""

    timeout = 20

    def listen(self, address: str = "127.0.0.1", port: int = 0, tls: PrivateCertificate | None = None) -> Listener:
        listener = Listener()
        try:
            if tls is None:
                listening = reactor.listenTCP(port, listener, interface=address)
            else:
                listening = reactor.listenSSL(port, listener, tls.options(), interface=address)
        except Exception as error:
            raise SkipTest(f"cannot listen on {address}: {error}")
        self.addCleanup(listening.stopListening)
        listener.port = listening.getHost().port
        return listener

    def agent(self, policy: DestinationPolicy, zone: Zone | None = None, **others: Any) -> IAgent:
        return guarded_client(reactor, policy.check, policy.permits, resolver=zone, **others)

    async def visit(self, listener: Listener, address: str) -> None:
        """Connect once. All earlier connections were counted when this one is."""
        with socket.create_connection((address, listener.port)):
            await listener.connected
        await listener.lost

    async def untouched(self, address: str) -> None:
        canary = self.listen(address)
        literal = f"[{address}]" if ":" in address else address
        zone = Zone(
            rebound_example_com=[[address]],
            both_example_com=[[PUBLIC, PUBLIC6, address]],
            first_example_com=[[address, PUBLIC]],
            alias_example_com=[["rebound.example.com"]],
        )
        policy = DestinationPolicy(("http", "https"), (canary.port,))
        hosts = (
            "rebound.example.com",
            "both.example.com",
            "first.example.com",
            "alias.example.com",
            "localhost",
            literal,
        )
        for host in hosts:
            for scheme in policy.schemes:
                await self.assertFailure(
                    self.agent(policy, zone).request(b"GET", f"{scheme}://{host}:{canary.port}/".encode()),
                    DestinationRefused,
                )
        await self.visit(canary, address)
        self.assertEqual(canary.connections, 1)

    async def test_loopback(self) -> None:
        """No host name, address or answer of a resolver leads to 127.0.0.1."""
        await self.untouched("127.0.0.1")

    async def test_loopback6(self) -> None:
        """None leads to ::1."""
        await self.untouched("::1")

    async def test_rebinding(self) -> None:
        """The first attempt reaches the allowed address. The second is refused, because the name has changed."""
        canary = self.listen("127.0.0.1")
        server = self.listen("127.0.0.2", canary.port)
        policy = DestinationPolicy(("http",), (canary.port,), allow=("127.0.0.2",))
        agent = self.agent(policy, Zone(hooks_example_com=[["127.0.0.2"], ["127.0.0.1"]]))
        url = f"http://hooks.example.com:{canary.port}/".encode()
        await readBody(await agent.request(b"GET", url))
        await server.lost
        await self.assertFailure(agent.request(b"GET", url), DestinationRefused)
        await self.visit(canary, "127.0.0.1")
        self.assertEqual((server.connections, canary.connections), (1, 1))

    async def test_rebinding_of_a_kept_connection(self) -> None:
        """Requests go over the kept connection until the name is looked up again; the new address is never called."""
        self.patch(checked_pool, "KNOWN_SECONDS", 0.3)
        canary = self.listen("127.0.0.1")
        server = self.listen("127.0.0.2", canary.port)
        server.protocol = KeepingServer
        policy = DestinationPolicy(("http",), (canary.port,), allow=("127.0.0.2",))
        zone = Zone(hooks_example_com=[["127.0.0.2"], ["127.0.0.1"]])
        agent = guarded_client(reactor, policy.check, policy.permits, resolver=zone, kept=2)
        url, answered = f"http://hooks.example.com:{canary.port}/".encode(), 0
        while True:
            try:
                fetched = await agent.fetch(b"POST", url, (), b"1", 1000)
            except DestinationRefused:
                break
            self.assertEqual(fetched.status, 204)
            answered += 1
        await server.lost
        await self.visit(canary, "127.0.0.1")
        self.assertEqual((server.connections, canary.connections), (1, 1))
        self.assertGreater(answered, 1)

    async def test_system_resolver(self) -> None:
        """Addresses of the system's resolver are checked, also where a URL check accepts any spelling of an address."""
        canary = self.listen()
        lenient, strict = DestinationPolicy(("http",), (canary.port,), allow=("localhost",)), DestinationPolicy()
        agent = guarded_client(reactor, lenient.check, strict.permits)
        await self.assertFailure(agent.request(b"GET", b"http://localhost:%d/" % canary.port), DestinationRefused)
        for host in ("127.1", "0x7f000001", "2130706433", "0177.0.0.1"):
            sound = Destination("http", host, canary.port, "/")
            agent = guarded_client(reactor, partial(any_url, sound), strict.permits)
            await self.assertFailure(agent.request(b"GET", b"http://example.com/"), DestinationRefused)
        await self.visit(canary, "127.0.0.1")
        self.assertEqual(canary.connections, 1)

    async def test_allowed(self) -> None:
        """What the operator allows is reached by name and by address. A redirect is not followed."""
        server = self.listen()
        policy = DestinationPolicy(("http",), (server.port,), allow=("127.0.0.0/8",))
        for number, host in enumerate(("hooks.example.com", "127.0.0.1"), 1):
            agent = self.agent(policy, Zone(hooks_example_com=[["127.0.0.1"]]))
            response = await agent.request(b"GET", f"http://{host}:{server.port}/here".encode())
            self.assertEqual((response.code, await readBody(response)), (302, b"hi"))
            await server.lost
            self.assertIn(f"\r\nHost: {host}:{server.port}\r\n".encode(), server.received)
            self.assertEqual(server.connections, number)
            server.expect()

    async def test_names_in_tls(self) -> None:
        """The connection goes to the address; SNI and the certificate's check use the name."""
        ours = certificate("hooks.example.com")
        server = self.listen(tls=ours)
        tls = BrowserLikePolicyForHTTPS(Certificate.loadPEM(ours.dumpPEM()))
        zone = Zone(hooks_example_com=[["127.0.0.1"]], other_example_com=[["127.0.0.1"]])
        policy = DestinationPolicy(ports=(server.port,), allow=("127.0.0.1",))
        agent = self.agent(policy, zone, tls=tls)
        response = await agent.request(b"GET", f"https://hooks.example.com:{server.port}/".encode())
        self.assertEqual((response.code, await readBody(response)), (302, b"hi"))
        await server.lost
        self.assertEqual(server.server_name, b"hooks.example.com")
        server.expect()
        for trusting, host in ((agent, "other.example.com"), (self.agent(policy, zone), "hooks.example.com")):
            answer = trusting.request(b"GET", f"https://{host}:{server.port}/".encode())
            await self.assertFailure(answer, NotConnected)
            await server.lost
            self.assertEqual(server.received, b"", host)
            server.expect()

    async def test_other_peer(self) -> None:
        """A connection that leads elsewhere gets no bytes, not even a TLS handshake.

        Both Twisted's and the kernel's address of the peer are checked.
        """
        zone = Zone(hooks_example_com=[["127.0.0.1"]])
        for verdicts in ((True, False), (True, True, False)):
            for scheme in ("http", "https"):
                server = self.listen()
                policy = DestinationPolicy(("http", "https"), (server.port,))
                asked: list[str] = []

                def permits(address: str, host: str, asked: list[str] = asked, verdicts: Any = verdicts) -> bool:
                    asked.append(address)
                    return bool(verdicts[len(asked) - 1])

                agent = guarded_client(reactor, policy.check, permits, resolver=zone)
                url = f"{scheme}://hooks.example.com:{server.port}/".encode()
                await self.assertFailure(agent.request(b"POST", url), DestinationRefused)
                await server.lost
                self.assertEqual((server.connections, server.received), (1, b""), scheme)
                self.assertEqual(asked, ["127.0.0.1"] * len(verdicts))
