"""Callbacks: what a receiver is sent, and what its answer means."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace
from prometheus_client import CollectorRegistry
from standardwebhooks import Webhook
from twisted.internet.error import ConnectionRefusedError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from openhqm.delivery.documents import response_document
from openhqm.errors import DestinationRefused
from openhqm.http1.calls import Fetched
from openhqm.http1.failures import AnswerTooLong, NotConnected
from openhqm.messages import Reply, Status
from openhqm.policy.callbacks import CALLBACK_URL
from openhqm.policy.destinations import DestinationPolicy
from openhqm.policy.retry import Schedule
from openhqm.policy.webhooks import read_secret
from openhqm.workers.callbacks import Calling
from openhqm.workers.metrics import WorkerMetrics
from tests.benches import MemoryBench
from tests.config.test_callbacks import SECRET
from tests.http1.test_guarded import PUBLIC, Fixture
from tests.workers.bench import WorkerBench
from tests.workers.test_egress import Client

URL = "https://example.com/done"
UNREACHABLE = NotConnected(Failure(ConnectionRefusedError()))
OTHER = SECRET[:-8] + "AAAAAAA="
REPLY = Reply("e2459c70-87e2-405c-b8a1-8ec252fd5be0", Status.COMPLETED, 1_000_000.0, result=b'{"b": 1.10, "a":2}')


def answer(status: int, **fields: str) -> Fetched:
    return Fetched(status, [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()], b"no")


class Rig:
    """A consumer that sends callbacks to a receiver in memory, on a schedule of two further attempts."""

    def __init__(self, *answers: Any, client: Any = None) -> None:
        self.client, backend = Client(*answers), MemoryBench()
        self.registry = CollectorRegistry()
        secrets, metrics = [read_secret(SECRET), read_secret(OTHER)], WorkerMetrics(self.registry)
        handler: Any = Calling(client or self.client, secrets, backend.clock, metrics)
        policy: Any = Schedule((5.0, 300.0), jitter=0)
        self.bench = self.client.bench = WorkerBench(handler, backend=backend, timeout=15.0, policy=policy)
        self.begun = backend.now()

    def begin(self, reply: Reply = REPLY, url: str = URL) -> str:
        id: str = self.bench.submit(b"null", metadata={CALLBACK_URL: url}, parent_reply=reply)
        return id

    def send(self, reply: Reply = REPLY, seconds: float = 400) -> Any:
        """Its record, some time after it was due."""
        id = self.begin(reply)
        self.bench.pass_time(seconds)
        return self.bench.record(id)

    def counted(self) -> dict[str, float | None]:
        """How many attempts the metric has, by their outcome."""
        return {
            each: self.registry.get_sample_value("openhqm_callbacks_total", {"outcome": each})
            for each in ("delivered", "retried", "dead")
        }

    @property
    def times(self) -> list[float]:
        return [round(at - self.begun, 1) for at in self.client.times]


class SendingTests(SynchronousTestCase):
    def test_sent(self) -> None:
        """The receiver is sent the response document, signed by each secret as Standard Webhooks has it."""
        for reply in (
            REPLY,
            replace(REPLY, status=Status.FAILED, result=None, error="no", status_code=502),
            replace(REPLY, status=Status.CANCELLED, result=None),
            replace(REPLY, result=None, body="Grüße".encode()),
        ):
            rig = Rig(answer(204))
            self.assertEqual(rig.send(reply, 1).status, Status.COMPLETED)
            ((method, url, fields, content),) = rig.client.calls
            self.assertEqual((method, url, content), ("POST", URL, response_document(reply)))
            self.assertEqual(fields["content-type"], "application/json")
            self.assertEqual(fields["webhook-id"], reply.correlation_id)
            for secret in (SECRET, OTHER):
                at = datetime.fromtimestamp(int(fields["webhook-timestamp"]), UTC)
                expected = Webhook(secret).sign(reply.correlation_id, at, (content or b"").decode())
                self.assertIn(expected, fields["webhook-signature"].split(" "))

    def test_again(self) -> None:
        """Every attempt has the same id and the same content, and the time of the attempt in its signature."""
        rig = Rig(answer(500), answer(503), answer(200))
        self.assertEqual(rig.send().status, Status.COMPLETED)
        self.assertEqual(rig.times, [0.0, 5.0, 305.0])
        self.assertEqual(
            {(fields["webhook-id"], content) for _, _, fields, content in rig.client.calls},
            {(REPLY.correlation_id, response_document(REPLY))},
        )
        self.assertEqual([fields["openhqm-attempt"] for _, _, fields, _ in rig.client.calls], ["1", "2", "3"])
        stamps = [int(fields["webhook-timestamp"]) for _, _, fields, _ in rig.client.calls]
        self.assertEqual([stamp - stamps[0] for stamp in stamps], [0, 5, 305])
        self.assertEqual(len({fields["webhook-signature"] for _, _, fields, _ in rig.client.calls}), 3)


class GuardTests(SynchronousTestCase):
    def test_changed_name(self) -> None:
        """A name that leads to this host, or into its network, from the second attempt on: no byte goes there."""
        for inside in ("127.0.0.1", "::1", "10.1.2.3", "169.254.169.254"):
            fixture = Fixture(DestinationPolicy(("http",), (80,)), hooks_example_com=[[PUBLIC], [inside]])
            rig = Rig(client=fixture.agent)
            id = rig.begin(url="http://hooks.example.com/done")
            rig.bench.pass_time(0.1)
            fixture.connect(PUBLIC)
            (server,) = fixture.servers
            server.dataReceived(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
            rig.bench.pass_time(400)
            self.assertEqual(fixture.zone.asked, 3 * ["hooks.example.com"], inside)
            self.assertEqual(fixture.connected_to, [(PUBLIC, 80)], inside)
            record = rig.bench.record(id)
            self.assertEqual((record.status, record.reply.attempt), (Status.FAILED, 3))
            self.assertIn("the destination is not allowed", record.reply.error)
            self.assertNotIn(inside, record.reply.error)


class AnswerTests(SynchronousTestCase):
    def test_dead(self) -> None:
        """What fails until the end of the schedule is a dead letter; a redirect is a failure, and is not followed."""
        for given in (
            answer(500),
            answer(404),
            answer(302, location="https://example.com/elsewhere"),
            UNREACHABLE,
            DestinationRefused("127.0.0.1"),
            AnswerTooLong("more than 65536 bytes"),
            None,
        ):
            rig = Rig(given)
            record = rig.send()
            self.assertIn(record.status, (Status.FAILED, Status.TIMEOUT), given)
            self.assertEqual({url for _, url, _, _ in rig.client.calls}, {URL})
            self.assertNotIn("127.0.0.1", record.reply.error)
            (letter,) = rig.bench.letters()
            self.assertEqual(letter.request.submission.metadata, {CALLBACK_URL: URL})

    def test_counted(self) -> None:
        """A receiver that cannot be reached, or does not answer in time, spends an attempt like any other."""
        for given, times in (
            (UNREACHABLE, [0.0, 5.0, 305.0]),
            (AnswerTooLong("more than 65536 bytes"), [0.0, 5.0, 305.0]),
            (None, [0.0, 20.0, 335.0]),
        ):
            rig = Rig(given)
            rig.send()
            self.assertEqual(rig.times, times, given)

    def test_metric(self) -> None:
        """The metric says what became of each attempt: delivered, followed by another, or the last in vain."""
        for answers, expected in (
            ((answer(500), answer(200)), (1, 1, 0)),
            ((answer(500),), (0, 2, 1)),
            ((answer(410),), (0, 0, 1)),
            ((None,), (0, 2, 1)),
        ):
            rig = Rig(*answers)
            rig.send()
            self.assertEqual(tuple(rig.counted().values()), expected, answers)

    def test_gone(self) -> None:
        """410 says that the receiver wants no more: nothing is sent again."""
        rig = Rig(answer(410))
        self.assertIs(rig.send(seconds=1).status, Status.FAILED)
        self.assertEqual(len(rig.client.calls), 1)

    def test_retry_after(self) -> None:
        """``Retry-After`` puts the next attempt off, never nearer, and for a day at most; other text is passed over."""
        for value, second in (
            ("60", 60.0),
            ("1", 5.0),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 5.0),
            ("soon", 5.0),
            ("\xe9", 5.0),
            ("-1", 5.0),
            ("99999999", 86400.0),
        ):
            rig = Rig(answer(429, retry_after=value), answer(200))
            rig.begin()
            rig.bench.pass_time(90_000)
            self.assertEqual(rig.times, [0.0, second], value)
