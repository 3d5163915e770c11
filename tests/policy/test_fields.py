"""Fields of a request by their dotted names."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.messages import Submission
from openhqm.policy.fields import Document, Field, to_text
from tests import hypothesis_profile  # noqa: F401

ORDER = b'{"type":"order","order":{"id":17,"total":1.10},"items":[{"sku":"a"},{"sku":"b"}],"none":null,"yes":true}'
NAMES = st.text(st.characters(exclude_characters=".", exclude_categories=["Cs"]), min_size=1)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


def document(payload: bytes = ORDER, **given: Any) -> Document:
    """A document with this payload, metadata and headers."""
    return Document(Submission(payload, **given), "an-id")


def found(name: str, payload: bytes = ORDER, **given: Any) -> bytes | None:
    """The value of the field called ``name``."""
    return document(payload, **given).find(Field.parse(name))


class FieldTests(SynchronousTestCase):
    """`Field` and `Document`"""

    def test_paths(self) -> None:
        """A dotted name leads through objects, and by number through lists, in payload, metadata and headers."""
        given = {"metadata": {"tenant": "acme", "tags": ["a", "b"]}, "headers": {"X-Kind": "new", "a.b": "dots"}}
        for name, expected in (
            ("payload.type", b'"order"'),
            ("payload.order.id", b"17"),
            ("payload.items.1.sku", b'"b"'),
            ("payload.none", b"null"),
            ("payload.items", b'[{"sku":"a"},{"sku":"b"}]'),
            ("payload", ORDER),
            ("metadata.tenant", b'"acme"'),
            ("metadata.tags.1", b'"b"'),
            ("headers.X-Kind", b'"new"'),
            ("headers.x-kind", b'"new"'),
            ("headers.A.B", b'"dots"'),
            ("correlation_id", b'"an-id"'),
        ):
            self.assertEqual(found(name, **given), expected, name)

    def test_without_a_root(self) -> None:
        """A name without a root is looked up in the payload. The name of a root means the root."""
        self.assertEqual(found("order.id"), b"17")
        self.assertEqual(found("operation", b'{"operation":"resize"}'), b'"resize"')
        self.assertEqual(found("payload.metadata.a", b'{"metadata":{"a":1}}', metadata={"a": 2}), b"1")
        self.assertEqual(found("metadata.a", b'{"metadata":{"a":1}}', metadata={"a": 2}), b"2")

    def test_missing(self) -> None:
        """A missing member or index, a member of a scalar, and any field of a payload that is not JSON
        are not found.
        """
        for name in (
            "payload.nothing",
            "payload.type.length",
            "payload.order.id.0",
            "payload.items.2",
            "payload.items.-1",
            "payload.items.00x",
            "payload.items.sku",
            "payload.items.\N{ARABIC-INDIC DIGIT ONE}",
            "payload.items.99999999999999999999",
            "payload.items." + "9" * 5000,
            "metadata.nothing",
            "metadata.tenant.x",
            "headers.nothing",
        ):
            self.assertIsNone(found(name, metadata={"tenant": "acme"}), name)
        for payload in (b"3", b'"text"', b"null", b"[]", b"{}", b"not JSON", b"\xff", b""):
            self.assertIsNone(found("payload.a", payload), payload)

    def test_bytes_unchanged(self) -> None:
        """A number keeps its digits, and a string its escapes."""
        payload = rb'{"big": 12345678901234567890123, "money": 1.10, "far": 1e400, "text": "\u0041\/"}'
        for name, expected in (
            ("big", b"12345678901234567890123"),
            ("money", b"1.10"),
            ("far", b"1e400"),
            ("text", rb'"\u0041\/"'),
        ):
            self.assertEqual(found(name, payload), expected)

    def test_invalid_names(self) -> None:
        """A name with an empty part is invalid, and so is a field of the correlation id."""
        for name in ("", ".", "a.", ".a", "a..b", "payload.", "correlation_id.x"):
            self.assertRaises(ValueError, Field.parse, name)

    @given(VALUES)
    def test_any_payload(self, value: Any) -> None:
        """Every value of a payload is found by the names and indexes that lead to it."""
        payload = json.dumps({"root": value}).encode()

        def walk(path: tuple[str, ...], inner: Any) -> None:
            text = document(payload).in_payload(path)
            assert text is not None
            self.assertEqual(json.loads(text), inner)
            children = inner.items() if isinstance(inner, dict) else enumerate(inner) if isinstance(inner, list) else ()
            for key, child in children:
                walk((*path, str(key)), child)

        walk(("root",), value)

    def test_to_text(self) -> None:
        """A string has no quotes, a scalar is as in JSON, an object has no white space. A lone surrogate is
        `ValueError`.
        """
        for text, expected in (
            (b'"a \\"b\\" \\u00e4"', 'a "b" ä'),
            (b"1.10", "1.10"),
            (b"true", "true"),
            (b"null", "null"),
            (b'{ "a" : [ 1 , 2 ] }', '{"a":[1,2]}'),
        ):
            self.assertEqual(to_text(text), expected)
        self.assertRaises(ValueError, to_text, rb'"\ud800"')
