"""The rules for a request's head, with random input. The status of each case is in `tests.http1.request_cases`."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.http1.rules import MOST_TARGET, Head, Refusal, check_head, request_target, split_target
from tests import hypothesis_profile  # noqa: F401

PIECES = st.sampled_from(
    [b"/", b"a", b"%41", b"%00", b"%", b"?", b"#", b"\\", b"..", b"http://", b"@", b"x:1", b"*", b" "],
)
TARGETS = st.lists(PIECES | st.binary(max_size=2), max_size=8).map(b"".join)


def checked(method: bytes, target: bytes, own: bool = True, *more: tuple[bytes, bytes]) -> Head:
    return check_head(method, target, "1.1", [(b"host", b"app"), *more], lambda path: own)


class TargetTests(SynchronousTestCase):
    """The target of a request"""

    @given(st.sampled_from([b"GET", b"OPTIONS"]), TARGETS)
    def test_checked_target(self, method: bytes, target: bytes) -> None:
        """The target of a request for an own path is visible ASCII in origin form, with complete escapes and without a
        fragment (RFC 9112, section 3.2). Any other target is refused with 400.
        """
        try:
            found = checked(method, target).target
        except Refusal as refusal:
            self.assertEqual(refusal.status, 400)
            return
        if found != b"*" or method != b"OPTIONS":
            self.assertRegex(found, rb"\A/[!-~]*\Z")
            self.assertIsNone(re.search(rb"[#\\]|%00|%(?![0-9A-Fa-f]{2})", found))
            # The next server, reading with the same rules, understands the same target.
            self.assertEqual(checked(method, found).target, found)

    @given(st.sampled_from([b"GET", b"OPTIONS"]), TARGETS)
    def test_passed_on(self, method: bytes, target: bytes) -> None:
        """The target of a request for an application is passed on as it came, unless it could not stand in a request
        line: then it is refused with 400.
        """
        try:
            found = checked(method, target, own=False).target
        except Refusal as refusal:
            self.assertEqual(refusal.status, 400)
            return
        self.assertRegex(found, rb"\A(/[!-~]*|\*)\Z")
        self.assertTrue(target.endswith(found) or (found[:1] == b"/" and target.endswith(found[1:])), (target, found))

    def test_browsers(self) -> None:
        """An application gets what browsers send although RFC 3986 does not allow it; an own path refuses it."""
        for target in (b"/s?f={a|b}", b"/?d=50%", b"/?q=a`b^c\\d", b"/%ff", b"/a%00", b'/?"<>'):
            self.assertEqual(checked(b"GET", target, own=False).target, target)
            self.assertEqual(self.assertRaises(Refusal, checked, b"GET", target).status, 400, target)

    def test_methods(self) -> None:
        """An application gets any method but TRACE and CONNECT. An own path has seven."""
        for method in (b"PROPFIND", b"BREW", b"get", b"M-SEARCH"):
            self.assertEqual(checked(method, b"/", own=False).method, method)
            self.assertEqual(self.assertRaises(Refusal, checked, method, b"/").status, 501, method)
        for method in (b"TRACE", b"CONNECT"):
            self.assertEqual(self.assertRaises(Refusal, checked, method, b"/", False).status, 405)
        self.assertEqual(self.assertRaises(Refusal, checked, b"G T", b"/", False).status, 400)

    def test_authority(self) -> None:
        """The host of an absolute target replaces the Host field (RFC 9112, section 3.2.2)."""
        for own in (True, False):
            head = checked(b"GET", b"http://other:81/x", own, (b"x-a", b"1"))
            self.assertEqual((head.target, list(head.headers)), (b"/x", [(b"host", b"other:81"), (b"x-a", b"1")]))
            self.assertEqual(head.field(b"host"), b"other:81")
        old = check_head(b"GET", b"http://other/x", "1.0", [])
        self.assertEqual(list(old.headers), [(b"host", b"other")])
        self.assertEqual(checked(b"OPTIONS", b"http://other").target, b"*")

    def test_broken_authority(self) -> None:
        """An absolute target without a host, or with a malformed one, is refused."""
        for authority in (
            b"",
            b":80",
            b"a@b",
            b"a:99999",
            b"a:b",
            b"a:8:0",
            b"[::1",
            b"[1]",
            b"[:::]",
            b"a%zz",
            b"a\\b",
            b"[::1]x",
        ):
            for rest in (b"", b"/", b"?a"):
                refusal = self.assertRaises(Refusal, checked, b"GET", b"http://" + authority + rest)
                self.assertEqual(refusal.status, 400, authority)
        for host in (b"a:99999", b"[1]", b"a%z"):
            refusal = self.assertRaises(Refusal, check_head, b"GET", b"/", "1.1", [(b"host", host)])
            self.assertEqual(refusal.status, 400, host)

    def test_of_a_url(self) -> None:
        """The target of a URL is what follows its authority, byte for byte."""
        for url, target in (
            (b"http://a", b"/"),
            (b"http://a:1?", b"/?"),
            (b"https://[::1]:1//b", b"//b"),
            (b"http://a/;", b"/;"),
            (b"http://a/b;?", b"/b;?"),
            (b"http://a/b?c=http://d/e", b"/b?c=http://d/e"),
        ):
            self.assertEqual(request_target(b"GET", url), target)
        self.assertEqual(request_target(b"OPTIONS", b"http://a"), b"*")
        self.assertEqual(request_target(b"OPTIONS", b"http://a/"), b"/")

    def test_absolute(self) -> None:
        """Of an absolute target, the path and the query are used (RFC 9112, section 3.2.2)."""
        for target, path in (
            (b"http://x/a?b", b"/a?b"),
            (b"HTTPS://x:1?b", b"/?b"),
            (b"http://x", b"/"),
            (b"http://[::1]/", b"/"),
        ):
            self.assertEqual(split_target(b"GET", target)[0], path)

    def test_long(self) -> None:
        """A target may have 8 KiB; one more byte is 414."""
        split_target(b"GET", b"/" * MOST_TARGET)
        refusal = self.assertRaises(Refusal, split_target, b"GET", b"/" * (MOST_TARGET + 1))
        self.assertEqual(refusal.status, 414)


class CheckHeadTests(SynchronousTestCase):
    """`check_head`"""

    @example([(b"host", b""), (b"content-length", b"3"), (b"content-length", b"3")])
    @given(
        st.lists(
            st.tuples(
                st.sampled_from([b"host", b"content-length", b"transfer-encoding", b"content-type", b"x-a", b"x_a"]),
                st.sampled_from([b"", b"x", b"3", b"+3", b"chunked", b"gzip", b"a\x00b"]),
            ),
            max_size=5,
        )
    )
    def test_one_meaning(self, headers: list[tuple[bytes, bytes]]) -> None:
        """A checked head has one Host, one body length, and no repeated field that must not be repeated."""
        try:
            head = check_head(b"POST", b"/", "1.1", headers)
        except Refusal as refusal:
            self.assertEqual(refusal.status, 400)
            return
        names = [name for name, _ in headers]
        self.assertEqual(names.count(b"host"), 1)
        self.assertLessEqual(names.count(b"content-length") + names.count(b"transfer-encoding"), 1)
        self.assertLessEqual(names.count(b"content-type"), 1)
        self.assertNotIn(b"x_a", names)
        self.assertEqual(head.length is None, b"transfer-encoding" in names)
