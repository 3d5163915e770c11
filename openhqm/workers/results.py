# -*- test-case-name: tests.workers.test_handlers,tests.workers.test_answers -*-
"""A handler's result as JSON text: JSON values, what msgspec encodes besides, and what reads like either."""

from __future__ import annotations

import math
from collections.abc import ItemsView, KeysView, Mapping, Sequence, Set, ValuesView
from numbers import Integral
from typing import Any

import msgspec

from openhqm.policy.json_numbers import LongFloat, integer_text

_ANY = msgspec.json.Decoder(msgspec.Raw)
_WRITTEN_BITS = 14_000  # about 4,200 digits: Python writes up to 4,300


def result_text(value: Any) -> bytes:
    """A handler's result as JSON text. `ValueError` where it is not a JSON value.

    Encoding runs code of the handler's (properties, iterators), so it may raise anything besides.
    """
    try:
        text = _encoded(value)
        _ANY.decode(text.decode("utf-8"))  # a msgspec.Raw of the handler may hold anything
        if b"null" in text and not isinstance(value, msgspec.Raw):
            _refuse_nan(msgspec.to_builtins(value, enc_hook=_without_raw))  # msgspec writes NaN as null
        return text
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ValueError(f"the handler returned something that is not JSON: {error}") from None


def _encoded(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value, enc_hook=_plain)
    except ValueError:  # of an integer with more digits than Python writes, perhaps
        return msgspec.json.encode(_with_long_integers(value), enc_hook=_plain)


def _with_long_integers(value: Any) -> Any:
    """``value``, with the text of each integer that Python does not write, at any depth of dicts, lists and tuples."""
    kind = type(value)
    if kind is int:
        return msgspec.Raw(integer_text(value).encode()) if value.bit_length() > _WRITTEN_BITS else value
    if kind is dict:
        return {name: _with_long_integers(item) for name, item in value.items()}
    if kind in (list, tuple):
        return [_with_long_integers(item) for item in value]
    return value


def _plain(value: Any) -> Any:
    """The JSON value that ``value`` stands for: msgspec knows only the classes of Python itself. `TypeError`."""
    if isinstance(value, LongFloat):
        return msgspec.Raw(value.text.encode())
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence | Set | KeysView | ValuesView | ItemsView):
        return list(value)
    raise TypeError(f"a {type(value).__name__} is no JSON value")


def _without_raw(value: Any) -> Any:
    return None if isinstance(value, msgspec.Raw) else _plain(value)


def _refuse_nan(value: Any) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is no number of JSON")
    elif isinstance(value, dict):
        for item in value.values():
            _refuse_nan(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_nan(item)
