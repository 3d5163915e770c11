"""The client that asks before it calls: against resolvers that lie, and with a listener that must never be reached."""

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
from twisted.internet.error import ConnectError, ConnectionRefusedError, DNSLookupError
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, PrivateCertificate
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase
from twisted.web.client import BrowserLikePolicyForHTTPS, ResponseNeverReceived, readBody
from twisted.web.iweb import IAgent
from zope.interface import implementer
from zope.interface.verify import verifyObject

from openhqm.errors import DestinationRefused
from openhqm.http1.guarded import CONNECT_SECONDS, MOST_TRIED, RESOLVE_SECONDS, guarded_agent
from openhqm.policy.destinations import Destination, DestinationPolicy

reactor: Any = real_reactor
PUBLIC, ANOTHER, PUBLIC6 = "93.184.215.14", "1.1.1.1", "2606:4700:4700::1111"
Answer = Sequence[str] | Exception | None


@implementer(IHostResolution)
class Resolution:
    """Twisted's own cannot be cancelled, so nobody may count on it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        raise NotImplementedError


@implementer(IHostnameResolver)
class Zone:
    """A name server under an attacker's hand: a list of answers for each name, one for each time it is asked.

    An answer is addresses or one other name (an alias), an error, or None for silence. The last one is given for
    ever.
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


class Rig:
    """An agent on a reactor in memory: what it resolved, and where it went."""

    def __init__(self, policy: DestinationPolicy | None = None, **answers: list[Answer]) -> None:
        self.reactor = MemoryReactorClock()
        self.zone = Zone(**answers)
        policy = policy or DestinationPolicy(("https", "http"), (443, 80))
        self.agent = guarded_agent(self.reactor, policy.check, policy.permits, resolver=self.zone)

    def get(self, url: str) -> Deferred[Any]:
        return self.agent.request(b"GET", url.encode())

    @property
    def called(self) -> list[tuple[str, int]]:
        return [(host, port) for host, port, *_ in self.reactor.tcpClients]

    def connect(self, peer: str, number: int = -1) -> StringTransport:
        """The connection is there, and ``peer`` is at its other end."""
        kind: Any = IPv6Address if ":" in peer else IPv4Address
        address = kind("TCP", peer, 80)
        transport = StringTransport(peerAddress=address)
        protocol: Any = self.reactor.tcpClients[number][2].buildProtocol(address)
        protocol.makeConnection(transport)
        return transport

    def fail(self, number: int = -1, error: Exception | None = None) -> None:
        """Nobody is there."""
        factory, connector = self.reactor.tcpClients[number][2], self.reactor.connectors[number]
        factory.clientConnectionFailed(connector, Failure(error or ConnectionRefusedError()))


class InMemoryTests(SynchronousTestCase):
    """`guarded_agent`, without a network"""

    def refused(self, rig: Rig, url: str) -> DestinationRefused:
        error: DestinationRefused = self.failureResultOf(rig.get(url), DestinationRefused).value
        self.assertEqual(str(error), "the destination is not allowed")
        self.assertEqual(rig.reactor.getDelayedCalls(), [])
        return error

    def test_interfaces(self) -> None:
        """It is an agent like Twisted's, and the resolver of these tests one like the reactor's."""
        rig = Rig()
        verifyObject(IAgent, rig.agent)
        verifyObject(IHostnameResolver, rig.zone)

    def test_the_address_that_was_looked_at(self) -> None:
        """The name is resolved once, the connection goes to the address, and Host remains the name."""
        rig = Rig(hooks_example_com=[[PUBLIC], ["127.0.0.1"]])
        answer = rig.get("http://Hooks.example.com/a?b")
        self.assertEqual(rig.called, [(PUBLIC, 80)])
        self.assertEqual(rig.zone.asked, ["hooks.example.com"])
        transport = rig.connect(PUBLIC)
        self.assertEqual(rig.zone.asked, ["hooks.example.com"])
        request = transport.value()
        self.assertTrue(request.startswith(b"GET /a?b HTTP/1.1\r\n"), request)
        self.assertIn(b"\r\nHost: hooks.example.com\r\n", request)
        self.assertIn(b"\r\nConnection: close\r\n", request)
        self.assertNoResult(answer)

    def test_rebinding(self) -> None:
        """A name that was public at the first attempt and is loopback at the second gets one connection, not two."""
        rig = Rig(hooks_example_com=[[PUBLIC], ["127.0.0.1"]])
        rig.get("http://hooks.example.com/")
        self.refused(rig, "http://hooks.example.com/")
        self.assertEqual(rig.called, [(PUBLIC, 80)])

    def test_every_address(self) -> None:
        """One address that does not pass, and none of the others is called, wherever it stands among them."""
        for answer in (
            [PUBLIC, "127.0.0.1"],
            ["10.0.0.1", PUBLIC],
            [PUBLIC, "::1"],
            [PUBLIC, PUBLIC6, "::ffff:169.254.169.254"],
            [PUBLIC6, "fe80::1"],
            [PUBLIC] * 50 + ["0.0.0.0"],
            [PUBLIC, "/run/docker.sock"],
        ):
            rig = Rig(hooks_example_com=[answer])
            self.refused(rig, "https://hooks.example.com/")
            self.assertEqual(rig.called, [], answer)

    def test_aliases(self) -> None:
        """A chain of aliases is worth what stands at its end, and is followed anew at every attempt."""
        rig = Rig(a_example_com=[["b.example.net"]], b_example_net=[["c.example.org"]], c_example_org=[["10.0.0.5"]])
        self.refused(rig, "http://a.example.com/")
        self.assertEqual(rig.called, [])
        rig = Rig(a_example_com=[["b.example.net"]], b_example_net=[[PUBLIC], ["::1"]])
        rig.get("http://a.example.com/")
        self.refused(rig, "http://a.example.com/")
        self.assertEqual(rig.called, [(PUBLIC, 80)])

    def test_literals(self) -> None:
        """An address in the URL is called without asking a resolver, or not called."""
        rig = Rig()
        rig.get("http://1.1.1.1/")
        rig.get(f"https://[{PUBLIC6}]/")
        self.assertEqual(rig.called, [("1.1.1.1", 80), (PUBLIC6, 443)])
        for url in ("http://127.0.0.1/", "http://[::1]/", "http://127.1/", "https://[::ffff:10.0.0.1]/"):
            self.refused(rig, url)
        self.assertEqual((len(rig.called), rig.zone.asked), (2, []))

    def test_the_url_comes_first(self) -> None:
        """A URL that is not sound reaches neither a resolver nor a connection, and fails as a Deferred does."""
        rig = Rig(hooks_example_com=[[PUBLIC]])
        for url in (
            "ftp://hooks.example.com/",
            "http://a@hooks.example.com/",
            "http://hooks.example.com/\n",
            "http://b\xfc/",
        ):
            self.refused(rig, url)
        self.assertEqual((rig.called, rig.zone.asked), ([], []))

    def test_a_name_that_is_none(self) -> None:
        """An A-label that stands for nothing cannot be verified; it is refused, and not an error of another kind."""
        answers: dict[str, Any] = {"xn--a_example": [[PUBLIC]]}
        rig = Rig(**answers)
        self.refused(rig, "https://xn--a.example/")
        self.assertEqual(rig.called, [])

    def test_no_address(self) -> None:
        """A name that does not exist, or cannot be looked up, is refused in the words of one that is private."""
        answers: tuple[Answer, ...] = ((), DNSLookupError("no"), OSError("no"), ValueError("no"))
        for answer in answers:
            rig = Rig(hooks_example_com=[answer])
            self.assertIn("name", self.refused(rig, "https://hooks.example.com/").reason)
            self.assertEqual(rig.called, [])

    def test_silence(self) -> None:
        """A resolver that says nothing is waited for five seconds; what it says afterwards is not listened to."""
        rig = Rig(hooks_example_com=[None])
        answer = rig.get("https://hooks.example.com/")
        rig.reactor.advance(RESOLVE_SECONDS - 0.01)
        self.assertNoResult(answer)
        rig.reactor.advance(0.01)
        self.failureResultOf(answer, DestinationRefused)
        rig.zone.tell(rig.zone.waiting[0], [PUBLIC])
        self.assertEqual((rig.called, rig.reactor.getDelayedCalls()), ([], []))

    def test_a_late_answer(self) -> None:
        """A resolver may take its time within the limit."""
        rig = Rig(hooks_example_com=[None])
        rig.get("https://hooks.example.com/")
        rig.reactor.advance(RESOLVE_SECONDS - 0.01)
        rig.zone.tell(rig.zone.waiting[0], [PUBLIC])
        self.assertEqual((rig.called, rig.reactor.getDelayedCalls()), ([(PUBLIC, 443)], []))

    def test_giving_up(self) -> None:
        """Who gives up while the name is resolved has no connection made for him later."""
        rig = Rig(hooks_example_com=[None])
        answer = rig.get("https://hooks.example.com/")
        answer.cancel()
        self.assertNotIsInstance(self.failureResultOf(answer).value, DestinationRefused)
        rig.zone.tell(rig.zone.waiting[0], [PUBLIC])
        self.assertEqual((rig.called, rig.reactor.getDelayedCalls()), ([], []))

    def test_the_next_address(self) -> None:
        """Where nobody answers at the first address, the next is tried: a few of them, within one limit of time."""
        addresses = [f"1.1.1.{number}" for number in range(1, 10)]
        rig = Rig(hooks_example_com=[[*addresses[:2], *addresses]])
        answer = rig.get("http://hooks.example.com/")
        limits = []
        for _ in range(MOST_TRIED):
            self.assertNoResult(answer)
            limits.append(rig.reactor.tcpClients[-1][3])
            rig.reactor.advance(limits[-1])
            rig.fail()
        self.failureResultOf(answer, ConnectError)
        self.assertEqual(rig.called, [(address, 80) for address in addresses[:MOST_TRIED]])
        self.assertAlmostEqual(sum(limits), CONNECT_SECONDS)

    def test_the_next_address_answers(self) -> None:
        """The request goes to the first address that takes it, and only to that one."""
        rig = Rig(hooks_example_com=[[PUBLIC6, PUBLIC]])
        rig.get("http://hooks.example.com/")
        rig.fail()
        self.assertIn(b"GET / HTTP/1.1", rig.connect(PUBLIC).value())
        self.assertEqual(rig.called, [(PUBLIC6, 80), (PUBLIC, 80)])

    def test_another_peer(self) -> None:
        """A connection that ends up elsewhere than it was sent is dropped before the request is written."""
        for peer in ("127.0.0.1", "::1", "10.0.0.1", "::ffff:127.0.0.1"):
            rig = Rig(hooks_example_com=[[PUBLIC, ANOTHER]])
            answer = rig.get("http://hooks.example.com/")
            transport = rig.connect(peer)
            self.failureResultOf(answer, DestinationRefused)
            self.assertEqual((transport.value(), transport.disconnecting), (b"", True), peer)
            self.assertEqual(rig.called, [(PUBLIC, 80)])

    def test_trusted(self) -> None:
        """What an operator allows is called at its private address, and the name need not be a public one."""
        rig = Rig(DestinationPolicy(("http",), (80,), allow=("redis", "10.1.0.0/16")), redis=[["10.9.9.9"]])
        rig.get("http://redis/")
        rig.get("http://10.1.0.1/")
        self.assertEqual(rig.called, [("10.9.9.9", 80), ("10.1.0.1", 80)])


class Server(Protocol):
    """Answers a request with a redirect, and closes."""

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


class Listener(Factory):
    """Counts who comes. The Deferreds are for one visit: reset them for the next."""

    protocol: Any = Server

    def __init__(self) -> None:
        self.port = self.connections = 0
        self.expect()

    def expect(self) -> None:
        self.received, self.server_name = b"", None
        self.connected: Deferred[None] = Deferred()
        self.lost: Deferred[None] = Deferred()


def certificate(name: str) -> PrivateCertificate:
    """A certificate for ``name`` that vouches for itself."""
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


def as_it_is(destination: Destination, url: str) -> Destination:
    """A check that lets anything pass."""
    return destination


class OverTheNetworkTests(TestCase):
    """`guarded_agent`, with real sockets"""

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
        return guarded_agent(reactor, policy.check, policy.permits, resolver=zone, **others)

    async def knock(self, listener: Listener, address: str) -> None:
        """Come as a visitor of our own: whoever came before us has been counted once we are."""
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
        await self.knock(canary, address)
        self.assertEqual(canary.connections, 1)

    async def test_loopback(self) -> None:
        """By name or by address, by whatever answer of the resolver: nobody gets through to 127.0.0.1."""
        await self.untouched("127.0.0.1")

    async def test_loopback6(self) -> None:
        """Nor to ::1."""
        await self.untouched("::1")

    async def test_rebinding(self) -> None:
        """The first attempt reaches the address that is allowed, the second is refused: the name has moved."""
        canary = self.listen("127.0.0.1")
        server = self.listen("127.0.0.2", canary.port)
        policy = DestinationPolicy(("http",), (canary.port,), allow=("127.0.0.2",))
        agent = self.agent(policy, Zone(hooks_example_com=[["127.0.0.2"], ["127.0.0.1"]]))
        url = f"http://hooks.example.com:{canary.port}/".encode()
        await readBody(await agent.request(b"GET", url))
        await server.lost
        await self.assertFailure(agent.request(b"GET", url), DestinationRefused)
        await self.knock(canary, "127.0.0.1")
        self.assertEqual((server.connections, canary.connections), (1, 1))

    async def test_the_resolver_of_the_system(self) -> None:
        """Should a URL get past the first check, what the system makes of its host is still looked at."""
        canary = self.listen()
        lenient, strict = DestinationPolicy(("http",), (canary.port,), allow=("localhost",)), DestinationPolicy()
        agent = guarded_agent(reactor, lenient.check, strict.permits)
        await self.assertFailure(agent.request(b"GET", b"http://localhost:%d/" % canary.port), DestinationRefused)
        for host in ("127.1", "0x7f000001", "2130706433", "0177.0.0.1"):
            sound = Destination("http", host, canary.port, "/")
            agent = guarded_agent(reactor, partial(as_it_is, sound), strict.permits)
            await self.assertFailure(agent.request(b"GET", b"http://example.com/"), DestinationRefused)
        await self.knock(canary, "127.0.0.1")
        self.assertEqual(canary.connections, 1)

    async def test_allowed(self) -> None:
        """What an operator trusts is reached, by name and by address; a redirect is the answer, and not followed."""
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
        """The connection goes to the address; SNI and the certificate are about the name."""
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
            await self.assertFailure(answer, ResponseNeverReceived)
            await server.lost
            self.assertEqual(server.received, b"", host)
            server.expect()

    async def test_another_peer(self) -> None:
        """Should the connection lead elsewhere, not a byte is sent, nor a greeting of TLS.

        That is so by the word of Twisted and by the word of the kernel, which are asked in this order.
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

                agent = guarded_agent(reactor, policy.check, permits, resolver=zone)
                url = f"{scheme}://hooks.example.com:{server.port}/".encode()
                await self.assertFailure(agent.request(b"POST", url), DestinationRefused)
                await server.lost
                self.assertEqual((server.connections, server.received), (1, b""), scheme)
                self.assertEqual(asked, ["127.0.0.1"] * len(verdicts))
