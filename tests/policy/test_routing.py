"""Which route a request takes: conditions, their order, and values mapped to headers and to the query."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import TransformFailed
from openhqm.messages import Submission
from openhqm.policy.fields import Document, Field
from openhqm.policy.routing import CompiledRoute, Condition, RouteTable, header_fields, query_fields
from tests import hypothesis_profile  # noqa: F401

ORDER = b'{"type":"order","order":{"id":17,"total":1.10},"items":[{"sku":"a"},{"sku":"b"}],"none":null,"yes":true}'


def document(payload: bytes = ORDER, **given: Any) -> Document:
    """A document with this payload, metadata and headers."""
    return Document(Submission(payload, **given), "an-id")


def when(name: str, value: Any = None, pattern: str | None = None) -> Condition:
    """A condition."""
    return Condition(Field.parse(name), value, None if pattern is None else re.compile(pattern))


class ConditionTests(SynchronousTestCase):
    """`Condition`"""

    def matches(self, condition: Condition, value: str) -> bool:
        return condition.matches(document(b'{"a":%b}' % value.encode()))

    def test_values_compare_as_json(self) -> None:
        """true is neither 1 nor "1"; 1.0 and 1 are one number, as RFC 8259 leaves open and readers agree."""
        for wanted, same, other in (
            (1, ("1", "1.0", "1e0"), ("true", '"1"', "2", "[1]", "null")),
            (True, ("true",), ("1", '"true"', "false", "1.0")),
            (False, ("false",), ("0", "null", '""')),
            ("1", ('"1"', '"\\u0031"'), ("1", "true")),
            ("", ('""',), ("null", "0", "[]", "{}")),
            (1.5, ("1.5", "15e-1"), ('"1.5"', "1.50001")),
            (0, ("0", "-0"), ("false", '""', "null")),
        ):
            for text in same:
                self.assertTrue(self.matches(when("a", wanted), text), (wanted, text))
            for text in other:
                self.assertFalse(self.matches(when("a", wanted), text), (wanted, text))

    def test_patterns(self) -> None:
        """A pattern is searched for in a string, or in the JSON text of a number, of true and of false."""
        for pattern, same, other in (
            ("^order", ('"order.created"',), ('"reorder"', '["order"]', '{"order":1}')),
            ("der", ('"order"', '"reorder"'), ('"o"',)),
            (r"^\d+$", ("17", '"17"'), ("1.5", "-17", "true", '"17x"')),
            ("^true$", ("true", '"true"'), ("false", "1")),
            ("", ('""', "0", "false"), ("null", "[]", "{}")),
        ):
            for text in same:
                self.assertTrue(self.matches(when("a", pattern=pattern), text), (pattern, text))
            for text in other:
                self.assertFalse(self.matches(when("a", pattern=pattern), text), (pattern, text))

    def test_missing(self) -> None:
        """A missing field matches nothing, not even a pattern that matches everything."""
        self.assertFalse(when("b", pattern="").matches(document(b'{"a":1}')))
        self.assertFalse(when("b", "").matches(document(b"not JSON")))

    def test_unreadable_values(self) -> None:
        """A number with too many digits, and a lone surrogate, match nothing and raise nothing."""
        for text in ("9" * 5000, '"\\ud800"'):
            self.assertFalse(self.matches(when("a", 1), text))
        self.assertFalse(when("metadata.a", pattern="").matches(document(metadata={"a": "\ud800"})))


class TableTests(SynchronousTestCase):
    """`RouteTable`"""

    def chosen(self, routes: list[CompiledRoute], payload: bytes = ORDER, **given: Any) -> str | None:
        route = RouteTable(routes).choose(Submission(payload, **given))
        return None if route is None else route.name

    def test_order(self) -> None:
        """The highest priority comes first, then the order of the configuration; the default is last, whatever its
        priority.
        """
        default = CompiledRoute("default", priority=100)
        low, first, second = (
            CompiledRoute(name, when("type", "order"), priority)
            for name, priority in (("low", -1), ("first", 5), ("second", 5))
        )
        self.assertEqual(self.chosen([default, low, first, second]), "first")
        self.assertEqual(self.chosen([default, low, second, first]), "second")
        self.assertEqual(self.chosen([default, low]), "low")
        self.assertEqual(self.chosen([default, low], b'{"type":"other"}'), "default")
        self.assertIsNone(self.chosen([low], b'{"type":"other"}'))
        self.assertIsNone(self.chosen([]))

    @given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), max_size=8))
    def test_any_order(self, given: list[tuple[int, bool]]) -> None:
        """Of the matching routes, the first one with the highest priority is taken."""
        routes = [
            CompiledRoute(str(index), when("type", "order" if matches else "other"), priority)
            for index, (priority, matches) in enumerate(given)
        ]
        matching = [(-priority, index) for index, (priority, matches) in enumerate(given) if matches]
        self.assertEqual(self.chosen(routes), str(min(matching)[1]) if matching else None)

    def test_metadata_and_headers(self) -> None:
        """Metadata and headers are matched like the payload."""
        routes = [
            CompiledRoute("tenant", when("metadata.tenant", "acme")),
            CompiledRoute("kind", when("headers.X-Kind", pattern="^new")),
        ]
        self.assertEqual(self.chosen(routes, metadata={"tenant": "acme"}), "tenant")
        self.assertEqual(self.chosen(routes, headers={"x-kind": "newest"}), "kind")
        self.assertIsNone(self.chosen(routes, metadata={"tenant": 1}, headers={"X-Kind": "old"}))

    def test_payload_parsed_when_needed(self) -> None:
        """The payload is not parsed for metadata, headers or a default route, and once for any number of routes."""
        self.assertEqual(self.parses([CompiledRoute("a", when("metadata.a", 1)), CompiledRoute("default")]), 0)
        self.assertEqual(self.parses([CompiledRoute("a", when("headers.a", "1")), CompiledRoute("default")]), 0)
        self.assertEqual(self.parses([CompiledRoute(f"r{n}", when("type", f"other-{n}")) for n in range(10)]), 1)

    def parses(self, routes: list[CompiledRoute]) -> int:
        """How often msgspec parses while a route is chosen."""
        table, submission, read = RouteTable(routes), Submission(ORDER), []

        def profile(frame: Any, event: str, called: Any) -> None:
            if event == "c_call" and isinstance(getattr(called, "__self__", None), msgspec.json.Decoder):
                read.append(called)

        before = sys.getprofile()
        sys.setprofile(profile)
        try:
            table.choose(submission)
        finally:
            sys.setprofile(before)
        return len(read)


class OutgoingTests(SynchronousTestCase):
    """`CompiledRoute.outgoing`"""

    def test_mapped(self) -> None:
        """Strings are sent as they are, other values as JSON, objects as compact JSON. Missing values are left out."""
        mappings = {"X-Id": "payload.order.id", "X-Order": "order", "X-Type": "type", "X-Yes": "yes", "X-No": "nothing"}
        expected = {"X-Id": "17", "X-Order": '{"id":17,"total":1.10}', "X-Type": "order", "X-Yes": "true"}
        route = CompiledRoute("a", headers=header_fields(mappings), query=query_fields(mappings))
        outgoing = route.outgoing(document())
        self.assertEqual((outgoing.headers, outgoing.query), (expected, expected))
        self.assertEqual((outgoing.content, outgoing.content_type), (ORDER, "application/json"))

    def test_no_line_break_in_a_header(self) -> None:
        """A value that would end the header field, or hide something in it, is refused, and not repaired."""
        route = CompiledRoute("orders", headers=header_fields({"X-Note": "note"}))
        for note in ("a\r\nX-Evil: 1", "a\n", "\r", "\0", "\t", "\x1b[31m", "\x7f", "\x85", "\u2028", "a" * 8193):
            failed = self.assertRaises(TransformFailed, route.outgoing, document(json.dumps({"note": note}).encode()))
            self.assertTrue(
                str(failed).startswith("route orders: the value of note cannot be sent in the header X-Note"), failed
            )

    @given(st.text())
    @example("a\r\nb")
    def test_any_header(self, note: str) -> None:
        """Any value is sent unchanged and without control characters, or not sent."""
        route = CompiledRoute("a", headers=header_fields({"X-Note": "note"}), query=query_fields({"n": "note"}))
        try:
            outgoing = route.outgoing(document(json.dumps({"note": note}).encode()))
        except TransformFailed:
            return
        self.assertEqual(outgoing.headers["X-Note"], note)
        self.assertEqual(outgoing.query["n"], note)
        self.assertIsNone(re.search(r"[\x00-\x1f\x7f-\x9f]", note))
        note.encode()

    def test_any_query(self) -> None:
        """A query is percent-encoded, so that any valid text can be sent in it."""
        route = CompiledRoute("a", query=query_fields({"q": "metadata.q"}))
        self.assertEqual(route.outgoing(document(metadata={"q": "a\r\nb&c=d"})).query, {"q": "a\r\nb&c=d"})
        self.assertRaises(TransformFailed, route.outgoing, document(metadata={"q": "\ud800"}))

    def test_names(self) -> None:
        """A mapped header name must be valid, not repeated, and not one that frames the message or names
        its receiver.
        """
        for names in (
            ["X Y"],
            ["X:"],
            [""],
            ["Ä"],
            ["X-A", "x-a"],
            ["Host"],
            ["content-length"],
            ["Transfer-Encoding"],
        ):
            self.assertRaises(ValueError, header_fields, dict.fromkeys(names, "a"))
        error = self.assertRaises(ValueError, query_fields, {"q": "a..b"})
        self.assertIn("q: ", str(error))

    def test_error_names_the_route(self) -> None:
        """An error has the name of the route and the reason."""
        route = CompiledRoute("orders", query=query_fields({"q": "metadata.q"}))
        failed = self.assertRaises(TransformFailed, route.outgoing, document(metadata={"q": "\ud800"}))
        self.assertEqual((failed.route, failed.reason), ("orders", "the value of metadata.q cannot be sent as text"))
        self.assertEqual(str(failed), f"route orders: {failed.reason}")
