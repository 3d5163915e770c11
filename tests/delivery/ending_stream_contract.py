"""What a stream of endings promises on every store, as a suite for a bench."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.trial.unittest import TestCase

from openhqm.delivery.documents import MOST_EVENT_RESULT_BYTES
from openhqm.delivery.ending_feed import PIECE
from openhqm.delivery.ending_stream import Beginning
from openhqm.delivery.ending_streams import EndingStreams
from openhqm.delivery.selection import MOST_IDS, Selection
from openhqm.delivery.streams import EventStreams
from openhqm.errors import ExpiredRequest, UnknownRequest
from openhqm.ingress.metrics import EndingStreamMetrics
from openhqm.messages import Status
from openhqm.policy.tags import KEPT_SECONDS
from openhqm.runtime.deferreds import deferred
from openhqm.testing.bench import TTL, Base
from tests.delivery.moments import Moments, Watched
from tests.delivery.test_streams import StreamClient

NAMES = ("completed", "failed", "timeout", "cancelled", "reset", "expired")


class Client(StreamClient):
    """A client that remembers what an EventSource would: the events, and the id of the last block."""

    stream: Any = None

    @property
    def blocks(self) -> list[dict[str, str]]:
        found = []
        for block in self.sent.decode().split("\n\n"):
            lines = [line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":")]
            found.append(dict(line for line in lines if len(line) == 2))
        return found

    @property
    def seen(self) -> str:
        """What it sends as Last-Event-ID."""
        return ([block["id"] for block in self.blocks if "id" in block] or [""])[-1]

    @property
    def told(self) -> list[tuple[str, str]]:
        """Each event: its name, and the id of the request."""
        return [
            (block["event"], json.loads(block["data"]).get("correlation_id", ""))
            for block in self.blocks
            if block.get("event", "cursor") != "cursor"
        ]

    @property
    def documents(self) -> list[dict[str, Any]]:
        """The data of each event."""
        found = [block for block in self.blocks if block.get("event", "cursor") != "cursor"]
        return [json.loads(block["data"]) for block in found]

    @property
    def ids_told(self) -> list[str]:
        return [id for _, id in self.told]


def ending_stream_contract(make: Callable[[TestCase], Any]) -> type[TestCase]:
    """The suite for the backend that ``make`` returns."""

    class EndingStreamContract(Base):
        def make_bench(self) -> Any:
            return make(self)

        async def setUp(self) -> None:  # type: ignore[override]
            await super().setUp()
            self.streams = self.make_streams()

        def make_streams(self, store: Any = None, log: Any = None) -> EndingStreams:
            """What a process has."""
            bench: Any = self.bench
            self.registry = CollectorRegistry()
            metrics = EndingStreamMetrics(self.registry)
            store, log = store or bench.store, log or bench.store.log
            return EndingStreams(log, store, bench.clock, metrics, lambda: 0.5)

        def metric(self, name: str, **labels: str) -> float | None:
            return self.registry.get_sample_value(name, labels)

        async def settle(self) -> None:
            await self.bench.pass_time(0.25)

        async def listen(self, *ids: str, tags: tuple[str, ...] = (), seen: str = "") -> Client:
            client = Client()
            selection = Selection(ids, tags)
            beginning = await self.prepare(*ids, tags=tags, seen=seen)
            assert beginning is not None
            client.stream = self.streams.open(selection, beginning, client)
            await self.settle()
            return client

        async def prepare(self, *ids: str, tags: tuple[str, ...] = (), seen: str = "") -> Beginning | None:
            found: Beginning | None = await self.do(self.streams.prepare(Selection(ids, tags), seen))
            return found

        async def submit(self, *tags: str) -> str:
            return (await self.accept(metadata={"tags": list(tags)} if tags else {})).correlation_id

        async def finish(self, count: int = 1) -> None:
            """Complete the next requests."""
            left = count
            while left:
                for delivery in await self.receive(left):
                    await self.do(delivery.settle(self.reply(delivery)))
                    left -= 1
            await self.settle()

        async def end(self, *tags: str) -> str:
            id = await self.submit(*tags)
            await self.finish()
            return id

        async def test_all(self) -> None:
            """A stream without a selection tells every ending from its beginning on, with the response."""
            await self.end()
            client = await self.listen()
            self.assertEqual(client.told, [])
            one, two = await self.end(), await self.end("a")
            cancelled = await self.submit()
            await self.do(self.bench.store.cancel(cancelled))
            await self.settle()
            self.assertEqual(client.told, [("completed", one), ("completed", two), ("cancelled", cancelled)])
            document = client.documents[0]
            self.assertEqual((document["status"], document["result"]), ("COMPLETED", 2))
            self.assertFalse(client.finished)
            self.assertTrue(client.sent.startswith(b"retry: 3000\n\n"))

        async def test_tags(self) -> None:
            """A stream over tags tells the endings with any of them, each once."""
            client = await self.listen(tags=("a", "b"))
            first, _, both = await self.end("a"), await self.end("c"), await self.end("b", "a", "d")
            await self.end()
            self.assertEqual(client.ids_told, [first, both])

        async def test_ids(self) -> None:
            """A stream over ids tells what has ended and what ends, and closes with the last one."""
            one, two, three, other = [await self.submit() for _ in range(4)]
            await self.finish(1)
            client = await self.listen(three, one, two)
            self.assertEqual(client.told, [("completed", one)])
            await self.finish(1)
            self.assertEqual(client.ids_told, [one, two])
            self.assertFalse(client.finished)
            await self.finish(2)
            self.assertEqual(client.ids_told, [one, two, three])
            self.assertTrue(client.finished)
            self.assertIsNone(client.producer)
            self.assertIsNone(await self.prepare(one, two, three, seen=client.seen))
            again = await self.listen(three, other)
            self.assertEqual((sorted(again.ids_told), again.finished), (sorted([three, other]), True))
            self.assertIsNone(await self.prepare(three, other, seen=again.seen))

        async def test_ids_resumed(self) -> None:
            """A stream over ids that broke tells what has ended since, once, and then the rest."""
            ids = [await self.submit() for _ in range(5)]
            await self.finish(1)
            client = await self.listen(*ids)
            await self.finish(1)
            client.stream.lost()
            await self.finish(1)
            again = await self.listen(*ids, seen=client.seen)
            self.assertEqual(again.ids_told, ids[2:3])
            await self.finish(1)
            again.stream.lost()
            last = await self.listen(*ids, seen=again.seen)
            await self.finish(1)
            self.assertEqual((again.ids_told, last.ids_told), (ids[2:4], ids[4:]))
            self.assertTrue(last.finished)

        async def test_ends_while_streams_begin(self) -> None:
            """A request that ends while streams over it begin in two processes, at whatever moment: each tells it once.

            The streams are new, or resumed by clients that have the ending of another one of their requests.
            """
            earlier = await self.submit()
            client = await self.listen(earlier, tags=())
            await self.finish()
            for waits, resumed in product((True, False), (False, True)):
                at = 1
                before, seen = ((earlier,), client.seen) if resumed else ((), "")
                while await self.ends_at(at, waits, before, seen):
                    at += 1
                self.assertGreater(at, 6)

        async def ends_at(self, at: int, waits: bool, earlier: tuple[str, ...], seen: str) -> bool:
            """Whether there was that moment. The request ends then, or behind the last one."""
            store: Any = self.bench.store
            id = await self.submit()
            delivery = await self.receive_one()
            moments = Moments(at, lambda: delivery.settle(self.reply(delivery)), waits=waits)
            watched, log = Watched(store, moments), Watched(store.log, moments)
            selection = Selection((*earlier, id))
            clients = [Client(), Client()]
            of_one = Client()

            async def listen(client: Client) -> None:
                streams = self.make_streams(watched, log)
                beginning = await streams.prepare(selection, seen)
                assert beginning is not None, "its client has not been told of the ending"
                client.stream = streams.open(selection, beginning, client)

            async def listen_to_one() -> None:
                history = await watched.history(id, 0)
                EventStreams(watched, self.bench.clock, lambda count: None).open(id, 0, history, of_one)  # type: ignore[attr-defined]

            asked = [deferred(listen)(client) for client in clients]
            asked.append(deferred(listen_to_one)())
            while not all(each.called for each in asked):
                await self.bench.pass_time(0.01)
            for each in asked:
                await each
            await self.settle()
            passed = moments.has_passed()
            if not passed:
                await self.do(delivery.settle(self.reply(delivery)))
                await self.settle()
            for client in clients:
                self.assertEqual((client.told, client.finished), ([("completed", id)], True), (at, waits, seen))
            self.assertEqual((of_one.ids, of_one.finished), ([1, 2, 3], True), (at, waits, seen))
            return passed

        async def test_tenants(self) -> None:
            """A caller of a tenant is told of its requests alone, however it asks; one without a tenant of all."""
            client = {
                (tenant, tags): await self.follow(Selection((), tags, tenant))
                for tenant in (None, "acme", "other", "third")
                for tags in ((), ("a",))
            }
            ids = {}
            for tenant in ("acme", "other", None):
                ids[tenant] = (await self.accept(tenant=tenant, metadata={"tags": ["a"]})).correlation_id
                await self.finish()
            for (tenant, tags), each in client.items():
                expected = list(ids.values()) if tenant is None else [ids[tenant]] if tenant in ids else []
                self.assertEqual(each.ids_told, expected, (tenant, tags))
                each.stream.lost()
                again = await self.follow(Selection((), tags, tenant), client[None, ()].seen[:-1] + "0")
                self.assertEqual(again.ids_told, expected, (tenant, tags))
                again.stream.lost()
            own = await self.follow(Selection((ids["acme"],), tenant="acme"))
            self.assertEqual((own.ids_told, own.finished), ([ids["acme"]], True))
            for id in (ids["other"], ids[None]):
                selection = Selection((ids["acme"], id), tenant="acme")
                self.assertEqual((await self.unknown(selection)).correlation_id, id)
            await self.bench.pass_time(TTL + 10)
            await self.unknown(Selection((ids["acme"],), tenant="acme"))

        async def unknown(self, selection: Selection) -> UnknownRequest:
            """The refusal, which takes its time: see `openhqm.delivery.tenant_records`."""
            asked = self.streams.prepare(selection)
            while not asked.called:
                await self.bench.pass_time(0.1)
            error: UnknownRequest = await self.refused(asked, UnknownRequest)
            return error

        async def follow(self, selection: Selection, seen: str = "") -> Client:
            client = Client()
            beginning = await self.do(self.streams.prepare(selection, seen))
            client.stream = self.streams.open(selection, beginning, client)
            await self.settle()
            return client

        async def test_unknown_ids(self) -> None:
            """An id that was never given out is refused, before anything is sent."""
            known = await self.submit()
            for id in ("00000000-0000-4000-8000-000000000000", "x", "", "'; --"):
                error = await self.refused(self.streams.prepare(Selection((known, id))), UnknownRequest)
                self.assertEqual(error.correlation_id, id)

        async def test_expired_ids(self) -> None:
            """Of ids that have expired the client is told so; where nothing else is left, it gets the error."""
            old = await self.end()
            await self.bench.pass_time(TTL + 10)
            new = await self.submit()
            client = await self.listen(old, new)
            self.assertEqual(client.told, [("expired", old)])
            await self.finish()
            self.assertEqual((client.told[1:], client.finished), ([("completed", new)], True))
            await self.refused(self.streams.prepare(Selection((old,))), ExpiredRequest)
            self.assertIsNone(await self.prepare(old, new, seen=client.seen))

        async def test_resumed(self) -> None:
            """What has ended while no stream was open is told first, in order, and nothing twice."""
            client = await self.listen(tags=("a",))
            first = await self.end("a")
            client.stream.lost()
            self.assertEqual(len(self.streams), 0)
            missed = [await self.end("a") for _ in range(3)]
            await self.end("b")
            again = await self.listen(tags=("a",), seen=client.seen)
            later = await self.end("a")
            self.assertEqual((client.ids_told, again.ids_told), ([first], [*missed, later]))

        async def test_resumed_before_the_first_event(self) -> None:
            """Also a client that has got no event yet resumes where it began."""
            client = await self.listen()
            client.stream.lost()
            missed = await self.end()
            again = await self.listen(seen=client.seen)
            self.assertEqual(again.ids_told, [missed])

        async def test_where_an_idle_client_stands(self) -> None:
            """A sign of life moves the cursor on: a client that wants few endings does not fall out of the log."""
            client = await self.listen(tags=("rare",))
            before = client.seen
            for _ in range(3):
                await self.end("often")
            await self.bench.pass_time(16)
            self.assertNotEqual(client.seen, before)
            client.stream.lost()
            missed = await self.end("rare")
            again = await self.listen(tags=("rare",), seen=client.seen)
            self.assertEqual(again.ids_told, [missed])

        async def test_many_missed(self) -> None:
            """More than one piece of the log is read piece by piece, without a gap."""
            client = await self.listen()
            client.stream.lost()
            count = PIECE + 3
            ids = [await self.submit() for _ in range(count)]
            await self.finish(count)
            again = await self.listen(seen=client.seen)
            await self.bench.pass_time(1)
            self.assertEqual((len(again.ids_told), set(again.ids_told)), (count, set(ids)))
            later = await self.end()
            self.assertEqual(again.ids_told[-1], later)

        async def test_bad_cursors(self) -> None:
            """A cursor of another log, from the future or of another kind gives ``reset``, then what ends."""
            client = await self.listen()
            await self.end()
            name, _, number = client.seen.partition("-")
            for cursor in (
                f"{'0' * 16}-{number}",
                f"{name}-{int(number) + 100}",
                f"{name}-{10**15 - 1}",
                f"{name}-{10**15}",
                f"{name}-",
                f"{name}--1",
                f"{name}-\u0661",
                f"{name[:-1]}G-{number}",
                "4",
                "x" * 10_000,
                "\u0000",
            ):
                again = await self.listen(seen=cursor)
                self.assertEqual(again.told, [("reset", "")], cursor[:40])
                later = await self.end()
                self.assertEqual(again.ids_told, ["", later], cursor[:40])
                again.stream.lost()

        async def test_bad_cursor_over_ids(self) -> None:
            """Behind ``reset`` a stream over ids tells all that has ended: its client needs to do nothing."""
            one, two = await self.submit(), await self.submit()
            await self.finish(1)
            client = await self.listen(one, two, seen="another-1")
            self.assertEqual(client.told, [("reset", ""), ("completed", one)])
            await self.finish(1)
            self.assertEqual((client.ids_told, client.finished), (["", one, two], True))

        async def test_too_old(self) -> None:
            """A cursor whose endings are gone from the log gives ``reset``."""
            self.bench.step = 60.0  # type: ignore[attr-defined]
            client = await self.listen(tags=("a",))
            client.stream.lost()
            await self.end("a")
            await self.bench.pass_time(KEPT_SECONDS + 120)
            again = await self.listen(tags=("a",), seen=client.seen)
            self.assertEqual(again.told, [("reset", "")])
            later = await self.end("a")
            self.assertEqual(again.ids_told, ["", later])

        async def test_kept_for_as_long_as_it_is_read(self) -> None:
            """An open stream keeps the log: hours later it still tells every ending, and resumes."""
            self.bench.step = 5.0  # type: ignore[attr-defined]
            client = await self.listen(tags=("a",))
            await self.bench.pass_time(2 * KEPT_SECONDS)
            first = await self.end("a")
            client.stream.lost()
            missed = await self.end("a")
            again = await self.listen(tags=("a",), seen=client.seen)
            self.assertEqual((client.told, again.ids_told), ([("completed", first)], [missed]))

        async def test_stalled(self) -> None:
            """A stalled client is sent nothing, and nothing is kept for it. It misses nothing when it reads again."""
            client, other = await self.listen(tags=("a",)), await self.listen(tags=("a",))
            first = await self.end("a")
            client.producer.pauseProducing()
            size = len(client.sent)
            missed = [await self.end("a") for _ in range(3)]
            await self.bench.pass_time(40)
            self.assertEqual(len(client.sent), size)
            self.assertEqual(other.ids_told, [first, *missed])
            client.producer.resumeProducing()
            await self.settle()
            self.assertEqual(client.ids_told, [first, *missed])
            later = await self.end("a")
            self.assertEqual((client.ids_told[-1], other.ids_told[-1]), (later, later))
            self.assertEqual(self.metric("openhqm_ending_streams_events_total", what="paused"), 1)
            self.assertEqual(self.metric("openhqm_ending_streams_events_total", what="sent"), 10)

        async def test_stalls_at_each_event(self) -> None:
            """A client that stalls after each event gets each once, whether it is live or catches up."""

            class Hesitant(Client):
                def write(self, data: bytes) -> None:
                    super().write(data)
                    if b"event: completed" in data and self.producer is not None:
                        self.producer.pauseProducing()

            client = Hesitant()
            beginning = await self.prepare()
            assert beginning is not None
            self.streams.open(Selection(), beginning, client)
            await self.settle()
            ids = [await self.end() for _ in range(4)]
            for count in range(1, 5):
                self.assertEqual(client.ids_told, ids[:count])
                client.producer.resumeProducing()
                await self.settle()
            self.assertEqual(client.ids_told, ids)

        async def test_stalls_in_the_beginning(self) -> None:
            """A client over ids that stalls, or goes, before it has all that has ended gets all of it all the same."""
            ids = [await self.submit() for _ in range(3)]
            await self.finish(3)

            class Hesitant(Client):
                def write(self, data: bytes) -> None:
                    super().write(data)
                    if b"event: completed" in data and self.producer is not None:
                        self.producer.pauseProducing()

            client = Hesitant()
            beginning = await self.prepare(*ids)
            assert beginning is not None
            stream = self.streams.open(Selection(tuple(ids)), beginning, client)
            await self.settle()
            self.assertEqual((client.ids_told, client.seen), (ids[:1], ""))
            client.producer.resumeProducing()
            await self.settle()
            self.assertEqual((client.ids_told, client.finished), (ids[:2], False))
            stream.lost()
            again = await self.listen(*ids, seen=client.seen)
            self.assertEqual((again.ids_told, again.finished), (ids, True))

        async def test_large_results(self) -> None:
            """A result that would block the stream is left out, and the event says so."""
            client = await self.listen()
            id = await self.submit()
            delivery = await self.receive_one()
            await self.do(delivery.settle(self.reply(delivery, b'"%b"' % (b"x" * MOST_EVENT_RESULT_BYTES))))
            await self.settle()
            (document,) = client.documents
            self.assertEqual((document["correlation_id"], document["truncated"]), (id, True))
            self.assertLess(len(client.sent), 1000)

        async def test_expired_in_the_log(self) -> None:
            """An ending whose reply has expired is told all the same, without the reply."""
            client = await self.listen()
            client.stream.lost()
            id = await self.end()
            await self.bench.pass_time(TTL + 10)
            again = await self.listen(seen=client.seen)
            self.assertEqual(again.told, [("completed", id)])
            self.assertTrue(again.documents[0]["expired"])

        async def test_another_process(self) -> None:
            """A stream that broke with its process goes on in the next one, where the backend survives that."""
            client = await self.listen(tags=("a",))
            first = await self.end("a")
            missed = await self.end("a")
            seen = next(block["id"] for block in client.blocks if block.get("event") == "completed")
            await self.bench.crash()
            self.streams = self.make_streams()
            again = await self.listen(tags=("a",), seen=seen)
            later = await self.end("a")
            self.assertEqual(client.ids_told, [first, missed])
            if self.bench.queue.traits.durable:
                self.assertEqual(again.ids_told, [missed, later])
            else:
                self.assertEqual(again.told, [("reset", ""), ("completed", later)])

        async def test_draining(self) -> None:
            """A process that stops tells its clients when to come back, and ends all streams, also later ones."""
            client = await self.listen()
            id = await self.end()
            self.streams.stop()
            self.assertEqual((client.finished, client.sent[-13:]), (True, b"retry: 5500\n\n"))
            self.assertEqual((len(self.streams), client.ids_told), (0, [id]))
            late = await self.listen(seen=client.seen)
            self.assertTrue(late.finished)
            self.assertEqual(self.metric("openhqm_open_ending_streams"), 0)

        async def test_nothing_is_left(self) -> None:
            """Without streams no timer, listener or entry is left, and a later stream begins from there."""
            before = len(self.bench.clock.getDelayedCalls())  # type: ignore[attr-defined]
            id = await self.submit("a")
            clients = [await self.listen(id), await self.listen(tags=("a",)), await self.listen()]
            self.assertEqual(self.metric("openhqm_open_ending_streams"), 3)
            for client in clients:
                client.stream.lost()
                client.producer.stopProducing()
            feed = self.streams.feed
            self.assertEqual((feed._by_id, feed._by_tag, feed._readers), ({}, {}, 0))
            await self.settle()
            self.assertLessEqual(len(self.bench.clock.getDelayedCalls()), before)  # type: ignore[attr-defined]
            await self.finish()
            client = await self.listen()
            later = await self.end()
            self.assertEqual(client.ids_told, [later])

        async def test_many_ids(self) -> None:
            """As many ids as a stream may have."""
            ids = [await self.submit() for _ in range(MOST_IDS)]
            client = await self.listen(*ids)
            await self.finish(MOST_IDS)
            self.assertEqual((len(client.told), set(client.ids_told), client.finished), (MOST_IDS, set(ids), True))

        async def test_dead_letters(self) -> None:
            """A request that failed for good is told as failed."""
            client = await self.listen()
            id = await self.submit()
            delivery = await self.receive_one()
            await self.do(delivery.dead_letter("broken", self.reply(delivery, status=Status.FAILED)))
            await self.settle()
            self.assertEqual(client.told, [("failed", id)])

    return EndingStreamContract
