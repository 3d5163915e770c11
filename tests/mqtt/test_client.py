"""One connection: what the broker announces, refuses, and says when it ends the connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from openhqm.errors import NotDurable
from openhqm.mqtt.asking import Answers
from openhqm.mqtt.client import Client
from openhqm.mqtt.reason_codes import NO_SUBSCRIBERS
from tests.mqtt.scripted import PUBACK, PUBLISH, ScriptedServer, packet, publish

MOST_SECONDS = 10.0


def codes(kind: int) -> list[tuple[int, str]]:
    """Every reason code of a packet that is a failure, and its name (MQTT 5, section 2.4)."""
    found = []
    for value in range(0x80, 0x100):
        try:
            found.append((value, ReasonCode(kind, identifier=value).getName()))
        except (KeyError, ValueError):
            continue
    return found


class ClientTests(TestCase):
    """A connection to a server that the test scripts"""

    timeout = 240

    def setUp(self) -> None:
        self.server = ScriptedServer()
        self.addCleanup(self.server.close)
        self.messages: list[Any] = []

    def client(self, session: bool = False) -> Client:
        client = Client(self.server.address, "me", reactor, self.messages.append, session=session)
        self.addCleanup(client.abort)
        return client

    def connected(self, seconds: float = MOST_SECONDS) -> Deferred[Client]:
        return self.client().connect(deferToThread, seconds)

    async def refused(self, asked: Deferred[Any]) -> str:
        """The reason why it fails."""
        try:
            await asked
        except NotDurable as error:
            return error.reason
        raise self.failureException("it did not fail")

    async def until(self, holds: Callable[[], object]) -> None:
        for _ in range(int(MOST_SECONDS / 0.01)):
            if holds():
                return
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        raise self.failureException("it does not come true")

    async def test_each_refusal_of_a_connection(self) -> None:
        """Each reason code of a CONNACK is told in words, with what to check where the client is not let in."""
        for value, name in codes(PacketTypes.CONNACK):
            self.server.connect_code = value
            check = ": check username, password and client_id" if value in (0x86, 0x87) else ""
            self.assertEqual(await self.refused(self.connected()), f"it refuses the connection: {name}{check}")

    async def test_each_disconnect_reason(self) -> None:
        """Each reason with which the broker ends a connection is told in words and as a number; what waits fails."""
        found = codes(PacketTypes.DISCONNECT)
        self.assertIn((0x8E, "Session taken over"), found)
        for value, name in found:
            client = await self.connected()
            self.server.publish_code = None
            waiting = client.publish("a", b"1")
            await self.until(lambda: self.server.count(PUBLISH))
            self.server.say(packet(14, bytes([value, 0])))
            reason = f"the broker has ended it: {name} (0x{value:02X})"
            self.assertEqual((await client.lost, await self.refused(waiting)), (reason, reason))
            self.assertEqual(await self.refused(client.publish("a", b"2")), "the connection is closed")
            self.server.heard.clear()

    async def test_each_refusal_of_a_message(self) -> None:
        """Each failure in a PUBACK is one of the message. That there is no subscriber is none, and is told."""
        client = await self.connected()
        for value, name in codes(PacketTypes.PUBACK):
            self.server.publish_code = value
            reason = f"the broker refuses the message: {name} (0x{value:02X})"
            self.assertEqual(await self.refused(client.publish("a", b"1")), reason)
        for value in (0, NO_SUBSCRIBERS):
            self.server.publish_code = value
            self.assertEqual(await client.publish("a", b"1"), value)

    async def test_refused_subscriptions(self) -> None:
        """A subscription that is refused, or granted with QoS 0 only, fails with the topic and the reason."""
        client = await self.connected()
        for value, name in codes(PacketTypes.SUBACK):
            self.server.subscribe_code = value
            reason = f"the broker refuses the subscription to a/b: {name}"
            self.assertEqual(await self.refused(client.subscribe("a/b")), reason)
        self.server.subscribe_code = 0
        self.assertIn("QoS 0 only for a/b", await self.refused(client.subscribe("a/b")))

    async def test_what_a_broker_must_have(self) -> None:
        """A broker that carries QoS 0 only, or keeps no retained messages, is not used."""
        for properties, reason in ((b"\x24\x00", "QoS 0 only"), (b"\x25\x00", "no retained messages")):
            self.server.properties = properties
            self.assertIn(reason, await self.refused(self.connected()))

    async def test_announced(self) -> None:
        """What the broker announces is known: the largest packet, the receive maximum, how long it keeps a session."""
        self.server.properties = b"\x21\x00\x02\x27\x00\x00\x04\x00\x11\x00\x00\x00\x3c"
        client = await self.connected()
        expected = {"ReceiveMaximum": 2, "MaximumPacketSize": 1024, "SessionExpiryInterval": 60}
        self.assertEqual(client.properties, expected)

    async def test_receive_maximum(self) -> None:
        """No more messages are sent than the broker takes at once; the next one goes when one is confirmed."""
        self.server.properties, self.server.publish_code = b"\x21\x00\x02", None
        client = await self.connected()
        sent = [client.publish("a", b"%d" % number) for number in range(4)]
        await self.until(lambda: self.server.count(PUBLISH) == 2)
        await deferLater(reactor, 0.1)  # type: ignore[arg-type]
        self.assertEqual(self.server.count(PUBLISH), 2)
        self.server.say(packet(4, b"\0\x01\0\0"))
        self.assertEqual(await sent[0], 0)
        await self.until(lambda: self.server.count(PUBLISH) == 3)
        client.abort()
        for each in sent[1:]:
            await self.refused(each)

    async def test_bounded(self) -> None:
        """Beyond 10,000 unconfirmed messages a publish is refused."""
        self.server.publish_code = None
        client = await self.connected()
        sent = [client.publish("a", b"") for _ in range(10_000)]
        self.assertIn("does not keep up", await self.refused(client.publish("a", b"")))
        client.abort()
        for each in sent:
            await self.refused(each)

    async def test_no_answer(self) -> None:
        """A server that takes the connection and says nothing is given up in time."""
        self.server.connect_code = None
        self.assertEqual(await self.refused(self.connected(0.1)), "it does not answer within 0.2 s")

    async def test_another_protocol(self) -> None:
        """A server that does not speak MQTT is given up."""
        self.server.connect_code = None
        waiting = self.connected()
        await self.until(lambda: self.server.heard)
        self.server.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.server.connections[-1].transport.loseConnection()
        self.assertIn("is that the port of MQTT?", await self.refused(waiting))

    async def test_given_up(self) -> None:
        """An attempt can be cancelled; its connection is closed."""
        self.server.connect_code = None
        waiting = self.connected()
        await self.until(lambda: self.server.heard)
        waiting.cancel()
        await self.assertFailure(waiting, CancelledError)

    async def test_a_message_of_another_program(self) -> None:
        """What is no UTF-8, or has no properties, is received, and acknowledged with the others of its turn."""
        client = await self.connected()
        self.server.say(packet(3, b"\0\x01a\0\x07\0\xff\xfe", flags=2) + packet(3, b"\0\x01a\0\x08\0", flags=2))
        await self.until(lambda: len(self.messages) == 2)
        self.assertEqual((self.messages[0].payload, self.messages[0].mid), (b"\xff\xfe", 7))
        client.acknowledge(7)
        client.acknowledge(8)
        await self.until(lambda: self.server.count(PUBACK) == 2)
        self.assertEqual(self.server.heard[-2:], [(PUBACK, b"\0\x07"), (PUBACK, b"\0\x08")])
        client.acknowledge(0)  # of QoS 0
        client.abort()
        client.acknowledge(9)  # it is over
        self.assertEqual(self.server.count(PUBACK), 2)

    async def test_what_breaks_the_protocol(self) -> None:
        """A packet that is none ends the connection: codes that are not known, a message without an identifier."""
        for data in (
            packet(14, b"\xfe\0"),
            packet(4, b"\0\x01\xfe\0"),
            packet(3, b"\0\x05a", flags=2),
            packet(3, b"\0\x01a\0\x07\0", flags=4),
            packet(3, b"\0\x01a\0\0\0", flags=2),  # it could not be acknowledged, and would take credit for ever
            b"\x32\xff\xff\xff\xff\x01",
        ):
            client = await self.connected()
            self.server.say(data)
            self.assertNotEqual(await client.lost, "", data)
            self.assertEqual(self.messages, [])

    async def test_larger_than_wanted(self) -> None:
        """Of a packet that is larger than this client wants the beginning is kept, with its fault; others are whole."""
        client = Client(self.server.address, "me", reactor, self.messages.append, largest=100_000)
        self.addCleanup(client.abort)
        await client.connect(deferToThread, MOST_SECONDS)
        for mid, size in enumerate((90_000, 9_000_000, 1), 1):
            self.server.say(publish(b"t", bytes(size), mid))
        await self.until(lambda: len(self.messages) == 3)
        fault = "its packet has 9000006 bytes, of which the first 100000 are read"
        self.assertEqual([each.fault for each in self.messages], [None, fault, None])
        self.assertEqual([(each.mid, len(each.payload)) for each in self.messages], [(1, 90_000), (2, 99_994), (3, 1)])

    async def test_answer_larger_than_wanted(self) -> None:
        """An answer of which only the beginning was read is none: the question fails, and says so."""
        answers = Answers(reactor, "own")
        client = Client(self.server.address, "me", reactor, answers.received, largest=100_000)
        self.addCleanup(client.abort)
        await client.connect(deferToThread, MOST_SECONDS)
        answers.up(client)
        subscribed, answer = answers.expect("own", b"1")
        await subscribed
        self.server.say(publish(b"own", bytes(200_000), properties=b"\x04\x09\0\x011"))
        self.assertIn("its answer cannot be read: its packet has 200012 bytes", await self.refused(answer))

    async def test_in_pieces(self) -> None:
        """Packets that come byte by byte, or many in one piece, are the same."""
        await self.connected()
        sent = [b"%d" % number * number for number in range(300)]
        data = b"".join(publish(b"a", payload, number + 1) for number, payload in enumerate(sent))
        for start in range(2000):
            self.server.say(data[start : start + 1])
            if start % 50 == 0:
                await deferLater(reactor, 0)  # type: ignore[arg-type]
        self.server.say(data[2000:])
        await self.until(lambda: len(self.messages) == len(sent))
        self.assertEqual([each.payload for each in self.messages], sent)
