"""The worker pool over real ports: targets do not hold up each other, and every kind of bad target has its outcome."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from twisted.internet import reactor as real_reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.ssl import Certificate
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from openhqm.backends import PRODUCTS
from openhqm.config.loading import load
from openhqm.delivery.long_polling import LongPolls
from openhqm.errors import ConfigurationError, InvalidRequest
from openhqm.ingress.door import Door
from openhqm.ingress.metrics import DoorMetrics
from openhqm.memory.queue import MemoryQueue
from openhqm.memory.results import MemoryResults
from openhqm.messages import Status
from openhqm.policy.breaker import State
from openhqm.policy.ids import CorrelationIds
from openhqm.workers.pool import WorkerPool
from tests.http1.test_guarded import certificate
from tests.targets import Peer, Target, answer, endless, raw, silence
from tests.workers.bench import ManualHandler

reactor: Any = real_reactor
HANDLER = ManualHandler()
FAST = {"max_retries": 1, "retry": {"base_seconds": 0.01, "jitter": 0}}
LINK_LOCAL = b"Location: http://169.254.169.254/latest/meta-data/"


def fields(name: bytes) -> bytes | None:
    return b"application/json" if name == b"content-type" else None


class Gateway:
    """Door, queue and worker pool in memory, under the real clock."""

    def __init__(self, case: TestCase, **settings: Any) -> None:
        path = Path(case.mktemp())
        path.write_text(json.dumps({"worker": FAST, **settings}))
        self.settings = load(str(path), {}, PRODUCTS)
        ids = CorrelationIds(b"0" * 16)
        self.store = MemoryResults(reactor, ids, 3600)
        names = self.settings.queue
        self.queue = MemoryQueue(
            self.store, reactor, ids, requests=names.request_queue, dead_letters=names.dead_letter_queue
        )
        self.store.start()
        addressing = self.settings.addressing()
        self.registry = CollectorRegistry()
        self.pool = WorkerPool(self.settings, addressing, self.queue, reactor, self.registry)
        self.door = Door(
            self.queue,
            self.store,
            LongPolls(self.store, reactor),
            reactor,
            DoorMetrics(CollectorRegistry()),
            longest_wait=60,
            addressing=addressing,
        )
        self.pool.start()
        case.addCleanup(self.stop)

    async def stop(self) -> None:
        await self.pool.stop(0)
        await self.queue.stop()
        self.store.stop()

    async def submit(self, payload: Any = 1, headers: Any = None, **metadata: Any) -> str:
        body = json.dumps({"payload": payload, "headers": headers or {}, "metadata": metadata}).encode()
        return (await self.door.accept(body, fields)).correlation_id

    async def record(self, correlation_id: str) -> Any:
        return await self.store.find(correlation_id)

    async def ended(self, correlation_id: str) -> Any:
        while True:
            record = await self.record(correlation_id)
            if record.status.ended:
                return record.reply
            await deferLater(reactor, 0.005)

    async def reply(self, payload: Any = 1, headers: Any = None, **metadata: Any) -> Any:
        return await self.ended(await self.submit(payload, headers, **metadata))


class PoolCase(TestCase):
    timeout = 240

    def to(self, target: Target, **endpoint: Any) -> dict[str, Any]:
        return {"url": f"http://127.0.0.1:{target.listen(self, reactor)}/", "timeout": 5, **endpoint}

    def gateway(self, worker: Any = None, partitioning: Any = None, **endpoints: Any) -> Gateway:
        return Gateway(
            self,
            worker={**FAST, **(worker or {})},
            partitioning=partitioning or {},
            proxy={"enabled": True, "endpoints": endpoints, "max_response_bytes": 1 << 20},
        )

    async def until(self, true: Any) -> None:
        while not true():
            await deferLater(reactor, 0.005)


class ServingTests(PoolCase):
    async def test_one_hangs(self) -> None:
        """Of two targets one hangs, with more requests than it has slots. The requests of the other go on."""
        hanging, fine = Target(silence), Target()
        gateway = self.gateway(dead=self.to(hanging), well=self.to(fine))
        waiting = [await gateway.submit(endpoint="dead") for _ in range(20)]
        await self.until(lambda: len(hanging.requests) == 5)
        for _ in range(20):
            started = time.monotonic()
            reply = await gateway.reply(endpoint="well")
            self.assertEqual((reply.status, reply.result), (Status.COMPLETED, b'{"ok":true}'))
            self.assertLess(time.monotonic() - started, 2)
        self.assertEqual((len(hanging.requests), len(fine.requests)), (5, 20))
        for each in waiting:
            self.assertFalse((await gateway.record(each)).status.ended)

    async def test_python_handler(self) -> None:
        """A target that hangs does not hold up a Python handler."""
        hanging = Target(silence)
        gateway = self.gateway({"handlers": {"echo": "openhqm.workers.handlers:echo"}}, dead=self.to(hanging))
        for _ in range(10):
            await gateway.submit(endpoint="dead")
        await self.until(lambda: len(hanging.requests) == 5)
        self.assertEqual((await gateway.reply([1], operation="echo")).result, b"[1]")

    async def test_breaker(self) -> None:
        """While a breaker is open, its target is not called, no attempt is counted, and other targets go on.

        Then all requests are done.
        """
        target, fine = Target(answer(b"503 Down", b"")), Target()
        breaker = {"minimum_calls": 2, "open_seconds": 0.4}
        gateway = self.gateway(
            {"max_retries": 5, "retry": {"base_seconds": 0.05}},
            ill=self.to(target, circuit_breaker=breaker, max_in_flight=2),
            well=self.to(fine),
        )
        ids = [await gateway.submit(endpoint="ill") for _ in range(6)]
        await self.until(lambda: gateway.pool.gates["ill"].state.value == "open")
        self.assertIn(b'openhqm_breaker_state{endpoint="ill",state="open"} 1.0', generate_latest(gateway.registry))
        self.assertIn("endpoint ill: too many of its calls failed", "".join(gateway.pool.warnings))
        await self.until(lambda: gateway.pool.gates["ill"].under_way == 0)
        seen = len(target.requests)
        self.assertEqual((await gateway.reply(endpoint="well")).status, Status.COMPLETED)
        await deferLater(reactor, 0.2)
        self.assertEqual(len(target.requests), seen)
        target.say = answer()
        replies = [await gateway.ended(each) for each in ids]
        self.assertEqual({reply.status for reply in replies}, {Status.COMPLETED})
        attempts = [fields["openhqm-attempt"] for fields in target.fields]
        self.assertEqual(len(attempts), seen + 6)
        self.assertEqual(sum(reply.attempt for reply in replies), seen + 6)

    async def test_max_in_flight_and_rate(self) -> None:
        """A target gets no more calls at once, and per second, than the endpoint allows."""
        most = 0

        def slowly(peer: Peer) -> None:
            nonlocal most
            under_way.add(peer)
            most = max(most, len(under_way))

            def done() -> None:
                under_way.discard(peer)
                answer()(peer)

            reactor.callLater(0.05, done)

        under_way: set[Peer] = set()
        gateway = self.gateway({"count": 50}, a=self.to(Target(slowly), max_in_flight=3))
        ids = [await gateway.submit(endpoint="a") for _ in range(12)]
        for each in ids:
            await gateway.ended(each)
        self.assertEqual(most, 3)
        times: list[float] = []

        def noted(peer: Peer) -> None:
            times.append(time.monotonic())
            answer()(peer)

        gateway = self.gateway({"count": 50}, a=self.to(Target(noted), rate={"requests": 20}))
        ids = [await gateway.submit(endpoint="a") for _ in range(11)]
        for each in ids:
            await gateway.ended(each)
        self.assertGreaterEqual(times[-1] - times[0], 0.4)

    async def test_adaptive(self) -> None:
        """The adaptive limit begins with four calls, whatever the number of slots."""
        target = Target(silence)
        gateway = self.gateway({"count": 50}, a=self.to(target, adaptive=True))
        for _ in range(20):
            await gateway.submit(endpoint="a")
        await self.until(lambda: len(target.requests) >= 4)
        await deferLater(reactor, 0.1)
        self.assertEqual(len(target.requests), 4)


class StoppingTests(PoolCase):
    async def test_what_fails(self) -> None:
        """A consumer that fails to stop is logged, and the others stop."""
        gateway = self.gateway(a={"url": "http://a.test/"})
        stopped: list[str] = []

        def waiting(queue: str) -> Any:
            def stop(waiter: Any) -> None:
                stopped.append(queue)
                if not queue.endswith(".a"):
                    raise ArithmeticError("cannot stop")

            return Deferred(stop)

        broken: Any = SimpleNamespace(receive=lambda queue, most, in_order: waiting(queue))
        pool = WorkerPool(gateway.settings, gateway.settings.addressing(), broken, reactor, CollectorRegistry())
        pool.start()
        await pool.stop(0)
        self.assertEqual(len(self.flushLoggedErrors(ArithmeticError)), 1)
        self.assertEqual(sorted(stopped), sorted(pool.queues))


class CredentialsTests(PoolCase):
    async def test_kinds(self) -> None:
        """The header fields of bearer, basic, api_key and custom."""
        target = Target()
        url = self.to(target)
        custom = {"auth_type": "custom", "auth_header_name": "X-Own", "auth_token": "Token t"}
        gateway = self.gateway(
            bearer={**url, "auth_type": "bearer", "auth_token": "t"},
            basic={**url, "auth_type": "basic", "auth_username": "Aladdin", "auth_password": "open sesame"},
            key={**url, "auth_type": "api_key", "auth_token": "t"},
            custom={**url, **custom},
        )
        for name, header, value in (
            ("bearer", "authorization", "Bearer t"),
            ("basic", "authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ("key", "x-api-key", "t"),
            ("custom", "x-own", "Token t"),
        ):
            await gateway.reply(endpoint=name, headers={"Authorization": "mine"})
            self.assertEqual(target.fields[-1][header], value)

    async def test_token(self) -> None:
        """A token is fetched once for all calls, and again when the target refuses it."""
        tokens = iter(("t1", "t2"))

        def give(peer: Peer) -> None:
            answer(b"200 OK", json.dumps({"access_token": next(tokens), "expires_in": 3600}).encode())(peer)

        def check(peer: Peer) -> None:
            good = peer.fields[b"authorization"] == b"Bearer " + wanted
            (answer() if good else answer(b"401 Unauthorized", b""))(peer)

        wanted = b"t1"
        server, target = Target(give), Target(check)
        gateway = self.gateway(
            a=self.to(
                target,
                auth_type="oauth2_client_credentials",
                auth_token_url=f"http://127.0.0.1:{server.listen(self, reactor)}/token",
                auth_client_id="me",
                auth_client_secret="s",
            )
        )
        for each in [await gateway.submit(endpoint="a") for _ in range(5)]:
            self.assertEqual((await gateway.ended(each)).status, Status.COMPLETED)
        self.assertEqual(len(server.requests), 1)
        wanted = b"t2"
        reply = await gateway.reply(endpoint="a")
        self.assertEqual((reply.status, reply.attempt, len(server.requests)), (Status.COMPLETED, 2, 2))

    async def test_certificates(self) -> None:
        """An endpoint uses its own CA and client certificate.

        A target with another certificate: FAILED, and the error says so.
        """
        server, client = certificate("localhost"), certificate("client")
        files = {}
        for name, data in (
            ("ca", Certificate.dumpPEM(server)),
            ("cert", Certificate.dumpPEM(client)),
            ("key", client.privateKey.dump(1)),
        ):
            files[name] = self.written(data)
        target = Target()
        port = target.listen(self, reactor, server.options(Certificate.loadPEM(Certificate.dumpPEM(client))))
        url = {"url": f"https://localhost:{port}/", "timeout": 5}
        gateway = self.gateway(good={**url, "tls": files}, wrong={**url, "tls": {}})
        self.assertEqual((await gateway.reply(endpoint="good")).status, Status.COMPLETED)
        reply = await gateway.reply(endpoint="wrong")
        self.assertEqual((reply.status, reply.status_code, reply.attempt), (Status.FAILED, 502, 2))
        self.assertEqual(reply.error, "wrong could not be called: TLS: certificate verify failed")

    async def test_other_authority(self) -> None:
        """A file that is exchanged counts for the next connections, without a restart."""
        server, other = certificate("localhost"), certificate("other")
        ca = self.written(Certificate.dumpPEM(other))
        port = Target().listen(self, reactor, server.options())
        gateway = self.gateway(a={"url": f"https://localhost:{port}/", "timeout": 5, "tls": {"ca": ca}})
        self.assertEqual((await gateway.reply(endpoint="a")).status, Status.FAILED)
        self.written(Certificate.dumpPEM(server), ca)
        due = reactor.seconds() + 10
        while (await gateway.reply(endpoint="a")).status is not Status.COMPLETED:
            self.assertLess(reactor.seconds(), due)

    def written(self, data: bytes, file: str | None = None) -> str:
        path = Path(file or self.mktemp())
        path.write_bytes(data)
        path.chmod(0o600)
        return str(path)

    def test_files(self) -> None:
        """A certificate file that cannot be used is a complaint under the endpoint's key."""
        endpoint = {"url": "https://a.test", "tls": {"ca": "/nowhere/ca.pem"}}
        error = self.assertRaises(ConfigurationError, self.gateway, a=endpoint, b=endpoint)
        self.assertEqual(
            [str(complaint) for complaint in error.complaints],
            [f"proxy.endpoints.{name}.tls: cannot read /nowhere/ca.pem: No such file or directory" for name in "ab"],
        )


class BadTargetsTests(PoolCase):
    async def fails(
        self, say: Any, *expected: str, attempts: int = 2, status: Status = Status.FAILED, **keys: Any
    ) -> Any:
        target = Target(say)
        gateway = self.gateway(bad=self.to(target, **keys))
        reply = await gateway.reply(endpoint="bad")
        self.assertEqual((reply.status, reply.attempt), (status, attempts), reply.error)
        self.assertEqual(len(target.requests), attempts)
        for text in expected:
            self.assertIn(text, reply.error)
        await self.until(lambda: all(peer.gone for peer in target.peers) or keys.get("kept"))
        return reply

    async def test_slow(self) -> None:
        """A target that never answers, and one that sends a byte now and then: TIMEOUT, at the limit of the call."""

        def dribble(peer: Peer) -> None:
            def drop() -> None:
                if not peer.gone:
                    peer.transport.write(b"x")
                    reactor.callLater(0.02, drop)

            peer.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            drop()

        for say in (silence, dribble):
            reply = await self.fails(say, "no answer within 0.3 s", status=Status.TIMEOUT, timeout=0.3)
            self.assertEqual(reply.status_code, 504)
        await deferLater(reactor, 0.05)  # the last of those drops

    async def test_closes(self) -> None:
        """A connection that ends before, within the head, within the body, or before the announced length: retried,
        then FAILED."""
        for data in (b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"):
            await self.fails(raw(data, close=True), "bad could not be called: ")

    async def test_garbage(self) -> None:
        """An answer that is not HTTP: retried, then FAILED."""
        await self.fails(raw(b"\x00\x01garbage\r\n\r\n" * 10), "bad could not be called: ")
        await self.fails(raw(b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"), "is not HTTP/1.1")

    async def test_too_much(self) -> None:
        """An endless body, and a hundred thousand header lines: FAILED at once, and the error names the limit."""
        await self.fails(endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536), "longer than 1048576 bytes", attempts=1)
        many = b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 100_000
        await self.fails(raw(many), "the head of the response is longer", attempts=1)

    async def test_bomb(self) -> None:
        """A compressed body is not decompressed."""
        packed = gzip.compress(b"\0" * 50_000_000)
        target = Target(answer(b"200 OK", packed, b"Content-Type: application/json", b"Content-Encoding: gzip"))
        reply = await self.gateway(a=self.to(target)).reply(endpoint="a")
        self.assertEqual((reply.status, reply.body), (Status.COMPLETED, packed))

    async def test_redirect(self) -> None:
        """A redirect to a private address is FAILED with the answer, and is not followed."""
        canary = Target()
        inwards = b"Location: http://127.0.0.1:%d/" % canary.listen(self, reactor)
        for location in (inwards, LINK_LOCAL):
            target = Target(answer(b"302 Found", b"", location))
            reply = await self.gateway(a=self.to(target)).reply(endpoint="a")
            self.assertEqual((reply.status, reply.attempt, reply.status_code), (Status.FAILED, 1, 302))
            self.assertEqual(reply.error, "a answered 302")
            self.assertEqual(reply.headers["Location"], location.partition(b" ")[2].decode())
        self.assertEqual(canary.peers, [])

    async def test_names(self) -> None:
        """Requests for a host name without an address, or one whose look-up hangs, wait: nothing was sent.

        They are done once there is an address, at the first attempt.
        """
        target, names = Target(), Names()
        before = reactor.installNameResolver(names)
        self.addCleanup(reactor.installNameResolver, before)
        url = f"http://away.test:{target.listen(self, reactor)}/"
        for hangs in (False, True):
            names.hangs, names.address = hangs, None
            gateway = self.gateway(a={"url": url, "timeout": 0.2})
            waiting = [await gateway.submit(endpoint="a") for _ in range(10)]
            await self.until(lambda gateway=gateway: gateway.pool.gates["a"].state is not State.CLOSED)
            self.assertEqual(target.requests, [])
            names.hangs, names.address = False, "127.0.0.1"
            for each in waiting:
                reply = await gateway.ended(each)
                self.assertEqual((reply.status, reply.attempt), (Status.COMPLETED, 1))
            target.requests.clear()

    async def test_away(self) -> None:
        """So do those for a host that refuses connections, with more in hand than attempts are allowed."""
        target = Target()
        listening = reactor.listenTCP(0, target, interface="127.0.0.1")
        port = listening.getHost().port
        await listening.stopListening()
        gateway = self.gateway(a={"url": f"http://127.0.0.1:{port}/", "timeout": 5})
        waiting = [await gateway.submit(endpoint="a") for _ in range(50)]
        await deferLater(reactor, 1.2)
        self.addCleanup(reactor.listenTCP(port, target, interface="127.0.0.1").stopListening)
        for each in waiting:
            reply = await gateway.ended(each)
            self.assertEqual((reply.status, reply.attempt), (Status.COMPLETED, 1))
        self.assertEqual((len(target.requests), len(await gateway.queue.dead_letters(0, 10))), (50, 0))


class Names:
    """A resolver that knows one address for all names, or none; or it does not answer."""

    def __init__(self) -> None:
        self.hangs = False
        self.address: str | None = None

    def resolveHostName(self, receiver: Any, hostName: str, portNumber: int = 0, **others: Any) -> Any:
        receiver.resolutionBegan(self)
        if self.address is not None:
            receiver.addressResolved(IPv4Address("TCP", self.address, portNumber))
        if not self.hangs:
            receiver.resolutionComplete()
        return self

    def cancel(self) -> None:
        raise NotImplementedError


class CallersTests(PoolCase):
    def callers(self, canary: Target, **keys: Any) -> tuple[Gateway, int]:
        port = canary.listen(self, reactor)
        targets = {"enabled": True, "schemes": ["http", "https"], "ports": [port], **keys}
        return Gateway(self, proxy={"enabled": True, "caller_targets": targets}), port

    async def test_private_destination(self) -> None:
        """A private destination is refused with 422 when it is submitted, and its listener gets no connection."""
        canary = Target()
        gateway, port = self.callers(canary)
        for host in ("127.0.0.1", "localhost", "2130706433", "127.1", "[::1]", "[::ffff:127.0.0.1]", "0"):
            error = await self.assertFailure(
                Deferred.fromCoroutine(gateway.submit(endpoint=f"http://{host}:{port}/")), InvalidRequest
            )
            self.assertEqual(error.field, "metadata.endpoint")
        self.assertEqual(canary.peers, [])

    async def test_dns_rebinding(self) -> None:
        """A public name that resolves to a private address is accepted and FAILED, with the text of every refusal."""
        canary = Target()
        port = canary.listen(self, reactor)

        class Inwards:
            def resolveHostName(self, receiver: Any, *arguments: Any, **others: Any) -> Any:
                receiver.resolutionBegan(self)
                receiver.addressResolved(IPv4Address("TCP", "127.0.0.1", 0))
                receiver.resolutionComplete()
                return self

        before = reactor.installNameResolver(Inwards())
        self.addCleanup(reactor.installNameResolver, before)
        # The agent took its resolver when it was made.
        gateway = Gateway(
            self, proxy={"enabled": True, "caller_targets": {"enabled": True, "schemes": ["http"], "ports": [port]}}
        )
        reply = await gateway.reply(endpoint=f"http://rebound.example.com:{port}/")
        self.assertEqual((reply.status, canary.peers), (Status.FAILED, []))
        self.assertEqual(reply.error, "callers could not be called: the destination is not allowed")

    async def test_allowed(self) -> None:
        """A private destination that the operator allows is called, and the head of its answer is bounded."""
        target = Target()
        gateway, port = self.callers(target, allow=["127.0.0.1"])
        url = f"http://127.0.0.1:{port}/hook"
        self.assertEqual((await gateway.reply(endpoint=url, path="/a")).result, b'{"ok":true}')
        self.assertTrue(target.requests[0][0].startswith(b"POST /hook/a HTTP/1.1\r\n"))
        target.say = raw(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 100_000)
        self.assertIn("the head of the response", (await gateway.reply(endpoint=url)).error)


class PartitionsTests(PoolCase):
    async def test_order(self) -> None:
        """Requests of one key are done one at a time and in order, also across a retry and with twice the consumers.

        Other keys go on at the same time.
        """
        log: list[tuple[str, int, int]] = []
        running: set[str] = set()
        overlaps: list[str] = []

        def work(peer: Peer) -> None:
            payload, attempt = json.loads(peer.content), int(peer.fields[b"openhqm-attempt"])
            key = payload["key"]
            if key in running:
                overlaps.append(key)
            running.add(key)
            log.append((key, payload["n"], attempt))

            def done() -> None:
                running.discard(key)
                failing = key == "a" and payload["n"] == 1 and attempt == 1
                (answer(b"503 Later", b"") if failing else answer())(peer)

            reactor.callLater(0.01, done)

        worker = {"retry": {"base_seconds": 0.3, "jitter": 0}}
        partitioning = {"enabled": True, "key_field": "payload.key", "partition_count": 8}
        gateway = self.gateway(worker, partitioning, a=self.to(Target(work), max_in_flight=8))
        second = WorkerPool(
            gateway.settings, gateway.settings.addressing(), gateway.queue, reactor, CollectorRegistry()
        )
        second.start()
        self.addCleanup(second.stop, 0)
        # "a" and "b" are not in one partition of 8 (CRC-32), or this would say nothing.
        ids = [await gateway.submit({"key": key, "n": n}, endpoint="a") for n in range(4) for key in "ab"]
        for each in ids:
            self.assertEqual((await gateway.ended(each)).status, Status.COMPLETED)
        self.assertEqual(overlaps, [])
        self.assertEqual([entry[1:] for entry in log if entry[0] == "a"], [(0, 1), (1, 1), (1, 2), (2, 1), (3, 1)])
        self.assertEqual([entry[1:] for entry in log if entry[0] == "b"], [(0, 1), (1, 1), (2, 1), (3, 1)])
        self.assertLess(log.index(("b", 3, 1)), log.index(("a", 1, 2)))

    async def test_worker_count(self) -> None:
        """With and without partitions, no more than worker.count requests are in progress."""
        HANDLER.works.clear()
        partitioning = {"enabled": True, "key_field": "payload", "partition_count": 16}
        gateway = Gateway(
            self, worker={**FAST, "count": 3, "handler": "tests.workers.test_pool:HANDLER"}, partitioning=partitioning
        )
        for number in range(20):
            await gateway.submit(str(number))
        await self.until(lambda: len(HANDLER.works) >= 3)
        await deferLater(reactor, 0.05)
        self.assertEqual(len(HANDLER.works), 3)
