# -*- test-case-name: tests.config.test_config -*-
"""What a single setting may be.

A validator raises `ValueError` with the rest of a sentence that begins with the key.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

Validator = Callable[[Any, Any, Any], None]


def between(least: float, most: float) -> Validator:
    """The value is a number from ``least`` to ``most``."""

    def check(instance: object, attribute: object, value: Any) -> None:
        if not least <= value <= most:
            raise ValueError(f"must be from {least} to {most}, not {value}")

    return check


def one_of(allowed: Collection[str]) -> Validator:
    """The value is one of a few words."""

    def check(instance: object, attribute: object, value: Any) -> None:
        if value not in allowed:
            raise ValueError(f"must be {' or '.join(sorted(allowed))}, not {value!r}")

    return check


def not_empty(instance: object, attribute: object, value: Any) -> None:
    """The value is a string with something in it."""
    if not value:
        raise ValueError("must not be empty")


def dotted_path(instance: object, attribute: object, value: Any) -> None:
    """The value is None or looks like ``package.module:callable``; dictionaries of them, too."""
    for path in value.values() if isinstance(value, dict) else [value]:
        if path is not None and (path.count(":") != 1 or not all(part for part in path.split(":"))):
            raise ValueError(f"must look like package.module:callable, not {path!r}")
