"""Messages of others: what is read out of them, and what is refused."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.codec import decode_request, encode_request
from openhqm.errors import UnreadableMessage
from openhqm.messages import Reply, Request, Status, Submission
from openhqm.policy.foreign import (
    check_reply_to,
    is_envelope,
    read_foreign,
    read_headers,
    reply_fields,
    take_apart,
)
from tests import hypothesis_profile  # noqa: F401

# RFC 9110, section 5.6.2
TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
NAMES = st.text(TOKEN, min_size=1, max_size=20).filter(lambda name: len(name) > 9)
VALUES: Any = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x2FFF, exclude_categories=["Cc", "Cs"]))


class ContentTests(SynchronousTestCase):
    """What is in it"""

    def refused(self, content: bytes, fields: dict[bytes, bytes], format: str) -> str:
        return str(self.assertRaises(UnreadableMessage, read_foreign, content, fields, format))

    @given(st.binary(max_size=40))
    def test_nothing_is_lost(self, content: bytes) -> None:
        """Whatever the bytes are, auto takes them: as JSON where a strict reader agrees, else as they came."""
        taken = read_foreign(content, {}, "auto")
        if taken.body is None:
            self.assertEqual(taken.payload, content.strip(b" \t\n\r"))
            json.loads(content)
        else:
            self.assertEqual((taken.payload, taken.body), (b"null", content))
        self.assertEqual(read_foreign(content, {}, "raw").body, content)
        # Whatever was read can be kept, and comes back.
        request = Request("id", 1.0, taken)
        self.assertEqual(decode_request(encode_request(request)), request)

    @given(st.recursive(st.none() | st.booleans() | st.text() | st.integers(), st.lists, max_leaves=5))
    def test_json(self, value: Any) -> None:
        """JSON is the payload, byte for byte."""
        content = json.dumps(value).encode()
        for format in ("auto", "json"):
            self.assertEqual(read_foreign(content, {}, format), Submission(content))

    def test_no_json(self) -> None:
        """What is not JSON, or is more than one, is refused where JSON is asked for; nothing is smuggled in."""
        for content in (b"", b"{", b"\xff", b"1 2", b'1,"openhqm":1', b'1,"payload":2', b"1}", b"[" * 100 + b"]" * 100):
            self.assertIn("not JSON", self.refused(content, {}, "json"))
            self.assertEqual(read_foreign(content, {}, "auto").body, content)

    def test_envelope(self) -> None:
        """Ours are known by the number of their version."""
        self.assertTrue(is_envelope(encode_request(Request("", 1.0, Submission(b"1")))))
        for content in (b'{"openhqm":"yes"}', b'{"a":{"openhqm":1}}', b"[1]", b"", b"\xff", b'{"openhqm":1'):
            self.assertFalse(is_envelope(content), content)

    @given(st.dictionaries(NAMES, VALUES, max_size=5))
    def test_headers(self, headers: dict[str, str]) -> None:
        """Fields are headers, as they came."""
        fields = {name.encode(): value.encode() for name, value in headers.items()}
        self.assertEqual(read_headers(fields), headers)

    def test_no_headers(self) -> None:
        """What no header can be is refused, and the field is named."""
        for fields, words in (
            ({b"X-A": b"a\r\nX-B: b"}, "X-A"),
            ({b"a b": b"1"}, "a b"),
            ({b"": b"1"}, "name"),
            ({b"X": b"\xff"}, "UTF-8"),
            ({b"X-A\n": b"1"}, "name"),
            ({b"X": b"a" * 8193}, "too long"),
            ({b"X%d" % number: b"" for number in range(101)}, "more than 100"),
        ):
            self.assertIn(words, self.refused(b"1", fields, "auto"))


class FieldsTests(SynchronousTestCase):
    """Which field is what"""

    def test_content(self) -> None:
        """The content has one of three names, or is the only field."""
        for entry, content, reply_to, others in (
            ([(b"payload", b"1"), (b"body", b"2"), (b"X", b"3")], b"1", None, {b"body": b"2", b"X": b"3"}),
            ([(b"body", b"2"), (b"data", b"3")], b"2", None, {b"data": b"3"}),
            ([(b"X", b"3"), (b"data", b"")], b"", None, {b"X": b"3"}),
            ([(b"message", b"3"), (b"reply_to", b"a")], b"3", "a", {}),
            ([(b"a", b"3"), (b"b", b"4")], None, None, {b"a": b"3", b"b": b"4"}),
            ([(b"reply_to", b"")], None, None, {}),
        ):
            self.assertEqual(take_apart(entry), (content, reply_to, others))

    def test_twice(self) -> None:
        """A field that stands twice, in whatever spelling, may be taken differently by two readers."""
        error = self.assertRaises(UnreadableMessage, take_apart, [(b"payload", b"1"), (b"PAYLOAD", b"2")])
        self.assertIn("stands twice", str(error))

    def test_reply_to(self) -> None:
        """A reply goes neither into the inbox, where it would be a request, nor among our own keys."""
        check_reply_to("answers", "in", "{o}:")
        for name in ("in", "{o}:dead:dlq", "a\nb", "a" * 1025, "\N{REPLACEMENT CHARACTER}"):
            self.assertRaises(UnreadableMessage, check_reply_to, name, "in", "{o}:")

    def test_reply(self) -> None:
        """A reply says for itself what it is; a header of the target's cannot say it in its place."""
        headers = {"Status": "COMPLETED", "Reply_To": "b", "X-A": "1"}
        reply = Reply("id", Status.FAILED, 1.0, body=b"\xff", status_code=404, headers=headers, error="no")
        fields = reply_fields(reply)
        self.assertEqual(
            list(zip(fields[::2], fields[1::2], strict=True)),
            [
                ("correlation_id", "id"),
                ("status", "FAILED"),
                ("status_code", "404"),
                ("payload", b"\xff"),
                ("error", "no"),
                ("X-A", "1"),
            ],
        )
