"""What payloads have to be."""

from __future__ import annotations

import sys
import time
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from openhqm.config.routing import Route
from openhqm.errors import PayloadRefused
from openhqm.messages import Submission
from openhqm.policy.addressing import Addressing
from openhqm.policy.routing import RouteTable
from openhqm.policy.schemas import MOST_FAULTS, WHOLE_BYTES, PayloadSchema, Schemas

ORDER = {
    "type": "object",
    "required": ["sku"],
    "properties": {"sku": {"type": "string"}, "count": {"type": "integer", "minimum": 1}, "a/b~c": {"const": 1}},
    "additionalProperties": False,
}
# What is no schema, each with a word of the reason.
INVALID: tuple[tuple[Any, str], ...] = (
    ({"type": "text"}, "no JSON Schema"),
    ({"minimum": "x"}, "/minimum"),
    ({"properties": {"a": {"required": "b"}}}, "/properties/a/required"),
    ({"pattern": "("}, "/pattern"),
    ({"pattern": "(?=a)b"}, "/pattern"),  # what needs backtracking has no bound
    ({"pattern": r"(a)\1"}, "/pattern"),
    ({"pattern": "((a{1,1000}){1,1000}){1,1000}"}, "/pattern"),
    ({"patternProperties": {"(": {}}}, "JSON Schema"),
    ({"$schema": "http://json-schema.org/draft-07/schema#"}, "$schema"),
    ({"$schema": "http://a.test/mine"}, "$schema"),
    ({"$ref": "http://127.0.0.1:1/"}, "elsewhere"),
)


class PayloadSchemaTests(SynchronousTestCase):
    def found(self, schema: Any, payload: bytes) -> list[tuple[str, str]]:
        return [(each.pointer, each.detail) for each in PayloadSchema(schema).faults(payload)]

    def test_invalid(self) -> None:
        """What is no schema of 2020-12 is refused, with the place; patterns that could backtrack are, too."""
        for schema, word in INVALID:
            self.assertIn(word, str(self.assertRaises(ValueError, PayloadSchema, schema)), schema)

    def test_not_installed(self) -> None:
        """Without the package, a schema is refused with the command that installs it."""
        with mock.patch.dict(sys.modules, {"jsonschema_rs": None}):
            error = self.assertRaises(ValueError, PayloadSchema, {})
        self.assertIn("pip install '.[schema]'", str(error))

    def test_pointers(self) -> None:
        """Each fault has its JSON Pointer (RFC 6901), and no value of the payload."""
        self.assertEqual(self.found(ORDER, b'{"sku": "a", "count": 2, "a/b~c": 1}'), [])
        found = dict(self.found(ORDER, b'{"count": 0.5, "a/b~c": "s3cret", "x": 1}'))
        self.assertEqual(set(found), {"", "/count", "/a~1b~0c"})
        self.assertNotIn("s3cret", str(found))
        self.assertEqual(
            [pointer for pointer, _ in self.found({"items": {"items": {"type": "null"}}}, b"[[],[null,1]]")], ["/1/1"]
        )

    def test_numbers(self) -> None:
        """Numbers count as they came: no digit is rounded away, and no length is too much."""
        huge = b"9" * 5000
        for schema, payload, good in (
            ({"maximum": 9007199254740992}, b"9007199254740993", False),
            ({"maximum": 9007199254740993}, b"9007199254740993", True),
            ({"const": 9007199254740993}, b"9007199254740992", False),
            ({"maximum": 10**30}, str(10**30 + 1).encode(), False),
            ({"maximum": 1}, huge, False),
            ({"type": "integer"}, huge, True),
            ({"maximum": 1}, b"1e400", False),
            ({"type": "number"}, b"1e400", True),
            ({"exclusiveMaximum": 1}, b"0.99999999999999999999999", True),
            ({"maximum": 1}, b"1.00000000000000000000001", False),
            ({"type": "integer"}, b"1.0", True),
            ({"type": "integer"}, b"1.5", False),
            ({"minimum": 0}, b"-1e-400", False),
            ({"multipleOf": 0.01}, b"19.99", True),
        ):
            self.assertEqual(not self.found(schema, payload), good, (schema, payload[:40]))

    def test_cannot_be_checked(self) -> None:
        """A text that no encoding has is not as a schema has it, and breaks nothing."""
        for payload in (b'"\\ud800"', b'["\\udc00"]', b'{"\\ud800": 1}'):
            self.assertEqual(len(self.found({"type": "null"}, payload)), 1)

    def test_formats(self) -> None:
        """A format that is known is asserted."""
        self.assertEqual(self.found({"format": "date-time"}, b'"2026-11-27T10:00:00Z"'), [])
        self.assertEqual(len(self.found({"format": "date-time"}, b'"yesterday"')), 1)

    def test_bounded(self) -> None:
        """Many faults are told up to a number, and of a large payload the first, in time that its length bounds."""
        schema = {"items": {"type": "integer"}}
        self.assertEqual(len(self.found(schema, b"[" + b'"a",' * 100 + b"1]")), MOST_FAULTS)
        large = b"[" + b'"a",' * 500_000 + b"1]"
        self.assertGreater(len(large), WHOLE_BYTES)
        began = time.process_time()
        self.assertEqual([pointer for pointer, _ in self.found(schema, large)], ["/0"])
        self.assertEqual(len(self.found({"required": ["x" * 1000]}, b"{}")[0][1]), 200)
        evil = b'"' + b"a" * 1_000_000 + b'!"'
        self.assertEqual(len(self.found({"pattern": "^(a+)+$"}, evil)), 1)
        self.assertEqual(len(self.found({"uniqueItems": True}, b"[" + b"[1,2]," * 100_000 + b"1]")), 1)
        self.assertLess(time.process_time() - began, 20)


class SchemasTests(SynchronousTestCase):
    """`Schemas` within `Addressing`"""

    def test_which(self) -> None:
        """The schema of the endpoint, of the route, of the operation or of the handler holds, and no other."""
        number, text = PayloadSchema({"type": "integer"}), PayloadSchema({"type": ["string", "object"]})
        route = Route(name="r", match_field="metadata.kind", match_value="x", endpoint="b").compiled()
        addressing = Addressing(
            endpoints=("a", "b", "c"),
            handler=True,
            operations=("op", "other"),
            routes=RouteTable([route]),
            schemas=Schemas({"a": number}, {"r": text}, {"op": number}, text),
        )
        for payload, metadata, subject in (
            (b"1", {"endpoint": "a"}, None),
            (b'"s"', {"endpoint": "a"}, "the endpoint a"),
            (b"1", {"kind": "x"}, "the route r"),
            (b'"s"', {"kind": "x"}, None),
            (b"1", {"kind": "x", "endpoint": "c"}, None),  # not the endpoint of the route
            (b'"s"', {"operation": "op"}, "the operation op"),
            (b"1", {"operation": "op"}, None),
            (b'{"operation": "op"}', {}, "the operation op"),
            (b"1", {"operation": "other"}, "the handler"),
            (b"1", {}, "the handler"),
            (b'"s"', {}, None),
        ):
            submission = Submission(payload, metadata=metadata)
            if subject is None:
                addressing.addressed(submission)
            else:
                error = self.assertRaises(PayloadRefused, addressing.addressed, submission)
                self.assertIn(f"the schema of {subject} ", str(error))

    def test_no_json(self) -> None:
        """Content that is no JSON is refused where there is a schema."""
        schemas = Schemas(handler=PayloadSchema({}))
        error = self.assertRaises(
            PayloadRefused, Addressing(schemas=schemas).addressed, Submission(b"null", body=b"\xff")
        )
        self.assertIn("must be JSON", str(error))
