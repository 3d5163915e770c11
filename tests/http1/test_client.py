"""The HTTP client of the gateway: what it leaves unchanged, what it limits, and how it describes failures."""

from __future__ import annotations

import gc
import gzip
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.ssl import Certificate
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.http_headers import Headers

from openhqm.http1.bodies import content_producer, read_body
from openhqm.http1.calls import Fetch
from openhqm.http1.client import make_client
from openhqm.http1.failures import AnswerTooLong, describe_failure, root_cause, was_cancelled
from openhqm.http1.response_reader import ResponseReader
from openhqm.runtime.tls import TLSPolicy
from tests.http1.test_guarded import certificate
from tests.targets import Peer, Target, answer, endless, raw, silence

reactor: Any = real_reactor


class ClientCase(TestCase):
    timeout = 20

    def setUp(self) -> None:
        self.agent = make_client(reactor)
        self.addCleanup(self.agent.close_idle)

    async def ask(self, target: Target, path: str = "/", most: int = 1 << 20, **others: Any) -> tuple[Any, bytes]:
        port = target.listen(self, reactor) if not hasattr(target, "port") else target.port
        target.port = port  # type: ignore[attr-defined]
        url = f"http://127.0.0.1:{port}{path}".encode()
        response: Any = await self.agent.request(b"GET", url, **others)
        return response, await read_body(response, most)

    async def fails(self, target: Target, **others: Any) -> BaseException:
        try:
            response, body = await self.ask(target, **others)
        except Exception as error:
            return root_cause(error)
        raise AssertionError(f"{response.code} {body!r}")


class GarbageTests(ClientCase):
    async def test_freed_at_once(self) -> None:
        """What a call took is free once it has ended, without the garbage collector."""
        target = Target(answer(b"200 OK", b"x"))
        await self.ask(target)
        url = b"http://127.0.0.1:%d/" % target.port  # type: ignore[attr-defined]
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for _ in range(40):
            await self.agent.fetch(b"GET", url, [], None, 10)
        before = {each for each in gc.get_objects() if isinstance(each, Fetch | ResponseReader)}
        self.assertLess(len(before), 10)


class UnchangedTests(ClientCase):
    async def test_bytes(self) -> None:
        """A compressed body stays compressed, and the request has no header fields but the caller's."""
        packed = gzip.compress(b"x" * 100_000)
        target = Target(answer(b"200 OK", packed, b"Content-Encoding: gzip"))
        response, body = await self.ask(target)
        self.assertEqual((body, response.headers.getRawHeaders("Content-Encoding")), (packed, ["gzip"]))
        self.assertEqual(set(target.fields[0]), {"host"})

    async def test_cookies(self) -> None:
        """A cookie of a response is not sent with the next request."""
        target = Target(answer(b"200 OK", b"", b"Set-Cookie: a=b"))
        await self.ask(target)
        await self.ask(target)
        self.assertNotIn("cookie", target.fields[1])
        self.assertEqual(len(target.peers), 1)

    async def test_redirects(self) -> None:
        """A redirect is not followed."""
        canary = Target()
        port = canary.listen(self, reactor)
        location = b"Location: http://127.0.0.1:%d/" % port
        response, _ = await self.ask(Target(answer(b"302 Found", b"", location)))
        self.assertEqual((response.code, canary.peers), (302, []))

    async def test_not_repeated(self) -> None:
        """A request whose idle connection is closed by the server fails, and is not sent again."""
        target = Target()
        await self.ask(target)
        target.say = lambda peer: peer.transport.loseConnection()
        await self.fails(target)
        self.assertEqual(len(target.requests), 2)

    async def test_content(self) -> None:
        """A request's content is sent completely, with its length."""
        target = Target()
        port = target.listen(self, reactor)
        content = b"\x00\xff" * 100_000
        url = b"http://127.0.0.1:%d/" % port
        await read_body(await self.agent.request(b"POST", url, Headers(), content_producer(content)), 100)
        self.assertEqual((target.requests[0][1], target.fields[0]["content-length"]), (content, "200000"))


class LimitTests(ClientCase):
    async def test_length(self) -> None:
        """A body of exactly the limit is read. One more byte fails, and closes the connection."""
        target = Target(answer(b"200 OK", b"x" * 1000))
        self.assertEqual((await self.ask(target, most=1000))[1], b"x" * 1000)
        self.assertIsInstance(await self.fails(target, most=999), AnswerTooLong)

    async def test_endless(self) -> None:
        """A body without an end is given up at the limit."""
        for head in (b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n"):
            target = Target(endless(head, b"x" * 65536))
            error = await self.fails(target, most=1 << 20)
            self.assertIn("longer than 1048576 bytes", describe_failure(error))
            while not target.peers[0].gone:
                await deferLater(reactor, 0.01)

    async def test_heads(self) -> None:
        """So is a head: of many lines, of long lines, or behind endless interim responses."""
        for data in (
            b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 100_000,
            b"HTTP/1.1 200 OK\r\n" + b"X-A: " + b"b" * 1_000_000,
            b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" * 10_000,
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 100_000,
        ):
            error = await self.fails(Target(raw(data)))
            self.assertIsInstance(error, AnswerTooLong)
            self.assertIn("the head of the response is longer than 65536 bytes", describe_failure(error))

    async def test_sound_heads(self) -> None:
        """A long head is read, also behind an interim response, byte by byte, and again on the same connection."""
        data = (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"
            + b"X-A: %b\r\n" % (b"b" * 500) * 90
            + b"Content-Length: 2\r\n\r\nhi"
        )

        def dribble(peer: Peer) -> None:
            for index in range(len(data) - 200, len(data)):
                reactor.callLater(0, peer.transport.write, data[index : index + 1])
            peer.transport.write(data[: len(data) - 200])

        target = Target(dribble)
        for _ in range(3):
            self.assertEqual((await self.ask(target))[1], b"hi")
        self.assertEqual(len(target.peers), 1)

    async def test_long_body(self) -> None:
        """The limit of the head does not apply to the body."""
        body = b"\r\n\r\n" * 100_000
        self.assertEqual((await self.ask(Target(answer(b"200 OK", body)), most=len(body)))[1], body)


class BadResponseTests(ClientCase):
    async def test_connection_closed(self) -> None:
        """A connection closed before, within or behind the head is a failure with a description."""
        for data in (b"", b"HTTP/1.1 200 O", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"):
            self.assertTrue(describe_failure(await self.fails(Target(raw(data, close=True)))), data)

    async def test_chunks_that_break_off(self) -> None:
        """So is a chunked body without its last chunk."""
        data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        self.assertTrue(describe_failure(await self.fails(Target(raw(data, close=True)))))

    async def test_garbage(self) -> None:
        """So is a response that is not HTTP."""
        for data in (
            b"\x16\x03\x01\x00\x00" * 10 + b"\r\n\r\n",
            b"SSH-2.0-OpenSSH_9\r\n",
            b"HTTP/1.1 abc OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        ):
            self.assertTrue(describe_failure(await self.fails(Target(raw(data, close=True)))), data)

    async def test_until_connection_closed(self) -> None:
        """A body without a length ends with the connection (RFC 9112, section 6.3)."""
        self.assertEqual((await self.ask(Target(raw(b"HTTP/1.0 200 OK\r\n\r\nabc", close=True))))[1], b"abc")

    async def test_surplus(self) -> None:
        """Bytes behind the announced length are not taken for the next response."""
        target = Target(
            raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        )
        self.assertEqual((await self.ask(target))[1], b"hi")
        target.say = answer(b"200 OK", b"good")
        try:
            self.assertEqual((await self.ask(target))[1], b"good")
        except Exception as error:
            self.assertTrue(describe_failure(error))

    async def test_cancelled(self) -> None:
        """Cancelling before or within a response closes the connection, and `was_cancelled` recognises the error."""
        for say in (silence, raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")):
            target = Target(say)
            asking = Deferred.fromCoroutine(self.ask(target))
            while not target.requests:
                await deferLater(reactor, 0.01)
            await deferLater(reactor, 0.02)
            asking.cancel()
            error = await asking.addErrback(lambda failure: failure.value)
            self.assertTrue(was_cancelled(error), error)
            while not target.peers[0].gone:
                await deferLater(reactor, 0.01)
        self.assertFalse(was_cancelled(ValueError()))
        self.assertTrue(was_cancelled(CancelledError()))

    async def test_nothing_listens(self) -> None:
        """A refused connection is described as such."""
        target = Target()
        port = reactor.listenTCP(0, target, interface="127.0.0.1")
        target.port = port.getHost().port  # type: ignore[attr-defined]
        await port.stopListening()
        self.assertIn("refused", describe_failure(await self.fails(target)))

    async def test_unknown_name(self) -> None:
        """A name without an address is described as such."""
        asking = self.agent.request(b"GET", b"http://nowhere.invalid/")
        (outcome,) = await DeferredList([asking], consumeErrors=True)
        self.assertIn("its name was not found", describe_failure(outcome[1].value))


class TLSTests(ClientCase):
    def written(self, data: bytes) -> str:
        path = Path(self.mktemp())
        path.write_bytes(data)
        return str(path)

    async def over_tls(self, policy: TLSPolicy, options: Any, host: str = "localhost") -> bytes:
        target = Target()
        port = target.listen(self, reactor, options)
        agent = make_client(reactor, policy)
        self.addCleanup(agent.close_idle)
        body = await read_body(await agent.request(b"GET", f"https://{host}:{port}/".encode()), 100)
        self.assertEqual(body, b'{"ok":true}')
        return body

    async def reason(self, *arguments: Any) -> str:
        try:
            await self.over_tls(*arguments)
        except Exception as error:
            return describe_failure(error)
        raise AssertionError("it was trusted")

    async def test_trusted(self) -> None:
        """A certificate that one of the CAs in the endpoint's file has signed is trusted."""
        ours, other = certificate("localhost"), certificate("other")
        ca = self.written(b"comment\n" + other.dumpPEM() + b"\n" + Certificate.dumpPEM(ours))
        await self.over_tls(TLSPolicy.from_files(ca, None, None), ours.options())

    async def test_wrong_certificate(self) -> None:
        """A certificate of an unknown CA, or for another name, is refused with a description."""
        ours, other = certificate("localhost"), certificate("other.test")
        for policy, shown in (
            (TLSPolicy(), ours),
            (TLSPolicy.from_files(self.written(other.dumpPEM()), None, None), ours),
        ):
            self.assertIn("TLS: certificate verify failed", await self.reason(policy, shown.options()))
        policy = TLSPolicy.from_files(self.written(other.dumpPEM()), None, None)
        self.assertIn("another name", await self.reason(policy, other.options()))

    async def test_own_certificate(self) -> None:
        """A server that asks for a client certificate gets the endpoint's. Without one the connection fails with a
        description.
        """
        server, client = certificate("localhost"), certificate("client")
        ca, cert = self.written(Certificate.dumpPEM(server)), self.written(Certificate.dumpPEM(client))
        key = self.written(client.privateKey.dump(1))
        asks = server.options(Certificate.loadPEM(Certificate.dumpPEM(client)))
        await self.over_tls(TLSPolicy.from_files(ca, cert, key), asks)
        both = self.written(Certificate.dumpPEM(client) + client.privateKey.dump(1))
        await self.over_tls(TLSPolicy.from_files(ca, both, None), asks)
        self.assertIn("TLS", await self.reason(TLSPolicy.from_files(ca, None, None), asks))


class FilesTests(SynchronousTestCase):
    """`TLSPolicy.from_files`"""

    def test_unusable_files(self) -> None:
        """A file that cannot be used is named, with the reason. The password of a key is not asked for
        at the terminal.
        """
        ours, other = certificate("a.test"), certificate("b.test")
        locked = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
        directory = Path(self.mktemp())
        directory.mkdir()
        for name, data in (
            ("cert", Certificate.dumpPEM(ours)),
            ("key", ours.privateKey.dump(1)),
            ("other", other.privateKey.dump(1)),
            ("locked", locked),
            ("empty", b""),
            ("bad", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ):
            (directory / name).write_bytes(data)
        for (ca, cert, key), file, expected in (
            (("nowhere", None, None), "nowhere", "cannot read"),
            (("empty", None, None), "empty", "holds no certificates"),
            (("bad", None, None), "bad", "holds no certificates"),
            (("key", None, None), "key", "holds no certificates"),
            ((None, "nowhere", "key"), "nowhere", "cannot read"),
            ((None, "cert", "nowhere"), "nowhere", "cannot read"),
            ((None, "key", "key"), "key", "holds no certificate in PEM"),
            ((None, "cert", None), "cert", "holds no private key"),
            ((None, "cert", "cert"), "cert", "holds no private key"),
            ((None, "cert", "locked"), "locked", "under a password"),
            ((None, "cert", "other"), "other", "is not the key of"),
        ):
            paths = [None if name is None else str(directory / name) for name in (ca, cert, key)]
            error = self.assertRaises(ValueError, TLSPolicy.from_files, *paths)
            self.assertIn(expected, str(error))
            self.assertIn(str(directory / file), str(error))
