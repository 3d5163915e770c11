"""Other settings for a pool that works: what is under way ends as it began, and what waits goes by the new ones."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from openhqm.backends import PRODUCTS
from openhqm.config.loading import load
from openhqm.config.model import Settings
from openhqm.errors import ConfigurationError, InvalidRequest, RetryLater
from openhqm.messages import Status, Submission
from openhqm.policy.queue_names import MOST_WORKED_QUEUES
from openhqm.testing import REQUESTS
from openhqm.workers.pool import WorkerPool
from tests.benches import MemoryBench
from tests.targets import Peer, Target, answer, silence
from tests.workers.bench import ManualHandler
from tests.workers.test_pool import FAST, Gateway, PoolCase

OLD, NEW = ManualHandler(), ManualHandler()


def where(work: Any) -> str:
    return threading.current_thread().name


def settings(case: Any, **sections: Any) -> Settings:
    path = Path(case.mktemp())
    path.write_text(json.dumps(sections))
    return load(str(path), {}, PRODUCTS)


class Changing:
    """A `Gateway`, and other settings for it."""

    def __init__(self, case: ExchangeCase, gateway: Gateway) -> None:
        self.case = case
        self.gateway = gateway

    def to(self, worker: Any = None, proxy: Any = None, **endpoints: Any) -> None:
        """Change over to other settings, as the assembly does it."""
        proxy = {"enabled": True, "endpoints": endpoints, "max_response_bytes": 1 << 20, **(proxy or {})}
        changed = settings(self.case, worker={**FAST, **(worker or {})}, proxy=proxy)
        addressing = changed.addressing()
        change = self.gateway.pool.prepare(changed, addressing)
        self.gateway.door.addressing = addressing
        change()


class ExchangeCase(PoolCase):
    def changing(self, **gateway: Any) -> Changing:
        return Changing(self, self.gateway(**gateway))

    async def status(self, changing: Changing, correlation_id: str) -> Status:
        found: Status = (await changing.gateway.record(correlation_id)).status
        return found


class EndpointTests(ExchangeCase):
    async def test_added(self) -> None:
        """Before, an endpoint is refused; then requests are forwarded to it. The others are as they were."""
        first, second = self.to(Target()), Target()
        changing = self.changing(a=first)
        await changing.gateway.reply(endpoint="a")
        error: Any = await self.assertFailure(
            Deferred.fromCoroutine(changing.gateway.submit(endpoint="b")), InvalidRequest
        )
        self.assertEqual(error.field, "metadata.endpoint")
        before = changing.gateway.pool.gates["a"]
        changing.to(a=first, b=self.to(second))
        self.assertEqual((await changing.gateway.reply(endpoint="b")).status, Status.COMPLETED)
        self.assertEqual((await changing.gateway.reply(endpoint="a")).status, Status.COMPLETED)
        self.assertEqual(len(second.requests), 1)
        self.assertIs(changing.gateway.pool.gates["a"], before)

    async def test_removed(self) -> None:
        """What is under way ends; what waits stays in its queue, is not lost, and goes on once the endpoint is back."""
        target, fine = Target(silence), self.to(Target())
        endpoint = self.to(target, max_in_flight=1)
        changing = self.changing(a=endpoint, b=fine)
        under_way, waiting = [await changing.gateway.submit(endpoint="a") for _ in range(2)]
        await self.until(lambda: target.requests)
        changing.to(b=fine)
        await self.assertFailure(Deferred.fromCoroutine(changing.gateway.submit(endpoint="a")), InvalidRequest)
        answer()(target.peers[0])
        self.assertEqual((await changing.gateway.ended(under_way)).status, Status.COMPLETED)
        self.assertEqual((await changing.gateway.reply(endpoint="b")).status, Status.COMPLETED)
        self.assertEqual(await self.status(changing, waiting), Status.PENDING)
        self.assertEqual(len(target.requests), 1)
        self.assertNotIn(b'endpoint="a"', generate_latest(changing.gateway.registry))
        target.say = answer()
        changing.to(a=endpoint, b=fine)
        reply = await changing.gateway.ended(waiting)
        self.assertEqual((reply.status, reply.attempt), (Status.COMPLETED, 1))

    async def test_retry_of_a_removed_one(self) -> None:
        """An attempt that fails after its endpoint was removed is not repeated, and its request not lost."""
        target, fine = Target(silence), self.to(Target())
        endpoint = self.to(target)
        changing = self.changing(a=endpoint, b=fine)
        request = await changing.gateway.submit(endpoint="a")
        await self.until(lambda: target.requests)
        changing.to(b=fine)
        target.say = answer()
        answer(b"503 Down", b"")(target.peers[0])
        name = f"{changing.gateway.settings.queue.request_queue}.a"
        depth = changing.gateway.queue.depth
        while (await depth(name)).in_flight:
            await deferLater(reactor, 0.005)
        await changing.gateway.reply(endpoint="b")
        self.assertFalse((await changing.gateway.record(request)).status.ended)
        changing.to(a=endpoint, b=fine)
        reply = await changing.gateway.ended(request)
        self.assertEqual((reply.status, reply.attempt), (Status.COMPLETED, 2))

    async def test_another_url(self) -> None:
        """The call under way ends at the old target. What waited for a slot goes to the new one."""
        old, new = Target(silence), Target()
        changing = self.changing(a=self.to(old, max_in_flight=1))
        under_way, waiting = [await changing.gateway.submit(endpoint="a") for _ in range(2)]
        await self.until(lambda: old.requests)
        changing.to(a=self.to(new, max_in_flight=1))
        answer(body=b'"old"')(old.peers[0])
        self.assertEqual((await changing.gateway.ended(under_way)).result, b'"old"')
        self.assertEqual((await changing.gateway.ended(waiting)).result, b'{"ok":true}')
        self.assertEqual((len(old.requests), len(new.requests)), (1, 1))

    async def test_unchanged(self) -> None:
        """What has not changed keeps its connection, and its breaker stays open."""
        fine, ill = Target(), Target(answer(b"503 Down", b""))
        breaker = {"minimum_calls": 1, "open_seconds": 3600}
        endpoints = {"well": self.to(fine), "ill": self.to(ill, circuit_breaker=breaker)}
        changing = self.changing(**endpoints)
        await changing.gateway.reply(endpoint="well")
        await changing.gateway.submit(endpoint="ill")
        await self.until(lambda: changing.gateway.pool.gates["ill"].state.value == "open")
        for timeout in (1, 2):
            changing.to(worker={"handler": "echo", "timeout_seconds": timeout}, **endpoints, new=self.to(Target()))
            await changing.gateway.reply(endpoint="well")
        self.assertEqual(len(fine.peers), 1)
        self.assertEqual(changing.gateway.pool.gates["ill"].state.value, "open")
        self.assertEqual(len(ill.requests), 1)

    async def test_another_executor(self) -> None:
        """A handler runs where the configuration of now says."""
        endpoints, handler = {"a": self.to(Target())}, f"{__name__}:where"
        changing = self.changing(worker={"handler": handler}, **endpoints)
        for executor, name in ((None, "openhqm-handlers"), ("reactor", "MainThread"), ("thread", "openhqm-handlers")):
            changing.to(worker={"handler": handler, "executor": executor}, **endpoints)
            self.assertIn(name.encode(), (await changing.gateway.reply()).result)
        changing.to(worker={"handlers": {"w": handler}, "executors": {"w": "reactor"}}, **endpoints)
        self.assertEqual((await changing.gateway.reply(operation="w")).result, b'"MainThread"')

    async def test_other_credentials(self) -> None:
        """Where only credentials change, connection and breaker stay, and the next call has the new ones."""
        target = Target()
        endpoint = self.to(target)
        changing = self.changing(a={**endpoint, "auth_type": "bearer", "auth_token": "old"})
        await changing.gateway.reply(endpoint="a")
        gate = changing.gateway.pool.gates["a"]
        changing.to(a={**endpoint, "auth_type": "bearer", "auth_token": "new"})
        await changing.gateway.reply(endpoint="a")
        self.assertEqual([each["authorization"] for each in target.fields], ["Bearer old", "Bearer new"])
        self.assertEqual(len(target.peers), 1)
        self.assertIs(changing.gateway.pool.gates["a"], gate)

    async def test_open_breaker(self) -> None:
        """Another URL is another target: requests that an open breaker held back are sent to it at once."""
        dead, new = Target(answer(b"503 Down", b"")), Target()
        breaker = {"minimum_calls": 1, "open_seconds": 3600}
        changing = self.changing(a=self.to(dead, circuit_breaker=breaker))
        first = await changing.gateway.submit(endpoint="a")
        await self.until(lambda: changing.gateway.pool.gates["a"].state.value == "open")
        waiting = await changing.gateway.submit(endpoint="a")
        changing.to(a=self.to(new, circuit_breaker=breaker))
        for each in (first, waiting):
            self.assertEqual((await changing.gateway.ended(each)).status, Status.COMPLETED)
        self.assertEqual(len(dead.requests), 1)

    async def test_rate(self) -> None:
        """Requests that a rate held back, also those that were received already, go by the new rate."""
        target = Target()
        daily = {"requests": 1, "per_seconds": 86400}
        changing = self.changing(a=self.to(target, rate=daily, max_in_flight=3))
        ids = [await changing.gateway.submit(endpoint="a") for _ in range(8)]
        await changing.gateway.ended(ids[0])
        self.assertEqual(len(target.requests), 1)
        changing.to(a=self.to(target, max_in_flight=3))
        replies = [await changing.gateway.ended(each) for each in ids]
        self.assertEqual({(reply.status, reply.attempt) for reply in replies}, {(Status.COMPLETED, 1)})
        self.assertEqual(len(target.requests), 8)

    async def test_slots(self) -> None:
        """More slots are used at once. With fewer, no call begins until so many have ended."""
        target = Target(silence)
        endpoint = self.to(target)
        changing = self.changing(a={**endpoint, "max_in_flight": 2})
        for _ in range(8):
            await changing.gateway.submit(endpoint="a")
        await self.until(lambda: len(target.requests) == 2)
        changing.to(a={**endpoint, "max_in_flight": 4})
        await self.until(lambda: len(target.requests) == 4)
        changing.to(a={**endpoint, "max_in_flight": 1})
        for peer in target.peers[:3]:
            answer()(peer)
        await self.until(lambda: sum(changing.gateway.pool.gates["a"].ended_calls.values()) == 3)
        self.assertEqual(len(target.requests), 4)
        answer()(target.peers[3])
        await self.until(lambda: len(target.requests) == 5)

    async def test_counters(self) -> None:
        """A counter of a target's calls goes on where its limits change."""
        target = Target()
        endpoint = self.to(target)
        changing = self.changing(a=endpoint)
        await changing.gateway.reply(endpoint="a")
        changing.to(a={**endpoint, "max_in_flight": 7})
        await changing.gateway.reply(endpoint="a")
        counted = b'openhqm_target_calls_total{endpoint="a",outcome="answered"} 2.0'
        self.assertIn(counted, generate_latest(changing.gateway.registry))

    async def test_default_endpoint(self) -> None:
        """Requests that name no endpoint go to the new default, those that wait for one, too."""
        first, second = Target(silence), Target()
        endpoints = {"a": self.to(first, max_in_flight=1), "b": self.to(second)}
        gateway = Gateway(self, proxy={"enabled": True, "endpoints": endpoints, "default_endpoint": "a"})
        changing = Changing(self, gateway)
        under_way, waiting = [await gateway.submit() for _ in range(2)]
        await self.until(lambda: first.requests)
        changing.to(proxy={"default_endpoint": "b"}, **endpoints)
        self.assertEqual((await gateway.ended(waiting)).status, Status.COMPLETED)
        self.assertEqual((await gateway.reply()).status, Status.COMPLETED)
        self.assertEqual((len(first.requests), len(second.requests)), (1, 2))
        answer()(first.peers[0])
        self.assertEqual((await gateway.ended(under_way)).status, Status.COMPLETED)

    async def test_callers(self) -> None:
        """URLs that requests name are allowed, and refused again."""
        target = Target()
        port = self.to(target)["url"].rpartition(":")[2].strip("/")
        callers = {"enabled": True, "schemes": ["http"], "ports": [int(port)], "allow": ["127.0.0.1"]}
        changing = self.changing(a=self.to(Target()))
        url = f"http://127.0.0.1:{port}/"
        await self.assertFailure(Deferred.fromCoroutine(changing.gateway.submit(endpoint=url)), InvalidRequest)
        changing.to(proxy={"caller_targets": callers}, a=self.to(Target()))
        self.assertEqual((await changing.gateway.reply(endpoint=url)).status, Status.COMPLETED)
        changing.to(a=self.to(Target()))
        await self.assertFailure(Deferred.fromCoroutine(changing.gateway.submit(endpoint=url)), InvalidRequest)

    async def test_often(self) -> None:
        """Under load, an endpoint comes, changes and goes many times: each request ends once, and none is lost."""
        calls: list[bytes] = []

        def noted(peer: Peer) -> None:
            calls.append(peer.content)
            answer()(peer)

        targets = [self.to(Target(noted)) for _ in range(2)]
        changing = self.changing(a=targets[0], b=self.to(Target()))
        ids = []
        for number in range(60):
            ids.append(await changing.gateway.submit(payload=number, endpoint="a"))
            changing.to(b=self.to(Target()))
            changing.to(a=targets[number % 2], b=self.to(Target()))
        replies = [await changing.gateway.ended(each) for each in ids]
        self.assertEqual({(reply.status, reply.attempt) for reply in replies}, {(Status.COMPLETED, 1)})
        self.assertEqual(sorted(calls), sorted(str(number).encode() for number in range(60)))


class RefusedTests(ExchangeCase):
    async def test_all_complaints(self) -> None:
        """Every certificate and handler that cannot be used is named, and what runs is as it was."""
        target = Target()
        endpoint = self.to(target)
        changing = self.changing(a=endpoint)
        queues, gates = changing.gateway.pool.queues, dict(changing.gateway.pool.gates)
        bad = {"url": "https://b.test/", "tls": {"ca": "/nowhere.pem"}}
        handlers = {"handler": "nowhere_at_all:handle", "handlers": {"x": "json:nothing"}}
        error: Any = self.assertRaises(
            ConfigurationError, changing.to, worker=handlers, a={**endpoint, "timeout": 1}, b=bad, c=bad
        )
        keys = [complaint.key for complaint in error.complaints]
        self.assertEqual(
            keys, ["proxy.endpoints.b.tls", "proxy.endpoints.c.tls", "worker.handler", "worker.handlers.x"]
        )
        self.assertEqual((changing.gateway.pool.queues, changing.gateway.pool.gates), (queues, gates))
        self.assertEqual((await changing.gateway.reply(endpoint="a")).status, Status.COMPLETED)

    async def test_prepared_only(self) -> None:
        """What is prepared has no effect until the change is made."""
        old, new = Target(), Target()
        changing = self.changing(a=self.to(old))
        proxy = {"enabled": True, "endpoints": {"a": self.to(new)}}
        changed = settings(self, worker=FAST, proxy=proxy)
        changing.gateway.pool.prepare(changed, changed.addressing())
        await changing.gateway.reply(endpoint="a")
        self.assertEqual((len(old.requests), len(new.requests)), (1, 0))

    async def test_too_many_queues(self) -> None:
        """A process knows a limited number of queues: those of removed endpoints count, and the way out is named."""
        changing = self.changing(a={"url": "http://a.test/"})
        url = {"url": "http://a.test/"}
        changing.to(**{f"x{number}": url for number in range(MOST_WORKED_QUEUES // 2)})
        error: Any = self.assertRaises(
            ConfigurationError, changing.to, **{f"y{number}": url for number in range(MOST_WORKED_QUEUES // 2)}
        )
        self.assertIn("restart openhqm", str(error.complaints[0]))
        changing.to(a=url)


class StoppingTests(ExchangeCase):
    async def test_before_the_start(self) -> None:
        """A pool that does not work yet begins with the last settings."""
        target = Target()
        changing = self.changing(a={"url": "http://a.test/"})
        await changing.gateway.pool.stop(0)
        first = changing.gateway.settings
        pool = WorkerPool(first, first.addressing(), changing.gateway.queue, reactor, CollectorRegistry())
        changing.gateway.pool = pool
        changing.to(b=self.to(target))
        pool.start()
        self.assertEqual((await changing.gateway.reply(endpoint="b")).status, Status.COMPLETED)

    async def test_what_was_removed(self) -> None:
        """A process that stops releases the attempts at endpoints that were removed, too, when its time is over."""
        target = Target(silence)
        fine = self.to(Target())
        changing = self.changing(a=self.to(target), b=fine)
        request = await changing.gateway.submit(endpoint="a")
        await self.until(lambda: target.requests)
        changing.to(b=fine)
        await changing.gateway.pool.stop(0)
        self.assertFalse((await changing.gateway.record(request)).status.ended)
        name = f"{changing.gateway.settings.queue.request_queue}.a"
        depth = await changing.gateway.queue.depth(name)
        self.assertEqual((depth.ready, depth.in_flight), (1, 0))


class HandlerTests(SynchronousTestCase):
    """Python handlers, in memory and under a clock of the test's"""

    def setUp(self) -> None:
        for handler in (OLD, NEW):
            handler.__init__()  # type: ignore[misc]
        self.bench = MemoryBench()
        first = self.settings("OLD", count=1)
        self.pool = WorkerPool(first, first.addressing(), self.bench.queue, self.bench.clock, CollectorRegistry())
        self.pool.start()
        self.addCleanup(self.end)

    def end(self) -> None:
        stopped = self.pool.stop(0)
        self.bench.pass_time(3)
        self.successResultOf(stopped)

    def settings(self, handler: str, **worker: Any) -> Settings:
        retry = {"base_seconds": 1, "jitter": 0}
        path = f"tests.workers.test_exchange:{handler}"
        merged = {"retry": retry, "count": 1, "handler": path, **worker}
        return settings(self, worker=merged, queue={"request_queue": REQUESTS})

    def change(self, handler: str, **worker: Any) -> None:
        changed = self.settings(handler, **worker)
        self.pool.prepare(changed, changed.addressing())()
        self.bench.turn()

    def submit(self, payload: bytes, **fields: Any) -> str:
        accepted = self.bench.queue.accept(Submission(payload, **fields), None)
        self.bench.turn()
        correlation_id: str = self.successResultOf(accepted).correlation_id
        return correlation_id

    def record(self, correlation_id: str) -> Any:
        return self.successResultOf(self.bench.store.find(correlation_id))

    def test_another_handler(self) -> None:
        """The call under way ends in the old handler; what waited, and a retry of what began before, go to the new."""
        first, second = self.submit(b"1"), self.submit(b"2")
        self.change("NEW")
        self.assertEqual(([work.payload for work in OLD.works], NEW.works), ([1], []))
        OLD.answers[0].errback(RetryLater(5, "busy"))
        self.bench.turn()
        self.assertEqual([work.payload for work in NEW.works], [2])
        NEW.answers[0].callback("new")
        self.bench.pass_time(6)
        self.assertEqual([(work.payload, work.attempt) for work in NEW.works], [(2, 1), (1, 2)])
        NEW.answers[1].callback("new")
        self.bench.turn()
        for each in (first, second):
            self.assertEqual(self.record(each).reply.result, b'"new"')

    def test_retries_and_timeout(self) -> None:
        """The limits of an attempt are those that it began with; the next attempt has the new ones."""
        request = self.submit(b"1")
        self.change("OLD", max_retries=1, timeout_seconds=7)
        self.bench.pass_time(8)
        self.assertEqual(OLD.cancelled, 0)
        OLD.answers[0].errback(RetryLater(0, "busy"))
        self.bench.turn()
        self.assertEqual(len(OLD.works), 2)
        self.bench.pass_time(8)
        self.assertEqual(OLD.cancelled, 1)
        self.assertEqual(self.record(request).status, Status.TIMEOUT)

    def test_by_operation(self) -> None:
        """Handlers of operations come and go."""
        self.change("OLD", handlers={"x": "tests.workers.test_exchange:NEW"})
        self.submit(b'{"operation":"x"}')
        self.assertEqual((len(OLD.works), len(NEW.works)), (0, 1))
        NEW.answers[0].callback(None)
        self.bench.turn()
        self.change("OLD")
        self.submit(b'{"operation":"x"}')
        self.assertEqual((len(OLD.works), len(NEW.works)), (1, 1))

    def test_no_change(self) -> None:
        """The same settings once more change nothing: the attempt under way ends, and no delivery is released."""
        request = self.submit(b"1")
        for _ in range(10):
            self.change("OLD")
        OLD.answers[0].callback("done")
        self.bench.turn()
        self.assertEqual(self.record(request).reply.attempt, 1)
        self.assertEqual(len(OLD.works), 1)
