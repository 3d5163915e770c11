"""Connecting by name: which names there are is for the resolver to say, for every product."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, PrivateCertificate, trustRootFromCertificates
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer

import openhqm
from openhqm.http1.bodies import read_body
from openhqm.http1.client import make_client
from openhqm.http1.failures import describe_failure
from openhqm.http1.upstream_pool import endpoint_for
from openhqm.runtime.connecting import host_endpoint
from openhqm.runtime.tls import TLSPolicy
from tests.certificates import certify

NAMES = ("my_app", "project_my-app_1", "_x.y_", "ab--cd", "localhost")


@implementer(IHostnameResolver)
class Here:
    """Resolves every name to this machine, and notes it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def resolveHostName(self, receiver: Any, hostName: str, portNumber: int = 0, *more: Any, **options: Any) -> Any:
        self.asked.append(hostName)
        receiver.resolutionBegan(self)
        receiver.addressResolved(IPv4Address("TCP", "127.0.0.1", portNumber))
        receiver.resolutionComplete()
        return receiver


class Hello(Resource):
    isLeaf = True

    def render(self, request: Any) -> bytes:
        return b"hello"


class NamesTests(TestCase):
    """Against a server on this machine, with every name resolved to it"""

    def setUp(self) -> None:
        self.resolver = Here()
        before = reactor.installNameResolver(self.resolver)
        self.addCleanup(reactor.installNameResolver, before)

    def serve(self, context: Any = None) -> int:
        site = Site(Hello())
        if context is None:
            port = reactor.listenTCP(0, site, interface="127.0.0.1")
        else:
            port = reactor.listenSSL(0, site, context, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    def certificate(self, name: str) -> bytes:
        directory = Path(self.mktemp())
        directory.mkdir()
        cert, key = certify(directory, name)
        return cert.read_bytes() + key.read_bytes()

    async def test_connects(self) -> None:
        """A name with underscores, or with hyphens where IDNA has none, is looked up and connected to."""
        port = self.serve()
        for name in NAMES:
            for endpoint in (
                host_endpoint(reactor, name, port, 5),
                host_endpoint(reactor, name.encode(), port, 5),
                endpoint_for(f"http://{name}:{port}", reactor),
            ):
                protocol = await endpoint.connect(Factory.forProtocol(Protocol))
                await _closed(protocol)
        self.assertEqual(set(self.resolver.asked), set(NAMES))

    async def test_http(self) -> None:
        """Requests to such a host are answered."""
        port = self.serve()
        agent = make_client(reactor)
        for name in NAMES:
            response = await agent.request(b"GET", f"http://{name}:{port}/".encode())
            self.assertEqual(await read_body(response, 100), b"hello")
        await agent.close_idle()

    async def test_tls(self) -> None:
        """The certificate must be for that name."""
        pem = self.certificate("my_app")
        port = self.serve(PrivateCertificate.loadPEM(pem).options())
        trust = trustRootFromCertificates([Certificate.loadPEM(pem)])
        agent = make_client(reactor, TLSPolicy(trust))
        response = await agent.request(b"GET", f"https://my_app:{port}/".encode())
        self.assertEqual(await read_body(response, 100), b"hello")
        for other in ("your_app", "localhost"):
            try:
                await agent.request(b"GET", f"https://{other}:{port}/".encode())
            except Exception as error:
                self.assertIn("TLS: the certificate is for another name", describe_failure(error))
            else:
                self.fail(f"the certificate was taken for one of {other}")
        await agent.close_idle()

    def test_one_way(self) -> None:
        """No module connects by name in a way of its own."""
        root = Path(openhqm.__file__).parent
        own = re.compile(r"\b(HostnameEndpoint|clientFromString|connectTCP|optionsForClientTLS)\b")
        found = {str(path.relative_to(root)) for path in root.rglob("*.py") if own.search(path.read_text())}
        self.assertEqual(found, {"runtime/connecting.py", "runtime/tls.py"}, "use host_endpoint and client_tls")


def _closed(protocol: Any) -> Deferred[None]:
    closed: Deferred[None] = Deferred()
    protocol.connectionLost = lambda reason: closed.callback(None)
    protocol.transport.loseConnection()
    return closed
