"""The parsers of header fields, each by its standard."""

from __future__ import annotations

import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import InvalidRequest
from openhqm.ingress.answers import HTTPProblem
from openhqm.ingress.preferences import (
    check_encoding,
    check_json_type,
    claim_of,
    last_event_id,
    prefer_wait,
    query_wait,
    wants_events,
)
from tests import hypothesis_profile  # noqa: F401

MOST = 60.0


class PreferTests(SynchronousTestCase):
    """`prefer_wait`: RFC 7240"""

    def test_understood(self) -> None:
        """Names in any case, blanks, quotes, parameters and other preferences are parsed (section 2)."""
        for field in (
            "wait=10",
            "Wait=10",
            "wait = 10",
            'wait="10"',
            "wait=10; note=a",
            "respond-async, wait=10",
            "respond-async,wait=10",
            "wait=10, respond-async",
            ",, wait=10 ,",
            "handling=lenient; a=b; c, wait=10",
            'return=minimal; foo="some parameter", wait=10',
        ):
            self.assertEqual(prefer_wait(field, MOST), 10.0, field)

    def test_the_first_counts(self) -> None:
        """Of a preference that occurs more than once, the first counts (section 2)."""
        self.assertEqual(prefer_wait("wait=5, wait=50", MOST), 5.0)

    def test_capped(self) -> None:
        """The wait is capped at the server's limit."""
        self.assertEqual([prefer_wait(f"wait={n}", MOST) for n in (59, 60, 61, 999999)], [59.0, 60.0, 60.0, 60.0])

    def test_passed_over(self) -> None:
        """A value that is not a number of seconds is ignored (section 2)."""
        for field in (
            None,
            "",
            "respond-async",
            "wait",
            "wait=",
            "wait=x",
            "wait=-1",
            "wait=1.5",
            "wait=0",
            "wait=1 2",
        ):
            self.assertIsNone(prefer_wait(field, MOST), field)
        for field in ("respond-async; wait=10", "await=10", "wait=٣", "wait=" + "9" * 5000, ";", "=", '"', "=10"):
            self.assertIsNone(prefer_wait(field, MOST), field)

    def test_quoted(self) -> None:
        """A preference inside the quotes of another is none, with and without commas."""
        for field in ('note="a, wait=10, b"', 'note="wait=10"', 'note="\\", wait=10, \\""', 'a; b=", wait=10, "'):
            self.assertIsNone(prefer_wait(field, MOST), field)
        self.assertEqual(prefer_wait('note="a, wait=10, b", wait=20', MOST), 20.0)

    @given(st.text(st.characters(codec="ascii")))
    def test_any_field(self, field: str) -> None:
        """Whatever the field holds, the result is a number of seconds up to the cap, or None."""
        wait = prefer_wait(field, MOST)
        self.assertTrue(wait is None or 0 < wait <= MOST)

    def test_at_once(self) -> None:
        """The longest field that the server takes is parsed in a fraction of a second."""
        for field in ("a" + " " * 16000 + "b", "wait=" + " " * 16000 + '"', "a" + " " * 8000 + "=" + " " * 8000 + '"'):
            started = time.process_time()
            self.assertIsNone(prefer_wait(field, MOST))
            self.assertLess(time.process_time() - started, 0.2)


class QueryWaitTests(SynchronousTestCase):
    """`query_wait`"""

    def test_seconds(self) -> None:
        """Whole seconds from zero up are taken and capped; without the parameter the result is None."""
        self.assertEqual([query_wait([n], MOST) for n in (b"0", b"7", b"60", b"61")], [0.0, 7.0, 60.0, 60.0])
        self.assertIsNone(query_wait([], MOST))

    def test_refused(self) -> None:
        """Unlike a preference, a malformed parameter is an error that names it."""
        for values in ([b""], [b"x"], [b"-1"], [b"1.5"], [b"1", b"2"], [b"9" * 5000], ["٣".encode()], [b" 1"]):
            error: Any = self.assertRaises(InvalidRequest, query_wait, values, MOST)
            self.assertEqual(error.field, "wait")


class AcceptTests(SynchronousTestCase):
    """`wants_events`: RFC 9110, section 12.5.1"""

    def test_named(self) -> None:
        """A field that names the event stream asks for it: alone, among others, in any case, with a weight."""
        for field in (
            "text/event-stream",
            "Text/Event-Stream",
            "application/json, text/event-stream",
            "text/event-stream;q=0.5",
            "text/event-stream ; charset=utf-8 ; q=1.0, */*",
            "text/event-stream;q=0.001",
        ):
            self.assertTrue(wants_events(field), field)

    def test_not_named(self) -> None:
        """A field that accepts any type gets JSON, and a weight of zero is a refusal."""
        for field in (None, "", "*/*", "text/*", "application/json", "text/event-streams", "x/text/event-stream"):
            self.assertFalse(wants_events(field), field)
        for field in ("text/event-stream;q=0", "text/event-stream; Q=0.000, */*"):
            self.assertFalse(wants_events(field), field)


class IdempotencyKeyTests(SynchronousTestCase):
    """`claim_of`"""

    def test_absent(self) -> None:
        """Without the field there is no claim."""
        self.assertIsNone(claim_of(None, "/submit", b"{}"))

    def test_accepted(self) -> None:
        """A key has 1 to 255 visible characters, and quotes around it make no difference."""
        for key in ("a", "8e03978e-40d5-43dd-bc93-6894a57f9324", "x" * 255, "!#$%&'()*+,-./:;<=>?@[]^_`{|}~"):
            claim = claim_of(key, "/submit", b"{}")
            self.assertIsNotNone(claim, key)
            self.assertEqual(claim, claim_of(f'"{key}"', "/submit", b"{}"))

    def test_refused(self) -> None:
        """Any other key is a 400 (IETF draft, section 2.7: a key that violates the published form)."""
        for key in ("", '""', '"', "x" * 256, '"' + "x" * 256 + '"', "a b", '"a', 'a"', "a\tb", "a\x7f", "é", '"a"b"'):
            error: Any = self.assertRaises(HTTPProblem, claim_of, key, "/submit", b"{}")
            self.assertEqual(error.status, 400, key)

    @given(st.binary(max_size=20), st.binary(max_size=20))
    def test_what_is_claimed(self, one: bytes, two: bytes) -> None:
        """The same body makes the same claim. Another body, key or scope makes another claim."""
        claim = claim_of("k", "/a", one)
        other = claim_of("k", "/a", two)
        assert claim is not None and other is not None
        self.assertEqual(claim.key, other.key)
        self.assertEqual(claim.fingerprint == other.fingerprint, one == two)
        for elsewhere in (claim_of("l", "/a", one), claim_of("k", "/b", one)):
            assert elsewhere is not None
            self.assertNotEqual((claim.scope, claim.key), (elsewhere.scope, elsewhere.key))

    def test_a_day(self) -> None:
        """A claim holds for 24 hours."""
        claim = claim_of("k", "/a", b"")
        assert claim is not None
        self.assertEqual(claim.lifetime, 24 * 60 * 60)


class ContentTypeTests(SynchronousTestCase):
    """`check_json_type`"""

    def test_json(self) -> None:
        """JSON is taken, with its one charset (RFC 8259, section 8.1) named or not."""
        for field in (
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            'application/json;charset="UTF-8"',
            "application/json ; profile=x",
        ):
            check_json_type(field)

    def test_anything_else(self) -> None:
        """Another type, another charset, or no type is a 415 that names what is taken."""
        for field in (
            None,
            "",
            "text/plain",
            "text/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=a",
            "application/json; charset=utf-16",
            "application/json; charset=iso-8859-1",
            "application/json, text/plain",
            "application/jsonl",
        ):
            error: Any = self.assertRaises(HTTPProblem, check_json_type, field)
            ((name, value),) = error.fields
            self.assertEqual((error.status, name.lower(), value), (415, b"accept-post", b"application/json"), field)


class CheckEncodingTests(SynchronousTestCase):
    """`check_encoding`"""

    def test_encoded(self) -> None:
        """Encoded content is a 415 that says so (RFC 9110, section 15.5.16)."""
        for field in ("gzip", "br", "deflate, gzip", "identity, gzip", "aes128gcm", "x"):
            error: Any = self.assertRaises(HTTPProblem, check_encoding, field)
            self.assertEqual((error.status, error.fields), (415, ((b"Accept-Encoding", b"identity"),)))

    def test_plain(self) -> None:
        """No field and identity are taken."""
        for field in (None, "", "identity", "Identity"):
            check_encoding(field)


class LastEventIdTests(SynchronousTestCase):
    """`last_event_id`"""

    def test_where_to_resume(self) -> None:
        """The field that EventSource sends has precedence over the parameter; without either the stream begins at 0."""
        self.assertEqual(last_event_id("7", []), 7)
        self.assertEqual(last_event_id(None, [b"8"]), 8)
        self.assertEqual(last_event_id("7", [b"8"]), 7)
        for field, query in ((None, []), ("", []), (None, [b""]), ("0", [])):
            self.assertEqual(last_event_id(field, query), 0)

    def test_no_id_of_ours(self) -> None:
        """A value that is not the id of an event is refused."""
        for text in ("x", "-1", "1.5", "٣", "9" * 5000, "1 2", "\xff"):
            for field, query in ((text, []), (None, [text.encode()])):
                error: Any = self.assertRaises(InvalidRequest, last_event_id, field, query)
                self.assertEqual(error.field, "last_event_id")
