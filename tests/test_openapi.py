"""The description of the API is true: every route is in it, and every answer is as it says."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

from openhqm.ingress.openapi import document
from openhqm.ingress.routes import Routes
from tests.test_http import Case

API = json.loads(document())


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        found: Any = API
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema


class Truth(Case):
    def test_routes(self) -> None:
        """Each route is described, with its method, and nothing else is."""
        routes = {
            (re.sub(r"<(\w+)>", r"{\1}", rule.rule), method.lower())
            for rule in Routes.app.url_map.iter_rules()
            for method in rule.methods or ()
            if method not in ("HEAD", "OPTIONS")
        }
        described = {(path, method) for path, methods in API["paths"].items() for method in methods}
        self.assertEqual(routes, described)

    def test_served(self) -> None:
        """The server hands out what was tested here."""
        self.assertEqual(json.loads(self.ask("GET", "/openapi.json")[2]), API)

    def test_answers(self) -> None:
        """Answers of every kind have the status, type and members that are described."""
        done, waiting = self.server.submit(1), self.server.submit(2, delay=60)
        self.server.response(done)
        one = "/{correlation_id}"
        good = {"payload": 1}
        for path, method, correlation_id, body, status in (
            ("/api/v1/submit", "post", "", good, 202),
            ("/api/v1/submit", "post", "", {}, 422),
            ("/api/v1/submit", "post", "", b"{", 400),
            ("/api/v1/submit", "post", "", b"x" * 100_001, 413),
            ("/api/v1/status" + one, "get", waiting, None, 200),
            ("/api/v1/status" + one, "get", done, None, 200),
            ("/api/v1/status" + one, "get", str(uuid.uuid4()), None, 404),
            ("/api/v1/response" + one, "get", done, None, 200),
            ("/api/v1/response" + one, "get", waiting, None, 202),
            ("/api/v1/response" + one + "/body", "get", waiting, None, 202),
            ("/api/v1/cancel" + one, "post", waiting, None, 200),
            ("/api/v1/cancel" + one, "post", done, None, 409),
            ("/api/v1/events" + one, "get", done, None, 200),
            ("/health", "get", "", None, 200),
            ("/health/live", "get", "", None, 200),
            ("/health/ready", "get", "", None, 200),
            ("/metrics", "get", "", None, 200),
        ):
            answer = self.ask(method.upper(), path.replace("{correlation_id}", correlation_id), body)
            self.assertEqual(answer[0], status, (path, answer))
            described = resolve(API["paths"][path][method]["responses"][str(status)])
            kind = answer[1]["content-type"].split(";")[0]
            self.assertIn(kind, described["content"], path)
            schema = resolve(described["content"][kind]["schema"])
            if "json" in kind:
                self.conforms(json.loads(answer[2]), schema, path)

    def conforms(self, value: Any, schema: dict[str, Any], where: str) -> None:
        """The part of JSON Schema that the description uses."""
        schema = resolve(schema)
        kinds = schema.get("type", [])
        kinds = [kinds] if isinstance(kinds, str) else kinds
        known = {"object": dict, "string": str, "integer": int, "number": (int, float), "null": type(None)}
        if kinds:
            self.assertTrue(any(isinstance(value, known[kind]) for kind in kinds), (where, value, kinds))
        if "enum" in schema:
            self.assertIn(value, schema["enum"], where)
        if "const" in schema:
            self.assertEqual(value, schema["const"], where)
        if isinstance(value, dict):
            for name in schema.get("required", ()):
                self.assertIn(name, value, where)
            for name, member in schema.get("properties", {}).items():
                if name in value:
                    self.conforms(value[name], member, f"{where}.{name}")
            if "properties" in schema:
                strange = set(value) - set(schema["properties"]) - {"request_status"}
                self.assertFalse(strange, f"{where}: {strange} stand nowhere")
