"""A real Mosquitto that is killed, frozen, emptied and limited; and sessions that another client takes over."""

from __future__ import annotations

import random

from twisted.internet import reactor
from twisted.logger import LogLevel, capturedLogs

from openhqm.errors import NotDurable
from openhqm.interfaces import ChannelMissing, Message
from openhqm.mqtt.address import LONGEST_TOPIC
from openhqm.mqtt.broker import MQTTBroker
from openhqm.mqtt.marks import MADE
from openhqm.mqtt.reason_codes import NO_SUBSCRIBERS
from openhqm.mqtt.session import MOST_BUFFERED, STANDING_BY
from openhqm.testing.broker_case import BrokerCase, numbered
from tests.brokers import Mosquitto, shared_mosquitto
from tests.mqtt.bench import MQTTBench
from tests.mqtt.scripted import ScriptedServer


class Case(BrokerCase):
    """On the Mosquitto that all tests share, or on one of its own"""

    bench: MQTTBench

    def make_bench(self) -> MQTTBench:
        return MQTTBench(shared_mosquitto())

    async def _close(self) -> None:
        await super()._close()
        if self.bench.server is not shared_mosquitto():
            self.bench.server.close()

    async def on_its_own(self, seconds: float = 10.0, keepalive: int = 10, **settings: str) -> None:
        """Go on with a server of its own, and a client of that."""
        await self.bench.close()
        self.bench = MQTTBench(Mosquitto(**settings).start(), seconds=seconds)
        self.bench.keepalive = keepalive
        self.broker = self.bench.new()
        self.broker.start()
        await self.done(self.broker.when_probed())

    async def outcome(self, channel: str, body: bytes = b"1") -> NotDurable | None:
        """What becomes of one message."""
        (found,) = await self.done(self.broker.publish(channel, [Message(body)]), self.bench.publish_seconds)
        return found


class SessionTests(Case):
    """Sessions, and the processes that want them"""

    async def test_stands_by(self) -> None:
        """One process consumes from a channel. Another one stands by, says so, and goes on when the first has gone."""
        channel = await self.channel()
        await self.publish(channel, numbered(2))
        inbox = self.consume(channel, 5)
        await self.received(inbox, 2)
        other = await self.bench.make()
        standing_by = self.consume(channel, 5, other)
        await self.until(lambda: STANDING_BY in "".join(other.warnings), "it does not say that it stands by")
        await self.quiet(1.0)
        self.assertEqual((inbox.revoked, standing_by.deliveries), ([], []))
        await self.done(self.broker.stop())
        await self.received(standing_by, 2)
        await self.until(lambda: not other.warnings, "it still says that it stands by")

    async def test_before_the_connection(self) -> None:
        """A channel that is consumed from before there is a connection waits for it, and warns of nothing."""
        channel = await self.channel()
        await self.publish(channel, numbered(1))
        other = self.bench.new()
        with capturedLogs() as logged:
            inbox = self.consume(channel, 5, other)
            await self.done(other.start())
            await self.received(inbox, 1)
        self.assertEqual([event for event in logged if event["log_level"] >= LogLevel.warn], [])

    async def test_after_a_kill(self) -> None:
        """What a process had that was killed comes to the one that stands by, in its order."""
        channel = await self.channel()
        await self.publish(channel, numbered(3))
        inbox = self.consume(channel, 2)
        await self.received(inbox, 2)
        other = await self.bench.make()
        standing_by = self.consume(channel, 5, other)
        await self.until(lambda: other.warnings, "it does not stand by")
        await self.bench.networks[self.broker].refuse()  # type: ignore[index]
        await self.received(standing_by, 3)
        self.assertEqual(standing_by.bodies, numbered(3))

    async def test_taken_over(self) -> None:
        """A client of another program with the id of a session takes it over: what was out is revoked, and comes again
        when the session is free, also where the other client has unsubscribed it.
        """
        channel = await self.channel()
        await self.publish(channel, numbered(2))
        inbox = self.consume(channel, 5)
        await self.received(inbox, 2)
        thief = await self.bench.session_of(channel)
        await self.until(lambda: len(inbox.revoked) == 2, "what was out was not revoked")
        await self.done(thief.unsubscribe(channel))
        thief.close()
        await self.received(inbox, 4)
        self.assertEqual((inbox.bodies[2:], inbox.lost_for), (numbered(2), []))
        await self.publish(channel, [b"2"])
        await self.received(inbox, 5)

    async def test_session_that_has_ended(self) -> None:
        """Where the session is gone and its mark is not, a publish finds no channel, and so does every process."""
        channel = await self.channel()
        operator = await self.bench.operator(f"{self.bench.client_id}/{channel}")  # a clean session, which ends
        operator.close()
        await operator.lost
        self.assertTrue(await self.done(self.broker.exists(channel)))
        self.assertIsInstance(await self.outcome(channel), ChannelMissing)
        self.assertFalse(await self.done(self.broker.exists(channel)))
        other = await self.bench.make()
        self.assertFalse(await self.done(other.exists(channel)))
        await self.channel()
        self.assertEqual(await self.remaining(channel), [])

    async def test_session_that_has_ended_while_away(self) -> None:
        """A process that comes back to a session that is gone says that the channel is lost."""
        channel = await self.channel()
        inbox = self.consume(channel, 5)
        await self.publish(channel, [b"1"])
        await self.received(inbox, 1)
        network = self.bench.networks[self.broker]  # type: ignore[index]
        await network.refuse()
        operator = await self.bench.operator(f"{self.bench.client_id}/{channel}")
        operator.close()
        await operator.lost
        network.accept()
        await self.until(lambda: inbox.lost_for, "the receiver was not told")
        self.assertEqual(inbox.revoked_when_lost, 1)
        self.assertFalse(await self.done(self.broker.exists(channel)))

    async def test_mark_taken_away(self) -> None:
        """An operator deletes a channel by its mark alone; the receiver is told at once."""
        channel = await self.channel()
        inbox = self.consume(channel, 1)
        await self.publish(channel, [b"1"])
        await self.received(inbox, 1)
        operator = await self.bench.operator()
        await operator.publish(channel + MADE, b"", retain=True)
        operator.close()
        await self.until(lambda: inbox.lost_for, "the receiver was not told")

    async def test_another_client_id(self) -> None:
        """A process with another client id does not begin a second session, which would get copies: it is refused."""
        channel = await self.channel()
        inbox = self.consume(channel, 5)
        stranger = MQTTBroker(self.bench.address, "stranger", reactor, random.random, seconds=5.0, keeps=1000)
        stranger.start()
        self.addCleanup(stranger.stop)
        await self.done(stranger.when_probed())
        for refused in (stranger.exists(channel), stranger.ensure(channel)):
            self.assertIn("need the same client id", str(await self.refused(refused)))
        (outcome,) = await self.done(stranger.publish(channel, [Message(b"1")]))
        self.assertIn("need the same client id", str(outcome))
        other = self.consume(channel, 5, stranger)
        await self.until(lambda: "the same client id" in "".join(stranger.warnings), "it does not say that")
        await self.publish(channel, [b"1"])
        await self.received(inbox, 1)
        self.assertEqual((other.deliveries, other.lost_for), ([], []))

    async def test_stopped_while_making(self) -> None:
        """A channel that is being made when the client is stopped is refused, and nothing of it goes on."""
        for seconds in (0.0, 0.002, 0.005, 0.01):
            broker = await self.bench.make()
            making = broker.ensure(self.bench.channel(f"made after {seconds}"))
            await self.bench.pass_time(seconds)
            await self.done(broker.stop())
            try:
                await self.done(making)
            except NotDurable as error:
                self.assertEqual(error.reason, "the client was stopped")

    async def test_next_receiver(self) -> None:
        """A receiver that comes while an earlier one still has deliveries out gets what is there, without waiting."""
        channel, inbox = await self.out(2)
        await self.done(inbox.subscription.stop())
        again = self.consume(channel, 5)
        await self.publish(channel, [b"2"])
        await self.received(again, 1)
        self.assertEqual((again.bodies, inbox.revoked), ([b"2"], []))
        await self.ack(inbox, *inbox.deliveries)
        await self.ack(again, *again.deliveries)

    async def test_next_receiver_at_once(self) -> None:
        """A receiver that comes while the connection of the one before is being closed has it all."""
        channel = await self.channel()
        for number in range(5):
            inbox = self.consume(channel, 5)
            await self.publish(channel, [b"%d" % number])
            await self.received(inbox, 1)
            await self.ack(inbox, *inbox.deliveries)
            inbox.subscription.stop()
        self.assertEqual(await self.remaining(channel), [])


class BoundTests(Case):
    """What a process holds that was not asked for"""

    async def test_large_messages(self) -> None:
        """Of many large messages some 16 MiB wait here, and the rest with the broker, for however long that is."""
        await self.on_its_own(keepalive=2)
        channel = await self.channel()
        size = 1024 * 1024
        await self.publish(channel, [bytes([number]) * size for number in range(40)])
        inbox = self.consume(channel, 1)
        await self.received(inbox, 1)
        session = self.broker._sessions[channel]  # type: ignore[attr-defined]
        await self.until(lambda: session._buffered > MOST_BUFFERED, "it is not full")
        await self.quiet(6.0)  # three times the keepalive
        self.assertLessEqual(session._buffered, MOST_BUFFERED + size)
        self.assertEqual([each.revoked.result for each in inbox.revoked], [])
        for number in range(40):
            await self.received(inbox, number + 1)
            await self.ack(inbox, inbox.deliveries[number])
        self.assertEqual([body[0] for body in inbox.bodies], list(range(40)))

    async def test_behind_a_long_one(self) -> None:
        """One that is worked on for long holds up the acknowledgements of 1500 others, and no delivery."""
        await self.on_its_own(max_queued_messages="5000")
        channel = await self.channel()
        await self.publish(channel, numbered(1600))
        inbox = self.consume(channel, 10_000)
        await self.received(inbox, 1600)


class BadInputTests(Case):
    """What cannot be a topic, and what a packet cannot carry"""

    async def test_topics(self) -> None:
        """A name that cannot be a topic is refused with its fault, in each way, and nothing else is disturbed."""
        good = await self.channel()
        inbox = self.consume(good, 5)
        for channel in ("", "+", "a/#", "a/+/b", "$SYS/a", "a\0b", "\ud800", "a" * (LONGEST_TOPIC + 1)):
            outcome = await self.outcome(channel)
            self.assertIn("cannot be a topic", str(outcome))
            self.assertIn("cannot be a topic", str(await self.refused(self.broker.ensure(channel))))
            self.assertFalse(await self.done(self.broker.exists(channel)))
            bad = self.consume(channel, 1)
            await self.until(lambda bad=bad: bad.lost_for, "the receiver was not told")  # type: ignore[misc]
        await self.publish(good, [b"1"])
        await self.received(inbox, 1)

    async def test_topics_of_every_kind(self) -> None:
        """Every other name is a channel: empty levels, UTF-8 of every length, blanks."""
        for name in ("a//b", "/", "é", "漢字", "🦆", " "):
            channel = await self.channel(name)
            await self.publish(channel, [name.encode()])
            self.assertEqual(await self.remaining(channel), [name.encode()])

    async def test_headers(self) -> None:
        """A header that is no UTF-8, or too long for a property, is refused, and nothing else of its batch."""
        channel = await self.channel()
        messages = [Message(b"1", {"a": "\ud800"}), Message(b"2"), Message(b"3", {"a": "x" * 65_536})]
        outcomes = await self.done(self.broker.publish(channel, messages))
        self.assertEqual([each is None for each in outcomes], [False, True, False])

    async def test_of_another_program(self) -> None:
        """What another program publishes into a channel is delivered: no properties, QoS 0, retained, no text."""
        channel = await self.channel()
        inbox = self.consume(channel, 5)
        await self.publish(channel, [b"0"])
        await self.received(inbox, 1)
        operator = await self.bench.operator()
        await operator.publish(channel, b"\xff", retain=True)
        operator._paho.publish(channel, b"at most once", 0)
        await self.received(inbox, 3)
        await self.ack(inbox, *inbox.deliveries)
        await operator.publish(channel, b"", retain=True)
        operator.close()


class FaultTests(Case):
    """What Mosquitto does wrong"""

    async def test_state_deleted(self) -> None:
        """A Mosquitto that comes back empty has no channels; receivers are told, and a made one works again."""
        await self.on_its_own()
        channel = await self.channel()
        await self.publish(channel, numbered(2))
        inbox = self.consume(channel, 5)
        await self.received(inbox, 2)
        self.bench.server.lose_everything()
        await self.until(lambda: inbox.lost_for, "the receiver was not told")
        self.assertEqual(inbox.revoked_when_lost, 2)
        await self.until(lambda: self.broker.unavailable_reason is None, "it does not connect again")
        self.assertFalse(await self.done(self.broker.exists(channel)))
        self.assertIsInstance(await self.outcome(channel), ChannelMissing)
        await self.channel()
        await self.publish(channel, [b"new"])
        self.assertEqual(await self.remaining(channel), [b"new"])

    async def test_killed(self) -> None:
        """A Mosquitto that saves every change and is killed has what it confirmed, and what was out comes again."""
        await self.on_its_own()
        channel = await self.channel()
        await self.publish(channel, numbered(5))
        inbox = self.consume(channel, 2)
        await self.received(inbox, 2)
        await self.quiet(1.0)  # it writes within a second
        self.bench.server.kill()
        await self.until(lambda: len(inbox.revoked) == 2, "what was out was not revoked")
        self.bench.server.start()
        inbox.subscription.credit(5)
        await self.received(inbox, 7)
        self.assertEqual(inbox.bodies[2:], numbered(5))

    async def test_killed_before_it_saved(self) -> None:
        """A Mosquitto that has confirmed and delivered what it had not written down, and is killed: what was in hand is
        published again from here, and what was acknowledged is not.
        """
        await self.on_its_own(autosave_on_changes="false", autosave_interval="1800")
        channel = await self.channel()
        inbox = self.consume(channel, 3)
        await self.until(lambda: not self.broker.warnings, "it is not connected")
        self.bench.server.save()
        await self.publish(channel, numbered(6))
        await self.received(inbox, 3)
        await self.ack(inbox, inbox.deliveries[0])
        await self.received(inbox, 4)
        self.bench.server.kill()
        await self.until(lambda: len(inbox.revoked) == 3, "what was out was not revoked")
        self.bench.server.start()
        inbox.subscription.credit(10)
        await self.received(inbox, 4 + 5)
        self.assertEqual(inbox.bodies[4:], numbered(5, 1))
        await self.quiet(1.0)
        self.assertEqual(len(inbox.deliveries), 9)

    async def test_new_messages_first(self) -> None:
        """The same where messages come all the time: the first new one says that nothing old comes any more."""
        await self.on_its_own(autosave_on_changes="false", autosave_interval="1800")
        channel = await self.channel()
        inbox = self.consume(channel, 50)
        await self.until(lambda: not self.broker.warnings, "it is not connected")
        self.bench.server.save()
        await self.publish(channel, numbered(2))
        await self.received(inbox, 2)
        self.bench.server.kill()
        self.bench.server.start()
        await self.until(lambda: len(inbox.revoked) == 2, "what was out was not revoked")
        await self.until(lambda: self.broker.unavailable_reason is None, "it does not connect again")
        for number in range(20):
            await self.publish(channel, [b"new %d" % number])
            await self.bench.pass_time(0.05)
        await self.received(inbox, 24)
        self.assertEqual(sorted(inbox.bodies[2:])[:2], numbered(2))

    async def test_frozen(self) -> None:
        """A Mosquitto that answers nothing: a publish fails in time, then all fail at once, and it heals by itself."""
        await self.on_its_own(seconds=0.5)
        channel = await self.channel()
        await self.publish(channel, [b"1"])
        self.bench.server.freeze()
        self.assertIn("did not confirm within 0.5 s", str(await self.outcome(channel)))
        self.assertEqual(self.broker.unavailable_reason, "the MQTT broker does not answer")
        self.assertIn("does not answer", str(await self.outcome(channel)))
        self.bench.server.thaw()
        await self.until(lambda: self.broker.unavailable_reason is None, "it is not used again")
        await self.publish(channel, [b"2"])

    async def test_frozen_at_first(self) -> None:
        """The same where it is not known yet whether the channel is there, so that nothing was sent."""
        await self.on_its_own(seconds=0.5)
        channel = await self.channel()
        self.broker = await self.bench.make()
        self.bench.server.freeze()
        self.assertIn("did not confirm within 0.5 s", str(await self.outcome(channel)))
        self.bench.server.thaw()
        await self.until(lambda: self.broker.unavailable_reason is None, "it is not used again")
        await self.publish(channel, [b"2"])

    async def test_frozen_for_long(self) -> None:
        """A half-open connection is given up after twice the keepalive: what was out is revoked, and comes again."""
        await self.on_its_own(seconds=0.5, keepalive=2)
        channel = await self.channel()
        await self.publish(channel, numbered(2))
        inbox = self.consume(channel, 5)
        await self.received(inbox, 2)
        self.bench.server.freeze()
        await self.until(lambda: len(inbox.revoked) == 2, "what was out was not revoked")
        await self.until(lambda: "does not answer" in str(self.broker.unavailable_reason), "it is available")
        self.bench.server.thaw()
        await self.received(inbox, 4)
        self.assertEqual(inbox.bodies[2:], numbered(2))

    async def test_small_packets(self) -> None:
        """A Mosquitto that limits packets to 1 KiB says so: what is larger is refused here, and nothing is cut off."""
        await self.on_its_own(max_packet_size="1024")
        self.assertEqual(self.traits.largest_message, 512)
        channel = await self.channel()
        await self.publish(channel, [bytes(512)])
        self.assertIn("no message of more than 512 bytes", str(await self.outcome(channel, bytes(513))))
        (outcome,) = await self.done(self.broker.publish(channel, [Message(b"1", {"a": "x" * 1000})]))
        self.assertIn("largest packet", str(outcome))
        self.assertEqual(await self.remaining(channel), [bytes(512)])

    async def test_small_messages(self) -> None:
        """A Mosquitto with ``message_size_limit`` ends the connection over a message. It fails, others do not."""
        await self.on_its_own(message_size_limit="1000")
        channel = await self.channel()
        self.assertIsNotNone(await self.outcome(channel, bytes(1001)))
        await self.until(lambda: self.broker.unavailable_reason is None, "it does not connect again")
        await self.publish(channel, [b"1"])
        self.assertEqual(await self.remaining(channel), [b"1"])

    async def test_refused_subscription(self) -> None:
        """A broker that lets us subscribe no more: the channel is not consumed from, and a warning says why.

        The server is scripted: Mosquitto grants every subscription, and leaves out what may not be read.
        """
        server = ScriptedServer()
        self.addCleanup(server.close)
        server.session, server.publish_code = 1, NO_SUBSCRIBERS
        server.retained[b"requests" + MADE.encode()] = b"me"
        server.subscribe_codes[b"requests"] = 0x87
        broker = MQTTBroker(server.address, "me", reactor, random.random, seconds=1.0, keeps=1000)
        broker.start()
        self.addCleanup(broker.stop)
        inbox = self.consume("requests", 1, broker)
        expected = "requests cannot be consumed from: the broker refuses the subscription to requests: Not authorized"
        await self.until(lambda: expected in broker.warnings, "it says nothing")
        self.assertEqual((inbox.lost_for, broker.unavailable_reason), ([], None))
        server.subscribe_codes.clear()
        await self.until(lambda: not broker.warnings, "it does not try again")

    async def test_short_sessions(self) -> None:
        """A broker that keeps a session for a minute only is used, and a warning says so."""
        server = ScriptedServer()
        self.addCleanup(server.close)
        server.session, server.publish_code = 1, NO_SUBSCRIBERS
        server.properties = b"\x11\0\0\0\x3c"
        server.retained[b"requests" + MADE.encode()] = b"me"
        broker = MQTTBroker(server.address, "me", reactor, random.random, seconds=1.0, keeps=1000)
        broker.start()
        self.addCleanup(broker.stop)
        self.consume("requests", 1, broker)
        await self.until(lambda: "after 60 s" in "".join(broker.warnings), "it says nothing")

    async def test_qos_0_only(self) -> None:
        """A Mosquitto that carries QoS 0 only is not used, and the reason says why."""
        await self.on_its_own(max_qos="0")
        self.assertIn("QoS 0 only", str(self.broker.unavailable_reason))
