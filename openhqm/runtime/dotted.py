# -*- test-case-name: tests.runtime.test_dotted -*-
"""A callable by its dotted path, as operators write it: ``package.module:callable``."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from traceback import extract_tb
from typing import Any

_OWN_FRAMES = 2  # those of this function and of importlib


def load_callable(path: str) -> Callable[..., Any]:
    """Import what ``path`` names, also from the working directory.

    `ValueError` with the module and the reason, for the operator.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    module_name, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part, None)
    except KeyboardInterrupt:  # of the operator, who waits for the import
        raise
    except BaseException as error:  # whatever the operator's module raises: sys.exit() must not end a process, either
        raise ValueError(f"cannot import {module_name}: {one_line(error)}{_place(error)}") from error
    if not callable(found):
        raise ValueError(f"{module_name} has no callable named {name}")
    loaded: Callable[..., Any] = found
    return loaded


def _place(error: BaseException) -> str:
    """The file and the line of the operator's code at which ``error`` was raised; empty where none of it had begun."""
    if isinstance(error, SyntaxError):
        return ""  # it says its own
    frames = [frame for frame in extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if len(frames) > _OWN_FRAMES else ""


def one_line(error: BaseException) -> str:
    """The type of an error and what it says, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
