# -*- test-case-name: tests.test_service -*-
"""Ends of a process that could not start: one line for each thing that is wrong, and an exit code."""

from __future__ import annotations

import atexit
import os
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from openhqm.errors import ConfigurationError, OpenHQMError


def end_where_it_failed(starting: Deferred[None]) -> None:
    """End the process where ``starting`` has failed by now: `SystemExit`."""
    outcome: list[Any] = []
    starting.addBoth(outcome.append)
    if outcome and isinstance(outcome[0], Failure):
        raise SystemExit(say(outcome[0]))


def say(failure: Failure) -> int:
    """One line for each thing that is wrong, past any redirection; the exit code."""
    error = failure.value
    if isinstance(error, ConfigurationError):
        lines = [str(complaint) for complaint in error.complaints]
    elif isinstance(error, OpenHQMError):
        lines = [str(error)]
    else:
        failure.raiseException()
    for line in lines:
        print(f"openhqm: {line}", file=sys.__stderr__)
    return 1


def end_with(code: int) -> None:
    """Let the process end with ``code`` once the reactor has stopped, whatever twistd would rather end it with."""

    def end() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    atexit.register(end)  # what comes last is called first, and nothing after it
