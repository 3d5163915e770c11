"""The rules for a request's head, with random input. The status of each case is in `tests.http1.request_cases`."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.http1.rules import MOST_TARGET, Refusal, check_head, check_target
from tests import hypothesis_profile  # noqa: F401

PIECES = st.sampled_from(
    [b"/", b"a", b"%41", b"%00", b"%", b"?", b"#", b"\\", b"..", b"http://", b"@", b"x:1", b"*", b" "],
)
TARGETS = st.lists(PIECES | st.binary(max_size=2), max_size=8).map(b"".join)


class CheckTargetTests(SynchronousTestCase):
    """`check_target`"""

    @given(st.sampled_from([b"GET", b"OPTIONS"]), TARGETS)
    def test_checked_target(self, method: bytes, target: bytes) -> None:
        """A checked target is visible ASCII in origin form, with complete escapes and without a fragment (RFC 9112,
        section 3.2). Any other target is refused with 400.
        """
        try:
            checked = check_target(method, target)
        except Refusal as refusal:
            self.assertEqual(refusal.status, 400)
            return
        if checked != b"*" or method != b"OPTIONS":
            self.assertRegex(checked, rb"\A/[!-~]*\Z")
            self.assertIsNone(re.search(rb"[#\\]|%00|%(?![0-9A-Fa-f]{2})", checked))
            # The next server, reading with the same rules, understands the same target.
            self.assertEqual(check_target(method, checked), checked)

    def test_absolute(self) -> None:
        """Of an absolute target, the path and the query are used (RFC 9112, section 3.2.2)."""
        for target, path in (
            (b"http://x/a?b", b"/a?b"),
            (b"HTTPS://x:1?b", b"/?b"),
            (b"http://x", b"/"),
            (b"http://[::1]/", b"/"),
        ):
            self.assertEqual(check_target(b"GET", target), path)

    def test_long(self) -> None:
        """A target may have 8 KiB; one more byte is 414."""
        check_target(b"GET", b"/" * MOST_TARGET)
        refusal = self.assertRaises(Refusal, check_target, b"GET", b"/" * (MOST_TARGET + 1))
        self.assertEqual(refusal.status, 414)


class CheckHeadTests(SynchronousTestCase):
    """`check_head`"""

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
