"""The keys of an issuer over the network: once a minute, bounded in bytes and time, and never from a wrong place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openhqm.config.auth import key_set_policy
from openhqm.http1.calls import Fetched
from openhqm.http1.guarded import GuardedClient, guarded_client
from openhqm.ingress import key_sets
from openhqm.ingress.key_sets import FETCH_SECONDS, MOST_BYTES, PAUSE_SECONDS, REFRESH_SECONDS, FetchedKeys
from openhqm.ingress.tokens import Issuer, KeysUnavailable, Tokens
from openhqm.runtime.deferreds import deferred
from openhqm.runtime.tls import TLSPolicy
from tests.certificates import certify
from tests.ingress.test_tokens import RULES, Wall
from tests.signing import jwk, jwks, rsa_key, token
from tests.targets import Target, answer, endless, raw, silence

reactor: Any = real_reactor
ONE = jwks(jwk(rsa_key(), "one"))
TWO = jwks(jwk(rsa_key(number=1), "two"))


def by(number: int, key_id: str) -> bytes:
    """A good token of a key."""
    return token(rsa_key(number=number), {"alg": "RS256", "kid": key_id})


class Web:
    """An `IFetch` whose answers are given by the test."""

    def __init__(self) -> None:
        self.calls: list[Deferred[Fetched]] = []

    def fetch(self, *_: Any) -> Deferred[Fetched]:
        self.calls.append(Deferred())
        return self.calls[-1]

    def connect(self, url: bytes) -> Deferred[None]:
        return succeed(None)

    def answer(self, body: bytes, status: int = 200) -> None:
        self.calls[-1].callback(Fetched(status, (), body))


class ClockTests(SynchronousTestCase):
    """`FetchedKeys` and `Tokens`, with a clock"""

    def setUp(self) -> None:
        self.clock, self.web = Clock(), Web()
        self.keys = FetchedKeys("https://login.example.com/jwks", self.web, self.clock)
        self.tokens = Tokens([Issuer(RULES, self.keys)], self.clock.seconds, Wall())

    def good(self, secret: bytes) -> bool:
        return self.tokens.caller(secret) is not None

    def test_first(self) -> None:
        """Until there are keys, a token is neither good nor wrong. Then it is good."""
        self.tokens.start()
        self.assertRaises(KeysUnavailable, self.tokens.caller, by(0, "one"))
        self.web.answer(ONE)
        self.assertTrue(self.good(by(0, "one")))
        self.assertEqual(len(self.web.calls), 1)

    def test_rotation(self) -> None:
        """A token of a key that is new has the set fetched: it is unknown for so long, and good then."""
        self.tokens.start()
        self.web.answer(ONE)
        self.clock.advance(PAUSE_SECONDS)
        self.assertRaises(KeysUnavailable, self.tokens.caller, by(1, "two"))
        self.assertTrue(self.good(by(0, "one")))
        self.web.answer(TWO)
        self.assertTrue(self.good(by(1, "two")))
        self.clock.advance(1)
        self.assertFalse(self.good(by(0, "one")))

    def test_once_a_minute(self) -> None:
        """A thousand tokens with keys of their own cost the issuer one fetch a minute, whether it answers or not."""
        self.tokens.start()
        self.web.answer(ONE)
        for minute in range(1, 4):
            for number in range(1000):
                self.assertFalse(self.good(by(0, f"{number}")))
            self.assertEqual(len(self.web.calls), minute)
            self.clock.advance(PAUSE_SECONDS)
            self.assertRaises(KeysUnavailable, self.tokens.caller, by(0, "other"))
            self.web.answer(b"", 500)
        self.assertTrue(self.good(by(0, "one")))

    def test_last_good_kept(self) -> None:
        """Whatever the server answers, the last good keys stand, the operator is warned, and it is logged once."""
        self.tokens.start()
        self.web.answer(ONE)
        self.assertEqual(self.tokens.warnings, [])
        for status, body in ((500, ONE), (302, TWO), (200, b"<html>"), (200, b'{"keys":[]}'), (200, b"[" * 9999)):
            for _ in range(2):
                self.clock.advance(REFRESH_SECONDS)
                self.assertTrue(self.good(by(0, "one")))
                self.web.answer(body, status)
                self.assertTrue(self.good(by(0, "one")))
            (warning,) = self.tokens.warnings
            self.assertIn(RULES.issuer, warning)
        self.clock.advance(REFRESH_SECONDS)
        self.good(by(0, "one"))
        self.web.answer(ONE)
        self.assertEqual(self.tokens.warnings, [])

    def test_deadline(self) -> None:
        """A server that does not answer is given up, and asked again a minute after the first time."""
        self.tokens.start()
        self.clock.advance(FETCH_SECONDS)
        self.assertIn("no answer", self.keys.failure or "")
        self.assertRaises(KeysUnavailable, self.tokens.caller, by(0, "one"))
        self.assertEqual(len(self.web.calls), 1)
        self.clock.advance(PAUSE_SECONDS - FETCH_SECONDS)
        self.assertRaises(KeysUnavailable, self.tokens.caller, by(0, "one"))
        self.web.answer(ONE)
        self.assertTrue(self.good(by(0, "one")))

    def test_stopped(self) -> None:
        """Stopping ends the fetch, and leaves nothing behind."""
        self.tokens.start()
        self.tokens.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(self.keys.fetching)


class NetworkTests(TestCase):
    """`FetchedKeys` over TLS"""

    def setUp(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        cert, key = certify(directory)
        self.context = DefaultOpenSSLContextFactory(str(key), str(cert))
        self.ca = str(cert)

    def keys(self, target: Target, *allow: str) -> FetchedKeys:
        self.port = target.listen(self, reactor, self.context)
        return FetchedKeys(f"https://localhost:{self.port}/jwks", self.client(*allow), reactor)

    def client(self, *allow: str) -> GuardedClient:
        """A client that trusts the certificate."""
        policy = key_set_policy(f"https://localhost:{self.port}/", list(allow))
        return guarded_client(reactor, policy.check, policy.permits, tls=TLSPolicy.from_files(self.ca, None, None))

    @deferred
    async def until_fetched(self, keys: FetchedKeys) -> None:
        keys.refresh()
        deadline = reactor.seconds() + 30
        while keys.fetching and reactor.seconds() < deadline:
            await deferLater(reactor, 0.01)
        self.assertFalse(keys.fetching)

    @deferred
    async def test_fetched(self) -> None:
        """A set is fetched over TLS, with the check of the certificate."""
        target = Target(answer(b"200 OK", ONE))
        keys = self.keys(target, "localhost")
        await self.until_fetched(keys)
        self.assertEqual([each.key_id for each in keys.keys], ["one"])
        self.assertEqual(len(target.requests), 1)

    @deferred
    async def test_refused(self) -> None:
        """A set of 10 MiB, one without an end, a redirect to loopback, a hang and a private address give no keys."""
        elsewhere = Target(answer(b"200 OK", ONE))
        there = elsewhere.listen(self, reactor, self.context)
        location = b"Location: https://localhost:%d/jwks" % there
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.patch(key_sets, "FETCH_SECONDS", 1.0)
        for say, allow, word in (
            (answer(b"200 OK", b" " * 10 * 1024 * 1024), "localhost", f"longer than {MOST_BYTES}"),
            (endless(chunked, b"1000\r\n" + b" " * 4096 + b"\r\n"), "localhost", f"longer than {MOST_BYTES}"),
            (answer(b"302 Found", ONE, location), "localhost", "302"),
            (silence, "localhost", "within 1 s"),
            (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"), "localhost", "within 1 s"),
            (answer(b"200 OK", ONE), "10.0.0.0/8", "auth.jwt.allow"),
        ):
            target = Target(say)
            keys = self.keys(target, allow)
            await self.until_fetched(keys)
            self.assertEqual(list(keys.keys), [], word)
            self.assertIn(word, keys.failure or "")
        self.assertEqual(target.requests, [])  # the last one was not connected to
        self.assertEqual(elsewhere.requests, [])

    @deferred
    async def test_certificate(self) -> None:
        """A server whose certificate is not trusted gives no keys."""
        keys = self.keys(Target(answer(b"200 OK", ONE)), "localhost")
        self.setUp()  # another certificate
        untrusted = FetchedKeys(f"https://localhost:{self.port}/jwks", self.client("localhost"), reactor)
        for each, known in ((keys, 1), (untrusted, 0)):
            await self.until_fetched(each)
            self.assertEqual(len(each.keys), known)
