"""The OpenAPI description: every route is in it, and every answer is as described."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import Reject
from openhqm.http1.rules import CREDENTIALS
from openhqm.ingress.openapi import document
from openhqm.ingress.routes import Routes
from openhqm.testing.bench import TTL
from openhqm.workers.handlers import Response
from tests.ingress.test_fast_path import InMemoryServer
from tests.ingress.test_http import Case

API = json.loads(document())


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        found: Any = API
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema


class DescriptionTests(Case):
    def test_routes(self) -> None:
        """Each route and method is described, and no other."""
        routes = {
            (re.sub(r"<(\w+)>", r"{\1}", rule.rule), method.lower())
            for rule in Routes.app.url_map.iter_rules()
            for method in rule.methods or ()
            if method not in ("HEAD", "OPTIONS")
        }
        described = {(path, method) for path, methods in API["paths"].items() for method in methods}
        self.assertEqual(routes, described)

    def test_keys(self) -> None:
        """A key may be sent in either way that the server reads, and need not be."""
        schemes = API["components"]["securitySchemes"]
        self.assertEqual(API["security"], [{}, *({name: []} for name in schemes)])
        self.assertEqual(
            {each.get("name", "Authorization").lower().encode() for each in schemes.values()}, set(CREDENTIALS)
        )

    def test_operations(self) -> None:
        """Each operation has a name of its own and a declared group; below a prefix, too. Each number has bounds."""
        self.assertEqual(API["servers"][0]["url"], "/")
        groups = {tag["name"] for tag in API["tags"]}
        for described in (API, json.loads(document("/_openhqm"))):
            operations = [each for methods in described["paths"].values() for each in methods.values()]
            names = [each["operationId"] for each in operations]
            self.assertEqual(len(set(names)), len(names))
            for each in operations:
                self.assertRegex(each["operationId"], "^[a-z][A-Za-z]+$")
                self.assertLessEqual(set(each["tags"]), groups)
                self.assertTrue(each["summary"] and each["description"])
                for parameter in each.get("parameters", ()):
                    if parameter["schema"].get("type") == "integer":
                        self.assertIn("minimum", parameter["schema"], (each["operationId"], parameter["name"]))

    def test_served(self) -> None:
        """The server serves the description that is tested here."""
        self.assertEqual(json.loads(self.ask("GET", "/openapi.json")[2]), API)

    def test_answers(self) -> None:
        """Answers of every kind have the described status, type and members."""
        done, waiting = self.server.submit(1), self.server.submit(2, delay=60)
        self.server.response(done)
        self.server.response(self.server.submit({"reject": "never"}))
        one = "/{correlation_id}"
        letters = "/api/v1/dead-letters"
        good = {"payload": 1}
        for path, method, correlation_id, body, status in (
            ("/api/v1/submit", "post", "", good, 202),
            ("/api/v1/submit", "post", "", {}, 422),
            ("/api/v1/submit", "post", "", b"{", 400),
            ("/api/v1/submit", "post", "", b"x" * 100_001, 413),
            ("/api/v1/batch", "post", "", {"requests": [good, {}, {"payload": 2}]}, 202),
            ("/api/v1/batch", "post", "", {"requests": []}, 422),
            ("/api/v1/status" + one, "get", waiting, None, 200),
            ("/api/v1/status" + one, "get", done, None, 200),
            ("/api/v1/status" + one, "get", str(uuid.uuid4()), None, 404),
            ("/api/v1/response" + one, "get", done, None, 200),
            ("/api/v1/response" + one, "get", waiting, None, 202),
            ("/api/v1/response" + one + "/body", "get", waiting, None, 202),
            ("/api/v1/cancel" + one, "post", waiting, None, 200),
            ("/api/v1/cancel" + one, "post", done, None, 409),
            ("/api/v1/events" + one, "get", done, None, 200),
            (letters, "get", "", None, 200),
            (letters + "/{number}", "get", "1", None, 200),
            (letters + "/{number}", "get", "2", None, 404),
            (letters + "/redrive", "post", "", {"filter": {}, "dry_run": True}, 200),
            (letters + "/redrive", "post", "", {"filter": {"x": 1}}, 422),
            (letters, "delete", "", None, 422),
            (letters + "/{number}", "delete", "2", None, 404),
            (letters + "/{number}/redrive", "post", "2", {}, 404),
            (letters + "/redrive", "post", "", {"filter": {}}, 200),
            ("/health", "get", "", None, 200),
            ("/health/live", "get", "", None, 200),
            ("/health/ready", "get", "", None, 200),
            ("/metrics", "get", "", None, 200),
        ):
            answer = self.ask(method.upper(), re.sub(r"\{\w+\}", correlation_id, path), body)
            self.assertEqual(answer[0], status, (path, answer))
            described = resolve(API["paths"][path][method]["responses"][str(status)])
            kind = answer[1]["content-type"].split(";")[0]
            self.assertIn(kind, described["content"], path)
            schema = resolve(described["content"][kind]["schema"])
            if "json" in kind:
                self.conforms(json.loads(answer[2]), schema, path)

    def conforms(self, value: Any, schema: dict[str, Any], where: str) -> None:
        """Assert that the answer is as described, and has no other members."""
        self.assertEqual(faults(value, schema, where, closed=True), [])


class RareAnswersTests(SynchronousTestCase):
    """Answers that a real server gives only after hours, or when a part of it is broken."""

    def ask(
        self, server: InMemoryServer, method: str, path: str, correlation_id: str, status: int, **more: Any
    ) -> dict[str, str]:
        """Send a request, compare the answer with its description, and return its header fields."""
        head, _, body = server.ask(method.upper(), path.replace("{correlation_id}", correlation_id), **more).partition(
            b"\r\n\r\n"
        )
        first, *lines = head.decode().split("\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self.assertEqual(int(first.split()[1]), status, (path, head, body))
        responses = API["paths"][path][method]["responses"]
        described = resolve(responses.get(str(status)) or responses["default"])
        if "content" in described:
            kind = fields["content-type"]
            self.assertIn(kind, described["content"], path)
            schema = described["content"][kind]["schema"]
            self.assertEqual(faults(json.loads(body), schema, path, closed=True), [])
        else:
            self.assertTrue(status != 204 or not body, path)
        return fields

    def submit(self, server: InMemoryServer, document: bytes = b'{"payload":1}') -> str:
        answer = server.ask("POST", "/api/v1/submit", document, content_type="application/json")
        correlation_id: str = json.loads(answer.partition(b"\r\n\r\n")[2])["correlation_id"]
        return correlation_id

    def test_expired(self) -> None:
        """410 is answered wherever it is described, and is described for each route with an id."""
        for short in (True, False):
            server = InMemoryServer(short)
            correlation_id = self.submit(server)
            server.handler.answers[0].callback("done")
            server.bench.pass_time(2 * TTL)
            asked = 0
            token = server.door.store.completion_token(correlation_id)
            told = {"openhqm_complete_token": token, "content_type": "application/json", "body": b"{}"}
            for path, methods in API["paths"].items():
                for method in methods if "{correlation_id}" in path else ():
                    more = told if "complete" in path or "progress" in path else {}
                    self.ask(server, method, path, correlation_id, 410, **more)
                    asked += 1
            self.assertEqual(asked, 7)

    def test_not_json(self) -> None:
        """415 is answered for a type and for an encoding."""
        for fields in ({"content_type": "text/plain"}, {"content_type": "application/json", "content_encoding": "br"}):
            self.ask(InMemoryServer(True), "post", "/api/v1/submit", "", 415, body=b"{}", **fields)

    def test_too_large(self) -> None:
        """413 for a body that makes a longer message than the queue takes."""
        lane = InMemoryServer(True)
        queue: Any = lane.bench.backend.queue
        queue.traits = evolve(queue.traits, largest_message=100)
        fields = {"content_type": "application/json"}
        self.ask(lane, "post", "/api/v1/submit", "", 413, body=b'{"payload":1}', **fields)

    def test_unavailable(self) -> None:
        """503 is answered to a submission while the process stops, and by the readiness route."""
        server = InMemoryServer(False)
        server.door.closed = server.health.draining = True
        fields = {"content_type": "application/json"}
        answer = self.ask(server, "post", "/api/v1/submit", "", 503, body=b'{"payload":1}', **fields)
        self.assertIn("retry-after", answer)
        self.ask(server, "get", "/health/ready", "", 503)
        self.ask(server, "get", "/health", "", 503)

    def test_metrics_off(self) -> None:
        """404 is answered for metrics that are switched off."""
        self.ask(InMemoryServer(False), "get", "/metrics", "", 404)

    def test_nothing_more(self) -> None:
        """204 is answered for a stream that was read to its end."""
        server = InMemoryServer(True)
        correlation_id = self.submit(server)
        server.handler.answers[0].callback("done")
        self.ask(server, "get", "/api/v1/events/{correlation_id}", correlation_id, 204, last_event_id="3")

    def test_body(self) -> None:
        """The reply is served with its own status; a problem where the request did not complete."""
        body = "/api/v1/response/{correlation_id}/body"
        self.assertIn("default", API["paths"][body]["get"]["responses"])
        server = InMemoryServer(True)
        correlation_id = self.submit(server)
        server.handler.answers[0].callback(
            Response(body=b"abc", status_code=418, headers={"Content-Type": "text/plain"})
        )
        self.assertEqual(self.ask(server, "get", body, correlation_id, 418)["content-type"], "text/plain")
        correlation_id = self.submit(server)
        server.handler.answers[1].errback(Reject("never"))
        answer = server.ask("GET", body.replace("{correlation_id}", correlation_id)).partition(b"\r\n\r\n")[2]
        self.assertEqual(faults(json.loads(answer), {"$ref": "#/components/schemas/problem"}, body, closed=True), [])

    def test_submissions(self) -> None:
        """The schema and the server accept and refuse the same submissions."""
        schema = API["paths"]["/api/v1/submit"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        server = InMemoryServer(True)
        for good, documents in (
            (
                True,
                (
                    {"payload": None},
                    {"payload": 1, "headers": None, "metadata": None},
                    {"payload": [], "headers": {}, "metadata": {}},
                    {"payload": {}, "headers": {"A": "b"}, "metadata": {"own": [1]}},
                    {"payload": 1, "headers": {f"A{number}": "" for number in range(100)}},
                    *({"payload": 1, "metadata": {"priority": one}} for one in ("low", "normal", "high")),
                    *({"payload": 1, "metadata": {"timeout": one}} for one in (0.001, 1, 2592000)),
                    *({"payload": 1, "metadata": {"delay": one}} for one in (0, 0.5, 2592000)),
                    {"payload": 1, "metadata": {"not_before": "1970-01-01T00:00:00Z"}},
                    {"payload": 1, "metadata": {"tags": ["a"] * 20}},
                    {"payload": 1, "metadata": {"tags": ["a" * 128]}},
                    *({"payload": 1, "metadata": {"method": one}} for one in ("GET", "PATCH")),
                    {"payload": 1, "metadata": {"path": "/a"}},
                    *({"payload": 1, "metadata": {"query": one}} for one in ("a=b", {"a": 1})),
                ),
            ),
            (
                False,
                (
                    [],
                    {},
                    {"metadata": {}},
                    {"payload": 1, "more": 1},
                    *({"payload": 1, "headers": one} for one in ([], "a", {"A": 1}, {"A": "b" * 8193})),
                    {"payload": 1, "headers": {f"A{number}": "" for number in range(101)}},
                    *({"payload": 1, "metadata": one} for one in ([], "a", 1)),
                    *({"payload": 1, "metadata": {"priority": one}} for one in ("urgent", 1, None)),
                    *({"payload": 1, "metadata": {"timeout": one}} for one in (0, -1, 2592001, "1", True, None)),
                    *({"payload": 1, "metadata": {"delay": one}} for one in (-1, 2592001, "1", False, None)),
                    *({"payload": 1, "metadata": {"not_before": one}} for one in ("tomorrow", 1, None)),
                    *({"payload": 1, "metadata": {"tags": one}} for one in ("a", [1], [""], ["a"] * 21, ["a" * 129])),
                    *({"payload": 1, "metadata": {"method": one}} for one in ("get", "TRACE", 1)),
                    *({"payload": 1, "metadata": {"path": one}} for one in ("a", 1)),
                    {"payload": 1, "metadata": {"query": 1}},
                    *({"payload": 1, "metadata": {name: 1}} for name in ("operation", "partition_key", "endpoint")),
                ),
            ),
        ):
            for submission in documents:
                text = json.dumps(submission).encode()
                answer = server.ask("POST", "/api/v1/submit", text, content_type="application/json")
                self.assertEqual(answer.startswith(b"HTTP/1.1 202 "), good, (submission, answer))
                self.assertEqual(not faults(submission, schema, "submission"), good, submission)


KINDS: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
    "number": (int, float),
    "null": type(None),
}


def faults(value: Any, schema: dict[str, Any], where: str, *, closed: bool = False) -> list[str]:
    """Where a value is not what JSON Schema has it, for the part of it that the description uses.

    ``closed``: no member may be there that is not described.
    """
    schema = resolve(schema)
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    wrong = []
    if kinds and not any(
        isinstance(value, KINDS[kind]) and (kind == "boolean") is isinstance(value, bool) for kind in kinds
    ):
        return [f"{where}: {value!r} is no {kinds}"]
    for keyword, broken in (
        ("enum", lambda most: value not in most),
        ("const", lambda most: value != most),
        ("minimum", lambda most: value < most),
        ("exclusiveMinimum", lambda most: value <= most),
        ("maximum", lambda most: value > most),
        ("minLength", lambda most: len(value) < most),
        ("maxLength", lambda most: len(value) > most),
        ("maxItems", lambda most: len(value) > most),
        ("maxProperties", lambda most: value is not None and len(value) > most),
        ("pattern", lambda most: re.search(most, value) is None),
        ("format", lambda most: not FORMATS[most](value)),
    ):
        if keyword in schema and broken(schema[keyword]):
            wrong.append(f"{where}: {value!r} against {keyword} {schema[keyword]!r}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            wrong += faults(item, schema.get("items", {}), f"{where}.{index}", closed=closed)
    if isinstance(value, dict):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", not closed)
        wrong += [f"{where}: {name} is missing" for name in schema.get("required", ()) if name not in value]
        for name, member in value.items():
            if name in properties:
                wrong += faults(member, properties[name], f"{where}.{name}", closed=closed)
            elif isinstance(others, dict):
                wrong += faults(member, others, f"{where}.{name}", closed=closed)
            elif not others and properties:
                wrong.append(f"{where}: {name} stands nowhere")
    return wrong


def _is_moment(value: str) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


FORMATS: dict[str, Callable[[str], object]] = {
    "date-time": _is_moment,
    "uuid": lambda value: re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value),
}
