# -*- test-case-name: tests.policy.test_json_numbers -*-
"""JSON with numbers of any length: RFC 8259, section 6, sets no limit, and a number that is rounded is another one.

An integer is an ``int``. Python refuses to convert more than 4,300 digits, because its own way takes time in the square
of their number. Here the digits are halved until the pieces are short, up to `MOST_DIGITS`: 100 such numbers, as many
as fit into 10 MiB, take about a second. Every other number that a ``float`` does not hold is a `LongFloat`.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any

MOST_DIGITS = 100_000
_SHORT = 4000  # below Python's own limit of 4,300 digits
_TOO_LONG = 10**MOST_DIGITS
_BITS_OF_A_DIGIT = 3.33
# Fifteen digits always fit into a float. Where nothing is longer, and nothing has an exponent, there is nothing to do.
_MAYBE_LONG = re.compile(r"[0-9][0-9.]{15}|[0-9][eE]")


class LongFloat(float):
    """A number that no ``float`` holds: it calculates as the nearest one (or infinity), and its text is as it came.

    ``Decimal(str(number))`` is exact.
    """

    text: str

    def __new__(cls, text: str) -> LongFloat:
        """``text`` is a JSON number."""
        self = super().__new__(cls, text)
        self.text = text
        return self

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[type[LongFloat], tuple[str]]:
        return LongFloat, (self.text,)


def parse_json(text: bytes) -> Any:
    """The JSON value ``text``, whose numbers are as they came. `ValueError` where it is not JSON."""
    decoded = text.decode("utf-8")
    return (_LONG if _MAYBE_LONG.search(decoded) else _PLAIN).decode(decoded)


def integer_text(value: int) -> str:
    """The digits of ``value``. `ValueError` where there are more than `MOST_DIGITS`."""
    if abs(value) >= _TOO_LONG:
        raise ValueError(f"an integer of more than {MOST_DIGITS} digits")
    if value < 0:
        return f"-{integer_text(-value)}"
    if value.bit_length() < _SHORT * 3:
        return str(value)
    lower = int(value.bit_length() / _BITS_OF_A_DIGIT / 2)
    high, low = divmod(value, 10**lower)
    return integer_text(high) + integer_text(low).zfill(lower)


def _integer(text: str) -> int | LongFloat:
    if len(text) <= _SHORT:
        return int(text)
    if len(text) > MOST_DIGITS:
        return LongFloat(text)
    return -_natural(text[1:]) if text[0] == "-" else _natural(text)


def _natural(digits: str) -> int:
    if len(digits) <= _SHORT:
        return int(digits)
    lower = len(digits) // 2
    shift: int = 10**lower
    return _natural(digits[:-lower]) * shift + _natural(digits[-lower:])


def _float(text: str) -> float:
    value = float(text)
    written = repr(value)
    try:
        return value if written == text or Decimal(written) == Decimal(text) else LongFloat(text)
    except InvalidOperation:  # an exponent beyond those of Decimal
        return LongFloat(text)


_PLAIN = json.JSONDecoder()
_LONG = json.JSONDecoder(parse_int=_integer, parse_float=_float)
