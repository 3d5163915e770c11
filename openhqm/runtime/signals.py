# -*- test-case-name: tests.test_service,tests.fleet.test_fleet -*-
"""Signals that ask a process to stop. Unlike with twistd's own handlers, its exit code is then not the signal's."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.error import ReactorNotRunning


def handle_stop(reactor: Any, again: Callable[[], object]) -> None:
    """SIGTERM and SIGINT stop the reactor in order. ``again`` is called when a second one arrives."""
    seen: list[int] = []

    def stop(number: int, frame: object) -> None:
        seen.append(number)
        if len(seen) > 1:
            again()
        else:
            reactor.callFromThread(stop_reactor, reactor)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def stop_reactor(reactor: Any) -> None:
    """Stop the reactor, unless it is stopping already."""
    with suppress(ReactorNotRunning):
        reactor.stop()
