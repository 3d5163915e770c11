"""Batches: each submission in one is accepted or refused for itself."""

from __future__ import annotations

import gc
import json
import tracemalloc
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import InvalidRequest, NotDurable
from openhqm.ingress.batch import MOST_REQUESTS, read_batch
from tests.ingress.test_fast_path import InMemoryServer

BATCH = "/api/v1/batch"
JSON, NDJSON = "application/json", "application/x-ndjson"


class BatchCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = InMemoryServer(True)

    def post(self, body: bytes, content_type: str = JSON, **fields: str) -> tuple[int, Any]:
        answer = self.server.ask("POST", BATCH, body, content_type=content_type, **fields)
        head, _, content = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(content)

    def batch(self, *requests: Any, **fields: str) -> tuple[int, Any]:
        return self.post(json.dumps({"requests": requests}).encode(), **fields)

    def payloads(self) -> list[bytes]:
        """Those of the requests that the workers have received, in order."""
        found: list[bytes] = []
        while len(self.server.handler.works) > len(found):
            for work, answer in list(zip(self.server.handler.works, self.server.handler.answers, strict=True))[
                len(found) :
            ]:
                found.append(work.payload_text)
                answer.callback(None)
            self.server.bench.backend.turn()
        return found


class BatchTests(BatchCase):
    def test_each_for_itself(self) -> None:
        """Those that are sound are accepted in their order, and each other one is named with its problem."""
        status, outcome = self.batch(
            {"payload": 1},
            {"payload": 2, "metadata": {"priority": "urgent"}},
            {"payload": {"a": 3}, "headers": {"X-A": "1"}},
            7,
            {"payload": 5, "more": 1},
        )
        self.assertEqual(status, 202)
        self.assertEqual([each["index"] for each in outcome["accepted"]], [0, 2])
        self.assertEqual({each["status"] for each in outcome["accepted"]}, {"PENDING"})
        self.assertEqual(
            [(each["index"], each["problem"]["status"], each["problem"].get("field")) for each in outcome["rejected"]],
            [(1, 422, "metadata.priority"), (3, 400, None), (4, 422, "more")],
        )
        for each in outcome["accepted"]:
            answer = self.server.ask("GET", f"/api/v1/status/{each['correlation_id']}")
            self.assertTrue(answer.startswith(b"HTTP/1.1 200"), answer)
        self.assertEqual(self.payloads(), [b"1", b'{"a": 3}'])

    def test_lines(self) -> None:
        """NDJSON has a submission in each line: empty lines, CRLF and a last line without its end are no fault."""
        lines = b'{"payload":1}\r\n\n{"payload":"\xc3\xbc"}\n{"payload":'
        status, outcome = self.post(lines + b"3}", NDJSON)
        self.assertEqual((status, len(outcome["accepted"]), outcome["rejected"]), (202, 3, []))
        self.assertEqual(self.payloads(), [b"1", '"ü"'.encode(), b"3"])
        status, outcome = self.post(lines, NDJSON + "; charset=utf-8")
        self.assertEqual((status, [each["index"] for each in outcome["rejected"]]), (202, [2]))

    def test_bytes(self) -> None:
        """A payload is carried byte for byte, as in a submission of its own."""
        self.post(b'{"requests": [{"payload": {"b": 1.10,  "a": 123456789012345678901234567890}}]}')
        self.assertEqual(self.payloads(), [b'{"b": 1.10,  "a": 123456789012345678901234567890}'])

    def test_no_batch(self) -> None:
        """What is no batch is refused whole, and nothing of it is accepted."""
        for body, content_type, expected in (
            (b"", JSON, 400),
            (b"[]", JSON, 400),
            (b"{}", JSON, 422),
            (b'{"requests":{}}', JSON, 422),
            (b'{"requests":null}', JSON, 422),
            (b'{"requests":[]}', JSON, 422),
            (b'{"requests":[{"payload":1}],"more":1}', JSON, 422),
            (b'{"requests":[{"payload":1}],"requests":[]}', JSON, 400),
            (b'{"requests":[{"payload":1}', JSON, 400),
            (b'{"requests":[' + b"[" * 100 + b"]" * 100 + b"]}", JSON, 400),
            (b"", NDJSON, 422),
            (b"\n \n", NDJSON, 422),
            (b'{"payload":1}', "text/plain", 415),
            (b'{"payload":1}\n' * (MOST_REQUESTS + 1), NDJSON, 422),
            (b'{"requests":[' + b",".join([b'{"payload":1}'] * (MOST_REQUESTS + 1)) + b"]}", JSON, 422),
        ):
            status, problem = self.post(body, content_type)
            self.assertEqual((status, problem["status"]), (expected, expected), body[:60])
        self.assertEqual(self.post(b'{"requests":[{"payload":1}]}', idempotency_key="a b")[0], 400)
        self.assertEqual(self.payloads(), [])

    def test_millions(self) -> None:
        """What has far too many lines or elements is refused before they become objects, in little time and memory."""
        for body, content_type in (
            (b'{"requests":[' + b",".join([b"0"] * 5_000_000) + b"]}", JSON),
            (b"\n" * 10_000_000, NDJSON),
        ):
            tracemalloc.start()
            try:
                error: Any = self.assertRaises(InvalidRequest, read_batch, body, content_type)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            self.assertIn("must have at most", error.reason)
            self.assertLess(peak, 4 * len(body), content_type)

    def test_none_is_sound(self) -> None:
        """Where none is accepted the answer is no 202, and still says what is wrong with each."""
        status, problem = self.batch({}, 1)
        self.assertEqual((status, [each["index"] for each in problem["rejected"]]), (422, [0, 1]))

    def test_most(self) -> None:
        """A thousand are accepted, each once."""
        body = b"".join(b'{"payload":%d}\n' % number for number in range(MOST_REQUESTS))
        status, outcome = self.post(body, NDJSON)
        self.assertEqual((status, len({each["correlation_id"] for each in outcome["accepted"]})), (202, MOST_REQUESTS))
        self.assertEqual(self.payloads(), [b"%d" % number for number in range(MOST_REQUESTS)])

    def test_most_steps(self) -> None:
        """All requests of a batch together have at most a thousand steps: what goes beyond is refused, line by line."""
        chain = json.dumps({"payload": 1, "metadata": {"then": [{}] * 99}}).encode()
        status, outcome = self.post(b"\n".join([chain] * 12 + [b'{"payload":2}']), NDJSON)
        self.assertEqual((status, [each["index"] for each in outcome["accepted"]]), (202, [*range(10), 12]))
        refused = [(each["index"], each["problem"]["status"], each["problem"]["field"]) for each in outcome["rejected"]]
        self.assertEqual(refused, [(10, 422, "metadata"), (11, 422, "metadata")])

    def test_again(self) -> None:
        """Under a key a batch can be repeated: each place is the same request, or a conflict where it has changed."""
        first = self.batch({"payload": 1}, {"payload": 2}, idempotency_key="k")[1]["accepted"]
        _, outcome = self.batch({"payload": 1}, {"payload": 3}, {"payload": 4}, idempotency_key='"k"')
        self.assertEqual(outcome["accepted"][0], {**first[0], "replayed": True})
        self.assertEqual([each["index"] for each in outcome["accepted"]], [0, 2])
        self.assertEqual([(each["index"], each["problem"]["status"]) for each in outcome["rejected"]], [(1, 422)])
        self.assertEqual(self.payloads(), [b"1", b"2", b"4"])

    def test_not_stored(self) -> None:
        """Where nothing can be stored it is a 503 that says when to come again; where some can, it names the others."""
        queue, accept = self.server.bench.backend.queue, self.server.bench.backend.queue.accept
        refusals = [True, True, False, True]
        queue.accept = lambda *submission: (
            fail(NotDurable("/secret is full")) if refusals.pop(0) else accept(*submission)
        )
        answer = self.server.ask("POST", BATCH, b'{"requests":[{"payload":1},{"payload":2}]}', content_type=JSON)
        self.assertTrue(answer.startswith(b"HTTP/1.1 503"), answer)
        self.assertIn(b"Retry-After: ", answer)
        status, outcome = self.batch({"payload": 1}, {"payload": 2})
        self.assertEqual((status, [each["index"] for each in outcome["accepted"]]), (202, [0]))
        self.assertEqual([each["problem"]["status"] for each in outcome["rejected"]], [503])
        self.assertNotIn("/secret", json.dumps(outcome))

    def test_gone(self) -> None:
        """A caller that hangs up before its batch is stored leaves no error behind, also where it cannot be stored."""
        waiting: list[Deferred[Any]] = []
        self.server.bench.backend.queue.accept = lambda *submission: (waiting.append(Deferred()), waiting[-1])[1]
        body = b'{"requests":[{"payload":1},{"payload":2},{"payload":3}]}'
        self.assertEqual(self.server.ask("POST", BATCH, body, content_type=JSON), b"")
        self.assertEqual(len(waiting), 3)
        self.server.protocol.connectionLost()
        for each in waiting:
            if not each.called:
                each.errback(NotDurable("the disk is full"))
        waiting.clear()
        gc.collect()  # an error that is not handled is logged when its Deferred is freed
        self.assertEqual(self.flushLoggedErrors(), [])
