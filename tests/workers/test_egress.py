"""An attempt is one call of a target: what it sees, what its answer means, and what is kept of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent
from zope.interface import implementer

from openhqm.delivery.waiting import Waiting
from openhqm.errors import DestinationRefused
from openhqm.http1.client import AnswerTooLong
from openhqm.ingress.door import Door
from openhqm.ingress.metrics import DoorMetrics
from openhqm.messages import Status
from openhqm.policy.fields import Field
from openhqm.policy.forwarding import Target
from openhqm.policy.routing import CompiledRoute, Condition, RouteTable
from openhqm.policy.transforms import compile_transform
from openhqm.workers.credentials import Credentials, Fixed
from openhqm.workers.egress import Egress
from tests.workers.bench import Workshop

JSON = {"Content-Type": "application/json"}


class Answer:
    """An answer in memory; without a body it never ends."""

    def __init__(self, code: int, body: bytes | None = b"", fields: Mapping[str, str] = JSON) -> None:
        self.code, self.body = code, body
        self.headers = Headers({name: [value] for name, value in fields.items()})

    def deliverBody(self, protocol: Any) -> None:
        protocol.transport = None
        if self.body is not None:
            protocol.dataReceived(self.body)
            protocol.connectionLost(Failure(ResponseDone()))


@implementer(IAgent)
class Agent:
    """Gives the answers it was given, one for each call, and the last one for ever; None is silence."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[str, str, dict[str, str], bytes | None]] = []
        self.times: list[float] = []
        self.cancelled = 0
        self.shop: Any = None

    def request(self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None) -> Deferred[Any]:
        written: list[bytes] = []
        if bodyProducer is not None:
            bodyProducer.startProducing(type("Sink", (), {"write": staticmethod(written.append)}))
        fields = {name.decode().lower(): b", ".join(values).decode() for name, values in headers.getAllRawHeaders()}
        content = b"".join(written) if bodyProducer is not None else None
        self.calls.append((method.decode(), uri.decode(), fields, content))
        self.times.append(self.shop.bench.now())
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
    ) -> None:
        self.agent = Agent(*answers)
        target = target or Target("billing", "http://billing.test/base")
        handler: Any = None

        def handle(work: Any) -> Any:
            return handler(work)

        self.shop = self.agent.shop = Workshop(handle)
        handler = Egress(
            target, self.agent, credentials or Fixed({}), routes or RouteTable(), self.shop.bench.clock, most
        )

    def done(self, payload: bytes = b"1", seconds: float = 20, **fields: Any) -> Any:
        """The record of a request, some time after it was submitted."""
        self.id = self.shop.submit(payload, **fields)
        self.shop.pass_time(seconds)
        return self.shop.record(self.id)

    def served(self) -> Any:
        """What ``GET /response/{id}/body`` answers."""
        bench = self.shop.bench
        waiting = Waiting(bench.store, bench.clock)
        door = Door(bench.queue, bench.store, waiting, bench.clock, DoorMetrics(CollectorRegistry()), longest_wait=1)
        found: list[Any] = []
        Deferred.fromCoroutine(door.body(self.id, None)).addCallback(found.append)
        return found[0]


class WhatItSeesTests(SynchronousTestCase):
    def test_about(self) -> None:
        """Which request this is, which attempt of how many, until when; the key under which repeats are one."""
        rig = Rig(Answer(503), Answer(200, b"1"))
        trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Idempotency-Key": "mine"}
        rig.done(b'{"a": 1}', headers=trace)
        first, second = rig.agent.calls
        self.assertEqual((first[0], first[1], first[3]), ("POST", "http://billing.test/base", b'{"a": 1}'))
        self.assertEqual(
            first[2],
            {
                "content-type": "application/json",
                "openhqm-correlation-id": rig.id,
                "openhqm-attempt": "1",
                "openhqm-max-attempts": "4",
                "openhqm-deadline": "1970-01-12T13:47:30.000Z",  # 1,000,000 s and the 50 s of an attempt
                "idempotency-key": rig.id,
                "traceparent": trace["traceparent"],
            },
        )
        self.assertEqual(second[2]["openhqm-attempt"], "2")
        self.assertEqual(second[2]["idempotency-key"], rig.id)

    def test_route(self) -> None:
        """A route has its say on method, content, headers, query and time; the deadline is the one that is kept."""
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
        ((method, url, fields, content),) = rig.agent.calls
        self.assertEqual((method, url, content), ("PUT", "http://billing.test/base?n=7", b'{"id": 7}'))
        self.assertEqual((fields["x-n"], fields["openhqm-deadline"]), ("7", "1970-01-12T13:46:45.000Z"))

    def test_route_of_another(self) -> None:
        """A request that names another endpoint than its route's is not shaped for that one."""
        always = Condition(Field.parse("payload.n"), value=7)
        route = CompiledRoute("r", always, endpoint="mail", method="PUT")
        rig = Rig(Answer(200, b"1"), routes=RouteTable([route]))
        rig.done(b'{"n":7}', metadata={"endpoint": "billing"})
        self.assertEqual(rig.agent.calls[0][0], "POST")

    def test_named_by_the_caller(self) -> None:
        """Without a URL of its own, a target is where the request says."""
        rig = Rig(Answer(200, b"1"), target=Target("callers", None))
        metadata = {"endpoint": "https://example.com/hook?k=1", "path": "/a", "query": {"q": "1"}, "method": "GET"}
        rig.done(metadata=metadata)
        self.assertEqual(rig.agent.calls[0][:2], ("GET", "https://example.com/hook/a?k=1&q=1"))
        self.assertIsNone(rig.agent.calls[0][3])

    def test_unicode(self) -> None:
        """A header beyond ASCII goes out in UTF-8."""
        rig = Rig(Answer(200, b"1"), target=Target("a", "http://a.test", forward=None))
        rig.done(headers={"X-Name": "Müller"})
        self.assertEqual(rig.agent.calls[0][2]["x-name"], "Müller")


class OutcomeTests(SynchronousTestCase):
    def test_success(self) -> None:
        """2xx ends it: status, headers and bytes are the reply, JSON in its own bytes."""
        body = b'{"big": 12345678901234567890123,  "f": 1.10}\n'
        rig = Rig(Answer(201, body, {**JSON, "ETag": '"x"', "X-Own": "1", "Set-Cookie": "s=1"}))
        reply = rig.done().reply
        self.assertEqual((reply.status, reply.status_code, reply.attempt), (Status.COMPLETED, 201, 1))
        self.assertEqual((reply.result, reply.body), (body, None))
        self.assertEqual(reply.headers, {"Content-Type": "application/json", "ETag": '"x"', "X-Own": "1"})
        served = rig.served()
        self.assertEqual((served.status, served.body, served.content_type), (201, body, b"application/json"))

    def test_bytes(self) -> None:
        """Anything that is not JSON is kept byte for byte, whatever it is called; what is compressed stays so."""
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
        """JSON under another name is JSON; a null is told apart from nothing."""
        self.assertEqual(
            Rig(Answer(200, b"[1]", {"content-type": "application/problem+json"})).done().reply.result, b"[1]"
        )
        self.assertEqual(Rig(Answer(200, b"null")).done().reply.body, b"null")

    def test_final(self) -> None:
        """Any other 4xx, a redirect, a 501: FAILED at once, the answer kept, and served byte for byte."""
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
            self.assertEqual((reply.status, reply.attempt, len(rig.agent.calls)), (Status.FAILED, 1, 1))
            self.assertEqual(
                (reply.error, reply.status_code, reply.result), (f"billing answered {code}", code, b'{"why": 1}')
            )
            served = rig.served()
            self.assertEqual((served.status, served.body), (code, b'{"why": 1}'))
            self.assertEqual([letter.reason for letter in rig.shop.letters()], ["the answer is final"])

    def test_retried(self) -> None:
        """What may pass is tried again, four times in all, and the last answer is kept."""
        rig = Rig(*[Answer(503, b"%d" % number, {"Content-Type": "text/plain"}) for number in range(1, 5)])
        reply = rig.done().reply
        self.assertEqual((reply.status, reply.attempt, reply.status_code, reply.body), (Status.FAILED, 4, 503, b"4"))
        self.assertEqual(rig.served().body, b"4")
        self.assertEqual([letter.reason for letter in rig.shop.letters()], ["4 attempts failed"])

    def test_own_list(self) -> None:
        """``retry_on`` of the endpoint decides."""
        target = Target("billing", "http://a.test", retry_on=frozenset({404}))
        self.assertEqual(Rig(Answer(404), Answer(200, b"1"), target=target).done().attempt, 2)
        self.assertEqual(Rig(Answer(503), target=target).done().reply.attempt, 1)

    def test_never(self) -> None:
        """The target's own word stands above the list, and above a 401."""
        for code in (503, 429, 401):
            rig = Rig(Answer(code, b"", {"OpenHQM-Retry": "never"}), credentials=Replaceable())
            self.assertEqual((rig.done().reply.status, len(rig.agent.calls)), (Status.FAILED, 1))

    def test_retry_after(self) -> None:
        """Seconds or a date, where that is later than the back-off; at most an hour."""
        for text, pause in (
            ("30", 30),
            ("Mon, 12 Jan 1970 13:47:25 GMT", 45),  # 1,000,000 s is 13:46:40
            ("0", 1),
            ("nonsense", 1),
            ("86400", 3600),
        ):
            rig = Rig(Answer(503, b"", {"Retry-After": text}), Answer(200, b"1"))
            self.assertEqual(rig.done(seconds=pause + 5).attempt, 2)
            self.assertEqual(rig.agent.times[1] - rig.agent.times[0], pause, text)

    def test_not_reached(self) -> None:
        """What does not come to an answer is tried again, with the reason in words."""
        for error, words in (
            (ConnectionRefusedError(), "billing could not be asked: ConnectionRefusedError"),
            (ResponseFailed([Failure(ValueError("no HTTP"))]), "no HTTP"),
            (DestinationRefused("10.0.0.1 is private"), "billing could not be asked: the destination is not allowed"),
        ):
            rig = Rig(error)
            reply = rig.done().reply
            self.assertEqual((reply.status, reply.attempt, reply.status_code), (Status.FAILED, 4, 502))
            self.assertIn(words, reply.error)
            self.assertNotIn("10.0.0.1", reply.error)

    def test_hangs(self) -> None:
        """Time runs out before an answer and within one; the call is given up, and the last time it is TIMEOUT."""
        for answer in (None, Answer(200, None)):
            rig = Rig(answer)
            reply = rig.done(seconds=4 * 50 + 10).reply
            self.assertEqual((reply.status, reply.attempt, reply.status_code), (Status.TIMEOUT, 4, 504))
            self.assertEqual(reply.error, "no answer within 50 s")
            self.assertEqual(rig.agent.cancelled, 4 if answer is None else 0)

    def test_own_time(self) -> None:
        """A route's time is shorter, and says so."""
        rig = Rig(None, routes=RouteTable([CompiledRoute("r", timeout=2.5)]))
        self.assertEqual(rig.done(seconds=30).reply.error, "no answer within 2.5 s")

    def test_too_long(self) -> None:
        """An answer past the limit fails at once: what was asked for is done, and another time is as long."""
        for answer in (Answer(200, b"x" * 1001), ResponseFailed([Failure(AnswerTooLong("the head is longer"))])):
            rig = Rig(answer)
            reply = rig.done().reply
            self.assertEqual((reply.status, reply.attempt), (Status.FAILED, 1))
            self.assertIn("longer", reply.error)

    def test_no_status(self) -> None:
        """A status that is none is garbage like any other, and worth another attempt."""
        for code in (0, 42, 600, 999):
            reply = Rig(Answer(code)).done().reply
            self.assertEqual((reply.status, reply.attempt), (Status.FAILED, 4))
            self.assertIn(f"answered {code}, which is no status", reply.error)

    def test_missing_field(self) -> None:
        """A template over a missing field fails at once, names route and field, and calls nobody."""
        route = CompiledRoute("greet", transform=compile_transform("template", "{{ payload.name | text }}"))
        rig = Rig(Answer(200), routes=RouteTable([route]))
        reply = rig.done(b"{}").reply
        self.assertEqual((reply.status, reply.attempt, rig.agent.calls), (Status.FAILED, 1, []))
        self.assertEqual(reply.error, "route greet: the template needs payload.name, which the request does not have")

    def test_odd_fields(self) -> None:
        """An answer is not lost for a header field in UTF-8, with a tab, or with what no field may have."""
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
        """A caller who cancels ends the call; nothing is logged as a failure."""
        rig = Rig(None)
        rig.id = rig.shop.submit()
        rig.shop.bench.store.cancel(rig.id)
        rig.shop.bench.turn()
        self.assertEqual((rig.agent.cancelled, rig.shop.status(rig.id)), (1, Status.CANCELLED))


class Replaceable:
    """Credentials of which there are always others."""

    def __init__(self) -> None:
        self.number = 0
        self.dropped: list[Mapping[str, str]] = []

    def fields(self) -> Deferred[Mapping[str, str]]:
        self.number += 1
        return succeed({"Authorization": f"Bearer {self.number}"})

    def refused(self, fields: Mapping[str, str]) -> bool:
        self.dropped.append(fields)
        return True


class CredentialsTests(SynchronousTestCase):
    def test_sent(self) -> None:
        """They stand above what the endpoint's headers and the caller say."""
        target = Target("a", "http://a.test", headers={"authorization": "endpoint"}, forward=None)
        rig = Rig(Answer(200, b"1"), target=target, credentials=Fixed({"Authorization": "Bearer x"}))
        rig.done(headers={"Authorization": "caller"})
        self.assertEqual(rig.agent.calls[0][2]["authorization"], "Bearer x")

    def test_refused(self) -> None:
        """A 401 is tried again where there may be other credentials, and is final where there are none."""
        credentials = Replaceable()
        rig = Rig(Answer(401), Answer(200, b"1"), credentials=credentials)
        self.assertEqual(rig.done().status, Status.COMPLETED)
        self.assertEqual(credentials.dropped, [{"Authorization": "Bearer 1"}])
        rig = Rig(Answer(401), credentials=Fixed({"Authorization": "Bearer x"}))
        self.assertEqual(rig.done().reply.attempt, 1)

    def test_never_kept(self) -> None:
        """What is shown to a target is in no record, no event and no dead letter."""
        rig = Rig(Answer(503), credentials=Fixed({"Authorization": "Bearer s3cret"}))
        record = rig.done()
        kept = repr((record, rig.shop.events(rig.id), rig.shop.letters()))
        self.assertNotIn("s3cret", kept)
        self.assertEqual(json.loads(record.reply.result or b"null"), None)
