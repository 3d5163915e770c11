"""Schemas of payloads in the configuration, and in a process."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from openhqm.bridges.reading import REFUSED_STATUS
from openhqm.config.schemas import schemas_of
from openhqm.errors import PayloadRefused
from openhqm.policy.reason_classes import ReasonClass, reason_class
from tests.bridges.test_reading import message, reader
from tests.config.test_config import ConfigCase
from tests.policy.test_schema_bounds import REFUSED
from tests.policy.test_schemas import INVALID, ORDER
from tests.servers import Server

ENDPOINT = {"url": "http://127.0.0.1:1/"}


def everywhere(schema: Any) -> list[tuple[str, dict[str, Any]]]:
    """A configuration for each place where a schema can stand, with its key."""
    return [
        (
            "proxy.endpoints.a.schema",
            {"proxy": {"enabled": True, "endpoints": {"a": {**ENDPOINT, "schema": schema}}}},
        ),
        (
            "routing.routes.0.schema",
            {
                "proxy": {"enabled": True, "endpoints": {"a": ENDPOINT}},
                "routing": {"routes": [{"name": "r", "is_default": True, "endpoint": "a", "schema": schema}]},
            },
        ),
        ("worker.schema", {"worker": {"handler": "echo", "schema": schema}}),
        ("worker.schemas", {"worker": {"handlers": {"op": "echo"}, "schemas": {"op": schema}}}),
    ]


class ConfigurationTests(ConfigCase):
    """`openhqm.config.schemas`"""

    def test_everywhere(self) -> None:
        """A schema is read from the file, from a file of its own and from a variable; without one there are none."""
        for _, document in everywhere(ORDER):
            self.assertIsNotNone(schemas_of(self.load(json.dumps(document))), document)
        path = self.file(json.dumps(ORDER))
        found = schemas_of(self.load(f"worker: {{handler: echo, schema_file: {path}}}"))
        assert found is not None and found.handler is not None
        self.assertEqual(len(found.handler.faults(b"{}")), 1)
        found = schemas_of(self.load("worker: {handler: echo}", WORKER__SCHEMA=json.dumps(ORDER)))
        assert found is not None and found.handler is not None
        self.assertEqual(len(found.handler.faults(b"{}")), 1)
        self.assertIsNone(self.load("worker: {handler: echo}").addressing().schemas)

    def test_refused(self) -> None:
        """What is no schema, refers outside or is a bomb is refused when it is loaded, by its key."""
        for schema, _ in (*INVALID, *REFUSED):
            for key, document in everywhere(schema):
                self.assertEqual(self.complaint(json.dumps(document)).key, key)
        for schema in (3, "x", [], True, "[" * 100_000):
            for key, document in everywhere(schema):
                self.assertTrue(self.complaint(json.dumps(document)).key.startswith(key))
        nested = self.file("[" * 100_000)
        self.assertEqual(self.complaint(f"worker: {{handler: echo, schema_file: {nested}}}").key, "worker.schema_file")

    def test_without_effect(self) -> None:
        """A schema that no request is checked by is refused."""
        for text, key in (
            ("worker: {handlers: {a: echo}, schema: {type: object}}", "worker.schema"),
            ("worker: {handlers: {a: echo}, schemas: {b: {type: object}}}", "worker.schemas.b"),
        ):
            self.assertEqual(self.complaint(text).key, key)

    def test_from_a_broker(self) -> None:
        """A message that its schema refuses is a dead letter of the class ``schema``, with its bytes."""
        addressing = self.load(json.dumps({"worker": {"handler": "echo", "schema": ORDER}})).addressing()
        reading = reader(addressing=addressing)
        self.assertEqual(reading.read(message(b'{"sku": "a"}'), 1.0).submission.payload, b'{"sku": "a"}')
        for body in (b'{"sku": 1}', b"\xff no JSON", b"7"):
            error = self.assertRaises(PayloadRefused, reading.read, message(body), 1.0)
            letter = reading.letter(message(body), str(error), 1.0, ReasonClass.SCHEMA)
            self.assertIs(reason_class(letter), ReasonClass.SCHEMA)
            self.assertEqual((letter.request.submission.body, letter.reply.status_code), (body, REFUSED_STATUS))


class ProcessTests(ConfigCase):
    """A process with a schema"""

    def test_door(self) -> None:
        """What the schema refuses is 422 with pointers, alone and in a batch; SIGHUP changes the schema."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        path = directory / "cfg.yaml"
        path.write_text(json.dumps({"worker": {"handler": "echo", "schema": ORDER}, "queue": {"type": "memory"}}))
        server = Server(directory)
        server.start("--config", str(path))
        self.addCleanup(server.stop)

        def submit(payload: Any) -> tuple[int, Any]:
            status, _, body = server.ask("POST", "/api/v1/submit", {"payload": payload})
            return status, json.loads(body)

        self.assertEqual(submit({"sku": "a"})[0], 202)
        status, problem = submit({"count": 0, "secret": "s3cret"})
        self.assertEqual((status, problem["field"]), (422, "payload"))
        self.assertEqual({each["pointer"] for each in problem["errors"]}, {"", "/count"})
        self.assertNotIn("s3cret", json.dumps(problem))
        batch = {"requests": [{"payload": {"sku": "a"}}, {"payload": {"sku": 1}}]}
        status, _, body = server.ask("POST", "/api/v1/batch", batch)
        found = json.loads(body)
        self.assertEqual(found["rejected"][0]["problem"]["errors"][0]["pointer"], "/sku")
        path.write_text(json.dumps({"worker": {"handler": "echo", "schema": {}}, "queue": {"type": "memory"}}))
        assert server.process is not None
        server.process.send_signal(signal.SIGHUP)
        server.until(lambda: submit(1)[0] == 202, "the schema did not change")
