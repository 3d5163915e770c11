"""JSON numbers: each is read as the number that was written, whatever its length."""

from __future__ import annotations

import copy
import json
import math
import pickle
import random
import sys
import time
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.json_numbers import MOST_DIGITS, LongFloat, integer_text, parse_json
from tests import hypothesis_profile  # noqa: F401

numbers = st.from_regex(r"\A-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?\Z")


class ParseJsonTests(SynchronousTestCase):
    """`parse_json`"""

    @given(numbers)
    def test_exact(self, text: str) -> None:
        """The text of every number that is read is the number that was written, and calculates like a float."""
        value = parse_json(b"[%b]" % text.encode())[0]
        self.assertEqual(Decimal(str(value)), Decimal(text))
        self.assertEqual(value, json.loads(text))

    def test_short(self) -> None:
        """What Python's own classes hold is of those classes, also where it is written at length."""
        for text in ("0", "-0", "1.5", "1.50", "0.1", "-2e3", "1E5", "1e22", "0.10000000000000000000", "5e-324", "2.5"):
            value = parse_json(text.encode())
            self.assertIs(type(value), type(json.loads(text)), text)
            self.assertEqual(value, json.loads(text))

    def test_integers(self) -> None:
        """An integer is an int, far beyond the 4,300 digits that Python converts; longer ones keep their text."""
        for length in (19, 23, 3999, 4000, 4001, 4300, 4301, 20_000, MOST_DIGITS - 1, MOST_DIGITS):
            for digits in ("1" + "0" * (length - 1), "9" * length, "7" + "05" * (length // 2)):
                for text in (digits[:length], f"-{digits[: length - 1]}"):
                    value = parse_json(b'{"n": [%b]}' % text.encode())["n"][0]
                    self.assertIs(type(value), int)
                    self.assertEqual(integer_text(value), text)
        text = "-" + "9" * MOST_DIGITS
        value = parse_json(text.encode())
        self.assertEqual((str(value), float(value)), (text, -math.inf))

    def test_python_agrees(self) -> None:
        """The value is that which Python has without its limit."""
        digits = "".join(random.Random(4).choices("0123456789", k=30_000)).lstrip("0")
        value = parse_json(digits.encode())
        limit = sys.get_int_max_str_digits()
        sys.set_int_max_str_digits(0)
        try:
            self.assertEqual(value, int(digits))
        finally:
            sys.set_int_max_str_digits(limit)

    def test_floats(self) -> None:
        """A number that no float holds keeps its text: too precise, too large, too small."""
        for text in (
            "3.14159265358979323846264338327950288",
            "12345678901234567.89",
            "1e400",
            "-1e400",
            "1e-400",
            "1e99999999999999999999999",
            "0." + "3" * 100_000,
            "123456789012345678e1",
        ):
            value = parse_json(text.encode())
            self.assertIsInstance(value, LongFloat)
            self.assertEqual((str(value), repr(value), f"{value}"), (text, text, text))
            self.assertEqual(value + 0, float(text))
            for copied in (copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
                self.assertEqual((type(copied), str(copied)), (LongFloat, text))
        self.assertEqual(f"{LongFloat('2.00000000000000000001'):.1f}", "2.0")

    def test_bounded_time(self) -> None:
        """A payload of ten megabytes takes seconds, however its digits are arranged."""
        size = 10 * 1024 * 1024
        for text in (
            b"9" * size,
            b"0." + b"9" * size,
            b"[%b]" % b",".join([b"9" * MOST_DIGITS] * (size // MOST_DIGITS)),
            b"[%b]" % b",".join([b"9" * 4000] * (size // 4000)),
            b"[%b]" % b",".join([b"0.%b1" % (b"9" * 99)] * (size // 102)),
            b'"%b"' % (b"9." * (size // 2)),
        ):
            began = time.process_time()
            parse_json(text)
            self.assertLess(time.process_time() - began, 20)

    def test_not_json(self) -> None:
        """What is not JSON is a `ValueError`."""
        for text in (b"", b"{", b"12345678901234567890.", b"\xff", b'"\xed\xa0\x80"', b"[1e5,]"):
            self.assertRaises(ValueError, parse_json, text)


class IntegerTextTests(SynchronousTestCase):
    """`integer_text`"""

    def test_too_long(self) -> None:
        """More than the limit is refused, at once."""
        for value in (10 ** (MOST_DIGITS + 1), -(1 << 10**8)):
            error = self.assertRaises(ValueError, integer_text, value)
            self.assertIn(str(MOST_DIGITS), str(error))
