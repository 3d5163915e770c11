"""Credentials of targets: configured header fields, and tokens that are fetched, shared, kept and dropped."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any
from urllib.parse import parse_qs

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent
from zope.interface import implementer

from openhqm.errors import RetryLater
from openhqm.http1.failures import NotConnected
from openhqm.workers.credentials import ClientCredentials, Fixed, TokenRequest, basic
from openhqm.workers.handlers import Unreachable


class Answer:
    """An answer in memory."""

    def __init__(self, code: int, body: bytes) -> None:
        self.code, self.body, self.headers = code, body, Headers()

    def deliverBody(self, protocol: Any) -> None:
        protocol.transport = None
        protocol.dataReceived(self.body)
        protocol.connectionLost(Failure(ResponseDone()))


@implementer(IAgent)
class TokenServer:
    """An agent whose requests the test answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, bytes, Any, bytes]] = []
        self.open: list[Deferred[Any]] = []
        self.down = False

    def request(self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None) -> Deferred[Any]:
        written: list[bytes] = []

        class Sink:
            write = staticmethod(written.append)

        bodyProducer.startProducing(Sink)
        self.asked.append((method, uri, headers, b"".join(written)))
        if self.down:
            return fail(NotConnected(Failure(ConnectionRefusedError())))
        self.open.append(Deferred())
        return self.open[-1]

    def answer(self, code: int = 200, body: bytes | None = None, **document: Any) -> None:
        self.open.pop(0).callback(Answer(code, json.dumps(document).encode() if body is None else body))


class Rig:
    def __init__(self, scope: str | None = None) -> None:
        self.clock, self.server = Clock(), TokenServer()
        request = TokenRequest("https://id.test/token", "me:", "s3cret&", scope)
        self.credentials = ClientCredentials(request, self.server, self.clock)

    def fields(self) -> Deferred[Any]:
        return self.credentials.fields()


class FixedTests(SynchronousTestCase):
    def test_fixed(self) -> None:
        """The fields are the same for every call. After a refusal there are no others."""
        credentials = Fixed({"X-API-Key": "k"})
        self.assertEqual(self.successResultOf(credentials.fields()), {"X-API-Key": "k"})
        self.assertFalse(credentials.refused({"X-API-Key": "k"}))

    def test_basic(self) -> None:
        """The example of RFC 7617, section 2."""
        self.assertEqual(basic("Aladdin", "open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")


class TokenTests(SynchronousTestCase):
    """`ClientCredentials`"""

    def bearer(self, waiting: Deferred[Any]) -> str:
        fields: dict[str, str] = self.successResultOf(waiting)
        self.assertEqual(list(fields), ["Authorization"])
        return fields["Authorization"]

    def test_token_request(self) -> None:
        """As RFC 6749 has it, sections 4.4.2 and 2.3.1: form-encoded before they are joined."""
        rig = Rig("read write")
        rig.fields()
        ((method, uri, headers, content),) = rig.server.asked
        self.assertEqual((method, uri), (b"POST", b"https://id.test/token"))
        self.assertEqual(parse_qs(content.decode()), {"grant_type": ["client_credentials"], "scope": ["read write"]})
        expected = b"Basic " + b64encode(b"me%3A:s3cret%26")
        self.assertEqual(headers.getRawHeaders(b"Authorization"), [expected])
        self.assertEqual(headers.getRawHeaders(b"Content-Type"), [b"application/x-www-form-urlencoded"])

    def test_one_for_many(self) -> None:
        """Calls that ask while a token is fetched wait for that token; later calls get it at once."""
        rig = Rig()
        waiting = [rig.fields() for _ in range(5)]
        rig.server.answer(access_token="t1", expires_in=3600)
        self.assertEqual({self.bearer(each) for each in waiting}, {"Bearer t1"})
        self.assertEqual(self.bearer(rig.fields()), "Bearer t1")
        self.assertEqual(len(rig.server.asked), 1)

    def test_refreshed(self) -> None:
        """A new token is fetched half a minute before the old one expires; a short-lived one at half its lifetime."""
        for lifetime, good in ((3600, 3570), (40, 20), ("3600", 3570), (None, 270), ("soon", 270), (float("nan"), 270)):
            rig = Rig()
            rig.fields()
            rig.server.answer(access_token="t1", expires_in=lifetime)
            rig.clock.advance(good - 0.1)
            self.assertEqual(self.bearer(rig.fields()), "Bearer t1", lifetime)
            rig.clock.advance(0.2)
            waiting = rig.fields()
            self.assertNoResult(waiting)
            rig.server.answer(access_token="t2")
            self.assertEqual(self.bearer(waiting), "Bearer t2")

    def test_infinite_lifetime(self) -> None:
        """An infinite lifetime counts as one day."""
        rig = Rig()
        rig.fields()
        rig.server.answer(body=b'{"access_token": "t1", "expires_in": 1e999}')
        rig.clock.advance(86400)
        self.assertNoResult(rig.fields())

    def test_refused(self) -> None:
        """A token that the target refuses is dropped. One that was replaced already causes no other fetch."""
        rig = Rig()
        waiting = rig.fields()
        rig.server.answer(access_token="t1")
        old = self.successResultOf(waiting)
        self.assertTrue(rig.credentials.refused(old))
        waiting = rig.fields()
        rig.server.answer(access_token="t2")
        self.assertEqual(self.bearer(waiting), "Bearer t2")
        self.assertTrue(rig.credentials.refused(old))
        self.assertEqual(self.bearer(rig.fields()), "Bearer t2")

    def test_cancelled(self) -> None:
        """A cancelled request takes the token from neither the others nor the next."""
        rig = Rig()
        first, second = rig.fields(), rig.fields()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        rig.server.answer(access_token="t1")
        self.assertEqual(self.bearer(second), "Bearer t1")

    def test_no_token(self) -> None:
        """An answer without a token is worth another attempt.

        The error names the reason and quotes nothing of the answer.
        """
        for code, body, expected in (
            (200, b"<html>s3cret", "the answer of the token server has no access_token"),
            (200, b"\xff\xfe", "has no access_token"),
            (200, b"[" * 60_000, "has no access_token"),
            (200, b'["access_token"]', "has no access_token"),
            (200, b"{}", "has no access_token"),
            (200, b'{"access_token": "a\\r\\nX-Evil: 1"}', "has no access_token"),
            (200, b'{"access_token": ""}', "has no access_token"),
            (200, b'{"access_token": 5}', "has no access_token"),
            (200, b"x" * 70_000, "longer than 65536 bytes"),
            (401, b'{"error": "invalid_client"}', "the token server answered 401"),
            (302, b"", "the token server answered 302"),
        ):
            rig = Rig()
            waiting = [rig.fields(), rig.fields()]
            rig.server.answer(code, body)
            for each in waiting:
                error = self.failureResultOf(each, RetryLater).value
                self.assertIn(expected, str(error))
                self.assertNotIn("s3cret", str(error))
            rig.fields()
            self.assertEqual(len(rig.server.asked), 2)

    def test_at_hand(self) -> None:
        """A token is at hand from when it was fetched until shortly before it expires."""
        rig = Rig()
        self.assertIsNone(rig.credentials.at_hand())
        rig.fields()
        rig.server.answer(access_token="one", expires_in=100)
        self.assertEqual(rig.credentials.at_hand(), {"Authorization": "Bearer one"})
        rig.clock.advance(71)
        self.assertIsNone(rig.credentials.at_hand())

    def test_down(self) -> None:
        """A token server that is down or hangs fails the waiting calls, with the reason; the next call asks again."""
        rig = Rig()
        rig.server.down = True
        self.assertIn("refused", str(self.failureResultOf(rig.fields(), Unreachable).value).lower())
        rig.server.down = False
        waiting = [rig.fields(), rig.fields()]
        rig.clock.advance(30)
        for each in waiting:
            error = self.failureResultOf(each, RetryLater).value
            self.assertIn("has not answered within 30 s", str(error))
            self.assertNotIsInstance(error, Unreachable)  # it was reached
        self.assertEqual(len(rig.server.asked), 2)
        self.assertNotIn("s3cret", repr(TokenRequest("u", "me", "s3cret")))
