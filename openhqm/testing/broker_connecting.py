# -*- test-case-name: tests.testing.test_fake_broker -*-
"""Connecting: an unreachable broker is a failure within a bound, and everything goes on when it is back."""

from __future__ import annotations

from contextlib import suppress

from twisted.internet.defer import gatherResults

from openhqm.errors import NotDurable
from openhqm.interfaces import IBroker, Message
from openhqm.testing.broker_case import BrokerCase, numbered


class Connecting(BrokerCase):
    """What a client promises while its broker comes and goes."""

    async def connected(self, broker: IBroker | None = None) -> None:
        """Wait until the client is connected."""
        await self.until(lambda: (broker or self.broker).unavailable_reason is None, "the client did not connect")

    async def go_away(self) -> None:
        """The server is unreachable, and the client knows."""
        self.needs("away")
        await self.bench.away()
        await self.until(lambda: self.broker.unavailable_reason, "the client does not say that the broker is away")

    async def test_available(self) -> None:
        """A client that is connected has no reason to be unavailable, and was probed."""
        await self.done(self.broker.when_probed())
        self.assertIsNone(self.broker.unavailable_reason)
        self.assertIsInstance(list(self.broker.warnings), list)

    async def test_probed(self) -> None:
        """`when_probed` fires after the first attempt to connect, for every caller, also when it had asked before."""
        broker = self.bench.new()
        before = broker.when_probed()
        await self.quiet()
        self.assertFalse(before.called, "it was probed before it was started")
        await self.done(broker.start())
        await self.done(before)
        await self.done(broker.when_probed())
        self.assertIsNone(broker.unavailable_reason)

    async def test_probed_in_vain(self) -> None:
        """`start` and `when_probed` fire although the server is away; the client says so, and connects later."""
        await self.go_away()
        broker = self.bench.new()
        await self.done(broker.start())
        await self.done(broker.when_probed(), self.bench.publish_seconds)
        self.assertIsInstance(broker.unavailable_reason, str)
        await self.bench.back()
        await self.connected(broker)

    async def test_away(self) -> None:
        """While the server is away each publish is refused within a bound, and works again afterwards."""
        channel = await self.channel()
        await self.go_away()
        publishing = self.broker.publish(channel, [Message(b"1"), Message(b"2")])
        outcomes = await self.done(publishing, self.bench.publish_seconds)
        self.assertEqual([isinstance(each, NotDurable) for each in outcomes], [True, True])
        self.assertIsInstance(self.broker.unavailable_reason, str)
        await self.bench.back()
        await self.connected()
        await self.publish(channel, [b"3"])
        self.assertEqual([each for each in await self.remaining(channel) if each == b"3"], [b"3"])

    async def test_asked_while_away(self) -> None:
        """While the server is away, what it has cannot be told, and no channel is made."""
        channel = await self.channel()
        await self.go_away()
        await self.refused(self.broker.exists(channel))
        await self.refused(self.broker.depth(channel))
        await self.refused(self.broker.ensure(self.bench.channel("another")))
        await self.bench.back()
        await self.connected()
        self.assertIs(await self.done(self.broker.exists(channel)), True)

    async def test_subscribed_while_away(self) -> None:
        """A subscription that begins while the server is away begins to deliver when it is back."""
        channel = await self.channel()
        await self.publish(channel, [b"1"])
        await self.go_away()
        inbox = self.consume(channel, 1)
        await self.quiet()
        await self.bench.back()
        await self.received(inbox, 1)
        self.assertEqual((inbox.bodies, inbox.lost_for), ([b"1"], []))

    async def test_stopped_while_away(self) -> None:
        """A client can be stopped while the server is away; what it had out comes again to others."""
        channel = await self.channel()
        await self.publish(channel, [b"1"])
        inbox = self.consume(channel, 1)
        await self.received(inbox, 1)
        await self.go_away()
        await self.done(self.broker.stop(), self.bench.publish_seconds)
        await self.until(lambda: inbox.revoked, "what was out was not revoked")
        await self.bench.back()
        self.broker = await self.bench.make()
        again = self.consume(channel, 1)
        await self.received(again, 1)
        self.assertEqual(again.bodies, [b"1"])

    async def test_goes_on(self) -> None:
        """Subscriptions and publishing go on after a connection was lost, and `on_connected` is called."""
        self.needs("disconnect")
        channel, calls = await self.channel(), []
        self.broker.on_connected.append(lambda: calls.append(self.broker.unavailable_reason))
        inbox = self.consume(channel, 5)
        for number in (1, 2):
            await self.bench.disconnect(self.broker)
            await self.until(lambda number=number: len(calls) >= number, "on_connected was not called")  # type: ignore[misc]
            await self.connected()
            await self.publish(channel, [b"%d" % number])
            await self.until(lambda number=number: b"%d" % number in inbox.bodies, "nothing is delivered")  # type: ignore[misc]
        self.assertEqual((set(calls), inbox.lost_for), ({None}, []))

    async def test_disconnected(self) -> None:
        """What was out when the connection was lost can still be acknowledged, or is revoked and comes again."""
        self.needs("disconnect")
        channel, calls = await self.channel(), []
        await self.publish(channel, numbered(3), self.partition_key)
        inbox = self.consume(channel, 3)
        await self.received(inbox, 3)
        self.broker.on_connected.append(lambda: calls.append(True))
        await self.bench.disconnect(self.broker)
        await self.until(lambda: calls, "the client did not connect again")
        await self.connected()
        forgotten = set()
        for delivery in inbox.deliveries[:3]:
            with suppress(NotDurable):
                await self.ack(inbox, delivery)
                forgotten.add(delivery.message.body)
        left = set(numbered(3)) - forgotten
        await self.until(
            lambda: left <= set(inbox.bodies[3:]),
            "what was revoked did not come again",
            self.bench.patience + self.lease_over,
        )
        await self.quiet(self.lease_over)
        self.assertEqual(set(inbox.bodies[3:]), left)
        self.assertEqual({each.message.body for each in inbox.revoked if each in inbox.deliveries[:3]}, left)
        self.assertLessEqual(inbox.most_out, 3)

    async def test_disconnected_while_publishing(self) -> None:
        """Publishes that wait when the connection is lost have outcomes, and what they say was confirmed is there."""
        self.needs("disconnect")
        channel = await self.channel()
        bodies = numbered(20)
        publishing = [self.broker.publish(channel, [Message(body)]) for body in bodies]
        await self.bench.disconnect(self.broker)
        outcomes = await self.done(gatherResults(publishing), self.bench.publish_seconds)
        self.assertEqual([len(each) for each in outcomes], [1] * 20)
        confirmed = {body for body, (outcome,) in zip(bodies, outcomes, strict=True) if outcome is None}
        await self.connected()
        self.assertLessEqual(confirmed, set(await self.remaining(channel)))

    async def test_restarted(self) -> None:
        """Where the product is durable, a restart of the server loses nothing that it confirmed."""
        self.needs("restart")
        channel = await self.channel()
        await self.publish(channel, numbered(5))
        await self.bench.restart()
        await self.connected()
        if not self.traits.durable:
            channel = await self.channel()
            await self.publish(channel, [b"after"])
            self.assertIn(b"after", await self.remaining(channel))
            return
        self.assertEqual(await self.remaining(channel), numbered(5))

    async def test_on_connected_at_first(self) -> None:
        """The first connection is told to `on_connected`, too."""
        broker, calls = self.bench.new(), []
        broker.on_connected.append(lambda: calls.append(broker.unavailable_reason))
        await self.done(broker.start())
        await self.connected(broker)
        await self.until(lambda: calls, "on_connected was not called")
        self.assertEqual(calls, [None])
