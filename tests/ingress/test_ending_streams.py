"""Streams over many requests by HTTP: what may be asked for, what is refused, and what a kill leaves."""

from __future__ import annotations

import gc
import json
import subprocess
import tracemalloc
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.trial.unittest import SynchronousTestCase

from openhqm.delivery.selection import MOST_IDS
from openhqm.messages import Submission
from openhqm.policy.tags import MOST_TAGS
from tests.http1.memory_server import Transport
from tests.ingress.test_fast_path import InMemoryServer
from tests.ingress.test_http import Case, parse_events
from tests.servers import ROOT, Server

UNKNOWN = "00000000-0000-4000-8000-000000000000"


class AnswersTests(SynchronousTestCase):
    """Both ways in which a stream can be served: by the fast path, and by the routes"""

    def setUp(self) -> None:
        self.servers = (InMemoryServer(True), InMemoryServer(False))

    def submit(self, server: InMemoryServer, *tags: str) -> str:
        body = json.dumps({"payload": 1, "metadata": {"tags": list(tags)}}).encode()
        answer = server.ask("POST", "/api/v1/submit", body, content_type="application/json")
        found: str = json.loads(answer.split(b"\r\n\r\n")[1])["correlation_id"]
        return found

    def test_refused(self) -> None:
        """A query that is wrong is answered 422 with its name, and an unknown id 404: no stream begins."""
        many = "&".join(f"id={UNKNOWN[:-3]}{number:03}" for number in range(MOST_IDS + 1))
        cases = (
            ("?tags=a", 422, "tags"),
            ("?tag=a&Id=1", 422, "Id"),
            (f"?tag=a&id={UNKNOWN}", 422, "tag"),
            ("?tag=", 422, "tag"),
            ("?tag=" + "x" * 129, 422, "tag"),
            ("?tag=%ff", 422, "tag"),
            ("?id=%ff", 422, "id"),
            ("?" + "&".join(f"tag={number}" for number in range(MOST_TAGS + 1)), 422, "tag"),
            ("?" + many, 422, "id"),
            ("?tag=" + "x" * 8_000, 422, "tag"),
            ("?" + "&".join(f"tag={number}" for number in range(1_000)), 422, "tag"),
            (f"?id={UNKNOWN}", 404, None),
            ("?id=", 404, None),
            ("?id=1%27%20OR%201", 404, None),
        )
        for query, status, field in cases:
            for server in self.servers:
                answer = server.ask("GET", f"/api/v1/events{query}")
                head, _, body = answer.partition(b"\r\n\r\n")
                self.assertTrue(head.startswith(b"HTTP/1.1 %d " % status), (query[:60], answer[:300]))
                self.assertEqual(json.loads(body).get("field"), field, query[:60])

    def test_too_long(self) -> None:
        """10,000 tags, and one of 64 KiB, do not fit into a request: 414 before any of it is looked at."""
        tags = "&".join(f"tag={number}" for number in range(10_000))
        for query in (tags, "tag=" + "x" * 65_536):
            for server in (InMemoryServer(True), InMemoryServer(False)):
                answer = server.ask("GET", f"/api/v1/events?{query}")
                self.assertTrue(answer.startswith(b"HTTP/1.1 414 "), answer[:200])

    def test_streamed(self) -> None:
        """What a stream has is the same in both ways: head, retry, cursor, then the endings that it was asked for."""
        for server in self.servers:
            answer = server.ask("GET", "/api/v1/events?tag=a%20b&tag=%C3%A9")
            head, _, body = answer.partition(b"\r\n\r\n")
            for line in (b"Content-Type: text/event-stream", b"Cache-Control: no-store", b"X-Accel-Buffering: no"):
                self.assertIn(line.lower(), head.lower())
            self.assertIn(b"retry: 3000", body)
            self.assertRegex(body, rb"id: [0-9a-f]{16}-0\nevent: cursor\ndata: {}\n\n")
            self.assertEqual(len(server.ending_streams), 1)
            self.complete(server, "\u00e9")
            self.assertIn(b"event: completed\ndata: {", server.take())
            self.complete(server, "b")
            self.assertEqual(server.take(), b"")

    def complete(self, server: InMemoryServer, tag: str) -> None:
        """A request with the tag is accepted, and ends."""
        submission = Submission(b"1", metadata={"tags": [tag]})
        server.bench.backend.done(server.bench.backend.queue.accept(submission, None))
        server.handler.answers[-1].callback("x")
        server.bench.backend.turn()

    def test_head(self) -> None:
        """HEAD has the head of a stream, and opens none."""
        for server in self.servers:
            answer = server.ask("HEAD", "/api/v1/events")
            self.assertTrue(answer.startswith(b"HTTP/1.1 200 "), answer)
            self.assertEqual(len(server.ending_streams), 0)

    def test_all_told(self) -> None:
        """A client that has the endings of all its requests is answered 204, on which an EventSource stops."""
        for server in self.servers:
            id = self.submit(server, "a")
            server.handler.answers[0].callback("x")
            server.bench.backend.turn()
            answer = server.ask("GET", f"/api/v1/events?id={id.upper()}")
            self.assertIn(b"event: completed", answer)
            blocks = answer.decode().replace("\r\n", "\n").split("\n")
            seen = next(line for line in reversed(blocks) if line.startswith("id: "))[4:]
            for how in ({"Last_Event_ID": seen}, {}):
                query = "" if how else f"&last_event_id={seen}"
                self.assertIn(b"HTTP/1.1 204 ", server.ask("GET", f"/api/v1/events?id={id}{query}", **how))

    def test_no_log(self) -> None:
        """A store of a user's own may keep no log of endings. The answer says what can be used instead."""
        for fast in (True, False):
            server = InMemoryServer(fast, ending_streams=False)
            answer = server.ask("GET", "/api/v1/events")
            self.assertTrue(answer.startswith(b"HTTP/1.1 501 "), answer)
            self.assertIn(b"/api/v1/events/{id}", answer)

    def test_memory(self) -> None:
        """An idle stream takes less than 3 KiB beside its socket: nothing of its request is kept."""
        server, count = self.servers[0], 200
        request = b"GET /api/v1/events?tag=%d HTTP/1.1\r\nHost: x\r\nUser-Agent: x\r\nAccept: */*\r\n\r\n"
        kept = []

        def open_one(number: int) -> None:
            protocol, transport = server.site.buildProtocol(None), Transport()
            protocol.makeConnection(transport)
            for piece in (request[:20], request[20:] % number):  # what comes in one piece may be cached
                protocol.dataReceived(piece)
            server.bench.backend.turn()
            self.assertIn(b"id: ", transport.value())
            transport.clear()
            kept.append((protocol, transport))

        open_one(count)
        tracemalloc.start()
        try:
            for number in range(count):
                open_one(number)
            gc.collect()
            ours = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, f"{ROOT}/openhqm/*")])
        finally:
            tracemalloc.stop()
        self.assertLess(sum(each.size for each in ours.statistics("filename")) / count, 3072)

    def test_tags_in_a_submission(self) -> None:
        """Tags that are too many or too long are refused with the submission, not dropped."""
        for tags in ([str(number) for number in range(10_000)], ["x" * 65_536], ["x" * 129], ["a"] * 21, [""], [1]):
            for server in self.servers:
                body = json.dumps({"payload": 1, "metadata": {"tags": tags}}).encode()
                answer = server.ask("POST", "/api/v1/submit", body, content_type="application/json")
                self.assertTrue(answer.startswith(b"HTTP/1.1 422 "), answer[:200])
                self.assertTrue(json.loads(answer.partition(b"\r\n\r\n")[2])["field"].startswith("metadata"))


class Curl:
    """``curl`` as a client of a stream, which writes what it gets into a file."""

    def __init__(self, case: SynchronousTestCase, directory: Path, server: Server, query: str, seen: str = "") -> None:
        self.file = directory / f"curl-{len(list(directory.iterdir()))}"
        url = f"http://127.0.0.1:{server.port}/api/v1/events{query}"
        command = ["curl", "-sSN", "--max-time", "60", "-o", str(self.file), url]
        if seen:
            command += ["-H", f"Last-Event-ID: {seen}"]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        case.addCleanup(self.process.wait)
        case.addCleanup(self.process.kill)

    @property
    def got(self) -> bytes:
        return self.file.read_bytes() if self.file.exists() else b""

    @property
    def seen(self) -> str:
        """The id of the last block that is complete."""
        whole = self.got.rpartition(b"\n\n")[0].decode()
        return next((line[4:] for line in reversed(whole.split("\n")) if line.startswith("id: ")), "")

    @property
    def told(self) -> list[str]:
        """The ids of the requests that it was told of."""
        whole = self.got.rpartition(b"\n\n")[0]
        events = [event for event in parse_events(whole) if event["event"] not in ("reset", "cursor")]
        return [json.loads(event["data"])["correlation_id"] for event in events]


class KilledTests(SynchronousTestCase):
    """A process on the embedded file, and curl"""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.server = Server(self.directory)
        self.server.start()
        self.addCleanup(lambda: self.server.process and self.server.process.poll() is None and self.server.kill())

    def curl(self, query: str, seen: str = "") -> Curl:
        return Curl(self, self.directory, self.server, query, seen)

    def test_killed(self) -> None:
        """kill -9 while endings are on their way: the client goes on where it was, and misses none, also none twice."""
        client = self.curl("?tag=t")
        self.server.until(lambda: client.seen, "the stream did not begin")
        ids: list[str] = []
        seen, told = client.seen, list[str]()
        for _ in range(3):
            ids += [self.server.submit(1, tags=["t"]) for _ in range(20)]
            self.server.kill()  # some have ended and were told, some have ended and were not, some have not ended
            client.process.wait()
            seen, told = client.seen or seen, told + client.told
            self.server.start()
            client = self.curl("?tag=t", seen)
        self.server.until(lambda: len(told) + len(client.told) >= len(ids), "something was missed")
        told += client.told
        self.assertEqual((len(told), set(told)), (len(ids), set(ids)))

    def test_stopped(self) -> None:
        """A process that is told to stop tells its clients when to come back, and ends their streams in order."""
        client = self.curl("?tag=t")
        self.server.until(lambda: client.seen, "the stream did not begin")
        self.assertEqual(self.server.stop(), 0)
        self.assertEqual(client.process.wait(), 0)
        self.assertRegex(client.got, rb"retry: [0-9]{4,5}\n\n\Z")

    def test_ids_over_a_restart(self) -> None:
        """A stream over ids that a process was stopped under ends with the last of them, at the next process."""
        ids = [self.server.submit(number) for number in range(3)]
        for id in ids:
            self.server.response(id)
        later = self.server.submit("later", delay=3)
        query = "?" + "&".join(f"id={quote(id)}" for id in (*ids, later))
        client = self.curl(query)
        self.server.until(lambda: len(client.told) == 3 and client.seen, "what has ended was not told")
        self.server.kill()
        client.process.wait()
        self.server.start()
        again = self.curl(query, client.seen)
        self.assertEqual(again.process.wait(), 0)
        self.assertEqual((sorted(client.told), again.told), (sorted(ids), [later]))
        last = self.curl(query, again.seen)
        self.assertEqual((last.process.wait(), last.got), (0, b""))


class ManyTests(Case):
    """One server that all share"""

    def test_metrics(self) -> None:
        """Streams, what was sent on them, and clients that may have missed something are counted."""
        id = self.server.submit(1)
        self.server.response(id)
        status, _, body = self.ask("GET", f"/api/v1/events?id={id}", headers={"Last-Event-ID": "none-1"})
        self.assertEqual(
            (status, [event["event"] for event in parse_events(body)]), (200, ["reset", "completed", "cursor"])
        )
        metrics = self.ask("GET", "/metrics")[2].decode()
        for line in (
            "openhqm_open_ending_streams 0.0",
            'openhqm_ending_streams_events_total{what="sent"} 1.0',
            'openhqm_ending_streams_events_total{what="reset"} 1.0',
        ):
            self.assertIn(line, metrics)

    def test_problems(self) -> None:
        """What is refused is a problem document, as everywhere."""
        self.problem(self.ask("GET", "/api/v1/events?tags=a"), 422)
        document: Any = self.problem(self.ask("GET", f"/api/v1/events?id={UNKNOWN}"), 404)
        self.assertEqual(document["correlation_id"], UNKNOWN)
