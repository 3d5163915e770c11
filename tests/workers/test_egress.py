"""Forwarding: what a target is sent, what its answer means, and what is stored of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry
from service_identity import VerificationError
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from openhqm.delivery.long_polling import LongPolls
from openhqm.errors import DestinationRefused
from openhqm.http1.calls import Fetched
from openhqm.http1.failures import AnswerTooLong, CallFailed, NotConnected
from openhqm.ingress.door import Door
from openhqm.ingress.metrics import DoorMetrics
from openhqm.messages import Status, Submission
from openhqm.policy.breaker import Breaker, BreakerPolicy
from openhqm.policy.fields import Field
from openhqm.policy.forwarding import Target
from openhqm.policy.routing import CompiledRoute, Condition, RouteTable
from openhqm.policy.transforms import compile_transform
from openhqm.workers.credentials import Credentials, Fixed
from openhqm.workers.egress import Egress
from openhqm.workers.gate import Gate
from openhqm.workers.handlers import Unreachable, no_token
from tests.benches import MemoryBench
from tests.workers.bench import WorkerBench

JSON = {"Content-Type": "application/json"}


def Answer(code: int, body: bytes = b"", fields: Mapping[str, str] = JSON) -> Fetched:
    """An answer, whose fields go over the wire in UTF-8."""
    return Fetched(code, [(name.encode(), value.encode()) for name, value in fields.items()], body)


class Client:
    """A client that gives one answer for each call, and the last one for ever; None: it does not answer."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[str, str, dict[str, str], bytes | None]] = []
        self.times: list[float] = []
        self.cancelled = 0
        self.bench: Any = None

    def fetch(self, method: bytes, url: bytes, fields: Any, content: bytes | None, most: int) -> Deferred[Any]:
        named = {name.decode().lower(): value.decode() for name, value in fields}
        self.calls.append((method.decode(), url.decode(), named, content))
        self.times.append(self.bench.backend.now())
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if found is None:
            return Deferred(self._cancelled)
        return fail(found) if isinstance(found, Exception) else succeed(found)

    def _cancelled(self, _: Any) -> None:
        self.cancelled += 1


class Rig:
    """A consumer whose handler forwards to a target in memory."""

    def __init__(
        self,
        *answers: Any,
        target: Target | None = None,
        credentials: Credentials | None = None,
        routes: RouteTable | None = None,
        most: int = 1000,
        tokens: bool = False,
    ) -> None:
        self.client = Client(*answers)
        target = target or Target("billing", "http://billing.test/base")
        handler: Any = None

        def handle(work: Any) -> Any:
            return handler(work)

        self.bench = self.client.bench = WorkerBench(handle)
        clock, token_of = self.bench.backend.clock, self.bench.backend.store.completion_token if tokens else no_token
        handler = Egress(target, self.client, credentials or Fixed({}), routes or RouteTable(), clock, most, token_of)

    def done(self, payload: bytes = b"1", seconds: float = 20, **fields: Any) -> Any:
        """The record of a request, some time after it was submitted."""
        self.id = self.bench.submit(payload, **fields)
        self.bench.pass_time(seconds)
        return self.bench.record(self.id)

    def served(self) -> Any:
        """What ``GET /response/{id}/body`` answers."""
        backend = self.bench.backend
        waiting = LongPolls(backend.store, backend.clock)
        door = Door(
            backend.queue, backend.store, waiting, backend.clock, DoorMetrics(CollectorRegistry()), longest_wait=1
        )
        found: list[Any] = []
        Deferred.fromCoroutine(door.body(self.id, None)).addCallback(found.append)
        return found[0]


class RequestTests(SynchronousTestCase):
    def test_about(self) -> None:
        """The target is told the request's id, the attempt, the number of attempts, the deadline and an idempotency
        key."""
        rig = Rig(Answer(503), Answer(200, b"1"))
        trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        rig.done(b'{"a": 1}', headers=trace)
        first, second = rig.client.calls
        self.assertEqual((first[0], first[1], first[3]), ("POST", "http://billing.test/base", b'{"a": 1}'))
        self.assertEqual(
            first[2],
            {
                "content-type": "application/json",
                "openhqm-correlation-id": rig.id,
                "openhqm-attempt": "1",
                "openhqm-max-attempts": "4",
                "openhqm-last-attempt": "false",
                "openhqm-deadline": "1970-01-12T13:47:30.000Z",  # 1,000,000 s and the 50 s of an attempt
                "idempotency-key": rig.id,
                "traceparent": trace["traceparent"],
            },
        )
        self.assertEqual(second[2]["openhqm-attempt"], "2")
        self.assertEqual(second[2]["idempotency-key"], rig.id)

    def test_each_attempt(self) -> None:
        """Each attempt says which it is and whether it is the last. The idempotency key stays, also over redrives."""
        rig = Rig(Answer(503))
        rig.done(seconds=60)
        first = rig.id
        for _ in range(2):
            ((number, _),) = self.successResultOf(rig.bench.backend.queue.dead_letters(0, 100))
            self.successResultOf(rig.bench.backend.queue.redrive(number))
            rig.bench.pass_time(60)
        told = [
            tuple(fields[f"openhqm-{name}"] for name in ("attempt", "max-attempts", "last-attempt"))
            for _, _, fields, _ in rig.client.calls
        ]
        once = [("1", "4", "false"), ("2", "4", "false"), ("3", "4", "false"), ("4", "4", "true")]
        self.assertEqual(told, once * 3)
        self.assertEqual({fields["idempotency-key"] for _, _, fields, _ in rig.client.calls}, {first})
        self.assertEqual(len({fields["openhqm-correlation-id"] for _, _, fields, _ in rig.client.calls}), 3)

    def test_own_key(self) -> None:
        """An idempotency key that the caller has given stands in the place of ours: in each attempt, and redriven."""
        rig = Rig(Answer(503))
        rig.done(seconds=60, headers={"idempotency-Key": "order-7"})
        ((number, _),) = self.successResultOf(rig.bench.backend.queue.dead_letters(0, 100))
        self.successResultOf(rig.bench.backend.queue.redrive(number))
        rig.bench.pass_time(60)
        self.assertEqual([fields["idempotency-key"] for _, _, fields, _ in rig.client.calls], ["order-7"] * 8)

    def test_replayed(self) -> None:
        """The target is told which requests are of a bridge's backlog, and when they were accepted."""
        backend, client = MemoryBench(), Client(Answer(200, b"1"))
        for name in ("plant", "plant", "other"):
            backend.queue.accept(Submission(b"1", metadata={"bridge": name}), None)
        backend.pass_time(60)
        egress = Egress(Target("billing", "http://billing.test/"), client, Fixed({}), RouteTable(), backend.clock, 1000)
        gate = Gate(backend.clock, Breaker(BreakerPolicy()), limit=64, replay_rates={"plant": 0.1})
        client.bench = SimpleNamespace(backend=backend)
        bench = WorkerBench(egress, backend=backend, gate=gate, count=3)
        bench.submit(metadata={"bridge": "plant"})
        backend.pass_time(10)
        told = [
            (fields.get("openhqm-replayed"), fields.get("openhqm-submitted-at"), at - client.times[0])
            for (_, _, fields, _), at in zip(client.calls, client.times, strict=True)
        ]
        accepted = "1970-01-12T13:46:40.000Z"  # at 1,000,000 s
        # What was accepted in no partition is marked, and has no rate: see `Gate`.
        self.assertEqual(told, [("true", accepted, 0.0)] * 2 + [(None, None, 0.0)] * 2)

    def test_route(self) -> None:
        """A route sets method, content, headers, query and time limit; the deadline header names the limit that is
        kept."""
        route = CompiledRoute(
            "r",
            method="PUT",
            timeout=5,
            transform=compile_transform("template", '{"id": {{ payload.n }}}'),
            headers={"X-N": Field.parse("payload.n")},
            query={"n": Field.parse("payload.n")},
        )
        rig = Rig(Answer(200, b"1"), routes=RouteTable([route]))
        rig.done(b'{"n":7}')
        ((method, url, fields, content),) = rig.client.calls
        self.assertEqual((method, url, content), ("PUT", "http://billing.test/base?n=7", b'{"id": 7}'))
        self.assertEqual((fields["x-n"], fields["openhqm-deadline"]), ("7", "1970-01-12T13:46:45.000Z"))

    def test_route_of_another(self) -> None:
        """A request that names another endpoint than its route's is not transformed by that route."""
        always = Condition(Field.parse("payload.n"), value=7)
        route = CompiledRoute("r", always, endpoint="mail", method="PUT")
        rig = Rig(Answer(200, b"1"), routes=RouteTable([route]))
        rig.done(b'{"n":7}', metadata={"endpoint": "billing"})
        self.assertEqual(rig.client.calls[0][0], "POST")

    def test_named_by_the_caller(self) -> None:
        """A target without a URL of its own is called at the URL of the request."""
        rig = Rig(Answer(200, b"1"), target=Target("callers", None))
        metadata = {"endpoint": "https://example.com/hook?k=1", "path": "/a", "query": {"q": "1"}, "method": "GET"}
        rig.done(metadata=metadata)
        self.assertEqual(rig.client.calls[0][:2], ("GET", "https://example.com/hook/a?k=1&q=1"))
        self.assertIsNone(rig.client.calls[0][3])

    def test_unicode(self) -> None:
        """A header field that is not ASCII is sent in UTF-8."""
        rig = Rig(Answer(200, b"1"), target=Target("a", "http://a.test", forward=None))
        rig.done(headers={"X-Name": "Müller"})
        self.assertEqual(rig.client.calls[0][2]["x-name"], "Müller")


class OutcomeTests(SynchronousTestCase):
    def test_success(self) -> None:
        """A 2xx ends the request: status, headers and bytes are the reply, and JSON keeps its bytes."""
        body = b'{"big": 12345678901234567890123,  "f": 1.10}\n'
        rig = Rig(Answer(201, body, {**JSON, "ETag": '"x"', "X-Own": "1", "Set-Cookie": "s=1"}))
        reply = rig.done().reply
        self.assertEqual((reply.status, reply.status_code, reply.attempt), (Status.COMPLETED, 201, 1))
        self.assertEqual((reply.result, reply.body), (body, None))
        self.assertEqual(reply.headers, {"Content-Type": "application/json", "ETag": '"x"', "X-Own": "1"})
        served = rig.served()
        self.assertEqual((served.status, served.body, served.content_type), (201, body, b"application/json"))

    def test_bytes(self) -> None:
        """Content that is not JSON is stored byte for byte, whatever its type; compressed content stays compressed."""
        for fields, body in (
            ({"Content-Type": "image/png"}, bytes(range(256))),
            ({"Content-Type": "application/json"}, b'{"broken'),
            ({"Content-Type": "application/json"}, b"\xff\xfe1\x00"),
            ({"Content-Type": "application/json"}, b""),
            ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, b"\x1f\x8b\x08\x00"),
            ({"Content-Type": "text/plain; charset=latin-1"}, b"\xe4"),
            ({}, b"x"),
        ):
            rig = Rig(Answer(200, body, fields))
            reply = rig.done().reply
            self.assertEqual((reply.status, reply.body, reply.result), (Status.COMPLETED, body, None), fields)
            served = rig.served()
            self.assertEqual(served.body, body)
            self.assertEqual(served.content_type, fields.get("Content-Type", "application/octet-stream").encode())
            encoding = [value for name, value in served.fields if name.lower() == b"content-encoding"]
            self.assertEqual(encoding, [b"gzip"] if "Content-Encoding" in fields else [])

    def test_json_types(self) -> None:
        """A type that ends with +json is JSON. A null is distinguished from no content."""
        self.assertEqual(
            Rig(Answer(200, b"[1]", {"content-type": "application/problem+json"})).done().reply.result, b"[1]"
        )
        self.assertEqual(Rig(Answer(200, b"null")).done().reply.body, b"null")

    def test_final(self) -> None:
        """Any other 4xx, a redirect and a 501: FAILED at once, with the answer stored and served byte for byte."""
        for code, fields in (
            (400, JSON),
            (404, JSON),
            (422, JSON),
            (501, JSON),
            (302, {**JSON, "Location": "http://169.254.169.254/"}),
        ):
            rig = Rig(Answer(code, b'{"why": 1}', fields))
            record = rig.done()
            reply = record.reply
            self.assertEqual((reply.status, reply.attempt, len(rig.client.calls)), (Status.FAILED, 1, 1))
            self.assertEqual(
                (reply.error, reply.status_code, reply.result), (f"billing answered {code}", code, b'{"why": 1}')
            )
            served = rig.served()
            self.assertEqual((served.status, served.body), (code, b'{"why": 1}'))
            self.assertEqual(rig.bench.reasons(), [("the answer is final", "final_answer")])

    def test_retried(self) -> None:
        """A status that may pass is tried four times in all, and the last answer is stored."""
        rig = Rig(*[Answer(503, b"%d" % number, {"Content-Type": "text/plain"}) for number in range(1, 5)])
        reply = rig.done().reply
        self.assertEqual((reply.status, reply.attempt, reply.status_code, reply.body), (Status.FAILED, 4, 503, b"4"))
        self.assertEqual(rig.served().body, b"4")
        self.assertEqual(rig.bench.reasons(), [("4 attempts failed", "attempts_exhausted")])

    def test_own_list(self) -> None:
        """``retry_on`` of the endpoint decides."""
        target = Target("billing", "http://a.test", retry_on=frozenset({404}))
        self.assertEqual(Rig(Answer(404), Answer(200, b"1"), target=target).done().attempt, 2)
        self.assertEqual(Rig(Answer(503), target=target).done().reply.attempt, 1)

    def test_answers(self) -> None:
        """A status that is no failure is the answer: COMPLETED with it, and no dead letter. A failure is kept."""
        target = Target("billing", "http://a.test", failures=frozenset(range(500, 600)))
        for code, body in ((304, b""), (302, b""), (404, b'{"no": 1}')):
            rig = Rig(Answer(code, body), target=target)
            reply = rig.done().reply
            self.assertEqual((reply.status, reply.status_code, reply.error), (Status.COMPLETED, code, None))
            self.assertEqual((rig.served().status, rig.served().body), (code, body))
            self.assertEqual(rig.bench.letters(), [])
        rig = Rig(Answer(501), target=target)
        self.assertEqual((rig.done().reply.status, len(rig.bench.letters())), (Status.FAILED, 1))
        rig = Rig(Answer(401), Answer(200, b"1"), target=target, credentials=Replaceable())
        self.assertEqual(rig.done().attempt, 2)  # a token that has run out is no answer

    def test_never(self) -> None:
        """The target's header OpenHQM-Retry stands above the list, and above a 401."""
        for code in (503, 429, 401):
            rig = Rig(Answer(code, b"", {"OpenHQM-Retry": "never"}), credentials=Replaceable())
            self.assertEqual((rig.done().reply.status, len(rig.client.calls)), (Status.FAILED, 1))

    def test_retry_after(self) -> None:
        """Retry-After, in seconds or as a date, where it is later than the back-off; at most an hour."""
        for text, pause in (
            ("30", 30),
            ("Mon, 12 Jan 1970 13:47:25 GMT", 45),  # 1,000,000 s is 13:46:40
            ("0", 1),
            ("nonsense", 1),
            ("\xe9", 1),
            ("\u0663", 1),  # a digit, but not one of HTTP
            ("86400", 3600),
        ):
            rig = Rig(Answer(503, b"", {"Retry-After": text}), Answer(200, b"1"))
            self.assertEqual(rig.done(seconds=pause + 5).attempt, 2)
            self.assertEqual(rig.client.times[1] - rig.client.times[0], pause, text)

    def test_not_reached(self) -> None:
        """A call that fails is tried again, and the error names the reason."""
        for error, expected in (
            (NotConnected(Failure(ConnectionRefusedError())), "billing cannot be reached: the connection was refused"),
            (CallFailed("no HTTP"), "no HTTP"),
            (DestinationRefused("10.0.0.1 is private"), "billing could not be called: the destination is not allowed"),
        ):
            rig = Rig(error)
            reply = rig.done().reply
            self.assertEqual((reply.status, reply.attempt, reply.status_code), (Status.FAILED, 4, 502))
            self.assertIn(expected, reply.error)
            self.assertNotIn("10.0.0.1", reply.error)

    def test_hangs(self) -> None:
        """A call that takes too long is cancelled; after the last attempt it is TIMEOUT."""
        rig = Rig(None)
        reply = rig.done(seconds=4 * 50 + 10).reply
        self.assertEqual((reply.status, reply.attempt, reply.status_code), (Status.TIMEOUT, 4, 504))
        self.assertEqual((reply.error, rig.client.cancelled), ("no answer within 50 s", 4))

    def test_own_time(self) -> None:
        """The time limit of a route is shorter than the endpoint's, and the error names it."""
        rig = Rig(None, routes=RouteTable([CompiledRoute("r", timeout=2.5)]))
        self.assertEqual(rig.done(seconds=30).reply.error, "no answer within 2.5 s")

    def test_too_long(self) -> None:
        """An answer beyond the limit fails at once: the target has done its work, and would answer the same again."""
        rig = Rig(AnswerTooLong("the response is longer than 1000 bytes"))
        reply = rig.done().reply
        self.assertEqual((reply.status, reply.attempt), (Status.FAILED, 1))
        self.assertIn("longer", reply.error)

    def test_cannot_be_sent(self) -> None:
        """A request that HTTP cannot carry fails at once, with the reason: no attempt could send it."""
        reply = Rig(ValueError("a field has a control character")).done().reply
        self.assertEqual((reply.status, reply.attempt), (Status.FAILED, 1))
        self.assertIn("cannot be sent to billing: a field has a control character", reply.error)

    def test_missing_field(self) -> None:
        """A template over a missing field fails at once, names route and field, and calls no target."""
        route = CompiledRoute("greet", transform=compile_transform("template", "{{ payload.name | text }}"))
        rig = Rig(Answer(200), routes=RouteTable([route]))
        reply = rig.done(b"{}").reply
        self.assertEqual((reply.status, reply.attempt, rig.client.calls), (Status.FAILED, 1, []))
        self.assertEqual(reply.error, "route greet: the template needs payload.name, which the request does not have")

    def test_odd_fields(self) -> None:
        """An answer is kept although a header field of it is UTF-8, has a tab, or is invalid."""
        rig = Rig(
            Answer(
                200,
                b"1",
                {**JSON, "Content-Disposition": 'inline; filename="\u00df\u2028"', "X-T": "a\tb", "X-C": "\x01"},
            )
        )
        reply = rig.done().reply
        self.assertEqual(reply.status, Status.COMPLETED)
        self.assertEqual(set(reply.headers), {"Content-Type", "Content-Disposition", "X-T"})
        (sent,) = [value for name, value in rig.served().fields if name.lower() == b"content-disposition"]
        self.assertEqual(sent.decode(), 'inline; filename="\u00df\u2028"')

    def test_cancelled(self) -> None:
        """Cancelling the request cancels the call, and is not logged as a failure."""
        rig = Rig(None)
        rig.id = rig.bench.submit()
        rig.bench.backend.store.cancel(rig.id)
        rig.bench.backend.turn()
        self.assertEqual((rig.client.cancelled, rig.bench.status(rig.id)), (1, Status.CANCELLED))


class Replaceable:
    """Credentials that change after every refusal."""

    def __init__(self) -> None:
        self.number = 0
        self.dropped: list[Mapping[str, str]] = []

    def fields(self) -> Deferred[Mapping[str, str]]:
        self.number += 1
        return succeed({"Authorization": f"Bearer {self.number}"})

    def at_hand(self) -> None:
        return None

    def refused(self, fields: Mapping[str, str]) -> bool:
        self.dropped.append(fields)
        return True


class CredentialsTests(SynchronousTestCase):
    def test_sent(self) -> None:
        """Credentials stand above the endpoint's headers and the caller's."""
        target = Target("a", "http://a.test", headers={"authorization": "endpoint"}, forward=None)
        rig = Rig(Answer(200, b"1"), target=target, credentials=Fixed({"Authorization": "Bearer x"}))
        rig.done(headers={"Authorization": "caller"})
        self.assertEqual(rig.client.calls[0][2]["authorization"], "Bearer x")

    def test_refused(self) -> None:
        """A 401 is tried again where the credentials may change, and is final where they cannot."""
        credentials = Replaceable()
        rig = Rig(Answer(401), Answer(200, b"1"), credentials=credentials)
        self.assertEqual(rig.done().status, Status.COMPLETED)
        self.assertEqual(credentials.dropped, [{"Authorization": "Bearer 1"}])
        rig = Rig(Answer(401), credentials=Fixed({"Authorization": "Bearer x"}))
        self.assertEqual(rig.done().reply.attempt, 1)

    def test_never_kept(self) -> None:
        """No credential is in a record, an event or a dead letter."""
        rig = Rig(Answer(503), credentials=Fixed({"Authorization": "Bearer s3cret"}))
        record = rig.done()
        kept = repr((record, rig.bench.events(rig.id), rig.bench.letters()))
        self.assertNotIn("s3cret", kept)
        self.assertEqual(json.loads(record.reply.result or b"null"), None)


class Outages:
    """A client of a target that answers after 50 ms, and refuses connections from ``begin`` to ``end``."""

    def __init__(self, begin: float, end: float) -> None:
        self.begin, self.end = begin, end
        self.clock: Any = None
        self.calls = 0
        self.probes: list[float] = []

    @property
    def away(self) -> bool:
        return self.begin <= self.clock.seconds() < self.end

    def fetch(self, method: bytes, url: bytes, fields: Any, content: bytes | None, most: int) -> Deferred[Any]:
        if self.away:
            return fail(NotConnected(Failure(ConnectionRefusedError())))
        self.calls += 1
        return deferLater(self.clock, 0.05, lambda: Answer(200, b"1"))

    def connect(self, url: bytes) -> Deferred[None]:
        self.probes.append(self.clock.seconds())
        return fail(NotConnected(Failure(ConnectionRefusedError()))) if self.away else succeed(None)


class OutageTests(SynchronousTestCase):
    def test_away(self) -> None:
        """A target that refuses connections for 30 s in the middle of many requests costs no attempt, and so no dead
        letter. It is called again within 5 s of its return.
        """
        backend = MemoryBench()
        now = backend.clock.seconds()
        client = Outages(now + 1, now + 31)
        client.clock = backend.clock
        target = Target("billing", "http://billing.test/base")
        egress = Egress(target, client, Fixed({}), RouteTable(), backend.clock, 1000)
        gate = Gate(backend.clock, Breaker(BreakerPolicy()), limit=64)
        bench = WorkerBench(egress, backend=backend, count=64, gate=gate, probe=egress.probe)
        ids = [bench.submit(b"%d" % number) for number in range(3000)]
        for _ in range(800):
            bench.pass_time(0.05)
        records = [bench.record(each) for each in ids]
        self.assertEqual({record.status for record in records}, {Status.COMPLETED})
        self.assertEqual({record.attempt for record in records}, {1})
        self.assertEqual((client.calls, bench.letters()), (3000, []))
        self.assertLessEqual(client.probes[-1], client.end + 5)
        self.assertLessEqual(len(client.probes), 12)

    def test_certificate(self) -> None:
        """A certificate that is not trusted is a failed attempt: it was reached, and waiting does not mend it."""
        rig = Rig(NotConnected(Failure(VerificationError(errors=[]))))
        reply = rig.done().reply
        self.assertEqual((reply.status, reply.attempt), (Status.FAILED, 4))
        self.assertIn("the certificate is for another name", reply.error)
        self.assertIsNone(self.successResultOf(self.probe(VerificationError(errors=[]))))

    def test_token_server(self) -> None:
        """A target whose token server is away is probed there, too."""
        error = self.failureResultOf(self.probe(None, AwayTokens())).value
        self.assertIsInstance(error, Unreachable)

    def probe(self, error: Exception | None, credentials: Any = None) -> Deferred[None]:
        client: Any = SimpleNamespace(
            connect=lambda url: succeed(None) if error is None else fail(NotConnected(Failure(error)))
        )
        target = Target("billing", "http://billing.test/base")
        return Egress(target, client, credentials or Fixed({}), RouteTable(), Clock(), 1000).probe()


class AwayTokens(Fixed):
    """Credentials whose server cannot be reached."""

    def __init__(self) -> None:
        super().__init__({})

    def fields(self) -> Deferred[Mapping[str, str]]:
        return fail(Unreachable("no token"))
