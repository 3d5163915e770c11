"""RabbitMQ keeps the promises of a broker, on a real server, and through what happens to servers."""

from __future__ import annotations

import contextlib
import random
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from openhqm.config.rabbitmq_address import parse_address
from openhqm.errors import NotDurable
from openhqm.interfaces.legacy import OnLost
from openhqm.messages import Priority
from openhqm.rabbitmq.broker import RabbitMQBroker
from openhqm.rabbitmq.link import Reconnecting
from openhqm.rabbitmq.topology import Claim
from openhqm.rabbitmq.wire import check_installed
from tests.brokered.broker_contract import Patient, Q, broker_contract, publish
from tests.brokers import RabbitMQServer, shared_rabbitmq


def new_broker(
    case: TestCase, url: str, prefix: str = "", seconds: float = 5.0, on_lost: OnLost | None = None, **more: Any
) -> RabbitMQBroker:
    """A process of its own, started. A test's own prefix keeps what others left out of it."""
    check_installed()
    broker = RabbitMQBroker(
        parse_address(url), reactor, random.random, prefix=prefix or f"{case.id()}.", seconds=seconds, **more
    )
    case.addCleanup(broker.stop)
    if on_lost is not None:
        broker.on_lost = on_lost
    broker.start()
    return broker


async def connected(case: TestCase) -> RabbitMQBroker:
    """One on the server that all tests share."""
    broker = new_broker(case, shared_rabbitmq().url)
    await broker.when_probed()
    case.assertIsNone(broker.unavailable_reason)
    return broker


class RabbitMQContract(broker_contract(connected)):  # type: ignore[misc]
    """RabbitMQ"""


del broker_contract


class Real(Patient):
    """On the server that all tests share, or on one of the test's own."""

    def blocking(self) -> Any:
        """A channel of somebody else's, who may do what he likes."""
        import pika

        connection = pika.BlockingConnection(pika.URLParameters(shared_rabbitmq().url))
        self.addCleanup(lambda: connection.is_open and connection.close())
        return connection.channel()

    def prefixed(self, name: str) -> str:
        return f"{self.id()}.{name}"

    def server(self, **more: Any) -> RabbitMQServer:
        server = RabbitMQServer(**more)
        self.addCleanup(server.close)
        return server.start()


class SharingTests(Real):
    """Several processes on the same queues"""

    async def test_claim(self) -> None:
        """One has the claim; another one waits for it, takes nothing meanwhile, and has it once the first is gone."""
        url, claim = shared_rabbitmq().url, Claim("claim", "somebody else has it")
        first = new_broker(self, url, claim=claim)
        await first.when_probed()
        self.assertIsNone(first.unavailable_reason)
        second = new_broker(self, url, claim=claim)
        await second.when_probed()
        self.assertIn("somebody else has it", second.unavailable_reason or "")
        await publish(first, b"1")
        self.assertIn("somebody else has it", str(await self.refused(publish(second, b"2"))))
        waiting = second.receive(Q, 5)
        (delivery,) = await first.receive(Q, 5)
        await delivery.ack()
        await publish(first, b"3")
        await first.stop()
        await self.until(lambda: second.unavailable_reason is None, "the claim is not given on")
        (delivery,) = await waiting
        self.assertEqual(delivery.body, b"3")
        await delivery.ack()

    async def test_claim_after_a_lost_connection(self) -> None:
        """Whoever has the claim has it again after its connection was lost."""
        broker = new_broker(self, shared_rabbitmq().url, claim=Claim("claim", "somebody else has it"))
        await broker.when_probed()
        broker._consuming.close_anew("hung up")
        await self.until(lambda: broker.unavailable_reason is None, "not connected again")
        await publish(broker, b"1")

    async def test_patient(self) -> None:
        """What came beyond what is asked for is not returned, and so not counted, while something is out."""
        broker = new_broker(self, shared_rabbitmq().url, patient=True)
        await broker.when_probed()
        await publish(broker, b"1", priority=Priority.HIGH)
        await publish(broker, b"2")
        (high,) = await broker.receive(Q, 1)
        place = broker._place(Q)
        await self.until(lambda: place.arrived == 1, "the other lane's has not come")
        await self.until(lambda: place._idle is not None, "it is not going to be looked at whether anybody asks")
        await self.until(lambda: place._idle is None, "it was not looked at whether anybody asks")
        self.assertEqual(place.arrived, 1)
        self.assertTrue(all(each.active for each in place._consumers), "it has begun to hand on")
        await high.ack()
        (normal,) = await broker.receive(Q, 1)
        self.assertEqual((normal.body, normal.returned), (b"2", 0))
        await normal.ack()

    async def test_handed_on(self) -> None:
        """A patient one that stops hands on what has come for nobody, uncounted; what is out counts."""
        broker = new_broker(self, shared_rabbitmq().url, patient=True)
        await broker.when_probed()
        await publish(broker, b"1", priority=Priority.HIGH)
        await publish(broker, b"2", attempts=1)
        await broker.receive(Q, 1)
        await self.until(lambda: broker._place(Q).arrived == 1, "the other lane's has not come")
        await broker.stop()
        other = await connected(self)
        found = {}
        while len(found) < 2:
            for delivery in await other.receive(Q, 5):
                found[delivery.body] = (delivery.attempts, delivery.returned)
        self.assertEqual(found, {b"1": (0, 1), b"2": (1, 0)})


class MeddlingTests(Real):
    """What others do to our queues"""

    async def setUp(self) -> None:  # type: ignore[override]
        self.broker = await connected(self)

    async def test_deleted_under_the_publisher(self) -> None:
        """A queue that is gone is made anew, and what is published into it is there."""
        await publish(self.broker, b"1")
        self.blocking().queue_delete(self.prefixed("q"))
        await publish(self.broker, b"2")
        (delivery,) = await self.broker.receive(Q, 5)
        self.assertEqual(delivery.body, b"2")

    async def test_deleted_under_the_consumer(self) -> None:
        """Who waits at a queue that is deleted waits at the one that is made anew."""
        await publish(self.broker, b"0")
        (before,) = await self.broker.receive(Q, 1)
        await before.ack()
        waiting = self.broker.receive(Q, 1)
        channel = self.blocking()
        await self.until(lambda: self._consumers(channel), "nobody consumes")
        channel.queue_delete(self.prefixed("q"))
        await self.patiently(lambda: publish(self.broker, b"1"))
        (delivery,) = await waiting
        self.assertEqual(delivery.body, b"1")
        await delivery.ack()

    def _consumers(self, channel: Any) -> int:
        frame = channel.queue_declare(self.prefixed("q!low"), passive=True)  # the last one
        count: int = frame.method.consumer_count
        return count

    async def test_delay_queue_deleted(self) -> None:
        """A delay queue that is gone is made anew, too."""
        await publish(self.broker, b"1", delay=0.4)
        for name in ("delay!125", "delay!250"):
            self.blocking().queue_delete(self.prefixed(name))
        await publish(self.broker, b"2", delay=0.4)
        found: set[bytes] = set()
        while b"2" not in found:
            for delivery in await self.broker.receive(Q, 5):
                found.add(delivery.body)
                await delivery.ack()

    async def test_exchange_deleted(self) -> None:
        """Without the exchange a publish fails, and the next one finds everything in its place."""
        await publish(self.broker, b"1", delay=0.4)
        self.blocking().exchange_delete(self.prefixed("delay!250"))
        await self.patiently(lambda: publish(self.broker, b"2", delay=0.5))
        found: set[bytes] = set()
        while b"2" not in found:
            for delivery in await self.broker.receive(Q, 5):
                found.add(delivery.body)
                await delivery.ack()

    async def test_of_others(self) -> None:
        """A message that is not ours is lent as it is."""
        await publish(self.broker, b"ours")
        self.blocking().basic_publish("", self.prefixed("q"), b"theirs")
        found = {delivery.body: delivery.attempts for delivery in await self.broker.receive(Q, 1)}
        found |= {delivery.body: delivery.attempts for delivery in await self.broker.receive(Q, 1)}
        self.assertEqual(found, {b"ours": 0, b"theirs": 0})

    async def test_other_arguments(self) -> None:
        """A queue of our name that is another one is not used, and the words say which."""
        self.blocking().queue_declare(self.prefixed("q"), durable=True)
        error = await self.refused(publish(self.broker, b"1"))
        self.assertIn(self.prefixed("q"), str(error))
        waiting = self.broker.receive(Q, 1)
        await self.until(lambda: self.broker.warnings, "nothing is said of it")
        self.assertIn("q", self.broker.warnings[0])
        self.blocking().queue_delete(self.prefixed("q"))
        await publish(self.broker, b"2")
        (delivery,) = await waiting
        self.assertEqual(delivery.body, b"2")
        await self.until(lambda: not self.broker.warnings, "it is still warned of")

    async def test_full(self) -> None:
        """What a policy has no room for is not accepted."""
        await publish(self.broker, b"1")
        server = shared_rabbitmq()
        pattern = "^" + self.prefixed("q").replace(".", r"\.") + "$"
        server.control("set_policy", "full", pattern, '{"max-length": 1, "overflow": "reject-publish"}')
        try:
            await self.until(lambda: self._is_full(), "it takes everything")
        finally:
            server.control("clear_policy", "full")

    def _is_full(self) -> Any:
        return publish(self.broker, b"2").addCallbacks(
            lambda taken: False, lambda failure: failure.trap(NotDurable) is NotDurable
        )

    async def test_channel_closed(self) -> None:
        """When RabbitMQ closes the channel, what was lent over it is lent anew, and the loan is told."""
        await publish(self.broker, b"1")
        (delivery,) = await self.broker.receive(Q, 1)
        # A tag that was never given out is an error, for which the server closes the channel.
        delivery._channel.basic_ack(4711)
        self.assertIn("4711", await delivery.taken_back)
        await self.refused(delivery.ack())
        (again,) = await self.broker.receive(Q, 1)
        self.assertEqual((again.body, again.returned), (b"1", 1))

    async def test_many(self) -> None:
        """Thousands of publishes, many at a time, are all there, each once."""
        total, together = 5000, 64
        numbers = iter(range(total))

        async def some() -> None:
            for number in numbers:
                await publish(self.broker, b"%d" % number)

        from twisted.internet.defer import Deferred, gatherResults

        await gatherResults([Deferred.fromCoroutine(some()) for _ in range(together)])
        found = []
        while len(found) < total:
            for delivery in await self.broker.receive(Q, 100):
                found.append(int(delivery.body))
                delivery.ack()
        self.assertEqual(sorted(found), list(range(total)))


class FaultTests(Real):
    """What happens to servers and cables"""

    async def own(self, seconds: float = 1.5) -> RabbitMQBroker:
        self.rabbit = shared_rabbitmq()
        self.addCleanup(self.mend)
        broker = new_broker(self, self.rabbit.url, seconds=seconds)
        await broker.when_probed()
        return broker

    def mend(self) -> None:
        """Whatever was done to it: the next test finds it in order."""
        if self.rabbit.process is None or self.rabbit.process.poll() is not None:
            self.rabbit.start()

    async def test_kill(self) -> None:
        """kill -9: what was confirmed is there afterwards, also what was on loan or delayed; nothing comes early."""
        broker = await self.own()
        taken: list[bytes] = []
        due = reactor.seconds() + 3.0  # type: ignore[attr-defined]
        for number in range(20):
            await publish(broker, b"later %d" % number, delay=3.0)
            taken.append(b"later %d" % number)
        for number in range(100):
            await publish(broker, b"%d" % number)
            taken.append(b"%d" % number)
        (lent,) = await broker.receive(Q, 1)
        self.rabbit.know_its_queues()
        self.rabbit.kill()
        await lent.taken_back
        await self.refused(lent.ack())
        await self.refused(publish(broker, b"while it is away"))
        self.assertIsNotNone(broker.unavailable_reason)
        self.rabbit.start()
        found: set[bytes] = set()
        while found < set(taken):
            for delivery in await broker.receive(Q, 50):
                if delivery.body.startswith(b"later"):
                    self.assertGreaterEqual(reactor.seconds(), due)  # type: ignore[attr-defined]
                found.add(delivery.body)
                await delivery.ack()
        self.assertIsNone(broker.unavailable_reason)

    async def test_without_a_leader(self) -> None:
        """A queue that gives no answer holds up no other one; deleted, it is made anew, and lent from."""
        broker = await self.own(seconds=5.0)
        await publish(broker, b"normal")
        self.rabbit.know_its_queues()
        await publish(broker, b"low", priority=Priority.LOW)
        self.rabbit.kill()  # before it has written down that there is the second queue
        self.rabbit.start()
        (first,) = await broker.receive(Q, 1)
        self.assertEqual(first.body, b"normal")
        words = "!low cannot be consumed from: it does not answer"
        await self.until(lambda: any(words in each for each in broker.warnings), "nothing is said of it")
        for number in range(20):
            await publish(broker, b"%d" % number)
            (delivery,) = await broker.receive(Q, 1)
            self.assertEqual(delivery.body, b"%d" % number)
            await delivery.ack()
        self.assertFalse(first.taken_back.called)
        await first.ack()
        self.blocking().queue_delete(self.prefixed("q!low"))
        await self.patiently(lambda: publish(broker, b"anew", priority=Priority.LOW))
        (delivery,) = await broker.receive(Q, 1)
        self.assertEqual(delivery.body, b"anew")
        await delivery.ack()

    async def test_frozen(self) -> None:
        """A server that does not answer: publishes fail in their time, it is noticed, and is over with the answer."""
        broker = await self.own(seconds=0.5)
        await publish(broker, b"1")
        self.rabbit.freeze()
        self.addCleanup(self.rabbit.thaw)
        self.assertIn("did not confirm", str(await self.refused(publish(broker, b"2"))))
        self.assertIn("does not answer", str(broker.unavailable_reason))
        self.rabbit.thaw()
        await self.until(lambda: broker.unavailable_reason is None, "it does not recover")
        await self.patiently(lambda: publish(broker, b"3"))
        found: set[bytes] = set()
        while not found >= {b"1", b"3"}:
            found |= {delivery.body for delivery in await broker.receive(Q, 1)}

    async def test_first_while_frozen(self) -> None:
        """Nobody who comes first, together with others, waits longer than who comes later, whatever has to be made."""
        broker = await self.own(seconds=0.5)
        self.rabbit.freeze()
        self.addCleanup(self.rabbit.thaw)
        began = reactor.seconds()  # type: ignore[attr-defined]
        asked = [publish(broker, b"1", priority=each, delay=wait) for each in Priority for wait in (0, 0, 60.0)]
        for one in asked:
            await self.refused(one)
        self.assertLess(reactor.seconds() - began, 2.5)  # type: ignore[attr-defined]

    async def test_frozen_for_long(self) -> None:
        """Connections to who says nothing are given up also when nobody publishes, and loans with them."""
        broker = await self.own(seconds=0.5)
        await publish(broker, b"1")
        (lent,) = await broker.receive(Q, 1)
        self.rabbit.freeze()
        self.addCleanup(self.rabbit.thaw)
        self.assertIn("does not answer", await lent.taken_back)
        await self.refused(lent.ack())
        self.rabbit.thaw()
        (again,) = await broker.receive(Q, 1)
        self.assertEqual(again.body, b"1")

    async def test_out_of_memory(self) -> None:
        """Under the alarm nothing is accepted and the words say why; what is on loan can be settled; it recovers."""
        broker = await self.own()
        await publish(broker, b"1")
        await publish(broker, b"2")
        (lent,) = await broker.receive(Q, 1)
        self.rabbit.run_out_of_memory()
        self.addCleanup(self.rabbit.have_memory_again)
        await self.refused(publish(broker, b"3"))
        await self.until(lambda: "memory" in str(broker.unavailable_reason), "it does not say why")
        self.assertIn("memory", str(await self.refused(publish(broker, b"4"))))
        await lent.ack()
        (other,) = await broker.receive(Q, 1)
        self.assertEqual(other.body, b"2")
        self.rabbit.have_memory_again()
        await self.until(lambda: broker.unavailable_reason is None, "it does not recover")
        await publish(broker, b"5")

    async def test_down_at_the_start(self) -> None:
        """A process starts without a server, says so, and works as soon as there is one."""
        shared = shared_rabbitmq()
        shared.kill()
        self.addCleanup(lambda: shared.process is not None and shared.process.poll() is not None and shared.start())
        broker = new_broker(self, shared.url)
        await broker.when_probed()
        self.assertIn("refused", str(broker.unavailable_reason))
        waiting = broker.receive(Q, 1)
        await self.refused(publish(broker, b"0"))
        shared.start()
        await self.patiently(lambda: publish(broker, b"1"))
        (delivery,) = await waiting
        self.assertEqual(delivery.body, b"1")

    async def test_who_we_are(self) -> None:
        """A wrong password and a virtual host that is none are told apart, in words without the password."""
        port = shared_rabbitmq().port
        for login, path, words in (
            ("nobody:hush", "%2F", "password of user nobody"),
            ("guest:hush", "%2F", "password of user guest"),
            ("guest:guest", "none", "none"),
        ):
            broker = new_broker(self, f"amqp://{login}@127.0.0.1:{port}/{path}")
            await broker.when_probed()
            self.assertIn(words, str(broker.unavailable_reason))
            self.assertNotIn("hush", str(broker.unavailable_reason))
            self.assertIn("127.0.0.1", str(broker.unavailable_reason))

    async def test_the_next_node(self) -> None:
        """A node that is down is passed over."""
        url = shared_rabbitmq().url.replace("127.0.0.1", "127.0.0.1:1,127.0.0.1")
        broker = new_broker(self, url)
        await broker.when_probed()
        self.assertIsNone(broker.unavailable_reason)
        await publish(broker, b"1")

    async def test_stop_overtaken(self) -> None:
        """A connection that comes about although it was given up is closed, and whoever stops does not wait for it."""
        reached = []

        async def up(protocol: Any) -> None:
            reached.append(protocol)
            with contextlib.suppress(CancelledError):  # as where that is taken for one failure among others
                await Deferred()

        address = parse_address(shared_rabbitmq().url)
        link = Reconnecting(address, "a", reactor, random.random, seconds=5.0, up=up, down=lambda reason: None)
        link.start()
        await self.until(lambda: reached, "it does not connect")
        await link.stop()
        await self.until(lambda: reached[0].is_closed, "it is still open")

    async def test_stop_while_frozen(self) -> None:
        """Hanging up on who does not answer comes to an end."""
        broker = await self.own()
        self.rabbit.freeze()
        self.addCleanup(self.rabbit.thaw)
        await broker.stop()
