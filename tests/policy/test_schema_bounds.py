"""What a JSON Schema may cost, and that it refers to nothing else."""

from __future__ import annotations

import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.schema_bounds import check_bounds
from openhqm.policy.schemas import PayloadSchema


def doubled(levels: int, keyword: str = "allOf") -> dict[str, Any]:
    """A schema each level of which evaluates the next one twice."""
    defs: dict[str, Any] = {str(i): {keyword: [{"$ref": f"#/$defs/{i + 1}"}] * 2} for i in range(levels)}
    return {"$defs": {**defs, str(levels): {"type": "integer"}}, "$ref": "#/$defs/0"}


def nested(depth: int) -> dict[str, Any]:
    """A schema so many levels deep."""
    found: dict[str, Any] = {}
    for _ in range(depth - 1):
        found = {"not": found}
    return found


# Schemas that are refused, each with a word of the reason.
REFUSED: tuple[tuple[Any, str], ...] = (
    ({"$ref": "http://127.0.0.1:1/x.json"}, "elsewhere"),
    ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, "elsewhere"),
    ({"$ref": "file:///etc/passwd"}, "elsewhere"),
    ({"$ref": "other.json"}, "elsewhere"),
    ({"$ref": "/etc/passwd"}, "elsewhere"),
    ({"$ref": ""}, "elsewhere"),
    ({"$ref": 3}, "elsewhere"),
    ({"$ref": "urn:x:y"}, "elsewhere"),
    ({"properties": {"a": {"$dynamicRef": "http://a.test/#x"}}}, "elsewhere"),
    ({"$ref": "#/$defs/a"}, "has not"),
    ({"$ref": "#a"}, "has not"),
    ({"prefixItems": [{}], "$ref": "#/prefixItems/1"}, "has not"),
    ({"$defs": {"a": {"$id": "http://a.test/"}}}, "$id"),
    ({"$ref": "#"}, "going deeper"),
    ({"allOf": [{"not": {"$ref": "#"}}]}, "going deeper"),
    ({"$dynamicAnchor": "a", "$dynamicRef": "#a"}, "going deeper"),
    ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "going deeper"),
    ({"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}, "more than one way"),
    ({"properties": {"a": {"$ref": "#"}}, "patternProperties": {"a": {"$ref": "#"}}}, "more than one way"),
    ({"patternProperties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}}, "more than one way"),
    ({"items": {"$ref": "#"}, "contains": {"$ref": "#"}}, "more than one way"),
    ({"anyOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]}, "more than one way"),
    (doubled(20), "evaluations"),
    (doubled(40, "oneOf"), "evaluations"),
    (
        {"properties": {"a": doubled(14)["$defs"]["0"]}, **{k: v for k, v in doubled(14).items() if k == "$defs"}},
        "evalu",
    ),
    (nested(65), "nested"),
    ({"enum": list(range(20_000))}, "parts"),
)
# Schemas that are taken.
TAKEN: tuple[Any, ...] = (
    {},
    {"$id": "http://a.test/order", "$defs": {"a": {"type": "string"}}, "properties": {"x": {"$ref": "#/$defs/a"}}},
    {"$defs": {"a/b~c": {"type": "string"}}, "$ref": "#/$defs/a~1b~0c"},
    {"$defs": {"a b": {"type": "string"}}, "$ref": "#/$defs/a%20b"},
    {"$defs": {"a": {"$anchor": "here", "type": "string"}}, "$ref": "#here"},
    {"properties": {"children": {"items": {"$ref": "#"}}}},
    {"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}},
    {"anyOf": [{"type": "string"}, {"items": {"$ref": "#"}}]},
    {"prefixItems": [{"$ref": "#"}], "items": {"$ref": "#"}, "properties": {"a": {"$ref": "#"}}},
    doubled(10),
    nested(60),
    {"properties": {f"p{i}": {"$ref": "#/$defs/a"} for i in range(500)}, "$defs": {"a": {"required": ["x"]}}},
    {"const": {"$ref": "http://a.test/"}},
)


class BoundsTests(SynchronousTestCase):
    """`check_bounds`"""

    def test_refused(self) -> None:
        """A reference to elsewhere or to nothing, and a bomb of any kind, is refused within a moment."""
        for schema, word in REFUSED:
            began = time.process_time()
            self.assertIn(word, str(self.assertRaises(ValueError, check_bounds, schema)), str(schema)[:200])
            self.assertLess(time.process_time() - began, 2)

    def test_taken(self) -> None:
        """Usual schemas are taken: trees, lists, anchors, parts that are used in many places."""
        for schema in TAKEN:
            check_bounds(schema)

    def test_many_faults(self) -> None:
        """However many branches fail for each of many values, telling it takes a bounded time: the first is told.

        All faults of this payload have 2,000,000 parts, and take the library minutes.
        """
        branches = [{"properties": {f"p{i}{j}": {"type": "string"} for j in range(20)}} for i in range(25)]
        union = {"items": {"anyOf": [{"required": list(each["properties"]), **each} for each in branches]}}
        for schema in (union, {"$defs": doubled(9, "oneOf")["$defs"], "items": {"$ref": "#/$defs/0"}}):
            began = time.process_time()
            faults = PayloadSchema(schema).faults(b"[" + b"{}," * 2000 + b"1]")
            self.assertEqual([each.pointer for each in faults], ["/0"])
            self.assertLess(time.process_time() - began, 20)

    def test_weight(self) -> None:
        """A fault of a plain schema has one part; one of a union has as many as its branches have."""
        self.assertEqual(
            check_bounds({"properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {"type": "null"}}}), 1
        )
        self.assertEqual(check_bounds({"anyOf": [{"properties": {"a": {}, "b": {}}}, {"type": "null"}]}), 4)
        self.assertEqual(check_bounds({"items": doubled(3)["$defs"]["0"], "$defs": doubled(3)["$defs"]}), 2 * 14)
