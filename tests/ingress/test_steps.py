"""``metadata.then`` and ``metadata.all`` at the door: what may be asked for, and what the caller is told of it."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openhqm.delivery.tenant_records import UNKNOWN_SECONDS
from openhqm.errors import InvalidRequest, NotPermitted, Reject
from openhqm.ingress.steps import divided
from openhqm.ingress.submission import read_submission
from openhqm.messages import Child, Priority, Submission
from openhqm.policy.addressing import Addressing
from openhqm.policy.callbacks import Callbacks
from openhqm.policy.children import MOST_CHILDREN
from openhqm.policy.permissions import Permission, Permissions
from openhqm.policy.step_payloads import WHOLE
from tests.ingress.test_fast_path import InMemoryServer

NOW = 1_770_460_200.0
ENDPOINTS = Addressing(endpoints=frozenset({"stock", "bill", "mail"}), default="stock")
TO = '{"to": {{ payload.to }}}'
LONG = "https://127.0.0.1/"


def read(payload: Any = 1, addressing: Addressing = ENDPOINTS, **metadata: Any) -> tuple[Submission, list[Child]]:
    document = {"payload": payload, "headers": {"X-A": "b"}, "metadata": metadata}
    return divided(read_submission(json.dumps(document).encode(), NOW), addressing, NOW)


class ReadTests(SynchronousTestCase):
    def test_chain(self) -> None:
        """The request itself is the first step, and each of ``then`` the next one."""
        parent, children = read(
            {"a": 1},
            endpoint="bill",
            then=[{"endpoint": "mail", "transform": TO}, {"operation": "log"}],
            region="eu",
            priority="high",
            timeout=60,
            tags=["x"],
            delay=5,
        )
        self.assertEqual((parent.payload, parent.headers, parent.metadata), (b"null", {}, {"tags": ["x"]}))
        self.assertEqual((parent.priority, parent.timeout, parent.not_before), (Priority.HIGH, 60.0, NOW + 5))
        first, second, third = (each.submission for each in children)
        self.assertEqual(
            [(each.stage, each.name, each.joined) for each in children],
            [(1, "bill", False), (2, "mail", False), (3, "log", False)],
        )
        self.assertEqual((first.payload, first.transform, first.endpoint), (b'{"a": 1}', None, "bill"))
        self.assertEqual((second.payload, second.transform, second.endpoint), (b"null", TO, "mail"))
        self.assertEqual((third.payload, third.transform, third.endpoint), (b"null", WHOLE, None))
        for each in (first, second, third):
            self.assertEqual(
                (each.headers, each.metadata["region"], each.priority), ({"X-A": "b"}, "eu", Priority.HIGH)
            )
            self.assertEqual((each.timeout, each.not_before), (None, None))
        self.assertEqual(dict(third.metadata), {"region": "eu", "operation": "log"})

    def test_join(self) -> None:
        """Each step of ``all`` has the payload, or what its template makes of it; ``then`` follows on all of them."""
        _, children = read(
            {"id": 7},
            all=[{"endpoint": "bill"}, {"endpoint": "mail", "transform": '{"of": {{ payload.id }}}', "timeout": 3}],
            then=[{"endpoint": "stock"}],
        )
        self.assertEqual([(each.stage, each.joined) for each in children], [(1, True), (1, True), (2, False)])
        payloads = [each.submission.payload for each in children]
        self.assertEqual(payloads, [b'{"id": 7}', b'{"of": 7}', b"null"])
        self.assertEqual([each.submission.timeout for each in children], [None, 3.0, None])

    def test_idempotency_key(self) -> None:
        """The key that a caller gives for its target is of no step: it would take two of them for one request."""
        submission = Submission(b"1", {"idempotency-key": "k", "X-A": "b"}, {"then": [{"endpoint": "bill"}]})
        for child in divided(submission, ENDPOINTS, NOW)[1]:
            self.assertEqual(child.submission.headers, {"X-A": "b"})

    def test_join_within_chain(self) -> None:
        """A step of ``then`` may be a join."""
        _, children = read(then=[{"all": [{"endpoint": "bill"}, {"endpoint": "mail"}]}, {}])
        self.assertEqual(
            [(each.stage, each.joined) for each in children], [(1, False), (2, True), (2, True), (3, False)]
        )

    def test_most(self) -> None:
        """A request has at most a hundred steps."""
        _, children = read(then=[{}] * (MOST_CHILDREN - 1))
        self.assertEqual(len(children), MOST_CHILDREN)

    def test_copied(self) -> None:
        """What a small request makes of its steps is bounded, whatever is copied to each: 16 MiB in all."""
        fields = {f"X-{number}": "v" * 8192 for number in range(25)}
        many = " , ".join(["{{ payload }}"] * 60)
        for payload, headers, metadata, field in (
            (1, fields, {"then": [{}] * 99}, "metadata"),
            (1, {}, {"own": "x" * 60_000, "then": [{}] * 90, "all": [{}] * 10}, None),
            ("x" * 200_000, {}, {"all": [{}] * 99}, "metadata.all"),
            ("x" * 100_000, {}, {"all": [{"transform": f"[{many}]"}] * 5}, "metadata.all.2"),
        ):
            document = {"payload": payload, "headers": headers, "metadata": metadata}
            submission = read_submission(json.dumps(document).encode(), NOW)
            if field is None:
                self.assertEqual(len(divided(submission, ENDPOINTS, NOW)[1]), 100)
            else:
                error: Any = self.assertRaises(InvalidRequest, divided, submission, ENDPOINTS, NOW)
                self.assertEqual(error.field, field)

    def test_refused(self) -> None:
        """Each other value is 422, and the member is named."""
        bill = {"endpoint": "bill"}
        cycle: dict[str, Any] = {"endpoint": "bill", "then": [{"endpoint": "bill"}]}
        tables: tuple[tuple[dict[str, Any], str], ...] = (
            ({"then": None}, "metadata.then"),
            ({"then": "bill"}, "metadata.then"),
            ({"then": {}}, "metadata.then"),
            ({"then": []}, "metadata.then"),
            ({"all": []}, "metadata.all"),
            ({"all": 7}, "metadata.all"),
            ({"then": ["bill"]}, "metadata.then.0"),
            ({"then": [bill, None]}, "metadata.then.1"),
            ({"then": [{**bill, "payload": 1}]}, "metadata.then.0"),
            ({"then": [cycle]}, "metadata.then.0"),
            ({"then": [{"all": [{"all": [bill]}]}]}, "metadata.then.0.all.0"),
            ({"then": [{"all": [bill], "endpoint": "bill"}]}, "metadata.then.0"),
            ({"then": [{"all": []}]}, "metadata.then.0.all"),
            ({"all": [{"all": [bill]}]}, "metadata.all.0"),
            ({"then": [bill] * 1000}, "metadata.then"),
            ({"then": [bill] * MOST_CHILDREN}, "metadata"),
            ({"all": [bill] * 1000}, "metadata.all"),
            ({"all": [bill] * 60, "then": [{"all": [bill] * 60}]}, "metadata"),
            ({"all": [bill], "endpoint": "bill"}, "metadata.endpoint"),
            ({"all": [bill], "operation": "sum"}, "metadata.operation"),
            ({"then": [{"endpoint": "none"}]}, "metadata.then.0.endpoint"),
            ({"then": [{"endpoint": 7}]}, "metadata.then.0.endpoint"),
            ({"then": [{"endpoint": LONG}]}, "metadata.then.0.endpoint"),
            ({"then": [bill, {"operation": []}]}, "metadata.then.1.operation"),
            ({"then": [{**bill, "path": "/../x"}]}, "metadata.then.0.path"),
            ({"then": [{**bill, "method": "CONNECT"}]}, "metadata.then.0.method"),
            ({"then": [{**bill, "query": 7}]}, "metadata.then.0.query"),
            ({"then": [{**bill, "timeout": 0}]}, "metadata.then.0.timeout"),
            ({"then": [{**bill, "timeout": "1"}]}, "metadata.then.0.timeout"),
            ({"then": [{**bill, "transform": 7}]}, "metadata.then.0.transform"),
            ({"then": [{**bill, "transform": "{{ payload"}]}, "metadata.then.0.transform"),
            ({"then": [{**bill, "transform": "hello"}]}, "metadata.then.0.transform"),
            ({"then": [{**bill, "transform": "{" * 9000}]}, "metadata.then.0.transform"),
            ({"all": [{**bill, "transform": "{{ payload.absent }}"}]}, "metadata.all.0.transform"),
            ({"then": [bill], "coalesce": {"key": "k", "window": 1}}, "metadata.coalesce"),
        )
        for metadata, field in tables:
            error: Any = self.assertRaises(InvalidRequest, read, 1, **metadata)
            self.assertEqual(error.field, field, (metadata, str(error)))

    def test_copies(self) -> None:
        """A payload is not copied to more bytes than a request may keep."""
        error: Any = self.assertRaises(InvalidRequest, read, "a" * 1024 * 1024, all=[{"endpoint": "bill"}] * 17)
        self.assertEqual(error.field, "metadata.all")
        read("a" * 1024 * 1024, all=[{"endpoint": "bill"}] * 15)

    def test_not_permitted(self) -> None:
        """A step is addressed as a request of its tenant is: what that may not use, no step of it may."""
        asked: list[Any] = []

        class Spy(Addressing):
            def addressed(self, submission: Submission, *, complete: bool = True) -> Submission:
                asked.append((submission.tenant, submission.metadata.get("endpoint"), complete))
                return submission

        document = json.dumps({"payload": 1, "metadata": {"endpoint": "bill", "then": [{"endpoint": "mail"}]}})
        submission = read_submission(document.encode(), NOW)
        divided(Submission(submission.payload, metadata=submission.metadata, tenant="acme"), Spy(), NOW)
        self.assertEqual(asked, [("acme", "bill", True), ("acme", "mail", False)])


class TenantTests(SynchronousTestCase):
    def test_each_step(self) -> None:
        """Each step goes where its tenant may go, and waits in its share; another is refused by its place."""
        rules = Addressing(
            endpoints=("a", "b"), permissions=Permissions({"acme": Permission(endpoints=("a",))}), shares=("acme",)
        )
        submission = Submission(b"1", metadata={"endpoint": "a", "then": [{"endpoint": "a"}]}, tenant="acme")
        _, children = divided(submission, rules, 0.0)
        self.assertEqual([child.submission.share for child in children], ["acme", "acme"])
        submission = Submission(b"1", metadata={"endpoint": "a", "then": [{"endpoint": "b"}]}, tenant="acme")
        error = self.assertRaises(NotPermitted, divided, submission, rules, 0.0)
        self.assertEqual(error.field, "metadata.then.0.endpoint")


class DoorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = InMemoryServer(True)

    def submit(self, payload: Any = 1, tenant: str | None = None, **metadata: Any) -> str:
        body = json.dumps({"payload": payload, "metadata": metadata}).encode()
        fields = {b"content-type": b"application/json"}
        accepted = Deferred.fromCoroutine(self.server.door.accept(body, fields.get, tenant))
        self.server.bench.backend.turn()
        return str(self.successResultOf(accepted).correlation_id)

    def get(self, path: str, method: str = "GET") -> Any:
        return json.loads(self.server.ask(method, path).partition(b"\r\n\r\n")[2])

    def answer(self, value: Any) -> Any:
        """The handler answers the last work; its payload."""
        handler = self.server.handler
        work = handler.works[len(handler.works) - 1]
        answer = handler.answers[len(handler.answers) - 1]
        (answer.errback if isinstance(value, Exception) else answer.callback)(value)
        self.server.bench.backend.turn()
        return json.loads(work.payload_text)

    def test_chain(self) -> None:
        """The id that the caller has is that of the whole: its status has every step, its response the last result."""
        id = self.submit(
            {"a": 1}, then=[{"operation": "sum", "transform": '{"of": {{ payload.b }}}'}, {"operation": "log"}]
        )
        self.server.bench.backend.turn()
        status = self.get(f"/api/v1/status/{id}")
        self.assertEqual(status["status"], "PROCESSING")
        self.assertEqual([each["status"] for each in status["steps"]], ["PROCESSING", "PENDING", "PENDING"])
        self.assertEqual([(each["stage"], each["name"]) for each in status["steps"]], [(1, ""), (2, "sum"), (3, "log")])
        self.assertEqual(self.answer({"b": 7}), {"a": 1})
        self.assertEqual(self.answer([8]), {"of": 7})
        self.assertEqual(self.answer("done"), [8])
        response = self.get(f"/api/v1/response/{id}")
        self.assertEqual(
            (response["status"], response["result"], response["correlation_id"]), ("COMPLETED", "done", id)
        )
        for step in self.get(f"/api/v1/status/{id}")["steps"]:
            self.assertEqual(self.get(f"/api/v1/status/{step['correlation_id']}")["status"], "COMPLETED")

    def test_events(self) -> None:
        """The events of the whole say what happens to each step."""
        id = self.submit(then=[{"operation": "log"}])
        step = self.get(f"/api/v1/status/{id}")["steps"][0]["correlation_id"]
        self.server.bench.backend.turn()
        self.answer(2)
        self.answer(3)
        events = self.server.ask("GET", f"/api/v1/events/{id}").decode()
        names = [line.partition(": ")[2] for line in events.splitlines() if line.startswith("event: ")]
        self.assertEqual(names, ["pending", "processing", "progress", "processing", "progress", "completed"])
        self.assertIn(f'"step":1,"steps":2,"step_id":"{step}"', events)
        self.assertIn('"step_status":"COMPLETED"', events)

    def test_failure(self) -> None:
        """A failure names its step, and no later one begins."""
        id = self.submit(then=[{"operation": "sum"}, {"operation": "log"}])
        self.server.bench.backend.turn()
        self.answer(1)
        self.answer(Reject("no stock"))
        response = self.get(f"/api/v1/response/{id}")
        step = self.get(f"/api/v1/status/{id}")["steps"][1]["correlation_id"]
        self.assertEqual((response["status"], response["error"]), ("FAILED", f"step 2 of 3 (sum, {step}): no stock"))
        self.assertEqual(len(self.server.handler.works), 2)

    def test_bad_payload(self) -> None:
        """A result that the next template cannot be filled from fails that step, and says what is missing."""
        id = self.submit(then=[{"transform": "{{ payload.b }}"}])
        self.server.bench.backend.turn()
        self.answer({"a": 1})
        response = self.get(f"/api/v1/response/{id}")
        self.assertEqual(response["status"], "FAILED")
        self.assertIn("step 2 of 2", response["error"])
        self.assertIn("payload.b", response["error"])

    def test_cancel(self) -> None:
        """Cancelling the whole cancels each step, also the one that is worked on."""
        id = self.submit(all=[{"operation": "a"}, {"operation": "b"}], then=[{"operation": "c"}])
        self.server.bench.backend.turn()
        self.get(f"/api/v1/cancel/{id}", "POST")
        self.server.bench.backend.turn()
        status = self.get(f"/api/v1/status/{id}")
        self.assertEqual((status["status"], {each["status"] for each in status["steps"]}), ("CANCELLED", {"CANCELLED"}))
        self.assertEqual(self.server.handler.cancelled, 2)

    def test_callback(self) -> None:
        """A callback follows on the whole, and on no step."""
        self.server.door.addressing = Addressing(follow_ups=Callbacks(lambda url: None).of)
        id = self.submit(then=[{"operation": "log"}], callback_url="https://example.com/")
        self.server.bench.backend.turn()
        self.answer(1)
        self.answer(2)
        queue = self.server.bench.backend.queue
        (delivery,) = self.successResultOf(queue.receive("contract-requests.callbacks", 10))
        self.assertEqual(delivery.request.submission.parent_reply.correlation_id, id)
        self.assertEqual(delivery.request.submission.parent_reply.result, b"2")

    def test_other_tenants(self) -> None:
        """The steps of another tenant's request are unknown, as the request is."""
        id = self.submit(tenant="acme", then=[{"operation": "log"}])
        steps = self.get(f"/api/v1/status/{id}")["steps"]
        for each in (id, *(step["correlation_id"] for step in steps)):
            asked = Deferred.fromCoroutine(self.server.door.status(each, "other"))
            self.server.bench.backend.clock.advance(UNKNOWN_SECONDS)
            self.assertEqual(type(self.failureResultOf(asked).value).__name__, "UnknownRequest")

    def test_batch(self) -> None:
        """A line of a batch may consist of steps; one that cannot is refused alone."""
        lines = [
            {"payload": 1, "metadata": {"then": [{"operation": "log"}]}},
            {"payload": 1, "metadata": {"then": []}},
        ]
        body = "\n".join(map(json.dumps, lines)).encode()
        answer = self.server.ask("POST", "/api/v1/batch", body, content_type="application/x-ndjson")
        outcome = json.loads(answer.partition(b"\r\n\r\n")[2])
        self.assertEqual([each["index"] for each in outcome["accepted"]], [0])
        self.assertEqual([each["index"] for each in outcome["rejected"]], [1])

    def test_plain(self) -> None:
        """The status of a request without steps has none."""
        self.assertNotIn("steps", self.get(f"/api/v1/status/{self.submit()}"))
