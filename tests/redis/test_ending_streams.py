"""Streams of endings over Redis keep the promises of every other, on whichever listener a client comes back to."""

from __future__ import annotations

import http.client
import json
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.task import deferLater

from openhqm.delivery.ending_streams import EndingStreams
from openhqm.delivery.selection import Selection
from openhqm.ingress.metrics import EndingStreamMetrics
from openhqm.messages import Submission
from openhqm.runtime.deferreds import deferred
from openhqm.testing import REQUESTS
from tests.delivery.ending_stream_contract import Client, ending_stream_contract
from tests.redis.bench import Instance, redis_bench
from tests.redis.real_server import RealRedisTestCase
from tests.redis.test_roles import RedisRoles


class RedisEndingStreamTests(ending_stream_contract(redis_bench)):  # type: ignore[misc]
    """Over Redis."""

    timeout = 60


class SharedStreamTests(RealRedisTestCase):
    """Streams of two processes over one Redis"""

    def streams(self, instance: Instance) -> EndingStreams:
        from twisted.internet import reactor

        made = EndingStreams(
            instance.store.log,
            instance.store,
            reactor,  # type: ignore[arg-type]
            EndingStreamMetrics(CollectorRegistry()),
            lambda: 0.5,
        )
        self.addCleanup(made.stop)
        return made

    async def listen(self, streams: EndingStreams, *tags: str, seen: str = "", id: str = "") -> Client:
        client, selection = Client(), Selection((id,) if id else (), tags)
        beginning = await streams.prepare(selection, seen)
        assert beginning is not None
        client.stream = streams.open(selection, beginning, client)
        return client

    async def end(self, instance: Instance, *tags: str) -> str:
        id = await self.accept(instance, *tags)
        (delivery,) = await instance.queue.receive(REQUESTS, 1)
        await delivery.settle(self.reply(delivery))
        return id

    async def test_on_each_process(self) -> None:
        """What ends in one process is told by both, once each, and a client of one goes on at the other."""
        server = await self.server()
        a, b = await self.instance(server.url), await self.instance(server.url)
        on_a, on_b = self.streams(a), self.streams(b)
        one, two = await self.listen(on_a, "t"), await self.listen(on_b, "t")
        await self.until(lambda: one.seen and two.seen, "the streams did not begin")
        ids = [await self.end(each, "t") for each in (a, b, a, b)]
        await self.until(lambda: len(one.told) == len(two.told) == 4, "not all was told")
        self.assertEqual((one.ids_told, two.ids_told), (ids, ids))
        two.stream.lost()
        missed = await self.end(b, "t")
        again = await self.listen(on_a, "t", seen=two.seen)
        await self.until(lambda: again.told and len(one.told) == 5, "it was not resumed")
        self.assertEqual((again.ids_told, one.ids_told[4:]), ([missed], [missed]))

    async def test_ends_while_they_begin(self) -> None:
        """A request that ends in one process while streams over it begin in two others is told by each, once."""
        from twisted.internet import reactor

        server = await self.server()
        a, b, worker = [await self.instance(server.url) for _ in range(3)]
        processes = [self.streams(each) for each in (a, b)]
        for turn in range(40):  # from before the first question to Redis to behind the last one
            id = await self.accept(worker, "t")
            (delivery,) = await worker.queue.receive(REQUESTS, 1)
            listening = [deferred(self.listen)(streams, id=id) for streams in processes]
            await deferLater(reactor, turn / 10_000)  # type: ignore[arg-type]
            ending = delivery.settle(self.reply(delivery))
            clients = [await each for each in listening]
            await ending
            await self.until(lambda clients=clients: all(each.finished for each in clients), f"{turn}: it was not told")
            self.assertEqual([each.told for each in clients], 2 * [[("completed", id)]], turn)

    async def test_redis_starts_again(self) -> None:
        """Streams that are open over a restart of Redis are told ``reset``, once, and go on."""
        server = await self.server(appendonly="yes")
        a = await self.instance(server.url)
        streams = self.streams(a)
        clients = [await self.listen(streams), await self.listen(streams, "t")]
        await self.until(lambda: all(client.seen for client in clients), "the streams did not begin")
        first = await self.end(a, "t")
        await self.until(lambda: all(client.told for client in clients), "the first was not told")
        server.kill()
        server.start()
        await self.until(lambda: all(len(client.told) == 2 for client in clients), "the reset was not told")
        await self.patiently(lambda: a.queue.depth(REQUESTS))
        later = await self.end(a, "t")
        await self.until(lambda: all(len(client.told) == 3 for client in clients), "it did not go on")
        for client in clients:
            self.assertEqual(client.told, [("completed", first), ("reset", ""), ("completed", later)])

    async def test_full(self) -> None:
        """A Redis that is full takes no request, but ends those that it has: open streams tell of them, and resume."""
        server = await self.server()
        a = await self.instance(server.url)
        streams = self.streams(a)
        client = await self.listen(streams, "t")
        await self.until(lambda: client.seen, "the stream did not begin")
        ids = [await self.accept(a, "t") for _ in range(2)]
        deliveries = await a.queue.receive(REQUESTS, 2)
        server.say("CONFIG", "SET", "maxmemory", "1")
        await self.refused(a.store.log.keep())
        streams.feed._renew_at = 0.0  # as after six minutes
        await deliveries[0].settle(self.reply(deliveries[0]))
        await self.until(lambda: client.told, "it was not told")
        client.stream.lost()
        await deliveries[1].settle(self.reply(deliveries[1]))
        again = await self.listen(streams, "t", seen=client.seen)
        await self.until(lambda: again.told, "it was not resumed")
        self.assertEqual([client.ids_told, again.ids_told], [ids[:1], ids[1:]])

    async def accept(self, instance: Instance, *tags: str) -> str:
        accepted = await instance.queue.accept(Submission(b"1", metadata={"tags": list(tags)}), None)
        found: str = accepted.correlation_id
        return found

    async def test_no_messages(self) -> None:
        """Where Redis lets no process listen to channels, streams find out by looking."""
        server = await self.server()
        server.say("ACL", "SETUSER", "default", "resetchannels")
        a = await self.instance(server.url)
        client = await self.listen(self.streams(a))
        await self.until(lambda: client.seen, "the stream did not begin")
        id = await self.end(a)
        await self.until(lambda: client.told, "it was not told")
        self.assertEqual(client.ids_told, [id])


class ProcessesTests(RedisRoles):
    """Two listeners and a worker, each a process"""

    def events(self, at: Any, query: str, seen: str = "") -> http.client.HTTPResponse:
        connection = at.connection()
        self.addCleanup(connection.close)
        connection.request("GET", f"/api/v1/events{query}", headers={"Last-Event-ID": seen} if seen else {})
        response: http.client.HTTPResponse = connection.getresponse()
        self.assertEqual(response.status, 200)
        return response

    def test_streams(self) -> None:
        """A stream on B tells the endings of what A accepted; B is killed, and A goes on where B left off."""
        on_b = self.events(self.b, "?tag=t")
        self.process("worker", "c")
        ids = [self.a.submit({"steps": []}, tags=["t", str(number)]) for number in range(3)]
        told = [self.told(on_b) for _ in ids]
        self.assertEqual({id for _, id in told}, set(ids))
        self.b.kill()
        more = [self.a.submit({"steps": []}, tags=["t"]) for _ in range(3)]
        for id in more:
            self.a.response(id)
        on_a = self.events(self.a, "?tag=t", seen=told[-1][0])
        self.assertEqual({self.told(on_a)[1] for _ in more}, set(more))

    def told(self, stream: http.client.HTTPResponse) -> tuple[str, str]:
        """The cursor and the request of the next event."""
        fields: dict[str, str] = {}
        while fields.get("event", "cursor") == "cursor":
            lines = []
            while (line := stream.readline().decode()) != "\n":
                self.assertTrue(line, "the stream has ended")
                lines.append(line.rstrip("\n"))
            fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
        self.assertEqual(fields["event"], "completed")
        return fields["id"], json.loads(fields["data"])["correlation_id"]


del ending_stream_contract, RealRedisTestCase, RedisRoles
