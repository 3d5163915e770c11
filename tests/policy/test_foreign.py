"""Messages of other programs: what is read from them, and what is refused."""

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
    """The content of a message"""

    def refused(self, content: bytes, fields: dict[bytes, bytes], format: str) -> str:
        return str(self.assertRaises(UnreadableMessage, read_foreign, content, fields, format))

    @given(st.binary(max_size=40))
    def test_auto(self, content: bytes) -> None:
        """The format auto takes any bytes: as JSON where they are strictly JSON, otherwise as they came."""
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
        """JSON becomes the payload, byte for byte."""
        content = json.dumps(value).encode()
        for format in ("auto", "json"):
            self.assertEqual(read_foreign(content, {}, format), Submission(content))

    def test_not_json(self) -> None:
        """The format json refuses content that is not JSON, or more than one text, or that breaks out of
        its wrapper.
        """
        for content in (b"", b"{", b"\xff", b"1 2", b'1,"openhqm":1', b'1,"payload":2', b"1}", b"[" * 100 + b"]" * 100):
            self.assertIn("not JSON", self.refused(content, {}, "json"))
            self.assertEqual(read_foreign(content, {}, "auto").body, content)

    def test_envelope(self) -> None:
        """OpenHQM's own messages are recognised by their version number."""
        self.assertTrue(is_envelope(encode_request(Request("", 1.0, Submission(b"1")))))
        for content in (b'{"openhqm":"yes"}', b'{"a":{"openhqm":1}}', b"[1]", b"", b"\xff", b'{"openhqm":1'):
            self.assertFalse(is_envelope(content), content)

    @given(st.dictionaries(NAMES, VALUES, max_size=5))
    def test_headers(self, headers: dict[str, str]) -> None:
        """Fields become headers, unchanged."""
        fields = {name.encode(): value.encode() for name, value in headers.items()}
        self.assertEqual(read_headers(fields), headers)

    def test_not_headers(self) -> None:
        """A field that cannot be a header is refused, and named."""
        for fields, expected in (
            ({b"X-A": b"a\r\nX-B: b"}, "X-A"),
            ({b"a b": b"1"}, "a b"),
            ({b"": b"1"}, "name"),
            ({b"X": b"\xff"}, "UTF-8"),
            ({b"X-A\n": b"1"}, "name"),
            ({b"X": b"a" * 8193}, "too long"),
            ({b"X%d" % number: b"" for number in range(101)}, "more than 100"),
        ):
            self.assertIn(expected, self.refused(b"1", fields, "auto"))


class FieldsTests(SynchronousTestCase):
    """The fields of a message"""

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

    def test_repeated(self) -> None:
        """A repeated field, in any case, is refused, because two readers may take different ones."""
        error = self.assertRaises(UnreadableMessage, take_apart, [(b"payload", b"1"), (b"PAYLOAD", b"2")])
        self.assertIn("is repeated", str(error))

    def test_reply(self) -> None:
        """A header of the target's reply cannot replace the gateway's own fields."""
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
