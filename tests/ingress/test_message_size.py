"""What the queue takes no message of is refused at the door, and everything else is not."""

from __future__ import annotations

import json
from typing import Any

from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openhqm.codec import encode_request, request_size
from openhqm.config.endpoints import APPLICATION
from openhqm.delivery.long_polling import LongPolls
from openhqm.errors import MessageTooLarge
from openhqm.http1.messages import FullRequest
from openhqm.ingress.door import Door
from openhqm.ingress.metrics import DoorMetrics
from openhqm.ingress.proxied import Proxied, proxied_submission
from openhqm.ingress.submission import read_submission
from openhqm.messages import Depth, Request, Submission
from openhqm.policy.addressing import Addressing
from openhqm.queue.message_size import GROWTH, OWN_BYTES, check_size
from openhqm.testing import REQUESTS
from tests import hypothesis_profile  # noqa: F401
from tests.ingress.test_fast_path import InMemoryServer
from tests.ingress.test_proxied import message

NOW = 1_700_000_000.25
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | TEXT | st.integers(-(2**63), 2**64 - 1) | st.floats(-1e300, 1e300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)
OWN = st.dictionaries(TEXT.map("x".__add__), VALUES, max_size=8)
HEADERS = st.dictionaries(
    st.from_regex(r"[a-z-]{1,10}\Z", fullmatch=True),
    st.from_regex(r'[\t !-~é"\\]{0,30}\Z', fullmatch=True),
    max_size=100,
)
FIELDS = st.lists(
    st.tuples(
        st.sampled_from([b"x-a", b"accept", b"x-forwarded-for", b"te"]),
        st.from_regex(rb'[\t !-~\xe9"\\]{0,30}', fullmatch=True),
    ),
    max_size=99,
)


def envelope(submission: Submission) -> int:
    """How long the message of an accepted request is."""
    return len(encode_request(Request("e2459c70-87e2-405c-b8a1-8ec252fd5be0", NOW, submission)))


class MessageSizeTests(SynchronousTestCase):
    """`check_size`"""

    def test_to_the_byte(self) -> None:
        """As long as the limit is taken, and one byte more is not; the error says both numbers."""
        for submission in (
            Submission(b'"' + b"a" * 5000 + b'"'),
            Submission(b"1", {f"X-{number}": "\u00e9" * 100 for number in range(30)}),
            Submission(b"1", metadata={"own": ["\t" * 3000]}),
            Submission(b"null", body=b"\xff" * 5000),
        ):
            size = request_size(submission)
            check_size(submission, 5000, size)
            error: Any = self.assertRaises(MessageTooLarge, check_size, submission, 5000, size - 1)
            self.assertEqual((error.size, error.limit), (size, size - 1))
            for number in (size, size - 1):
                self.assertIn(str(number), str(error))

    def test_what_is_stored(self) -> None:
        """It is the envelope of the accepted request that counts, up to the digits of its time."""
        for submission in (Submission(b"[1.10]"), Submission(b"null", {"A": "b"}, {"c": 1}, body=b"\0" * 99)):
            self.assertTrue(0 <= request_size(submission) - envelope(submission) <= 16)

    @given(VALUES, HEADERS, OWN, st.booleans())
    @example(1, {}, {"x": [1e15] * 500}, True)
    @example(1, {f"x-{number}": "" for number in range(100)}, {}, True)
    def test_no_envelope_is_longer(self, payload: Any, headers: Any, metadata: Any, plain: bool) -> None:
        """What is taken for small enough without a look at it is: no body grows by more than the bound."""
        document = {"payload": payload, "headers": headers, "metadata": metadata}
        body = json.dumps(document, ensure_ascii=plain, separators=(",", ":")).replace("1000000000000000.0", "1e15")
        submission = read_submission(body.encode(), NOW)
        self.assertLessEqual(envelope(submission), GROWTH * len(body.encode()) + OWN_BYTES)

    @given(FIELDS, st.binary(max_size=300))
    @example([(b"x-a", b"")] * 99, b"")
    def test_no_proxied_envelope_is_longer(self, fields: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Nor does a request for the application, with what is added on who asked."""
        came = message(b"PUT", b"/" + b"a" * 50, fields, body)
        received = len(body) + 51 + sum(len(name) + len(value) for name, value in came.head.headers)
        self.assertLessEqual(envelope(proxied_submission(came, b"openhqm-test")), GROWTH * received + OWN_BYTES)


class DoorTests(SynchronousTestCase):
    """A queue whose traits have a limit, behind the door"""

    def lane(self, short: bool, limit: int | None) -> InMemoryServer:
        lane = InMemoryServer(short)
        queue: Any = lane.bench.backend.queue
        queue.traits = evolve(queue.traits, largest_message=limit)
        return lane

    def depth(self, lane: InMemoryServer) -> Depth:
        depth: Depth = self.successResultOf(lane.bench.backend.queue.depth(REQUESTS))
        return depth

    def test_submit(self) -> None:
        """413 with the limit in bytes, on both ways to the door; nothing is stored, and the connection goes on."""
        document = json.dumps({"payload": "a" * 1000, "headers": {"X-A": "b" * 1000}}).encode()
        headers = {"content_type": "application/json", "idempotency_key": "k"}
        for short in (True, False):
            lane = self.lane(short, 2000)
            answer = lane.ask("POST", "/api/v1/submit", document, **headers)
            head, _, body = answer.partition(b"\r\n\r\n")
            self.assertTrue(head.startswith(b"HTTP/1.1 413 "), head)
            self.assertIn(b"application/problem+json", head)
            problem = json.loads(body)
            self.assertEqual((problem["status"], problem["largest_message"]), (413, 2000))
            self.assertIn("at most 2000", problem["detail"])
            small = lane.ask("POST", "/api/v1/submit", b'{"payload":1}', **headers)
            self.assertTrue(small.startswith(b"HTTP/1.1 202 "), small)
            self.assertNotIn(b"Idempotency-Replayed", small)

    def test_no_limit(self) -> None:
        """Where the queue has none, or one that is not reached, nothing is refused."""
        document = json.dumps({"payload": "a" * 5000}).encode()
        for limit in (None, 5200):
            answer = self.lane(True, limit).ask("POST", "/api/v1/submit", document, content_type="application/json")
            self.assertTrue(answer.startswith(b"HTTP/1.1 202 "), answer)

    def test_known_late(self) -> None:
        """A limit that is known only once the broker was reached counts from then on."""
        lane = self.lane(True, None)
        document = json.dumps({"payload": "a" * 5000}).encode()
        for limit, status in ((None, b"202"), (5000, b"413"), (6000, b"202")):
            queue: Any = lane.bench.backend.queue
            queue.traits = evolve(queue.traits, largest_message=limit)
            answer = lane.ask("POST", "/api/v1/submit", document, content_type="application/json")
            self.assertTrue(answer.startswith(b"HTTP/1.1 " + status), answer)

    def test_sidecar(self) -> None:
        """A request for the application that waits in the queue counts with its base64, and is refused alike."""
        lane = self.lane(True, 2000)
        bench: Any = lane.bench.backend
        door = Door(
            bench.queue,
            bench.store,
            LongPolls(bench.store, bench.clock),
            bench.clock,
            DoorMetrics(CollectorRegistry()),
            longest_wait=60,
            addressing=Addressing(endpoints=(APPLICATION,), default=APPLICATION),
        )
        queued = Proxied(door, b"openhqm-test")

        def ask(came: FullRequest) -> Any:
            waiting = Deferred.fromCoroutine(queued(came, None))
            lane.bench.backend.turn()
            return waiting

        self.assertEqual(self.successResultOf(ask(message(b"POST", b"/a", [], b"\xff" * 500))).status, 202)
        error = self.failureResultOf(ask(message(b"POST", b"/a", [], b"\xff" * 1400)), MessageTooLarge)
        self.assertEqual(error.value.limit, 2000)
        self.assertEqual(self.depth(lane).ready + self.depth(lane).in_flight, 1)
