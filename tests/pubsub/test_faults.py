"""What the adapter does where Pub/Sub throttles, refuses a token, does not answer, or is not there."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from openhqm.errors import NotDurable
from openhqm.interfaces import Message
from openhqm.pubsub.broker import Address, PubSubBroker
from openhqm.pubsub.subscriptions import Wanted
from openhqm.testing.broker_bench import Inbox
from tests.pubsub.server import PROJECT, PubSubServer

SECONDS = 2.0


class TokenServer:
    """Gives out the tokens of ``tokens`` for the key of a service account: the last one, good for ``lifetime``."""

    def __init__(self) -> None:
        self.tokens = ["first"]
        self.lifetime = 3600
        self.asked = 0
        server = self

        class Service(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                server.asked += 1
                said = {"access_token": server.tokens[-1], "expires_in": server.lifetime, "token_type": "Bearer"}
                content = json.dumps(said if server.tokens[-1] else {"error": "invalid_grant"}).encode()
                self.send_response(200 if server.tokens[-1] else 400)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: Any) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def write_key(self, path: Path) -> None:
        """The file of a service account whose tokens come from here."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        key = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        account = {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "1",
            "private_key": key.decode(),
            "client_email": "gateway@example.test",
            "token_uri": f"http://127.0.0.1:{self.server.server_address[1]}/token",
        }
        path.write_text(json.dumps(account))

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class FaultCase(TestCase):
    timeout = 240

    def setUp(self) -> None:
        self.server = PubSubServer().start()
        self.addCleanup(self.server.close)

    def broker(self, base: str | None = None, credentials: Path | None = None, lease: float = 10.0) -> PubSubBroker:
        """A client, which is started."""
        address = Address(
            PROJECT,
            base or f"http://{self.server.host}",
            None if credentials is None else str(credentials),
            emulator=credentials is None,
        )
        made = PubSubBroker(address, reactor, random.random, Wanted(lease), seconds=SECONDS, probe_seconds=0.5)
        self.addCleanup(made.stop)
        made.start()
        return made

    async def until(self, holds: Callable[[], object], seconds: float = 20.0) -> None:
        due = time.monotonic() + seconds
        while not holds():
            self.assertLess(time.monotonic(), due, "it did not happen")
            await deferLater(reactor, 0.02)  # type: ignore[arg-type]

    async def channel(self, broker: PubSubBroker, name: str = "requests") -> str:
        await broker.when_probed()
        await broker.ensure(name)
        return name

    async def publish(self, broker: PubSubBroker, body: bytes) -> NotDurable | None:
        (outcome,) = await broker.publish("requests", [Message(body, {"a": "b"})])
        return outcome


class ThrottledTests(FaultCase):
    """429 and 503"""

    async def test_again(self) -> None:
        """What is refused for now is asked again, after the time that the answer names; no caller notices."""
        broker = self.broker()
        await self.channel(broker)
        for status, after, least in ((429, "1", 1.0), (503, "", 0.0)):
            self.server.faults(refuse=[{"verb": "publish", "times": 1, "status": status, "retryAfter": after}])
            began = time.monotonic()
            self.assertIsNone(await self.publish(broker, b"1"))
            self.assertGreaterEqual(time.monotonic() - began, least)

    async def test_refused_in_time(self) -> None:
        """Where it stays so a publish has an outcome in time, with what was answered; Pub/Sub is there."""
        broker = self.broker()
        await self.channel(broker)
        self.server.faults(refuse=[{"verb": "publish", "times": 1000, "status": 429}])
        began = time.monotonic()
        outcome = await self.publish(broker, b"1")
        self.assertIn("429", str(outcome))
        self.assertLess(time.monotonic() - began, SECONDS + 1)
        self.assertIsNone(broker.unavailable_reason)
        self.assertIn("429", str(await self.publish(broker, b"1")))

    async def test_pull_and_ack(self) -> None:
        """Pulls, acknowledgements and leases that are refused for now are asked for again: nothing comes twice."""
        broker = self.broker()
        channel = await self.channel(broker)
        inbox = Inbox()
        inbox.subscription = broker.consume(channel, inbox)
        verbs = ("pull", "acknowledge", "modifyAckDeadline")
        self.server.faults(refuse=[{"verb": verb, "times": 2, "status": 503} for verb in verbs])
        inbox.subscription.credit(5)
        self.assertIsNone(await self.publish(broker, b"1"))
        await self.until(lambda: inbox.deliveries)
        await inbox.deliveries[0].extend(11)
        await inbox.deliveries[0].ack()
        await deferLater(reactor, 0.5)  # type: ignore[arg-type]
        self.assertEqual(inbox.bodies, [b"1"])


class TokenTests(FaultCase):
    """Tokens by google-auth, from a token server of the test's own"""

    def setUp(self) -> None:
        super().setUp()
        self.tokens = TokenServer()
        self.addCleanup(self.tokens.close)
        self.key = Path(self.mktemp())
        self.tokens.write_key(self.key)
        self.server.faults(tokens=["first"])

    async def test_rotated(self) -> None:
        """A token that is refused is replaced at once, and the call made again; another key is read from the file."""
        broker = self.broker(credentials=self.key)
        await self.channel(broker)
        self.assertIsNone(await self.publish(broker, b"1"))
        self.assertEqual(self.tokens.asked, 1)
        self.tokens.tokens.append("second")
        self.tokens.write_key(self.key)
        self.server.faults(tokens=["second"])
        self.assertIsNone(await self.publish(broker, b"2"))
        self.assertEqual(self.tokens.asked, 2)

    async def test_renewed(self) -> None:
        """A token is renewed before it ends, and no call waits for that."""
        self.tokens.lifetime = 2
        broker = self.broker(credentials=self.key)
        await self.channel(broker)
        for _ in range(30):
            self.assertIsNone(await self.publish(broker, b"1"))
            await deferLater(reactor, 0.1)  # type: ignore[arg-type]
        self.assertGreater(self.tokens.asked, 1)

    async def test_refused(self) -> None:
        """Without a token the client says so in the words of google-auth, and goes on once there is one."""
        self.tokens.tokens.append("")
        broker = self.broker(credentials=self.key)
        await broker.when_probed()
        self.assertIn("no access token for Pub/Sub: RefreshError", str(broker.unavailable_reason))
        self.assertIn("invalid_grant", str(broker.unavailable_reason))
        self.tokens.tokens.append("first")
        await self.until(lambda: broker.unavailable_reason is None, 50)

    async def test_no_file(self) -> None:
        """A file that is not there is named."""
        broker = self.broker(credentials=Path("/nowhere/key.json"))
        await broker.when_probed()
        self.assertIn("/nowhere/key.json", str(broker.unavailable_reason))


class SilentTests(FaultCase):
    """A service that does not answer, or is not there"""

    async def test_frozen(self) -> None:
        """Connections that stay open and are not answered: publishes have outcomes, and it goes on afterwards."""
        broker = self.broker()
        channel = await self.channel(broker)
        inbox = Inbox()
        inbox.subscription = broker.consume(channel, inbox)
        inbox.subscription.credit(5)
        await deferLater(reactor, 0.2)  # type: ignore[arg-type]
        self.server.freeze()
        began = time.monotonic()
        self.assertIsInstance(await self.publish(broker, b"1"), NotDurable)
        self.assertLess(time.monotonic() - began, 2 * SECONDS + 1)
        await self.until(lambda: broker.unavailable_reason, 2 * SECONDS + 2)
        self.assertIn(self.server.host, str(broker.unavailable_reason))
        self.server.thaw()
        await self.until(lambda: broker.unavailable_reason is None)
        self.assertIsNone(await self.publish(broker, b"2"))
        await self.until(lambda: b"2" in inbox.bodies)

    async def test_stopped_while_frozen(self) -> None:
        """A stop does not wait for an answer."""
        broker = self.broker()
        channel = await self.channel(broker)
        inbox = Inbox()
        inbox.subscription = broker.consume(channel, inbox)
        inbox.subscription.credit(5)
        await deferLater(reactor, 0.2)  # type: ignore[arg-type]
        self.server.freeze()
        publishing = self.publish(broker, b"1")
        began = time.monotonic()
        await broker.stop()
        self.assertIsInstance(await publishing, NotDurable)
        self.assertLess(time.monotonic() - began, 2.0)

    async def test_nothing_there(self) -> None:
        """An endpoint that does not exist is named within five seconds, and a stop does not hang."""
        self.server.kill()
        for base, reason in (
            (f"http://{self.server.host}", "refused"),
            ("http://nowhere-pubsub.invalid", "not found"),
        ):
            broker = self.broker(base)
            began = time.monotonic()
            await broker.when_probed()
            self.assertLess(time.monotonic() - began, 5.0)
            self.assertIn(base, str(broker.unavailable_reason))
            self.assertIn(reason, str(broker.unavailable_reason))
            await broker.stop()

    async def test_lost(self) -> None:
        """A service that has come back with nothing has no such channel, for publishers and for consumers."""
        broker = self.broker()
        channel = await self.channel(broker)
        inbox = Inbox()
        inbox.subscription = broker.consume(channel, inbox)
        inbox.subscription.credit(5)
        self.server.lose()
        self.server.start()
        await self.until(lambda: inbox.lost_for)
        await self.until(lambda: broker.unavailable_reason is None)
        self.assertEqual(str(await self.publish(broker, b"1")), f"the broker has no channel {channel}")


class ChannelTests(FaultCase):
    """Subscriptions that others have made"""

    async def test_faults(self) -> None:
        """One that would lose messages, or their order, takes none: the outcome says why, and so does a warning."""
        ordered: dict[str, Any] = {"enableMessageOrdering": True}
        self.server.make("other", "elsewhere", **ordered)
        self.server.make("elsewhere")
        self.server.make("unordered", "unordered")
        self.server.make("filtered", "filtered", filter='attributes:"a"', **ordered)
        broker = self.broker()
        await broker.when_probed()
        for channel, reason in (
            ("elsewhere", "is of projects/openhqm-tests/topics/other"),
            ("unordered", "does not keep the order"),
            ("filtered", "has a filter"),
        ):
            (outcome,) = await broker.publish(channel, [Message(b"1")])
            self.assertIn(reason, str(outcome))
            self.assertTrue(any(reason in warning for warning in broker.warnings), broker.warnings)
            await self.assertFailure(broker.ensure(channel), NotDurable)

    async def test_made_by_an_operator(self) -> None:
        """Where an operator makes them, none is made: what is missing is refused and named, until it is there."""
        address = Address(PROJECT, f"http://{self.server.host}", emulator=True)
        broker = PubSubBroker(address, reactor, random.random, Wanted(10.0), seconds=SECONDS, makes=False)
        self.addCleanup(broker.stop)
        broker.start()
        await broker.when_probed()
        await self.assertFailure(broker.ensure("requests"), NotDurable)
        self.assertIn("no topic requests with a subscription", "".join(broker.warnings))
        self.assertEqual(self.server.ask("GET", f"v1/{self.server.topic('requests')}")[0], 404)
        self.server.make("requests", "requests", enableMessageOrdering=True, expirationPolicy={"ttl": "0s"})
        await broker.ensure("requests")
        self.assertNotIn("no topic", "".join(broker.warnings))

    async def test_topic_without_a_subscription(self) -> None:
        """A topic alone is no channel: what is published there would be lost."""
        self.server.make("alone")
        broker = self.broker()
        await broker.when_probed()
        (outcome,) = await broker.publish("alone", [Message(b"1")])
        self.assertEqual(str(outcome), "the broker has no channel alone")
        await broker.ensure("alone")
        self.assertEqual(await broker.publish("alone", [Message(b"1")]), [None])
