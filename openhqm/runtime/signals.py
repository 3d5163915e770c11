# -*- test-case-name: tests.test_service,tests.fleet.test_fleet -*-
"""Signals that ask a process to stop, or to read its configuration again.

Unlike with twistd's own handlers, the exit code of a process that was told to stop is not the signal's.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.error import ReactorNotRunning


def handle_stop(reactor: Any, again: Callable[[], object], first: Callable[[], object] = lambda: None) -> None:
    """SIGTERM and SIGINT stop the reactor in order. ``first`` is called with the first one, and ``again`` with others.

    Both are called although the reactor may be held up.
    """
    seen: list[int] = []

    def stop(number: int, frame: object) -> None:
        seen.append(number)
        if len(seen) > 1:
            again()
        else:
            first()
            reactor.callFromThread(stop_reactor, reactor)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


_early: list[int] = []


def note_early_reload() -> None:
    """SIGHUP ends the process no more: it is noted until there is a handler for it (`handle_reload`)."""
    signal.signal(signal.SIGHUP, lambda number, frame: _early.append(number))


def handle_reload(reactor: Any, reload: Callable[[], object]) -> None:
    """SIGHUP calls ``reload`` in the reactor. One that came before counts."""
    signal.signal(signal.SIGHUP, lambda number, frame: reactor.callFromThread(reload))
    if _early:
        _early.clear()
        reactor.callLater(0, reload)


def stop_reactor(reactor: Any) -> None:
    """Stop the reactor, unless it is stopping already."""
    with suppress(ReactorNotRunning):
        reactor.stop()
