"""Streams that other programs use, in a real Redis: what is read, what is read again, and what is added."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from openhqm.errors import NotDurable
from openhqm.interfaces import IBrokerDelivery, IForeignBroker, IReceiver, Message, Properties
from openhqm.redis import streams
from openhqm.redis.address import parse_address
from openhqm.redis.foreign import RedisStreams
from openhqm.redis.streams import read
from tests.brokers import RedisServer
from tests.redis.real_server import RealRedisTestCase
from tests.redis.test_intake import Target, entries
from tests.servers import Server


@implementer(IReceiver)
class Receiver:
    def __init__(self) -> None:
        self.deliveries: list[IBrokerDelivery] = []

    def received(self, delivery: IBrokerDelivery) -> None:
        self.deliveries.append(delivery)

    def lost(self, reason: str) -> None:
        raise AssertionError(reason)

    def dropped(self, count: int) -> None:
        raise AssertionError("this product does not tell")

    @property
    def bodies(self) -> list[bytes]:
        return [each.message.body for each in self.deliveries]


class EntryTests(SynchronousTestCase):
    def test_read(self) -> None:
        """Fields are content, address, correlation and headers; what cannot be told apart is said."""
        found = read("1-0", [(b"body", b"x"), (b"reply_to", b"r"), (b"correlation", b"\xff"), (b"X", b"y")], "s")
        self.assertEqual(
            found, Message(b"x", {"X": "y"}, None, Properties("s", message_id="1-0", reply_to="r", correlation=b"\xff"))
        )
        for fields in ([(b"a", b"1"), (b"A", b"2")], [(b"a", b"1"), (b"b", b"2")], []):
            message = read("1-0", fields, "s")
            assert message.properties is not None
            self.assertIsNotNone(message.properties.fault)
            self.assertEqual(message.body, b"\n".join(b"%b: %b" % field for field in fields))


class StreamTests(RealRedisTestCase):
    """Without a process of its own"""

    def broker(self, server: RedisServer, deletes: bool = False) -> RedisStreams:
        address = parse_address(server.url)
        broker = RedisStreams(address, "own:", reactor, random.random, seconds=5.0, deletes=deletes)
        verifyObject(IForeignBroker, broker)
        broker.start()
        self.addCleanup(broker.stop)
        return broker

    async def test_once(self) -> None:
        """Each entry comes once, in order, no more than the credit; acknowledged, it is not pending."""
        server = await self.server()
        receiver = Receiver()
        for number in range(10):
            server.command("XADD", "in", "*", "payload", str(number))
        self.broker(server).subscribe("b", ["in"], 4, receiver).credit(4)
        for step in range(3):
            wanted = min(10, 4 * (step + 1))
            await self.until(lambda: len(receiver.deliveries) >= wanted, "nothing comes")  # noqa: B023
            self.assertEqual(receiver.bodies, [b"%d" % number for number in range(wanted)])
            for each in receiver.deliveries[4 * step :]:
                await each.ack()
        self.assertEqual(server.command("XPENDING", "in", "b")[0], 0)
        self.assertEqual(server.command("XLEN", "in"), 10)  # other groups may read it, too
        server.command("XADD", "in", "*", "payload", "10")
        await self.until(lambda: len(receiver.deliveries) == 11, "the new one does not come")

    async def test_most_at_once(self) -> None:
        """As many entries as a bridge may have are acknowledged and deleted in one step."""
        server = await self.server()
        receiver = Receiver()
        server.command("EVAL", "for n = 1, 10000 do redis.call('XADD', 'in', '*', 'payload', n) end", 0)
        self.broker(server, deletes=True).subscribe("b", ["in"], 10_000, receiver).credit(10_000)
        await self.until(lambda: len(receiver.deliveries) == 10_000, "not all of them come")
        await gatherResults([each.ack() for each in receiver.deliveries])
        self.assertEqual((server.command("XPENDING", "in", "b")[0], server.command("XLEN", "in")), (0, 0))

    async def test_own_pending_first(self) -> None:
        """What a process had and did not acknowledge comes first to the next one of that name."""
        server = await self.server()
        before, after = Receiver(), Receiver()
        for number in range(3):
            server.command("XADD", "in", "*", "payload", str(number))
        broker = self.broker(server)
        broker.subscribe("b", ["in"], 2, before).credit(2)
        await self.until(lambda: len(before.deliveries) == 2, "nothing comes")
        await before.deliveries[0].ack()
        await self.until(lambda: len(before.deliveries) == 3, "nothing comes")
        await broker.stop()
        self.broker(server).subscribe("b", ["in"], 9, after).credit(9)
        await self.until(lambda: len(after.deliveries) == 2, "nothing comes again")
        self.assertEqual(after.bodies, [b"1", b"2"])
        ids = [each.message.properties for each in after.deliveries]
        self.assertEqual(ids, [each.message.properties for each in before.deliveries[1:]])

    async def test_taken_over(self) -> None:
        """What another consumer of the group has left is taken over after a while."""
        self.patch(streams, "IDLE_SECONDS", 0.1)
        self.patch(streams, "TAKE_OVER_SECONDS", 0.1)
        server = await self.server()
        server.command("XGROUP", "CREATE", "in", "b", "0", "MKSTREAM")
        server.command("XADD", "in", "*", "payload", "1")
        server.command("XREADGROUP", "GROUP", "b", "gone", "STREAMS", "in", ">")
        receiver = Receiver()
        self.broker(server).subscribe("b", ["in"], 9, receiver).credit(9)
        await self.until(lambda: bool(receiver.deliveries), "it is not taken over")
        self.assertEqual(receiver.bodies, [b"1"])
        await receiver.deliveries[0].ack()
        self.assertEqual(server.command("XPENDING", "in", "b")[0], 0)

    async def test_deleted_stream(self) -> None:
        """A stream that is deleted, group and all, is read again when there is one."""
        server = await self.server()
        receiver = Receiver()
        self.broker(server).subscribe("b", ["in"], 9, receiver).credit(9)
        server.command("XADD", "in", "*", "payload", "1")
        await self.until(lambda: bool(receiver.deliveries), "nothing comes")
        server.command("DEL", "in")
        server.command("XADD", "in", "*", "payload", "2")
        await self.until(lambda: receiver.bodies == [b"1", b"2"], "nothing comes again")

    async def test_no_stream(self) -> None:
        """What cannot be read is a warning, and goes on when it can be."""
        server = await self.server()
        server.command("SET", "in", "text")
        receiver = Receiver()
        broker = self.broker(server)
        broker.subscribe("b", ["in"], 9, receiver).credit(9)
        await self.until(lambda: bool(broker.warnings), "no warning")
        self.assertIn("WRONGTYPE", broker.warnings[0])
        server.command("DEL", "in")
        server.command("XADD", "in", "*", "payload", "1")
        await self.until(lambda: bool(receiver.deliveries), "nothing comes")
        self.assertEqual(list(broker.warnings), [])

    async def test_added(self) -> None:
        """A message is added with its fields; not to a key of ours, nor where there is no stream."""
        server = await self.server()
        broker = self.broker(server)
        await broker.when_probed()
        about = Properties(content_type="a/b", correlation=b"\xff", reply_to="r")
        await broker.publish("out", Message(b"1", {"X-A": "b", "payload": "no"}, None, about))
        (entry,) = entries(server, "out")
        expected = {"payload": b"1", "content_type": b"a/b", "correlation": b"\xff", "reply_to": b"r", "X-A": b"b"}
        self.assertEqual(entry, expected)
        server.command("SET", "text", "x")
        for name in ("own:queue", "", "text", "a\nb", "a" * 1025, "\N{REPLACEMENT CHARACTER}"):
            await self.assertFailure(broker.publish(name, Message(b"1")), NotDurable)


class ProcessTests(SynchronousTestCase):
    """A gateway with its queue in its file"""

    def setUp(self) -> None:
        self.redis = RedisServer().start()
        self.addCleanup(self.redis.close)
        self.target = Target()
        self.addCleanup(self.target.close)
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir()

    def start(self, reply_of_out: dict[str, Any] | None = None, **more: Any) -> Server:
        bridge = {"name": "b", "from": {"broker": "shop", "stream": "orders"}, "endpoint": "collector", **more}
        publish: dict[str, Any] = {"publish": {"broker": "shop", "topic": "out"}}
        if reply_of_out is not None:
            publish["reply"] = reply_of_out
        server = Server(
            self.directory,
            OPENHQM_BROKERS=json.dumps({"shop": {"type": "redis", "url": self.redis.url}}),
            OPENHQM_BRIDGES=json.dumps([bridge]),
            OPENHQM_PROXY__ENABLED="true",
            OPENHQM_PROXY__ENDPOINTS=json.dumps({"collector": {"url": self.target.url}, "out": publish}),
            OPENHQM_PROXY__FORWARD_HEADERS=json.dumps(["X-Kind"]),
        )
        server.start()
        self.addCleanup(server.stop)
        return server

    def test_in_and_back(self) -> None:
        """Entries reach the target, and the reply its stream, with the id of the entry; a request goes to a stream."""
        server = self.start()
        id = self.redis.command("XADD", "orders", "*", "payload", b'{"a":1}', "X-Kind", "order", "reply_to", "answers")
        self.redis.command("XADD", "orders", "*", "payload", b"1", "X-Kind", b"\xff")
        self.redis.command("XADD", "orders", "*", "payload", b"1", "reply_to", "{openhqm}:queue")
        server.until(lambda: self.redis.command("XLEN", "answers"), "no answer")
        (answer,) = entries(self.redis, "answers")
        self.assertEqual((answer["in_reply_to"], answer["status"], answer["payload"]), (id, b"COMPLETED", b'{"a":1}'))
        self.assertEqual([(headers["x-kind"], body) for headers, body in self.target.asked], [("order", b'{"a":1}')])
        server.until(lambda: self.redis.command("XPENDING", "orders", "openhqm/b")[0] == 0, "not acknowledged")
        self.assertEqual(server.log().count("a message to bridge b is a dead letter"), 2)
        done = server.response(server.submit({"x": 1}, endpoint="out"))
        self.assertEqual(done["status"], "COMPLETED")
        self.assertEqual(entries(self.redis, "out")[0]["payload"], b'{"x": 1}')

    def test_command(self) -> None:
        """A caller that waits has the answer that another program adds to the stream in reply_to."""
        server = self.start(reply_of_out={"timeout": 10})
        for number in range(3):
            id = server.submit({"id": number}, endpoint="out")
            server.until(lambda: self.redis.command("XLEN", "out") == number + 1, "nothing is asked")  # noqa: B023
            asked = entries(self.redis, "out")[-1]
            add = self.redis.command
            add("XADD", asked["reply_to"], "*", "payload", b'"other"', "correlation", "other")
            add("XADD", asked["reply_to"], "*", "payload", b'{"on":true}', "correlation", asked["correlation"])
            self.assertEqual(server.response(id)["result"], {"on": True})
            server.until(lambda: add("XLEN", asked["reply_to"]) == 0, "the answers are not deleted")  # noqa: B023
        server.stop()
        self.assertEqual(self.redis.command("EXISTS", asked["reply_to"]), 0)

    def test_killed(self) -> None:
        """What a gateway had not acknowledged when it was killed is one request each."""
        server = self.start(acknowledge="ending")
        for number in range(60):
            self.redis.command("XADD", "orders", "*", "payload", str(number))
        server.until(lambda: self.target.asked, "nothing came")
        server.kill()
        self.redis.restart()
        server.start()
        server.until(lambda: len({body for _, body in self.target.asked}) == 60, "not all came")
        server.until(lambda: self.redis.command("XPENDING", "orders", "openhqm/b")[0] == 0, "not acknowledged")
        self.assertLessEqual(len(self.target.asked), 60 + 5)  # those that were worked on when it was killed
