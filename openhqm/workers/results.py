# -*- test-case-name: tests.workers.test_handlers,tests.workers.test_answers -*-
"""A handler's result as JSON text: JSON values, what msgspec encodes besides, and what reads like either."""

from __future__ import annotations

import json
from collections.abc import ItemsView, KeysView, Mapping, Sequence, Set, ValuesView
from numbers import Integral
from typing import Any

import msgspec

_ANY = msgspec.json.Decoder(msgspec.Raw)


def result_text(value: Any) -> bytes:
    """A handler's result as JSON text. `ValueError` where it is not a JSON value.

    Encoding runs code of the handler's (properties, iterators), so it may raise anything besides.
    """
    try:
        text = msgspec.json.encode(value, enc_hook=_plain)
        _ANY.decode(text.decode("utf-8"))  # a msgspec.Raw of the handler may hold anything
        if b"null" in text and not isinstance(value, msgspec.Raw):
            # msgspec writes NaN as null
            json.dumps(msgspec.to_builtins(value, enc_hook=_without_raw), allow_nan=False)
        return text
    except OverflowError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ValueError(f"the handler returned something that is not JSON: {error}") from None


def _plain(value: Any) -> Any:
    """The JSON value that ``value`` stands for: msgspec knows only the classes of Python itself. `TypeError`."""
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
