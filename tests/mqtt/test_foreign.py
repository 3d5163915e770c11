"""Topics of other programs, on a real Mosquitto: what comes, what comes again, and what is published."""

from __future__ import annotations

import gc
import random
import weakref
from itertools import count
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from openhqm.errors import NotDurable
from openhqm.interfaces import IBrokerDelivery, IForeignBroker, IReceiver, Message, Properties
from openhqm.mqtt.address import ROOM, Address, covers, filter_fault
from openhqm.mqtt.client import Client
from openhqm.mqtt.deliveries import MQTTDelivery
from openhqm.mqtt.foreign import MQTTForeignBroker
from openhqm.mqtt.received import read_publish
from openhqm.mqtt.topics import TopicSubscription
from openhqm.runtime.deferreds import deferred
from openhqm.runtime.threads import Threads
from tests.bridges.devices import Device
from tests.brokers import Mosquitto, shared_mosquitto
from tests.mqtt.scripted import ScriptedServer

_tests = count(1)


@implementer(IReceiver)
class Receiver:
    """It keeps what comes, and acknowledges it where it is to."""

    def __init__(self, acknowledges: bool = True) -> None:
        self.acknowledges = acknowledges
        self.deliveries: list[IBrokerDelivery] = []
        self.revoked: list[str] = []

    def received(self, delivery: IBrokerDelivery) -> None:
        self.deliveries.append(delivery)
        delivery.revoked.addCallback(self.revoked.append)
        if self.acknowledges:
            delivery.ack()

    def lost(self, reason: str) -> None:
        raise AssertionError(reason)

    def dropped(self, count: int) -> None:
        raise AssertionError("this product does not tell")

    @property
    def bodies(self) -> list[bytes]:
        return [each.message.body for each in self.deliveries]

    @property
    def about(self) -> list[Properties]:
        return [each.message.properties or Properties() for each in self.deliveries]


class FilterTests(SynchronousTestCase):
    def test_covers(self) -> None:
        """The examples of MQTT 5, sections 4.7.1 and 4.7.2."""
        for topic_filter, topics, others in (
            ("sport/tennis/player1/#", ["sport/tennis/player1", "sport/tennis/player1/ranking"], ["sport/tennis"]),
            ("sport/tennis/+", ["sport/tennis/player1"], ["sport/tennis/player1/ranking"]),
            ("sport/+", ["sport/"], ["sport"]),
            ("+/+", ["/finance"], ["finance"]),
            ("#", ["a", "a/b"], ["$SYS/a"]),
            ("+/monitor/Clients", ["a/monitor/Clients"], ["$SYS/monitor/Clients"]),
            ("$SYS/#", ["$SYS/a"], ["SYS/a"]),
            ("$share/g/a/+", ["a/b"], ["$share/g/a/b", "a"]),
        ):
            self.assertIsNone(filter_fault(topic_filter), topic_filter)
            for topic in topics:
                self.assertTrue(covers(topic_filter, topic), (topic_filter, topic))
            for topic in others:
                self.assertFalse(covers(topic_filter, topic), (topic_filter, topic))


class Base(TestCase):
    timeout = 240

    def setUp(self) -> None:
        self.server = shared_mosquitto()
        self.prefix = f"foreign{next(_tests)}"

    def broker(self, protocol: int = 5, **more: Any) -> MQTTForeignBroker:
        address = Address("127.0.0.1", self.server.port, protocol=protocol)
        broker = MQTTForeignBroker(address, self.prefix, reactor, random.random, seconds=5.0, **more)
        broker.start()
        self.addCleanup(broker.stop)
        return broker

    def device(self, *arguments: Any, **more: Any) -> Device:
        device = Device(self.server.port, *arguments, **more)
        self.addCleanup(device.close)
        return device

    async def until(self, holds: Any, otherwise: str = "it does not come") -> None:
        for _ in range(1000):
            if holds():
                return
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        self.fail(otherwise)

    async def subscribed(self, broker: MQTTForeignBroker, receiver: Receiver, *filters: str, most: int = 10) -> Any:
        """A subscription that the broker knows by now."""
        subscription = broker.subscribe(f"{self.prefix}/s", [*filters, f"{self.prefix}/ready"], most, receiver)
        subscription.credit(most)
        device = self.device()
        while not receiver.deliveries:
            await deferToThread(device.publish, f"{self.prefix}/ready", b"")
            await deferLater(reactor, 0.02)  # type: ignore[arg-type]
        receiver.deliveries.clear()
        return subscription


class DeliveryTests(SynchronousTestCase):
    """`MQTTDelivery`, without a server"""

    def test_freed_at_once(self) -> None:
        """What waits to hear that a delivery was revoked is free once that is acknowledged, without a collection."""
        gc.disable()
        self.addCleanup(gc.enable)
        delivery = MQTTDelivery(Message(b"1", {}, None), lambda delivery: True)
        waiting = Receiver()
        known = weakref.ref(waiting)
        delivery.revoked.addCallback(lambda reason, waiting=waiting: (waiting, delivery))
        del waiting
        self.successResultOf(delivery.ack())
        self.assertIsNone(known())

    def test_not_acknowledged(self) -> None:
        """Where the connection is gone when it is acknowledged, that is said, once and for all."""
        delivery = MQTTDelivery(Message(b"1", {}, None), lambda delivery: False)
        told: list[str] = []
        delivery.revoked.addCallback(told.append)
        self.failureResultOf(delivery.ack(), NotDurable)
        self.failureResultOf(delivery.ack(), NotDurable)
        delivery.revoke("the connection was lost")
        self.assertEqual(told, [])


class ForeignTests(Base):
    """MQTT 5, unless a test says otherwise"""

    @deferred
    async def test_properties(self) -> None:
        """A message comes with its topic, its headers and its properties (MQTT 5, section 3.3.2.3)."""
        broker, receiver = self.broker(), Receiver()
        verifyObject(IForeignBroker, broker)
        await self.subscribed(broker, receiver, f"{self.prefix}/+/x")
        about = {"ContentType": "a/b", "ResponseTopic": "r", "CorrelationData": b"\x00", "UserProperty": [("k", "v")]}
        await deferToThread(self.device().publish, f"{self.prefix}/7/x", b"1", **about)
        await self.until(lambda: b"1" in receiver.bodies)
        delivery = receiver.deliveries[receiver.bodies.index(b"1")]
        found = delivery.message.properties
        assert found is not None
        self.assertEqual((found.topic, found.content_type, found.reply_to), (f"{self.prefix}/7/x", "a/b", "r"))
        self.assertEqual((found.correlation, found.duplicate, found.retained), (b"\x00", False, False))
        self.assertEqual(delivery.message.headers, {"k": "v"})
        self.assertIsNotNone(found.identity)

    @deferred
    async def test_comes_again(self) -> None:
        """What was not acknowledged comes again to the next process, marked, with the same identity; and in order."""
        for protocol in (5, 4):
            self.prefix = f"foreign{next(_tests)}"
            await self.comes_again(protocol)

    async def comes_again(self, protocol: int) -> None:
        broker, receiver = self.broker(protocol), Receiver()
        await self.subscribed(broker, receiver, f"{self.prefix}/x")
        receiver.acknowledges = False
        device = self.device()
        for number in range(3):
            await deferToThread(device.publish, f"{self.prefix}/x", b"%d" % number)
        await self.until(lambda: receiver.bodies[-3:] == [b"0", b"1", b"2"])
        first = receiver.about[-3:]
        receiver.deliveries[-3].ack()
        await broker.stop()
        self.assertEqual(len(receiver.revoked), 2)
        await deferToThread(device.publish, f"{self.prefix}/x", b"3")
        again = Receiver()
        subscription = self.broker(protocol).subscribe(f"{self.prefix}/s", [f"{self.prefix}/x"], 10, again)
        subscription.credit(10)
        await self.until(lambda: len(again.bodies) == 3)
        self.assertEqual(again.bodies, [b"1", b"2", b"3"])
        self.assertEqual([each.duplicate for each in again.about], [True, True, False])
        self.assertEqual([each.identity for each in again.about[:2]], [each.identity for each in first[1:]])
        self.assertNotEqual(again.about[2].identity, first[0].identity)

    @deferred
    async def test_credit(self) -> None:
        """No more are out than the credit allows; with none, nothing comes, and the connection stays."""
        broker, receiver = self.broker(), Receiver()
        subscription = await self.subscribed(broker, receiver, f"{self.prefix}/x", most=3)
        receiver.acknowledges = False
        device = self.device()
        for number in range(10):
            await deferToThread(device.publish, f"{self.prefix}/x", b"%d" % number)
        await self.until(lambda: len(receiver.deliveries) >= 3)
        await deferLater(reactor, 0.2)  # type: ignore[arg-type]
        out = [each for each in receiver.deliveries if each.message.body]
        self.assertEqual(len(out), 3)
        subscription.credit(0)
        for each in out:
            each.ack()
        await deferLater(reactor, 0.2)  # type: ignore[arg-type]
        self.assertEqual(len([body for body in receiver.bodies if body]), 3)
        receiver.acknowledges = True
        subscription.credit(3)
        await self.until(lambda: len([body for body in receiver.bodies if body]) == 10)
        self.assertEqual(receiver.revoked, [])

    @deferred
    async def test_retained(self) -> None:
        """What the broker keeps for a topic comes with the first subscription, marked, and not with each connection."""
        device = self.device()
        await deferToThread(device.retain, f"{self.prefix}/x", b"kept")
        broker, receiver = self.broker(), Receiver()
        await self.subscribed(broker, receiver, f"{self.prefix}/x")
        await broker.stop()
        again = Receiver()
        await self.subscribed(self.broker(), again, f"{self.prefix}/x")
        await deferToThread(device.publish, f"{self.prefix}/x", b"new")
        await self.until(lambda: b"new" in again.bodies)
        self.assertNotIn(b"kept", again.bodies)

    @deferred
    async def test_published(self) -> None:
        """A message is published with its properties; what no client would get was not published, unless it is kept."""
        broker, device = self.broker(), self.device()
        await broker.when_probed()
        about = Properties(content_type="a/b", reply_to="r", correlation=b"1")
        message = Message(b"1", {"k": "v"}, None, about)
        await self.assertFailure(broker.publish(f"{self.prefix}/y", message), NotDurable)
        await broker.publish(f"{self.prefix}/z", Message(b"1", {}, None, Properties(retained=True)))
        await deferToThread(device.subscribe, f"{self.prefix}/y")
        for qos in (0, 1, 2):
            await broker.publish(f"{self.prefix}/y", Message(b"%d" % qos, {"k": "v"}, None, about))
            found = await deferToThread(device.next)
            self.assertEqual((found.payload, found.properties.ContentType), (b"%d" % qos, "a/b"))
            self.assertEqual(found.properties.UserProperty, [("k", "v")])
        for topic in ("", "a/#", "$x"):
            self.assertIsNotNone(broker.fault(topic))
            await self.assertFailure(broker.publish(topic, message), NotDurable)

    @deferred
    async def test_asked(self) -> None:
        """Answers are told apart by their correlation, whatever their order; one that is not waited for is dropped."""
        broker = self.broker()
        await broker.when_probed()
        seen: list[Any] = []
        device = self.device(answer=lambda _, message: seen.append(message))
        await deferToThread(device.subscribe, f"{self.prefix}/ask")

        def ask(number: int) -> Deferred[Message]:
            about = Properties(correlation=b"%d" % number)
            return broker.ask(f"{self.prefix}/ask", Message(b"%d" % number, {}, None, about), None)

        given_up, first, second = ask(0), ask(1), ask(2)
        await self.until(lambda: len(seen) == 3)
        given_up.cancel()
        self.failureResultOf(given_up)
        # Another client has no correlation data to answer with.
        await deferToThread(device.publish, seen[0].properties.ResponseTopic, b"forged")
        for each in reversed(seen):
            about = each.properties
            await deferToThread(
                device.publish, about.ResponseTopic, b"answer" + each.payload, CorrelationData=about.CorrelationData
            )
        self.assertEqual([(await first).body, (await second).body], [b"answer1", b"answer2"])

    @deferred
    async def test_away(self) -> None:
        """Without a connection nothing is published, and the reason says so."""
        broker = MQTTForeignBroker(Address("127.0.0.1", 1), "x", reactor, random.random, seconds=1.0)
        broker.start()
        self.addCleanup(broker.stop)
        await broker.when_probed()
        self.assertIn("cannot use mqtt://127.0.0.1:1", broker.unavailable_reason or "")
        message = Message(b"1", {}, None, Properties())
        await self.assertFailure(broker.publish("a", message), NotDurable)
        await self.assertFailure(broker.ask("a", message, None), NotDurable)


class FaultTests(Base):
    """Brokers that end connections, forget sessions or refuse"""

    def setUp(self) -> None:
        super().setUp()
        self.server = Mosquitto().start()
        self.addCleanup(self.server.close)

    async def comes(self, receiver: Receiver, body: bytes) -> None:
        """What is published now comes, soon."""
        device = self.device()
        for _ in range(500):
            await deferToThread(device.publish, f"{self.prefix}/x", body)
            if body in receiver.bodies:
                return
            await deferLater(reactor, 0.02)  # type: ignore[arg-type]
        self.fail("it does not come")

    @deferred
    async def test_forgotten(self) -> None:
        """A broker that comes back with nothing is subscribed to again."""
        for protocol in (5, 4):
            self.prefix = f"foreign{next(_tests)}"
            receiver = Receiver()
            await self.subscribed(self.broker(protocol), receiver, f"{self.prefix}/x")
            await deferToThread(self.server.lose_everything)
            await self.comes(receiver, b"again")

    @deferred
    async def test_taken_over(self) -> None:
        """Another client with the same id takes what is out; when it has gone, messages come again."""
        broker, receiver = self.broker(), Receiver()
        await self.subscribed(broker, receiver, f"{self.prefix}/x")
        receiver.acknowledges = False
        await self.comes(receiver, b"out")
        thief = Client(
            Address("127.0.0.1", self.server.port), f"{self.prefix}/s", reactor, lambda message: None, session=True
        )
        threads = Threads(reactor, "thief", 1)
        threads.start()
        await thief.connect(threads.run, 5.0)
        await self.until(lambda: bool(receiver.revoked), "nothing is revoked")
        thief.abort()
        threads.stop()
        receiver.acknowledges = True
        await self.comes(receiver, b"again")
        self.assertEqual(list(broker.warnings), [])

    @deferred
    async def test_frozen(self) -> None:
        """A broker that answers nothing is given up, and used again when it does."""
        address = Address("127.0.0.1", self.server.port, keepalive=2)
        broker, receiver = MQTTForeignBroker(address, self.prefix, reactor, random.random, seconds=0.5), Receiver()
        broker.start()
        self.addCleanup(broker.stop)
        await self.subscribed(broker, receiver, f"{self.prefix}/x")
        self.server.freeze()
        self.addCleanup(self.server.thaw)
        message = Message(b"1", {}, None, Properties(retained=True))
        await self.assertFailure(broker.publish("a", message), NotDurable)
        await self.until(lambda: bool(broker.warnings), "it is not noticed")
        self.server.thaw()
        await self.comes(receiver, b"again")
        await self.until(lambda: broker.unavailable_reason is None, "it is not connected again")
        await broker.publish("a", message)

    @deferred
    async def test_refused_subscription(self) -> None:
        """A broker that refuses a subscription, or grants QoS 0: nothing is read, and a warning says why."""
        for code, reason in ((0x87, "refuses the subscription to a/#: Not authorized"), (0, "grants QoS 0 only")):
            server = ScriptedServer()
            self.addCleanup(server.close)
            server.subscribe_code = code
            broker = MQTTForeignBroker(server.address, "me", reactor, random.random, seconds=1.0)
            broker.start()
            self.addCleanup(broker.stop)
            broker.subscribe("me/b", ["a/#"], 5, Receiver()).credit(5)
            await self.until(lambda: reason in "".join(broker.warnings), "it says nothing")  # noqa: B023
            self.assertIsNone(broker.unavailable_reason)
            server.subscribe_code = 1
            await self.until(lambda: not broker.warnings, "it does not try again")  # noqa: B023

    @deferred
    async def test_status(self) -> None:
        """Who subscribes to the status is told whether the gateway is there, also when it just vanished."""
        threads = Threads(reactor, "thief", 1)
        threads.start()
        self.addCleanup(threads.stop)
        for protocol in (5, 4):
            self.prefix = f"foreign{next(_tests)}"
            topic = f"{self.prefix}/status"
            address = Address("127.0.0.1", self.server.port, protocol=protocol)
            broker = MQTTForeignBroker(address, self.prefix, reactor, lambda: 0.5, seconds=5.0, status_topic=topic)
            broker.start()
            self.addCleanup(broker.stop)
            device = self.device()
            await deferToThread(device.subscribe, topic)
            seen = [(await deferToThread(device.next)).payload]
            thief = Client(address, f"{self.prefix}/{int(0.5 * 2**53):x}", reactor, lambda message: None)
            await thief.connect(threads.run, 5.0)
            while seen[-1] != b"offline":
                seen.append((await deferToThread(device.next)).payload)
            seen.append((await deferToThread(device.next)).payload)
            await broker.stop()
            seen.append((await deferToThread(device.next)).payload)
            self.assertEqual(seen, [b"online", b"offline", b"online", b"offline"])
            late = self.device()
            await deferToThread(late.subscribe, topic)
            self.assertEqual((await deferToThread(late.next)).payload, b"offline")

    @deferred
    async def test_small_packets(self) -> None:
        """What is larger than the broker's largest packet is not published, and the connection stays."""
        await deferToThread(self.server.kill)
        self.server.settings["max_packet_size"] = "1024"
        await deferToThread(self.server.start)
        broker = self.broker()
        await self.until(lambda: broker.unavailable_reason is None, "it does not connect")
        for message in (
            Message(b"x" * 2000, {}, None, Properties(retained=True)),
            Message(b"x", {"k": "v" * 2000}, None, Properties(retained=True)),
            Message(b"x", {}, None, Properties(retained=True, correlation=b"x" * 2000)),
        ):
            await self.assertFailure(broker.publish("a", message), NotDurable)
        await broker.publish("a", Message(b"x", {}, None, Properties(retained=True)))

    @deferred
    async def test_no_garbage(self) -> None:
        """A message that was received leaves nothing to the garbage collector."""
        broker, receiver = self.broker(), Receiver()
        await self.subscribed(broker, receiver, f"{self.prefix}/x")
        device = self.device()
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for _ in range(50):
            device.publish(f"{self.prefix}/x", b"1", wait=False)
        await self.until(lambda: len(receiver.deliveries) >= 50)
        receiver.deliveries.clear()
        found = [each for each in gc.get_objects() if isinstance(each, MQTTDelivery)]
        self.assertLess(len(found), 5)

    @deferred
    async def test_large_messages(self) -> None:
        """What is longer than is wanted the broker does not deliver; it does not come again, and holds up nothing."""
        broker, receiver = self.broker(largest=1024), Receiver()
        await self.subscribed(broker, receiver, f"{self.prefix}/x")
        device = self.device()
        for body in (b"1", bytes(ROOM + 2048), b"2"):
            await deferToThread(device.publish, f"{self.prefix}/x", body)
        await self.until(lambda: len(receiver.deliveries) >= 2)
        self.assertEqual((receiver.bodies, receiver.revoked), ([b"1", b"2"], []))

    @deferred
    async def test_identities_come_again(self) -> None:
        """Where packet identifiers are used up too soon, they identify nothing."""
        clock = Clock()
        one = TopicSubscription("s", ["a"], Receiver(), "peer", clock, random.random, lambda received: Deferred())

        def identity(mid: int) -> str | None:
            return one._identity(read_publish(0x32, b"\0\x01a%c%c\x001" % divmod(mid, 256), True))

        self.assertNotEqual(identity(1), identity(2))
        self.assertIsNone(identity(1))  # a process that has just begun does not know how fast they come
        self.assertIsNone(identity(2))
        clock.advance(1000)
        self.assertIsNotNone(identity(1))  # a slow round
        identity(2)
        clock.advance(60)
        self.assertIsNone(identity(1))  # a fast one
        identity(2)
        clock.advance(1000)
        self.assertIsNotNone(identity(1))
