"""Which header fields go through: RFC 9110, section 7.6.1, and RFC 7239."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.proxying import FORWARDING, HOP_BY_HOP, end_to_end, forwarded_fields
from tests import hypothesis_profile  # noqa: F401

PLAIN = [(b"Host", b"x"), (b"Cookie", b"a=b"), (b"AUTHORIZATION", b"Basic eA=="), (b"accept", b"*/*"), (b"X", b"")]


class EndToEnd(SynchronousTestCase):
    def test_plain(self) -> None:
        """What is meant for the application arrives as it was written, in order, twice where it came twice."""
        self.assertEqual(end_to_end(PLAIN + PLAIN[-2:]), PLAIN + PLAIN[-2:])

    def test_of_one_connection(self) -> None:
        """What belongs to one connection does not leave it, however its name is written."""
        for name in HOP_BY_HOP:
            for written in (name, name.upper(), name.title()):
                self.assertEqual(end_to_end([*PLAIN, (written.encode(), b"other")]), PLAIN, written)

    def test_the_rfc_lists(self) -> None:
        """All that RFC 9110, section 7.6.1 and appendix B of RFC 7540 list is among them."""
        for name in ("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings"):
            self.assertIn(name, HOP_BY_HOP)

    def test_named(self) -> None:
        """All that any Connection field names goes with it, also what comes before it."""
        fields = [(b"A-1", b"x"), (b"Connection", b"close, a-1 ,,"), (b"b", b"y"), (b"connection", b"B"), (b"c", b"z")]
        self.assertEqual(end_to_end(fields), [(b"c", b"z")])

    def test_underscore(self) -> None:
        """A name that a CGI program takes for another one does not go through."""
        self.assertEqual(end_to_end([(b"X_Forwarded_For", b"1.2.3.4"), (b"a", b"b")]), [(b"a", b"b")])

    def test_refused(self) -> None:
        """A control character is refused, not repaired; a tab is none (RFC 9110, section 5.5)."""
        for value in (b"a\r\nb: c", b"a\n", b"\r", b"a\x00", b"\x07", b"\x7f", b"\x0b"):
            self.assertRaises(ValueError, end_to_end, [(b"a", value)])
        for name in (b"", b"a b", b"a:", b"a\r\nb", b"\xe4", b"a\x00"):
            self.assertRaises(ValueError, end_to_end, [(name, b"x")])
        self.assertEqual(end_to_end([(b"a", b"b\tc \xc3\xa4")]), [(b"a", b"b\tc \xc3\xa4")])

    @given(
        st.lists(
            st.tuples(st.sampled_from([b"a", b"Connection", b"TE", b"b_c", b"d"]), st.sampled_from([b"a", b"d, TE"]))
        )
    )
    def test_twice(self, fields: list[tuple[bytes, bytes]]) -> None:
        """What went through once goes through again, unchanged: nothing in it is of one connection."""
        once = end_to_end(fields)
        self.assertEqual(end_to_end(once), once)
        self.assertTrue(all(field in fields for field in once))


class Forwarded(SynchronousTestCase):
    def written(self, *fields: tuple[bytes, bytes], **changes: object) -> dict[bytes, bytes]:
        given_: dict[str, object] = {"peer": "192.0.2.1", "scheme": "http", "host": b"x:8000", **changes}
        found = forwarded_fields(fields, **given_)  # type: ignore[arg-type]
        self.assertEqual(len(found), len(dict(found)), "a field twice")
        return dict(found)

    def test_written(self) -> None:
        """Who asked, how, and for which host, in the new words and in the old."""
        self.assertEqual(
            self.written((b"a", b"b")),
            {
                b"a": b"b",
                b"forwarded": b'for=192.0.2.1;proto=http;host="x:8000"',
                b"x-forwarded-for": b"192.0.2.1",
                b"x-forwarded-proto": b"http",
                b"x-forwarded-host": b"x:8000",
            },
        )

    def test_addresses(self) -> None:
        """As RFC 7239, section 6 has them; the lists of X-Forwarded-For have them bare."""
        for peer, node, bare in (
            ("2001:db8::17", b'"[2001:db8::17]"', b"2001:db8::17"),
            ("fe80::1%eth0", b'"[fe80::1]"', b"fe80::1"),
            ("::ffff:192.0.2.1", b"192.0.2.1", b"192.0.2.1"),
            (None, b"unknown", None),
            ("/run/socket", b"unknown", None),
        ):
            found = self.written(peer=peer, host=None)
            self.assertEqual(found[b"forwarded"], b"for=" + node + b";proto=http")
            self.assertEqual(found.get(b"x-forwarded-for"), bare)
            self.assertNotIn(b"x-forwarded-host", found)

    def test_not_believed(self) -> None:
        """What a client says of itself is not passed on, however it is written."""
        lies = [(name.title(), b"10.0.0.1") for name in FORWARDING]
        self.assertEqual(self.written(*lies), self.written())

    def test_trusted(self) -> None:
        """What a trusted proxy said is kept, and ours is added where there is a list."""
        found = self.written(
            (b"Forwarded", b"for=203.0.113.9;proto=https"),
            (b"X-Forwarded-For", b"203.0.113.9"),
            (b"X-Forwarded-For", b"198.51.100.2"),
            (b"x-forwarded-proto", b"https"),
            (b"x-real-ip", b"203.0.113.9"),
            trusted=True,
        )
        self.assertEqual(
            found,
            {
                b"forwarded": b'for=203.0.113.9;proto=https, for=192.0.2.1;proto=http;host="x:8000"',
                b"x-forwarded-for": b"203.0.113.9, 198.51.100.2, 192.0.2.1",
                b"x-forwarded-proto": b"https",
                b"x-forwarded-host": b"x:8000",
                b"x-real-ip": b"203.0.113.9",
            },
        )

    def test_host(self) -> None:
        """A host is quoted where it is no token, and refused where it could end a line."""
        self.assertIn(b"host=x", self.written(host=b"x")[b"forwarded"])
        self.assertIn(b'host="a\\"\\\\b"', self.written(host=b'a"\\b')[b"forwarded"])
        self.assertRaises(ValueError, forwarded_fields, [], peer=None, scheme="http", host=b"x\r\nA: b")
