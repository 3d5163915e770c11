"""Which header fields are forwarded: RFC 9110, section 7.6.1, and RFC 7239."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.proxying import FORWARDING, HOP_BY_HOP, TrustedProxies, end_to_end, forwarded_fields
from tests import hypothesis_profile  # noqa: F401

PLAIN = [(b"Host", b"x"), (b"Cookie", b"a=b"), (b"AUTHORIZATION", b"Basic eA=="), (b"accept", b"*/*"), (b"X", b"")]


class EndToEndTests(SynchronousTestCase):
    def test_plain(self) -> None:
        """End-to-end fields are forwarded unchanged, in order, and repeated where they were."""
        self.assertEqual(end_to_end(PLAIN + PLAIN[-2:]), PLAIN + PLAIN[-2:])

    def test_hop_by_hop(self) -> None:
        """Hop-by-hop fields are not forwarded, in whichever case."""
        for name in HOP_BY_HOP:
            for written in (name, name.upper(), name.title()):
                self.assertEqual(end_to_end([*PLAIN, (written.encode(), b"other")]), PLAIN, written)

    def test_rfc_lists(self) -> None:
        """They include all that RFC 9110, section 7.6.1 and RFC 7540 list."""
        for name in ("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings"):
            self.assertIn(name, HOP_BY_HOP)

    def test_named(self) -> None:
        """Fields that any Connection field names are not forwarded, also where they precede it."""
        fields = [(b"A-1", b"x"), (b"Connection", b"close, a-1 ,,"), (b"b", b"y"), (b"connection", b"B"), (b"c", b"z")]
        self.assertEqual(end_to_end(fields), [(b"c", b"z")])

    def test_underscore(self) -> None:
        """A name that CGI programs take for another one is not forwarded."""
        self.assertEqual(end_to_end([(b"X_Forwarded_For", b"1.2.3.4"), (b"a", b"b")]), [(b"a", b"b")])

    def test_refused(self) -> None:
        """A control character is refused, and not repaired; a tab is allowed (RFC 9110, section 5.5)."""
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
    def test_idempotent(self, fields: list[tuple[bytes, bytes]]) -> None:
        """Forwarded fields are forwarded again unchanged by the next gateway."""
        once = end_to_end(fields)
        self.assertEqual(end_to_end(once), once)
        self.assertTrue(all(field in fields for field in once))


class ForwardedFieldsTests(SynchronousTestCase):
    def written(self, *fields: tuple[bytes, bytes], **changes: object) -> dict[bytes, bytes]:
        given_: dict[str, object] = {"peer": "192.0.2.1", "scheme": "http", "host": b"x:8000", **changes}
        found = forwarded_fields(fields, **given_)  # type: ignore[arg-type]
        self.assertEqual(len(found), len(dict(found)), "a field twice")
        return dict(found)

    def test_written(self) -> None:
        """Client, scheme and host are written in ``Forwarded`` and in the X-Forwarded fields."""
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
        """Addresses are written as in RFC 7239, section 6; X-Forwarded-For has them bare."""
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

    def test_untrusted(self) -> None:
        """A client's own values are not forwarded, in whichever case."""
        lies = [(name.title(), b"10.0.0.1") for name in FORWARDING]
        self.assertEqual(self.written(*lies), self.written())

    def test_trusted(self) -> None:
        """Values of a trusted proxy are kept, and this hop is appended to its lists."""
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
        """A host that is not a token is quoted, and one that could end a line is refused."""
        self.assertIn(b"host=x", self.written(host=b"x")[b"forwarded"])
        self.assertIn(b'host="a\\"\\\\b"', self.written(host=b'a"\\b')[b"forwarded"])
        self.assertRaises(ValueError, forwarded_fields, [], peer=None, scheme="http", host=b"x\r\nA: b")


class TrustedProxiesTests(SynchronousTestCase):
    """`TrustedProxies`"""

    def test_peers(self) -> None:
        """A peer is trusted by its address, also one that is IPv4 in IPv6; one on a local socket by ``unix``."""
        trusts = TrustedProxies(["10.0.0.0/8", "192.0.2.7", "fd00::/8"])
        for peer in ("10.1.2.3", "192.0.2.7", "::ffff:10.1.2.3", "fd00::1", "fd00::1%eth0"):
            self.assertTrue(trusts(peer), peer)
        for other in ("11.0.0.1", "192.0.2.8", "::1", "unknown", None):
            self.assertFalse(trusts(other), other)
        self.assertTrue(TrustedProxies(["unix"])(None))
        self.assertFalse(TrustedProxies()("127.0.0.1"))

    def test_invalid(self) -> None:
        """What is no address and no network is refused, and so is a network with bits beyond its mask."""
        for bad in ("proxy.example", "10.0.0.1/8", "", "10.0.0.0/33"):
            self.assertRaises(ValueError, TrustedProxies, [bad])
