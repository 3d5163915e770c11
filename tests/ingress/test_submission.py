"""Submissions: which are accepted, and which field is named where one is not."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import InvalidRequest, MalformedJSON
from openhqm.ingress import submission
from openhqm.ingress.submission import read_submission
from openhqm.messages import Priority, Submission
from tests import hypothesis_profile  # noqa: F401

NOW = 1_770_460_200.0  # 2026-02-07T10:30:00Z
DAY = 86400
# RFC 9110, section 5.6.2
TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def read(document: Any, carried: dict[str, str] | None = None) -> Submission:
    return read_submission(json.dumps(document).encode(), NOW, carried)


def with_metadata(**metadata: Any) -> Submission:
    return read({"payload": 1, "metadata": metadata})


class ReadSubmissionTests(SynchronousTestCase):
    """`read_submission`"""

    def field(self, document: Any) -> str:
        """The field that the refusal names."""
        error: Any = self.assertRaises(InvalidRequest, read, document)
        return str(error.field)

    def test_everything(self) -> None:
        """Each known field is read, and the caller's own metadata is kept."""
        metadata = {
            "priority": "high",
            "timeout": 300,
            "delay": 1.5,
            "partition_key": "customer-7",
            "operation": "resize",
            "method": "PUT",
            "path": "/a",
            "query": {"b": "c"},
            "tags": ["x", "y"],
            "mine": {"deep": [1, None]},
        }
        found = read({"payload": {"z": 1, "a": 2}, "headers": {"X-Mine": "yes"}, "metadata": metadata})
        self.assertEqual(
            found,
            Submission(b'{"z": 1, "a": 2}', {"X-Mine": "yes"}, metadata, Priority.HIGH, 300.0, NOW + 1.5),
        )

    def test_payload_alone(self) -> None:
        """A payload alone is valid: normal priority, no deadline, at once. It may be any JSON value."""
        for payload in (b"null", b"0", b'""', b"[]", b"{}", b"1" * 400, b"-1.50E+400", b'{"b":1, "a": 2}'):
            self.assertEqual(read_submission(b'{"payload": %b }' % payload, NOW), Submission(payload))

    def test_payload_missing(self) -> None:
        """A submission without a payload is refused."""
        for document in ({}, {"metadata": {}}, {"headers": {"A": "b"}}):
            self.assertEqual(self.field(document), "payload")

    def test_metadata_of_redrives(self) -> None:
        """No caller can name the request that a target takes its own for: the names are refused, whatever they hold."""
        for name in ("redriven_from", "redriven_first"):
            for value in ("e2459c70-87e2-405c-b8a1-8ec252fd5be0", None, 1, {}):
                self.assertEqual(self.field({"payload": 1, "metadata": {name: value}}), f"metadata.{name}")

    def test_unknown_field(self) -> None:
        """An unknown field is refused and named."""
        for name in ("payloads", "Payload", "priority", "correlation_id", ""):
            self.assertEqual(self.field({"payload": 1, name: 1}), name)

    def test_not_json(self) -> None:
        """A body that is no JSON object is another error than a wrong field."""
        for body in (b"", b"[]", b"1", b'{"payload":1', b'{"payload":1,"payload":2}', b'{"payload":NaN}'):
            self.assertRaises(MalformedJSON, read_submission, body, NOW)
        for metadata in (b'{"timeout":NaN}', b'{"timeout":1,"timeout":2}', b'{"a":{"b":1,"b":2}}'):
            self.assertRaises(MalformedJSON, read_submission, b'{"payload":1,"metadata":%b}' % metadata, NOW)

    def test_wrong_types(self) -> None:
        """Each field with a wrong type or value is named by its path."""
        for wrong, field in (
            ({"headers": []}, "headers"),
            ({"headers": "X: y"}, "headers"),
            ({"headers": {"X-A": 1}}, "headers.X-A"),
            ({"headers": {"X-A": None}}, "headers.X-A"),
            ({"headers": {"X-A": ["b"]}}, "headers.X-A"),
            ({"metadata": []}, "metadata"),
            ({"metadata": "x"}, "metadata"),
            ({"metadata": 0}, "metadata"),
            *(
                ({"metadata": {"priority": value}}, "metadata.priority")
                for value in ("urgent", "HIGH", 1, None, [], {})
            ),
            *(({"metadata": {"tags": value}}, "metadata.tags") for value in ("a", {"a": 1}, [1], [""], [None], None)),
            *(({"metadata": {"partition_key": value}}, "metadata.partition_key") for value in (1, None, ["a"])),
            ({"metadata": {"operation": 1}}, "metadata.operation"),
            ({"metadata": {"method": 1}}, "metadata.method"),
            ({"metadata": {"path": 1}}, "metadata.path"),
            *(
                ({"metadata": {"not_before": value}}, "metadata.not_before")
                for value in (1, None, "soon", "2026-02-30")
            ),
        ):
            self.assertEqual(self.field({"payload": 1, **wrong}), field, wrong)

    def test_targets(self) -> None:
        """Method, path and query for a target are as HTTP has them, and a path stays below the endpoint's."""
        for name, value in (
            ("method", "BREW"),
            ("method", "get"),
            ("path", "orders"),
            ("path", "/..;/a"),
            ("path", "/a/%2E.%3bx=1/b"),
            ("path", "/a b"),
            ("path", "/a?b"),
            ("path", "/a#b"),
            ("path", "/a%zz"),
            ("path", "/\u00e4"),
            ("path", "/a/../../b"),
            ("path", "/a/%2E%2e/b"),
            ("path", "/a/..%2fb"),
            ("path", "/./a"),
            ("path", "/a\\b"),
            ("query", "a b"),
            ("query", "a#b"),
            ("query", "a\r\nb"),
            ("query", 5),
            ("query", {"a": {"b": 1}}),
            ("query", {"a": None}),
        ):
            field = self.field({"payload": 1, "metadata": {name: value}})
            self.assertEqual(field, f"metadata.{name}", value)
        for name, value in (
            ("method", "PATCH"),
            ("path", "/orders/a%20b;v=1/..c"),
            ("query", "a=1&b=%20&c[]=2"),
            ("query", {"a": [1, "x y"], "b": True}),
        ):
            self.assertEqual(with_metadata(**{name: value}).metadata[name], value)

    def test_priority(self) -> None:
        """The priorities are low, normal and high."""
        self.assertEqual(
            {word: with_metadata(priority=word).priority.value for word in ("low", "normal", "high")},
            {"low": "low", "normal": "normal", "high": "high"},
        )

    def test_timeout(self) -> None:
        """A timeout is a number of seconds above zero, fractions included, and not a boolean."""
        for seconds in (0.001, 1, 300, 1e3):
            self.assertEqual(with_metadata(timeout=seconds).timeout, seconds)
        for absurd in (0, -0.0, -1, -1e-9, 1e300, 2**64 - 1, True, False, None, "5", "", [5], {}):
            self.assertEqual(self.field({"payload": 1, "metadata": {"timeout": absurd}}), "metadata.timeout", absurd)
        for beyond in (b"1e400", b"-1e400", b"9" * 400):
            body = b'{"payload":1,"metadata":{"timeout":%b}}' % beyond
            self.assertRaises((InvalidRequest, MalformedJSON), read_submission, body, NOW)

    def test_delay(self) -> None:
        """A delay is a number of seconds from zero up to a limit."""
        for seconds in (0, 0.001, 0.5, DAY, 30 * DAY):
            self.assertEqual(with_metadata(delay=seconds).not_before, NOW + seconds)
        for absurd in (-1, 1e300, True, None, "5"):
            self.assertEqual(self.field({"payload": 1, "metadata": {"delay": absurd}}), "metadata.delay", absurd)

    def test_not_before(self) -> None:
        """not_before is an RFC 3339 time up to a limit, and cannot be used together with a delay."""
        for text, moment in (
            ("2026-02-07T10:30:05Z", NOW + 5),
            ("2026-02-07T11:30:05.250+01:00", NOW + 5.25),
            ("2020-01-01T00:00:00Z", 1577836800.0),
        ):
            self.assertEqual(with_metadata(not_before=text).not_before, moment)
        self.assertEqual(
            self.field({"payload": 1, "metadata": {"not_before": "2999-01-01T00:00:00Z"}}), "metadata.not_before"
        )
        both = {"not_before": "2026-02-07T10:30:05Z", "delay": 5}
        self.assertEqual(self.field({"payload": 1, "metadata": both}), "metadata.delay")

    def test_over_before_it_begins(self) -> None:
        """A deadline before the request may begin is refused."""
        self.assertEqual(with_metadata(timeout=10, delay=9).timeout, 10)
        for later in ({"delay": 10}, {"delay": 11}, {"not_before": "2026-02-07T10:31:00Z"}):
            self.assertEqual(self.field({"payload": 1, "metadata": {"timeout": 10, **later}}), "metadata.timeout")

    @given(st.text(TOKEN, min_size=1, max_size=256), st.text(st.characters(codec="latin-1", exclude_categories=["Cc"])))
    def test_header(self, name: str, value: str) -> None:
        """A name is a token (RFC 9110, section 5.6.2); a value has no control characters."""
        self.assertEqual(read({"payload": 1, "headers": {name: value}}).headers, {name: value})

    @given(
        st.text(TOKEN, max_size=5), st.characters(codec="utf-8", exclude_characters=TOKEN), st.text(TOKEN, max_size=5)
    )
    def test_no_header_name(self, before: str, character: str, behind: str) -> None:
        """A name with another character, an empty and a too long name are refused."""
        for name in (before + character + behind, "", "x" * 257):
            self.assertTrue(self.field({"payload": 1, "headers": {name: "v"}}).startswith("headers."))

    @given(st.sampled_from([chr(code) for code in (*range(9), *range(10, 32), 127)]), st.text(max_size=3))
    def test_no_header_value(self, control: str, text: str) -> None:
        """A control character in a value is refused, and not repaired; a tab is none (RFC 9110, section 5.5)."""
        for value in (control, text + control, control + text, f"a{control}X-Injected: b"):
            self.assertEqual(self.field({"payload": 1, "headers": {"X-A": value}}), "headers.X-A")
        self.assertEqual(read({"payload": 1, "headers": {"X-A": "a\tb"}}).headers, {"X-A": "a\tb"})

    def test_sizes(self) -> None:
        """Each part that is too large is refused by name."""
        read(
            {
                "payload": 1,
                "headers": {f"X-{n}": "v" * 8192 for n in range(100)},
                "metadata": {"tags": ["t" * 128] * 20},
            }
        )
        for large, field in (
            ({"headers": {f"X-{n}": "v" for n in range(101)}}, "headers"),
            ({"headers": {"X-A": "v" * 8193}}, "headers.X-A"),
            ({"metadata": {"tags": ["t"] * 21}}, "metadata.tags"),
            ({"metadata": {"tags": ["t" * 129]}}, "metadata.tags"),
            ({"metadata": {"mine": "x" * 65536}}, "metadata"),
        ):
            self.assertEqual(self.field({"payload": 1, **large}), field)

    def test_trace_context(self) -> None:
        """The trace context is carried with the request, unless the request has its own, in any case."""
        carried = {"traceparent": "00-a-b-01", "tracestate": "c=d"}
        self.assertEqual(read({"payload": 1}, carried).headers, carried)
        self.assertEqual(read({"payload": 1, "headers": {"X-A": "b"}}, carried).headers, {**carried, "X-A": "b"})
        self.assertEqual(
            read({"payload": 1, "headers": {"TraceParent": "mine"}}, carried).headers,
            {"TraceParent": "mine", "tracestate": "c=d"},
        )

    def test_far_too_many_headers(self) -> None:
        """Headers of which there are far too many are refused before they are parsed, also those with escapes."""
        self.patch(submission, "_object", lambda *_: self.fail("they were parsed"))
        for value in ('""', '"\\\\"', '"a"'):
            headers = ",".join(f'"{number}":{value}' for number in range(2000))
            with self.assertRaises(InvalidRequest) as caught:
                submission.read_headers(f"{{{headers}}}".encode())
            self.assertEqual(caught.exception.field, "headers")


TOP = st.sampled_from(['"payload"'] * 3 + ['"headers"', '"metadata"'] * 2 + ['"metad\\u0061ta"', '"other"'])
INNER = st.sampled_from(['"payload"', '"priority"', '"a"', '"\\u0061"', '"b"', '""'])
NUMBERS = st.sampled_from(["1", "1.5", "1e400", "-9223372036854775809", "18446744073709551615", "18446744073709551616"])
STRINGS = st.sampled_from(['""', '"a"', '"high"', '"payload"', '"\\""', '"\\ud800"', '"é"'])
OTHERS = st.sampled_from(["null", "true", "[]", '["a","a"]', "{}", "[" * 63 + "]" * 63, "[" * 64 + "]" * 64])
VALUES = NUMBERS | STRINGS | OTHERS
SPACE = st.sampled_from(["", " ", "\n\t"])


@st.composite
def objects(draw: st.DrawFn, names: st.SearchStrategy[str], values: st.SearchStrategy[str]) -> str:
    """A JSON object in which names may occur twice."""
    members = draw(st.lists(st.tuples(names, values, SPACE), max_size=4))
    return "{" + ",".join(f"{space}{name}:{value}{space}" for name, value, space in members) + "}"


class FastReaderTests(SynchronousTestCase):
    """The fast reader reads a body as the strict one does."""

    def outcome(self, body: bytes) -> object:
        try:
            return read_submission(body, NOW, {"traceparent": "x"})
        except (InvalidRequest, MalformedJSON) as error:
            return type(error), str(error)

    @settings(max_examples=500)
    @given(objects(TOP, VALUES | objects(INNER, VALUES)), st.sampled_from([b"", b" ", b"x", b"\xff"]))
    def test_the_same(self, document: str, behind: bytes) -> None:
        """Duplicate names, escapes, big numbers and depth: both readers come to the same result."""
        body = document.encode() + behind
        found = self.outcome(body)
        closely = self.patch(submission, "_read_fast", lambda body: None)
        self.assertEqual(found, self.outcome(body))
        closely.restore()

    def test_ordinary(self) -> None:
        """Usual requests need no strict reader, and neither do escapes in the payload."""
        self.patch(submission, "_read_strictly", None)
        for body in (
            b'{"payload":{"a":[1,"x"]},"metadata":{"priority":"normal"}}',
            b'{"metadata": {"a": 1, "b": null}, "headers": {"X-A": "b"}, "payload": "\\"{"}',
            '{"payload":"é"}'.encode(),
        ):
            self.assertIsInstance(self.outcome(body), Submission)

    def test_depth(self) -> None:
        """64 levels of nesting are accepted, those of the submission included; also with many brackets on one level."""
        for levels, beside, expected in (
            (63, b"[]", Submission),
            (63, b"[" + b"[]," * 70 + b"1]", Submission),
            (64, b"1", tuple),
        ):
            document = b'{"payload":[%b,%b]}' % (beside, b"[" * (levels - 1) + b"]" * (levels - 1))
            self.assertIsInstance(self.outcome(document), expected, levels)
