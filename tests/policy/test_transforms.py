"""Transforms of a request's payload: passthrough, jq, JSONPath and templates."""

from __future__ import annotations

import json
import sys
from typing import Any
from unittest import mock

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import TransformFailed
from openhqm.messages import Submission
from openhqm.policy.fields import Document
from openhqm.policy.transforms import MissingPackage, compile_transform
from tests import hypothesis_profile  # noqa: F401

# RFC 9535, section 1.5: the example that its table of queries is about
BOOKSTORE = b"""{ "store": {
    "book": [
      { "category": "reference", "author": "Nigel Rees", "title": "Sayings of the Century", "price": 8.95 },
      { "category": "fiction", "author": "Evelyn Waugh", "title": "Sword of Honour", "price": 12.99 },
      { "category": "fiction", "author": "Herman Melville", "title": "Moby Dick", "isbn": "0-553-21311-3",
        "price": 8.99 },
      { "category": "fiction", "author": "J. R. R. Tolkien", "title": "The Lord of the Rings",
        "isbn": "0-395-19395-8", "price": 22.99 }
    ],
    "bicycle": { "color": "red", "price": 399 }
  } }"""
SENDABLE = st.text(st.characters(exclude_categories=["Cs"]))


class TransformCase(SynchronousTestCase):
    """Tests of one kind of transform."""

    kind = ""

    def applied(self, text: str | None, payload: bytes, correlation_id: str = "an-id", **given: Any) -> bytes:
        return compile_transform(self.kind, text).apply(Document(Submission(payload, **given), correlation_id))

    def failure(self, text: str, payload: bytes, **given: Any) -> str:
        return str(self.assertRaises(TransformFailed, self.applied, text, payload, **given))

    def refusal(self, text: str | None) -> str:
        return str(self.assertRaises(ValueError, compile_transform, self.kind, text))


class PassthroughTests(TransformCase):
    """passthrough"""

    kind = "passthrough"

    def test_byte_for_byte(self) -> None:
        """The payload is neither parsed nor changed, even where it is not JSON."""
        for payload in (b' { "a" : 1.10 } ', b"12345678901234567890123", b"\xff", b""):
            self.assertEqual(self.applied(None, payload), payload)

    def test_program_for_passthrough(self) -> None:
        """A program that would have no effect is refused."""
        self.assertIn("must not be set for passthrough", self.refusal(".a"))


class JqTests(TransformCase):
    """jq"""

    kind = "jq"

    def test_manual(self) -> None:
        """Examples of the jq 1.7 manual have the manual's outputs."""
        for program, payload, expected in (
            (".", b'"Hello, world!"', "Hello, world!"),
            (".foo", b'{"foo": 42, "bar": "less interesting data"}', 42),
            (".[0]", b'[{"name":"JSON", "good":true}, {"name":"XML", "good":false}]', {"name": "JSON", "good": True}),
            (
                "[.user, .projects[]]",
                b'{"user":"stedolan", "projects": ["jq", "wikiflow"]}',
                ["stedolan", "jq", "wikiflow"],
            ),
            ("{(.[]|tostring): .}", b"[1]", {"1": [1]}),
            ("map(.+1)", b"[1,2,3]", [2, 3, 4]),
            ("def addvalue($f): map(. + $f); addvalue(.[0])", b"[[1,2],[10,20]]", [[1, 2, 1, 2], [10, 20, 1, 2]]),
            ('.. | .a? // empty | tostring # the deep "a"', b'[[{"a":1}]]', "1"),
        ):
            self.assertEqual(json.loads(self.applied(program, payload)), expected, program)

    def test_variables(self) -> None:
        """The payload is the input; headers, metadata and the correlation id are variables."""
        text = self.applied(
            '{id: $correlation_id, a: .a, t: $metadata.tenant, k: $headers["X-Kind"]}',
            b'{"a":1}',
            metadata={"tenant": "ä\u2028"},
            headers={"X-Kind": "new"},
        )
        self.assertEqual(json.loads(text), {"id": "an-id", "a": 1, "t": "ä\u2028", "k": "new"})

    def test_one_output(self) -> None:
        """No output, or more than one, is an error with a hint. An output that is null, false or empty is an output."""
        self.assertIn("no output", self.failure(".[]", b"[]"))
        self.assertIn("gather them with [ ]", self.failure(".[]", b"[1,2]"))
        self.assertIn("more than one", self.failure("repeat(.)", b"1"))
        self.assertIn("without an output", self.failure("halt", b"1"))
        for program, expected in (("null", b"null"), ("false", b"false"), ('""', b'""'), ("[.[]]", b"[]")):
            self.assertEqual(self.applied(program, b"[]"), expected)

    def test_error_message(self) -> None:
        """jq's error about a payload is passed on, in one line."""
        self.assertTrue(self.failure(".a", b"[1]").startswith("jq: Cannot index array with string"))
        self.assertEqual(self.failure('error("no\\nway")', b"1"), "jq: no")
        self.assertTrue(self.failure(".", b"not JSON"))

    def test_invalid_programs(self) -> None:
        """An invalid program is refused when it is compiled, in one line, with line numbers that begin with 1."""
        for program in (".a |", "{", "nosuch(.)", "$nosuch", ".a)", "import"):
            self.assertNotIn("\n", self.refusal(program))
        self.assertIn("line 2", self.refusal(".a |\n .b | nosuch"))
        for nothing in (None, ""):
            self.assertIn("is missing", self.refusal(nothing))

    def test_numbers_that_would_change(self) -> None:
        """A number that jq would round is an error. One that a double holds exactly is not."""
        for number in (b"9007199254740993", b"-9007199254740993", b"12345678901234567890123", b"1e400", b"9" * 5000):
            self.assertIn("jq cannot keep the number", self.failure(".a", b'{"a":1,"b":[%b]}' % number))
        self.assertIn("9007199254740993", self.failure(".", b"1", metadata={"id": 9007199254740993}))
        for number in (b"9007199254740992", b"1152921504606846976", b"1e300", b"0.1234567890123456789"):
            self.assertEqual(json.loads(self.applied(".", number)), float(number))
        self.assertEqual(json.loads(self.applied(".", b'"12345678901234567890123"')), "12345678901234567890123")

    @given(SENDABLE)
    def test_any_string(self, text: str) -> None:
        """A string comes out as the same string."""
        self.assertEqual(json.loads(self.applied("{s: .s}", json.dumps({"s": text}).encode())), {"s": text})


class JsonPathTests(TransformCase):
    """jsonpath"""

    kind = "jsonpath"

    def test_rfc_examples(self) -> None:
        """The queries of RFC 9535, table 2, select the RFC's values."""
        book = json.loads(BOOKSTORE)["store"]["book"]
        for path, expected in (
            ("$.store.book[*].author", [each["author"] for each in book]),
            ("$..author", [each["author"] for each in book]),
            ("$.store.*", [book, {"color": "red", "price": 399}]),
            ("$..book[2]", book[2]),
            ("$..book[2].author", "Herman Melville"),
            ("$..book[-1]", book[3]),
            ("$..book[0,1]", book[:2]),
            ("$..book[:2]", book[:2]),
            ("$..book[?@.isbn]", book[2:]),
            ("$..book[?@.price<10]", [book[0], book[2]]),
            ("$", {"store": {"book": book, "bicycle": {"color": "red", "price": 399}}}),
        ):
            self.assertEqual(json.loads(self.applied(path, BOOKSTORE)), expected, path)
        self.assertIn("selects nothing", self.failure("$..book[2].publisher", BOOKSTORE))

    def test_bytes_unchanged(self) -> None:
        """Selected values keep their digits and names."""
        payload = rb'{"a.b": [12345678901234567890123, 1.10, 1e400, "\u0041"], "": 1, "n": %b}' % (b"9" * 5000)
        self.assertEqual(self.applied("$['a.b']", payload), rb'[12345678901234567890123, 1.10, 1e400, "\u0041"]')
        self.assertEqual(self.applied("$['a.b'][1:3]", payload), b"[1.10,1e400]")
        self.assertEqual(self.applied("$['']", payload), b"1")
        self.assertEqual(self.applied("$.n", payload), b"9" * 5000)

    def test_null_is_a_value(self) -> None:
        """A path that selects null has selected a value."""
        self.assertEqual(self.applied("$.a", b'{"a":null}'), b"null")

    def test_nothing_selected(self) -> None:
        """A path that selects nothing is an error that names the path; so is a payload that is not JSON."""
        self.assertEqual(self.failure("$.a", b"{}"), "the path $.a selects nothing in this payload")
        self.assertIn("not JSON", self.failure("$.a", b"nonsense"))

    def test_invalid_paths(self) -> None:
        """A path that is not RFC 9535's is refused when it is compiled, in one line."""
        for path in ("a", "$.a[", "$.a | $.b", "$[?nosuch(@.a)]", "$.a ", "$[99999999999999999999]", "$[?@.a==1"):
            refusal = self.refusal(path)
            self.assertIn("not a JSONPath", refusal)
            self.assertNotIn("\n", refusal)
        self.assertIn("is missing", self.refusal(None))


class TemplateTests(TransformCase):
    """template"""

    kind = "template"

    def test_values(self) -> None:
        """Values from all parts of the request are filled in as JSON, with quotes and digits."""
        text = self.applied(
            '{"id": {{ payload.id }}, "name": {{payload.name}}, "all": {{ payload }}, "t": {{ metadata.t }},'
            ' "k": {{ headers.x-kind }}, "c": {{ correlation_id }}, "none": {{ none }}}',
            b'{"id":12345678901234567890123,"name":"a\\"b","none":null}',
            metadata={"t": [1, "ä"]},
            headers={"X-Kind": "new"},
        )
        self.assertEqual(
            text.decode(),
            '{"id": 12345678901234567890123, "name": "a\\"b", '
            '"all": {"id":12345678901234567890123,"name":"a\\"b","none":null}, "t": [1,"ä"],'
            ' "k": "new", "c": "an-id", "none": null}',
        )

    @given(SENDABLE)
    @example('"}, {"admin": true}')
    @example("\\")
    @example("{{ payload.secret }}")
    def test_strings_stay_strings(self, name: str) -> None:
        """For any string, the filled template is the same JSON with that string in it."""
        payload = json.dumps({"name": name, "secret": "s3cr3t"}).encode()
        text = self.applied('{"name": {{ payload.name }}, "greeting": "Dear {{ payload.name | text }}!"}', payload)
        self.assertEqual(json.loads(text), {"name": name, "greeting": f"Dear {name}!"})

    @given(SENDABLE)
    def test_plain_text(self, name: str) -> None:
        """In a template that is not JSON, ``| text`` is filled as it is."""
        payload = json.dumps({"name": name}).encode()
        self.assertEqual(self.applied("Dear {{ payload.name | text }}!", payload).decode(), f"Dear {name}!")

    def test_text_of_other_values(self) -> None:
        """The text of a number is its digits, and that of an object is compact JSON, escaped inside quotes."""
        payload = b'{"n": 1.10, "yes": true, "o": { "a": 1 }}'
        self.assertEqual(self.applied("{{ n|text }} {{ yes | text }} {{ o | text }}", payload), b'1.10 true {"a":1}')
        self.assertEqual(self.applied('"{{ n | text }} {{ o | text }}"', payload), rb'"1.10 {\"a\":1}"')
        self.assertIn(
            "cannot be sent as text", self.failure("{{ metadata.a | text }}", b"{}", metadata={"a": "\ud800"})
        )

    def test_missing(self) -> None:
        """An error names the field that the request lacks."""
        self.assertEqual(
            self.failure('{"name": {{ payload.user.name }}}', b'{"user":{}}'),
            "the template needs payload.user.name, which the request does not have",
        )

    def test_content_type(self) -> None:
        """A template that becomes JSON has its type; any other is text in UTF-8."""
        for text, expected in (
            ('{"a": {{ a }}}', "application/json"),
            ("[{{ a }}, {{ b }}]", "application/json"),
            ("{{ payload }}", "application/json"),
            ('"{{ a | text }}"', "application/json"),
            ("{{ a | text }}", "text/plain; charset=utf-8"),
            ("a={{ a }}", "text/plain; charset=utf-8"),
            ("<a>{{ a | text }}</a>", "text/plain; charset=utf-8"),
        ):
            self.assertEqual(compile_transform("template", text).content_type, expected, text)

    def test_misplaced_quotes(self) -> None:
        """A value inside quotes, or a text outside of them, would break the JSON: it is refused when it is compiled."""
        self.assertIn("has its own quotes", self.refusal('{"a": "{{ payload.a }}"}'))
        self.assertIn("must be inside quotes", self.refusal('{"a": {{ payload.a | text }}}'))

    def test_invalid_placeholders(self) -> None:
        """Calls, filters, expressions and open placeholders are refused."""
        for text in (
            "{{ a",
            "{{ a }",
            "{{ }}",
            "{{ a..b }}",
            "{{ a.b() }}",
            "{{ a[0] }}",
            "{{ a b }}",
            "{{ a | upper }}",
            "{{ a | text | text }}",
            "{{ 'a' }}",
            "{{ {{ a }} }}",
        ):
            self.assertTrue(self.refusal(text), text)
        self.assertEqual(self.applied("{% if a %} ${a} }} {a}", b"{}"), b"{% if a %} ${a} }} {a}")


class PackagesTests(SynchronousTestCase):
    """jq and python-jsonpath, which are optional"""

    def test_missing(self) -> None:
        """A missing package is named, with the command that installs it. Other kinds do not need it."""
        with mock.patch.dict(sys.modules, {"jq": None, "jsonpath": None}):
            for kind, package in (("jq", "jq"), ("jsonpath", "python-jsonpath")):
                error = self.assertRaises(MissingPackage, compile_transform, kind, "$")
                self.assertEqual(
                    str(error), f"{kind} needs the package {package}: pip install '.[routing]' in the clone of OpenHQM"
                )
            compile_transform("template", "{{ a }}")
            compile_transform("passthrough", None)

    def test_unknown(self) -> None:
        """An unknown kind is refused."""
        self.assertRaises(ValueError, compile_transform, "xslt", "a")
