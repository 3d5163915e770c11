# -*- test-case-name: tests.test_service -*-
"""How a process that cannot start exits: with one line for each error, and an exit code."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from openhqm.errors import ConfigurationError, OpenHQMError
from openhqm.runtime.logs import end_at_once


def exit_if_failed(starting: Deferred[None]) -> None:
    """Raise `SystemExit` where ``starting`` has failed already."""
    outcome: list[Any] = []
    starting.addBoth(outcome.append)
    if outcome and isinstance(outcome[0], Failure):
        raise SystemExit(report_failure(outcome[0]))


def report_failure(failure: Failure) -> int:
    """Print one line for each error to the process's own standard error. Returns the exit code.

    Raises an unexpected error as it is.
    """
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


def exit_with(code: int) -> None:
    """Let the process exit with ``code`` once the reactor has stopped, whatever exit code twistd would use."""

    atexit.register(end_at_once, code)  # the handler registered last is called first, and this one returns to no other


def run_to_its_end(reactor: Any, work: Callable[[], Deferred[None]]) -> None:
    """Run the reactor until the Deferred of ``work`` fires, and raise its error where it failed."""
    outcome: list[Any] = []

    def begin() -> None:
        work().addBoth(outcome.append).addBoth(lambda result: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run()
    if outcome and isinstance(outcome[0], Failure):
        outcome[0].raiseException()
