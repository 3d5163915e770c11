# -*- test-case-name: tests.test_service,tests.command.test_dead -*-
"""Printing for a reader that may leave before the last line, as ``head`` does."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TextIO


def print_lines(lines: Iterable[str], out: TextIO) -> None:
    """Print ``lines`` to ``out``, as far as its reader wants them."""
    try:
        for line in lines:
            print(line, file=out)
        out.flush()
    except BrokenPipeError:
        discard(out)


def discard(out: TextIO) -> None:
    """The reader of ``out`` has gone: what is still to be written to it is dropped.

    Else Python would complain once more when it closes the stream (its documentation, "Note on SIGPIPE").
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, out.fileno())
    os.close(null)
