"""Correlation ids: UUIDs (RFC 9562) that only their maker can tell from random ones."""

from __future__ import annotations

import uuid
from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.ids import CorrelationIds
from tests import hypothesis_profile  # noqa: F401

SECRET = bytes(range(16))
NUMBERS = st.integers(0, 2**56 - 1)
HEX = "0123456789abcdef"


class CorrelationIdsTests(SynchronousTestCase):
    """`CorrelationIds`"""

    @given(NUMBERS, st.binary(min_size=16, max_size=64))
    def test_round_trip(self, number: int, secret: bytes) -> None:
        """Every number below 2**56 is recovered from its id, under any secret, also after a restart."""
        self.assertEqual(CorrelationIds(secret).number(CorrelationIds(secret).issue(number)), number)

    @given(NUMBERS)
    def test_uuid(self, number: int) -> None:
        """The standard library parses an id as a UUID of version 4, in its usual spelling."""
        issued = CorrelationIds(SECRET).issue(number)
        parsed = uuid.UUID(issued)
        self.assertEqual((parsed.version, parsed.variant, str(parsed)), (4, uuid.RFC_4122, issued))

    @given(NUMBERS, NUMBERS)
    def test_unique(self, one: int, two: int) -> None:
        """Two numbers never have the same id."""
        assume(one != two)
        ids = CorrelationIds(SECRET)
        self.assertNotEqual(ids.issue(one), ids.issue(two))

    def test_consecutive_numbers(self) -> None:
        """The ids of consecutive numbers differ like random ones, in about half of their 122 free bits."""
        ids = CorrelationIds(SECRET)
        issued = [uuid.UUID(ids.issue(number)).int for number in range(1001)]
        distances = [(one ^ two).bit_count() for one, two in pairwise(issued)]
        self.assertTrue(59 < sum(distances) / len(distances) < 63)
        self.assertGreater(min(distances), 30)

    @given(NUMBERS, st.integers(0, 35), st.integers(1, 15))
    def test_changed_digit(self, number: int, position: int, change: int) -> None:
        """An id with one changed hexadecimal digit is not valid."""
        issued = CorrelationIds(SECRET).issue(number)
        assume(issued[position] != "-")
        wrong = HEX[HEX.index(issued[position]) ^ change]
        self.assertIsNone(CorrelationIds(SECRET).number(issued[:position] + wrong + issued[position + 1 :]))

    @given(st.uuids(version=4) | st.uuids(), NUMBERS)
    def test_foreign_ids(self, stranger: uuid.UUID, number: int) -> None:
        """A UUID of another program, or of another secret, is not valid."""
        self.assertIsNone(CorrelationIds(SECRET).number(str(stranger)))
        self.assertIsNone(CorrelationIds(SECRET[::-1]).number(CorrelationIds(SECRET).issue(number)))

    @given(st.text(max_size=40))
    def test_any_text(self, text: str) -> None:
        """Any other text is not valid, and raises nothing."""
        self.assertIsNone(CorrelationIds(SECRET).number(text))

    def test_spelling(self) -> None:
        """Capitals are accepted (RFC 9562, section 4); other spellings of a UUID are not."""
        ids = CorrelationIds(SECRET)
        issued = ids.issue(7)
        self.assertEqual(ids.number(issued.upper()), 7)
        for other in (f"{{{issued}}}", f"urn:uuid:{issued}", issued.replace("-", ""), f"{issued}\n", f" {issued}", ""):
            self.assertIsNone(ids.number(other), other)

    def test_secret(self) -> None:
        """A secret of less than 16 bytes is refused. Of a longer one, every byte counts."""
        for size in (0, 1, 15):
            self.assertRaises(ValueError, CorrelationIds, b"x" * size)
        for size in (16, 32, 64, 65, 200):
            secret = b"x" * size
            issued = CorrelationIds(secret).issue(1)
            self.assertEqual(CorrelationIds(secret).number(issued), 1)
            self.assertIsNone(CorrelationIds(secret[:-1] + b"y").number(issued))
