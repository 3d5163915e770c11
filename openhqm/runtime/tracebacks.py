# -*- test-case-name: tests.runtime.test_logs -*-
"""Tracebacks for the log: the frames of the operator's own code, without those that lead to it."""

from __future__ import annotations

from pathlib import Path
from traceback import TracebackException

from twisted.python.failure import Failure

import openhqm
import twisted

_NOT_THEIRS = tuple(f"{Path(str(package.__file__)).parent}/" for package in (openhqm, twisted))


def own_traceback(failure: Failure) -> str:
    """The traceback of ``failure`` from the first frame outside of OpenHQM and Twisted on; all of it where none is.

    Where none is and the error has a cause, that is what counts: it may be from another process.
    """
    error = failure.value
    if error is None or (error.__traceback__ is None and error.__cause__ is None):
        return str(failure.getTraceback())
    told = TracebackException.from_exception(error)
    none = len(told.stack) if error.__cause__ is not None else 0
    first = next((n for n, frame in enumerate(told.stack) if not frame.filename.startswith(_NOT_THEIRS)), none)
    del told.stack[:first]
    return "".join(told.format())
