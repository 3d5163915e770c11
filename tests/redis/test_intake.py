"""Messages of other programs, added to a real Redis as they do it: what the target sees, and what comes back."""

from __future__ import annotations

import json
import random
import subprocess
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from openhqm.bridges.bridge import OUTCOMES, Bridge
from openhqm.bridges.formats import Formats
from openhqm.bridges.held_claims import HeldClaims
from openhqm.bridges.reading import Reader
from openhqm.codec import decode_dead_letter, encode_request
from openhqm.config.bridges import Source
from openhqm.config.inbox import MOST, Inbox
from openhqm.ingress.submission import check_submission, read_submission
from openhqm.messages import Reply, Request, Status, Submission
from openhqm.policy.addressing import Addressing
from openhqm.policy.limits import NO_LIMITS, Limits
from openhqm.redis.address import parse_address
from openhqm.redis.foreign import RedisStreams
from openhqm.runtime.counting import Counts
from openhqm.testing import DEAD_LETTERS, REQUESTS
from tests.brokers import RedisServer
from tests.redis.bench import Instance
from tests.redis.proxy import CuttingProxy
from tests.redis.real_server import RealRedisTestCase
from tests.servers import Server

INBOX = "openhqm-requests"
MOST_BYTES = 1000


def entries(server: RedisServer, stream: str) -> list[dict[str, bytes]]:
    """The entries of a stream."""
    return [
        {name.decode(): value for name, value in zip(fields[::2], fields[1::2], strict=True)}
        for _, fields in server.command("XRANGE", stream, "-", "+")
    ]


class IntakeTests(RealRedisTestCase):
    """Adopting, without a process of its own"""

    async def intake(
        self,
        url: str,
        format: str = "auto",
        addressing: Addressing | None = None,
        lease: float = 60.0,
        answers: str | None = None,
        limits: Limits = NO_LIMITS,
    ) -> tuple[Instance, Bridge]:
        one = await self.instance(url, lease, limits)
        made = self.bridge(one, url, format, addressing, answers)
        made.start()
        return one, made

    def bridge(
        self,
        one: Instance,
        url: str,
        format: str = "auto",
        addressing: Addressing | None = None,
        answers: str | None = None,
    ) -> Bridge:
        broker = RedisStreams(parse_address(url), "t:", reactor, random.random, seconds=5.0, deletes=True)
        settings = Inbox("b", Source.of("b", "stream", INBOX, format), queue_replies=True, answers=answers)

        def fault(channel: str) -> str | None:
            return "is read here" if channel == INBOX else broker.fault(channel)

        rules = Formats(read_submission, check_submission)
        made = Bridge(
            "b",
            broker,
            [INBOX],
            "openhqm/b",
            Reader(settings, addressing or Addressing(), rules, fault, MOST_BYTES),
            one.queue,
            reactor,
            random.random,
            Counts("messages", "Messages.", "outcome", OUTCOMES, CollectorRegistry()),
            HeldClaims(one.store, reactor, broker.acks, settings.seen_seconds),  # type: ignore[arg-type]
            most=MOST,
        )

        def stop() -> Deferred[None]:
            return made.stop().addCallback(lambda _: broker.stop())

        self.addCleanup(stop)
        broker.start()
        return made

    async def receive_one(self, one: Instance) -> Any:
        (delivery,) = await one.queue.receive(REQUESTS, 1)
        return delivery

    async def letters(self, one: Instance, server: RedisServer, count: int) -> list[Any]:
        await self.until(lambda: server.command("XLEN", f"t:dead:{DEAD_LETTERS}") >= count, "no dead letter")
        return [letter for _, letter in await one.queue.dead_letters(0, 100)]

    async def test_full(self) -> None:
        """A message waits in the inbox while the queue is full, and comes once there is room."""
        server = await self.server()
        one, _ = await self.intake(server.url, limits=Limits(requests=1))
        for number in range(2):
            server.command("XADD", INBOX, "*", "payload", str(number))
        delivery = await self.receive_one(one)
        self.assertEqual((delivery.request.submission.payload, server.command("XLEN", INBOX)), (b"0", 1))
        await delivery.settle(Reply(delivery.request.correlation_id, Status.COMPLETED, 1.0))
        self.assertEqual((await self.receive_one(one)).request.submission.payload, b"1")

    async def test_never_fits(self) -> None:
        """A message that would not fit into an empty queue is a dead letter."""
        server = await self.server()
        one, _ = await self.intake(server.url, limits=Limits(bytes=500))
        server.command("XADD", INBOX, "*", "payload", "9" * 600)
        (letter,) = await self.letters(one, server, 1)
        self.assertIn("500", letter.reason)
        await self.until(lambda: server.command("XLEN", INBOX) == 0, "it is not deleted")

    async def test_dropped(self) -> None:
        """A message that makes room ends in its stream, too, with the id of its message."""
        server = await self.server()
        one, _ = await self.intake(server.url, limits=Limits(requests=1, drop_oldest=True))
        id = server.command("XADD", INBOX, "*", "payload", "1", "reply_to", "answers")
        await self.until(lambda: server.command("XLEN", INBOX) == 0, "it is not adopted")
        await one.queue.accept(Submission(b"2"), None)
        (answer,) = entries(server, "answers")
        self.assertEqual((answer["in_reply_to"], answer["status"], answer["status_code"]), (id, b"FAILED", b"503"))

    async def test_before_the_connection(self) -> None:
        """What waits in the inbox is adopted when Redis is connected. Until then nothing has failed."""
        server = RedisServer()
        self.addCleanup(server.close)
        one = Instance(server.url, "t:", None)
        self.addCleanup(one.stop)
        intake = self.bridge(one, server.url)
        with capturedLogs() as logged:
            await one.queue.start()
            intake.start()
            waiting = one.queue.receive(REQUESTS, 1)
            await one.redis.when_probed()
            server.start()
            server.command("XADD", INBOX, "*", "payload", "7")
            (delivery,) = await waiting
        self.assertEqual(delivery.request.submission.payload, b"7")
        self.assertEqual([event for event in logged if event["log_level"] >= LogLevel.error], [])

    async def test_once(self) -> None:
        """Several processes read the same messages; each is adopted once, and nothing is left in the inbox."""
        server = await self.server()
        for number in range(300):
            server.command("XADD", INBOX, "*", "payload", str(number))
        several = [await self.intake(server.url) for _ in range(3)]
        await self.until(lambda: server.command("XLEN", INBOX) == 0, "not all are adopted")
        seen: list[int] = []
        while len(seen) < 300:
            deliveries = await several[len(seen) % 3][0].queue.receive(REQUESTS, 50)
            seen += [int(delivery.request.submission.payload) for delivery in deliveries]
        self.assertEqual(sorted(seen), list(range(300)))
        self.assertEqual((await several[0][0].queue.depth(REQUESTS)).ready, 0)

    async def test_ending_and_reply(self) -> None:
        """A reply stands in its stream with the ending, once; where none was asked for, there is none."""
        server = await self.server()
        one, _ = await self.intake(server.url)
        id = server.command("XADD", INBOX, "*", "payload", "1", "reply_to", "answers", "X-Kind", "order")
        delivery = await self.receive_one(one)
        self.assertEqual(delivery.request.submission.headers, {"X-Kind": "order"})
        reply = Reply(delivery.request.correlation_id, Status.COMPLETED, 1.0, b"[2]", headers={"X-A": "b"})
        await delivery.settle(reply)
        (answer,) = entries(server, "answers")
        self.assertEqual(
            answer,
            {
                "in_reply_to": id,
                "correlation_id": delivery.request.correlation_id.encode(),
                "status": b"COMPLETED",
                "status_code": b"200",
                "payload": b"[2]",
                "X-A": b"b",
            },
        )
        server.command("XADD", INBOX, "*", "payload", "2")
        delivery = await self.receive_one(one)
        await delivery.settle(Reply(delivery.request.correlation_id, Status.COMPLETED, 1.0))
        self.assertEqual(len(entries(server, "answers")), 1)

    async def test_response_queue(self) -> None:
        """Where one stream is there for replies, it has those that were asked for nowhere else, refusals too."""
        server = await self.server()
        one, _ = await self.intake(server.url, "json", answers="responses")
        server.command("XADD", INBOX, "*", "payload", "1")
        delivery = await self.receive_one(one)
        await delivery.settle(Reply(delivery.request.correlation_id, Status.COMPLETED, 1.0, b"[1]"))
        server.command("XADD", INBOX, "*", "payload", "2", "reply_to", "elsewhere")
        delivery = await self.receive_one(one)
        await delivery.settle(Reply(delivery.request.correlation_id, Status.COMPLETED, 1.0, b"[2]"))
        server.command("XADD", INBOX, "*", "payload", "{no JSON")
        await self.until(lambda: server.command("XLEN", "responses") == 2, "no refusal")
        answered, refused = entries(server, "responses")
        self.assertEqual((answered["payload"], refused["status"]), (b"[1]", b"FAILED"))
        self.assertEqual([answer["payload"] for answer in entries(server, "elsewhere")], [b"[2]"])

    async def test_every_ending(self) -> None:
        """A dead letter, a cancelled request and one past its deadline are answered, too."""
        server = await self.server()
        one, _ = await self.intake(server.url)
        server.command("XADD", INBOX, "*", "payload", "1", "reply_to", "answers")
        delivery = await self.receive_one(one)
        await delivery.dead_letter("no", Reply(delivery.request.correlation_id, Status.FAILED, 1.0, error="no luck"))
        server.command("XADD", INBOX, "*", "payload", "2", "reply_to", "answers")
        delivery = await self.receive_one(one)
        await one.store.cancel(delivery.request.correlation_id)
        envelope = encode_request(Request("", 1.0, Submission(b"3", timeout=0.2)))
        server.command("XADD", INBOX, "*", "payload", envelope, "reply_to", "answers")
        await self.until(lambda: server.command("XLEN", "answers") == 3, "not all are answered")
        self.assertEqual(
            [(entry["status"], entry["error"][:12]) for entry in entries(server, "answers")],
            [(b"FAILED", b"no luck"), (b"CANCELLED", b"cancelled by"), (b"TIMEOUT", b"the deadline")],
        )

    async def test_redriven(self) -> None:
        """A dead letter that is redriven still knows where its reply is to go."""
        server = await self.server()
        one, _ = await self.intake(server.url)
        id = server.command("XADD", INBOX, "*", "payload", "1", "reply_to", "answers")
        delivery = await self.receive_one(one)
        await delivery.dead_letter("no", Reply(delivery.request.correlation_id, Status.FAILED, 1.0))
        await one.queue.redrive(1)
        delivery = await self.receive_one(one)
        await delivery.settle(Reply(delivery.request.correlation_id, Status.COMPLETED, 1.0))
        found = [(entry["status"], entry["in_reply_to"]) for entry in entries(server, "answers")]
        self.assertEqual(found, [(b"FAILED", id), (b"COMPLETED", id)])

    async def test_reply_stream_that_is_none(self) -> None:
        """Where the reply's stream takes nothing, the request ends all the same, and the log says it."""
        server = await self.server()
        server.command("SET", "answers", "mine")
        one, _ = await self.intake(server.url)
        server.command("XADD", INBOX, "*", "payload", "1", "reply_to", "answers")
        delivery = await self.receive_one(one)
        reply = Reply(delivery.request.correlation_id, Status.COMPLETED, 1.0, b"2")
        self.assertTrue(await delivery.settle(reply))
        self.assertEqual((await one.store.find(delivery.request.correlation_id)).reply, reply)

    async def test_unreadable(self) -> None:
        """What cannot be read is a dead letter with its bytes, answered, and out of the way of the next one."""
        server = await self.server()
        one, _ = await self.intake(server.url, "json")
        id = server.command("XADD", INBOX, "*", "payload", b"\xff\x00{", "reply_to", "answers", "X-A", "1")
        server.command("XADD", INBOX, "*", "payload", "2", "X-A", "a\nb", "X-B", "2")
        server.command("XADD", INBOX, "*", "a", "2", "b", b"\xff")
        server.command("XADD", INBOX, "*", "payload", "3", "reply_to", INBOX)
        server.command("XADD", INBOX, "*", "payload", "4" * (MOST_BYTES + 1))
        server.command("XADD", INBOX, "*", "payload", "5")
        delivery = await self.receive_one(one)
        self.assertEqual(delivery.request.submission.payload, b"5")
        found = await self.letters(one, server, 5)
        by_body = {letter.request.submission.body: letter for letter in found}
        self.assertEqual(set(by_body), {b"\xff\x00{", b"2", b"a: 2\nb: \xff", b"3", b"4" * MOST_BYTES})
        letter = by_body[b"\xff\x00{"]
        self.assertIn("not JSON", letter.reason)
        self.assertEqual(letter.request.submission.metadata["fields"], {"X-A": "1"})
        self.assertEqual(by_body[b"2"].request.submission.metadata["fields"], {"X-A": "a\nb", "X-B": "2"})
        (answer,) = entries(server, "answers")
        self.assertEqual((answer["status"], answer["in_reply_to"]), (b"FAILED", id))
        self.assertEqual(answer["correlation_id"].decode(), letter.request.correlation_id)
        await self.until(lambda: server.command("XLEN", INBOX) == 0, "not all are deleted")

    async def test_envelopes(self) -> None:
        """Ours is taken with all that it asks for; what the door would not take is not taken here either."""
        server = await self.server()
        one, _ = await self.intake(server.url)
        wanted = Submission(b'{"a":1}', {"X-A": "1"}, {"method": "PUT"}, endpoint="nowhere", reply_to="answers")
        server.command("XADD", INBOX, "*", "payload", encode_request(Request("x", 1.0, wanted)), "X-B", "2")
        submission = (await self.receive_one(one)).request.submission
        self.assertEqual((submission.payload, submission.headers), (b'{"a":1}', {"X-A": "1", "X-B": "2"}))
        self.assertEqual((submission.metadata["method"], submission.reply_to), ("PUT", "answers"))
        self.assertIsNone(submission.endpoint)
        broken = [
            encode_request(Request("x", 1.0, Submission(b"1", **asked)))
            for asked in (
                {"metadata": {"path": "/../admin"}},
                {"headers": {"X": "a\r\nb"}},
                {"timeout": -1.0},
                {"not_before": 1e30},
                {"reply_to": INBOX},
            )
        ]
        broken.append(b'{"openhqm":2}')
        for content in broken:
            server.command("XADD", INBOX, "*", "payload", content)
        found = await self.letters(one, server, len(broken))
        self.assertEqual({letter.request.submission.body for letter in found}, set(broken))

    async def test_nobody_would_work(self) -> None:
        """What no route takes is a dead letter; what one takes lands in its queue."""
        server = await self.server()
        one, _ = await self.intake(server.url, addressing=Addressing(endpoints=("a",)))
        server.command("XADD", INBOX, "*", "payload", "1")
        content = encode_request(Request("x", 1.0, Submission(b"2", metadata={"endpoint": "a"})))
        server.command("XADD", INBOX, "*", "payload", content)
        (delivery,) = await one.queue.receive(f"{REQUESTS}.a", 1)
        self.assertEqual(delivery.request.submission.payload, b"2")
        (letter,) = await self.letters(one, server, 1)
        self.assertIn("no default endpoint", letter.reason)

    async def test_redis_away(self) -> None:
        """Redis killed and started again, an inbox that is no stream for a while: it goes on by itself."""
        server = await self.server()
        one, _ = await self.intake(server.url)
        server.kill()
        await self.until(lambda: one.queue.unavailable_reason, "it was not noticed")
        server.start()
        server.command("SET", INBOX, "no stream")
        await self.until(lambda: not one.queue.unavailable_reason, "not connected again")
        server.command("DEL", INBOX)
        server.command("XADD", INBOX, "*", "payload", "1")
        self.assertEqual((await self.receive_one(one)).request.submission.payload, b"1")

    async def test_lost_answer(self) -> None:
        """A message that was adopted, and whose answer got lost, is not adopted again."""
        from twisted.internet import reactor

        server = await self.server()
        proxy = CuttingProxy(reactor, server.port)
        self.addCleanup(proxy.stop)
        one, _ = await self.intake(f"redis://127.0.0.1:{proxy.own_port}/0")
        await one.quiet()
        proxy.cut_answer_to(b'"payload":"special"')
        server.command("XADD", INBOX, "*", "payload", '"special"')
        await self.until(lambda: server.command("XLEN", INBOX) == 0, "not adopted")
        server.command("XADD", INBOX, "*", "payload", "2")
        found = [(await self.receive_one(one)).request.submission.payload for _ in range(2)]
        self.assertEqual(found, [b'"special"', b"2"])
        self.assertEqual((await one.queue.depth(REQUESTS)).ready, 0)

    async def test_stop(self) -> None:
        """Stopped, it adopts nothing more; the message stays for the next process."""
        server = await self.server()
        one, intake = await self.intake(server.url)
        await intake.stop()
        server.command("XADD", INBOX, "*", "payload", "1")
        await one.quiet()
        self.assertEqual(server.command("XLEN", INBOX), 1)


class Target:
    """An HTTP service that keeps what it was asked, and answers after ``delay`` seconds. ``port`` 0: any."""

    delay = 0.0

    def __init__(self, port: int = 0) -> None:
        self.asked: list[tuple[dict[str, str], bytes]] = []
        self.paths: list[str] = []
        target = self

        class Service(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                target.paths.append(self.path)
                target.asked.append(({name.lower(): value for name, value in self.headers.items()}, body))
                time.sleep(target.delay)
                self.send_response(200)
                self.send_header("Content-Type", "application/octet-stream")
                self.send_header("X-Target", "yes")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Service)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class ProcessTests(SynchronousTestCase):
    """Whole processes without a door"""

    def setUp(self) -> None:
        self.redis = RedisServer().start()
        self.addCleanup(self.redis.close)
        self.target = Target()
        self.addCleanup(self.target.close)

    def start(self, before: str = "") -> subprocess.Popen[bytes]:
        directory = Path(self.mktemp())
        directory.mkdir()
        server = Server(
            directory,
            before,
            OPENHQM_SERVER__ENABLED="false",
            OPENHQM_QUEUE__TYPE="redis",
            OPENHQM_QUEUE__REDIS_URL=self.redis.url,
            OPENHQM_QUEUE__LEASE_SECONDS="2",
            OPENHQM_PROXY__ENABLED="true",
            OPENHQM_PROXY__DEFAULT_ENDPOINT="a",
            OPENHQM_PROXY__ENDPOINTS=json.dumps({"a": {"url": self.target.url}}),
            OPENHQM_PROXY__FORWARD_HEADERS=json.dumps(["X-Kind"]),
        )
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                server.command(), cwd=directory, env=server.variables(), stdout=log, stderr=subprocess.STDOUT
            )

        def end() -> None:
            process.kill()
            process.wait()

        self.addCleanup(end)
        return process

    def until(self, holds: Callable[[], Any], otherwise: str) -> None:
        deadline = time.monotonic() + 30
        while not holds():
            self.assertLess(time.monotonic(), deadline, otherwise)
            time.sleep(0.02)

    def test_queue_to_http(self) -> None:
        """JSON, bytes and an envelope reach the target with their headers, and the replies their stream."""
        process = self.start()
        add = self.redis.command
        envelope = encode_request(Request("", 1.0, Submission(b'{"c":3}', {"X-Kind": "own"})))
        for content, kind in ((b'{"a":1}', "order"), (b"\xff\x00", "bytes"), (envelope, "ignored")):
            add("XADD", INBOX, "*", "payload", content, "X-Kind", kind, "reply_to", "answers")
        add("XADD", INBOX, "*", "payload", b'{"openhqm":99}', "reply_to", "answers")
        self.until(lambda: add("XLEN", "answers") == 4, "not all are answered")
        asked = {headers["x-kind"]: body for headers, body in self.target.asked}
        self.assertEqual(asked, {"order": b'{"a":1}', "bytes": b"\xff\x00", "own": b'{"c":3}'})
        answers = entries(self.redis, "answers")
        done = [answer for answer in answers if answer["status"] == b"COMPLETED"]
        self.assertEqual({answer["payload"] for answer in done}, set(asked.values()))
        self.assertEqual({answer["X-Target"] for answer in done}, {b"yes"})
        (letter,) = entries(self.redis, "{openhqm}:dead:openhqm-dlq")
        self.assertEqual(decode_dead_letter(letter["letter"]).request.submission.body, b'{"openhqm":99}')
        process.terminate()
        self.assertEqual(process.wait(30), 0)

    def killed(self, method: str) -> None:
        """A process is killed inside ``method``, and two others go on."""
        killed = self.start(
            "import os, signal\n"
            "from openhqm.bridges.bridge import Bridge\n"
            f"Bridge.{method} = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)"
        )
        for number in range(20):
            self.redis.command("XADD", INBOX, "*", "payload", str(number), "reply_to", "answers")
        self.assertEqual(killed.wait(30), -9)
        self.assertEqual(self.redis.command("XLEN", INBOX), 20)
        for _ in range(2):
            self.start()
        self.until(lambda: self.redis.command("XLEN", "answers") >= 20, "not all are answered")
        self.until(lambda: self.redis.command("XLEN", INBOX) == 0, "not all are deleted")
        self.until(lambda: self.redis.command("ZCARD", "{openhqm}:open") == 0, "not all have ended")
        self.assertEqual(len(self.redis.command("KEYS", "{openhqm}:r:*")), 20)
        self.assertEqual(self.redis.command("XLEN", "answers"), 20)
        self.assertEqual({int(body) for _, body in self.target.asked}, set(range(20)))

    def test_killed_before(self) -> None:
        """A process that is killed after reading and before accepting loses nothing; another one does the work."""
        self.killed("_accept")

    def test_killed_between(self) -> None:
        """What is accepted and not acknowledged when a process is killed is recognised: it is one request."""
        self.killed("_ack")
