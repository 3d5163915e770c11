# -*- test-case-name: tests.runtime.test_dotted -*-
"""A callable by its dotted path, as operators write it: ``package.module:callable``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def load_callable(path: str) -> Callable[..., Any]:
    """Import what ``path`` names. `ValueError` with the module and the reason, for the operator."""
    module_name, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # whatever the operator's module raises while it is imported
        raise ValueError(f"cannot import {module_name}: {one_line(error)}") from error
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ValueError(f"{module_name} has no callable named {name}")
    loaded: Callable[..., Any] = found
    return loaded


def one_line(error: BaseException) -> str:
    """The type of an error and what it says, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
