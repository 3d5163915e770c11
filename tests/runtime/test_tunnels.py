"""Calls through an HTTP proxy: the tunnel, TLS within it, and proxies that refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from openhqm.http1.client import make_client
from openhqm.http1.failures import NotConnected, describe_failure
from openhqm.runtime import tunnels
from openhqm.runtime.deferreds import deferred
from openhqm.runtime.tls import TLSPolicy
from openhqm.runtime.tunnels import MOST_BYTES, HTTPProxy
from tests.certificates import certify
from tests.servers import Server, free_port
from tests.targets import Target, answer

reactor: Any = real_reactor


class Onward(Protocol):
    """The proxy's connection to a target."""

    def __init__(self, client: Tunnelled) -> None:
        self.client = client

    def dataReceived(self, data: bytes) -> None:
        self.client.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.client.transport.loseConnection()


class Tunnelled(Protocol):
    """A client of the proxy."""

    transport: Any
    factory: Proxy

    def __init__(self) -> None:
        self.head, self.onward, self.waiting = b"", None, b""

    def connectionMade(self) -> None:
        self.factory.open.append(self)

    def dataReceived(self, data: bytes) -> None:
        if self.onward is not None:
            self.onward.transport.write(data)
            return
        self.head += data
        if not self.head.endswith(b"\r\n\r\n"):
            return
        self.factory.heads.append(self.head)
        if self.factory.says is not None:
            self.transport.write(self.factory.says)
            if self.factory.closes:
                self.transport.loseConnection()
            return
        port = int(self.head.split(b" ")[1].rpartition(b":")[2])
        connecting: Deferred[Any] = TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(
            Factory.forProtocol(lambda: Onward(self))
        )
        connecting.addCallback(self._connected)

    def _connected(self, onward: Onward) -> None:
        self.onward = onward
        self.transport.write(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.open.remove(self)
        if self.onward is not None:
            self.onward.transport.loseConnection()
        if not self.factory.open:
            done, self.factory.done = self.factory.done, []
            for each in done:
                each.callback(None)


class Proxy(Factory):
    """A proxy that opens tunnels to this host, or ``says`` something else."""

    noisy = False
    protocol: Any = Tunnelled

    def __init__(self, says: bytes | None = None, *, closes: bool = False) -> None:
        self.says = says
        self.closes = closes
        self.heads: list[bytes] = []
        self.open: list[Tunnelled] = []
        self.done: list[Deferred[None]] = []

    def listen(self, case: TestCase) -> int:
        port = reactor.listenTCP(0, self, interface="127.0.0.1")
        case.addCleanup(self.closed)
        case.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    def closed(self) -> Deferred[None]:
        """Close what is open, and fire once it is."""
        done: Deferred[None] = Deferred()
        if self.open:
            self.done.append(done)
            for each in self.open:
                each.transport.abortConnection()
        else:
            done.callback(None)
        return done


class TunnelTests(TestCase):
    """`HTTPProxy`"""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    @deferred
    async def test_plain(self) -> None:
        """A call goes through the tunnel, with the credentials of the proxy, which the target does not see."""
        target, proxy = Target(answer()), Proxy()
        there, here = target.listen(self, reactor), proxy.listen(self)
        through = HTTPProxy.with_password("127.0.0.1", here, "ada", "canary:b")
        client = make_client(reactor, through=through)
        for _ in range(2):
            found = await client.fetch(b"POST", b"http://target.invalid:%d/a" % there, (), b"body", 1000)
            self.assertEqual((found.status, found.body), (200, b'{"ok":true}'))
        (head,) = proxy.heads  # the connection is kept
        host = b"target.invalid:%d" % there
        self.assertTrue(head.startswith(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n" % (host, host)), head)
        self.assertIn(b"Proxy-Authorization: Basic YWRhOmNhbmFyeTpi\r\n", head)
        self.assertNotIn("Proxy-Authorization", target.fields[0])
        self.assertNotIn("canary", repr(through))
        await client.close_idle()

    @deferred
    async def test_tls(self) -> None:
        """TLS is between client and target: the certificate is checked for the name of the target."""
        cert, key = certify(self.directory)
        target, proxy = Target(answer()), Proxy()
        there = target.listen(self, reactor, DefaultOpenSSLContextFactory(str(key), str(cert)))
        here = proxy.listen(self)
        tls = TLSPolicy.from_files(str(cert), None, None)
        client = make_client(reactor, tls, through=HTTPProxy("127.0.0.1", here))
        found = await client.fetch(b"GET", b"https://localhost:%d/" % there, (), None, 1000)
        self.assertEqual(found.status, 200)
        error = await self.fails(client.fetch(b"GET", b"https://other.invalid:%d/" % there, (), None, 1000))
        self.assertIn("the certificate is for another name", describe_failure(error))
        self.assertEqual(len(target.requests), 1)
        await client.close_idle()

    @deferred
    async def test_refused(self) -> None:
        """Whatever else a proxy answers, nothing was sent to the target, and the error names the proxy and why."""
        self.patch(tunnels, "OPEN_SECONDS", 0.5)
        for says, closes, words in (
            (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", False, "has answered 407 to CONNECT"),
            (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\nno", True, "has answered 502 to CONNECT"),
            (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n", False, "has answered 302 to CONNECT"),
            (b"HTTP/1.1 100 Continue\r\n\r\n", False, "has answered 100 to CONNECT"),
            (b"SSH-2.0-OpenSSH\r\n\r\n", False, "has not answered in HTTP"),
            (b"HTTP/1.1 2000 OK\r\n\r\n", False, "has not answered in HTTP"),
            (
                b"HTTP/1.1 200 OK\r\nA: " + b"a" * MOST_BYTES,
                False,
                f"has answered with a head of more than {MOST_BYTES} bytes",
            ),
            (b"HTTP/1.1 200", True, "has closed the connection"),
            (b"HTTP/1.1 200", False, "has not answered within 0.5 s"),
        ):
            proxy = Proxy(says, closes=closes)
            here = proxy.listen(self)
            client = make_client(reactor, through=HTTPProxy("127.0.0.1", here))
            error = await self.fails(client.fetch(b"GET", b"http://target.invalid/", (), None, 1000))
            self.assertIsInstance(error, NotConnected)
            self.assertIn(f"the egress proxy 127.0.0.1:{here} {words}", describe_failure(error))

    @deferred
    async def test_process(self) -> None:
        """An endpoint with a proxy is called through it, and its password is in no log."""
        target, proxy = Target(answer()), Proxy()
        there, here = target.listen(self, reactor), proxy.listen(self)
        endpoint = {
            "url": f"http://target.invalid:{there}/",
            "egress_proxy": f"http://127.0.0.1:{here}",
            "egress_proxy_username": "ada",
            "egress_proxy_password": "canary",
        }
        server = Server(
            self.directory.absolute(),
            OPENHQM_QUEUE__TYPE="memory",
            OPENHQM_PROXY__ENABLED="true",
            OPENHQM_PROXY__ENDPOINTS=json.dumps({"a": endpoint}),
            OPENHQM_PROXY__DEFAULT_ENDPOINT="a",
            OPENHQM_MONITORING__LOG_LEVEL="DEBUG",
        )
        try:
            await deferToThread(server.start)
            submit = "/api/v1/submit"
            _, _, body = await deferToThread(server.ask, "POST", submit, {"payload": 1}, {"Prefer": "wait=10"})
            self.assertEqual(json.loads(body)["result"], {"ok": True})
        finally:
            await deferToThread(server.stop)
        self.assertEqual(len(proxy.heads), 1)
        self.assertNotIn("canary", server.log())

    @deferred
    async def test_away(self) -> None:
        """A proxy that cannot be connected is an error of connecting."""
        client = make_client(reactor, through=HTTPProxy("127.0.0.1", free_port()))
        error = await self.fails(client.fetch(b"GET", b"http://target.invalid/", (), None, 1000))
        self.assertIn("refused", describe_failure(error))

    @deferred
    async def fails(self, call: Deferred[Any]) -> Exception:
        try:
            await call
        except Exception as error:
            return error
        raise AssertionError("it succeeded")
