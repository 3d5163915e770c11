"""Credentials that are rotated, and tokens that expire, while a process works."""

from __future__ import annotations

import json
import threading
import time
from base64 import urlsafe_b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread

from openhqm.interfaces import Message
from openhqm.kafka.settings import OAuth
from openhqm.testing.broker_bench import Inbox
from tests.kafka.programs import Programs
from tests.kafka.test_security import SecurityCase

LIFETIME = 6
SLOW = 3.0
NOTICED = 20.0
"""Within so many seconds what the server has refused is said: it asks again every 2 s, or at the end of a token."""


class TokenServer:
    """Gives out tokens that are good for `LIFETIME` seconds, while ``gives`` says so. ``asked``: how often.

    Each takes it so many seconds.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.gives = True
        self.asked = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                server.asked += 1
                time.sleep(seconds)
                self.rfile.read(int(self.headers["Content-Length"]))
                body = json.dumps({"access_token": token(), "expires_in": LIFETIME}).encode()
                self.send_response(200 if server.gives else 401)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body) if server.gives else 0))
                self.end_headers()
                if server.gives:
                    self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                """Nothing is printed."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/token"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def token() -> str:
    """A token without a signature (RFC 7519, section 6), which Kafka takes where it is told nothing else."""
    now = time.time()
    parts: list[dict[str, Any]] = [{"alg": "none"}, {"sub": "openhqm", "iat": now, "exp": now + LIFETIME}]
    return ".".join([*(urlsafe_b64encode(json.dumps(each).encode()).decode().rstrip("=") for each in parts), ""])


class CredentialsTests(SecurityCase):
    """On a server that asks again"""

    async def until_refused(self, broker: Any, reason: str) -> None:
        due = time.monotonic() + NOTICED
        while reason not in (broker.unavailable_reason or ""):
            self.assertLess(time.monotonic(), due, broker.unavailable_reason)
            await deferLater(reactor, 0.05)  # type: ignore[arg-type]

    async def until_taken(self, broker: Any, channel: str) -> None:
        due = time.monotonic() + NOTICED
        while broker.unavailable_reason is not None or (await broker.publish(channel, [Message(b"2")])) != [None]:
            self.assertLess(time.monotonic(), due, broker.unavailable_reason)
            await deferLater(reactor, 0.1)  # type: ignore[arg-type]

    def rotate(self, password: str) -> None:
        """The operator gives the user another password."""
        from confluent_kafka.admin import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

        how = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        change = UserScramCredentialUpsertion("alice", how, password.encode())
        programs = Programs(self.server, "")
        programs.operator.alter_user_scram_credentials([change])["alice"].result(20)

    async def test_rotated(self) -> None:
        """A password that is good no more is said, nothing is taken; with one that is, all goes on where it was."""
        self.addCleanup(deferToThread, self.rotate, "scr4m")
        user = {"mechanism": "SCRAM-SHA-512", "username": "alice"}
        broker, inbox = self.client(self.server.scram_port, password="scr4m", **user), Inbox()
        await self.let_in(broker, "rotated")
        broker.consume("rotated", inbox).credit(10)
        inbox.on_received = lambda delivery: delivery.ack().addErrback(lambda failure: None)
        await self.until_received(inbox, 1)
        await deferToThread(self.rotate, "another")
        await self.until_refused(broker, "refuses user name and password")
        (outcome,) = await broker.publish("rotated", [Message(b"2")])
        self.assertIn("refuses user name", outcome.reason)
        after = self.client(self.server.scram_port, password="another", **user)  # the process, started again
        await self.let_in(after, "rotated")
        await deferToThread(self.rotate, "scr4m")
        await self.until_taken(broker, "rotated")
        await self.until_received(inbox, 3)
        self.assertIsNone(broker.unavailable_reason)

    async def until_received(self, inbox: Inbox, count: int) -> None:
        due = time.monotonic() + 2 * NOTICED
        while len(inbox.bodies) < count:
            self.assertLess(time.monotonic(), due, inbox.bodies)
            await deferLater(reactor, 0.05)  # type: ignore[arg-type]

    async def test_expired(self) -> None:
        """A token is fetched again before it expires. Where there is none any more, that is said, until there is."""
        tokens = TokenServer()
        self.addCleanup(tokens.close)
        oauth = OAuth(token_url=tokens.url, client_id="openhqm", client_secret="wr0ng")
        broker = self.client(self.server.token_port, mechanism="OAUTHBEARER", oauth=oauth)
        await self.let_in(broker, "tokens")
        first = tokens.asked
        await deferLater(reactor, 2 * LIFETIME)  # type: ignore[arg-type]
        self.assertGreater(tokens.asked, first)
        self.assertIsNone(broker.unavailable_reason)
        self.assertEqual(await broker.publish("tokens", [Message(b"2")]), [None])
        tokens.gives = False
        await self.until_refused(broker, "token")
        self.assertNotIn("wr0ng", broker.unavailable_reason or "")
        tokens.gives = True
        await self.until_taken(broker, "tokens")

    async def test_slow_tokens(self) -> None:
        """While a server takes its time for a token, the process does its other work."""
        tokens = TokenServer(SLOW)
        self.addCleanup(tokens.close)
        oauth = OAuth(token_url=tokens.url, client_id="openhqm", client_secret="wr0ng")
        broker = self.client(self.server.token_port, mechanism="OAUTHBEARER", oauth=oauth)
        turns = [time.monotonic()]
        turning = LoopingCall(lambda: turns.append(time.monotonic()))
        turning.start(0.05)
        self.addCleanup(turning.stop)
        await broker.start()
        await broker.when_probed()
        while tokens.asked < 3:  # the client that asks, and the one that publishes, once and once more
            await deferLater(reactor, 0.05)  # type: ignore[arg-type]
        self.assertLess(max(later - turn for turn, later in pairwise(turns)), SLOW / 2)
