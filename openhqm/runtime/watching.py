# -*- test-case-name: tests.runtime.test_watching -*-
"""SIGHUP for this process when a file has changed in a directory: for those who write handlers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

LOOK_SECONDS = 0.5
MOST_FILES = 1000
"""So many are looked at: twice a second, in the reactor."""
SUFFIXES = (".py", ".yaml", ".yml", ".json")
"""Handlers, configurations and schemas. Data and logs may be in the same directory."""
_State = tuple[int, int, int]


class DirectoryWatch:
    """Calls ``changed`` once files in ``directory`` have changed, and then stay as they are for ``LOOK_SECONDS``.

    It reads their times, because a directory that is mounted into a virtual machine may tell of no change.
    """

    _log = Logger()

    def __init__(self, directory: str, changed: Callable[[], object]) -> None:
        self._directory = directory
        self._changed = changed
        self._told = self._seen = states(directory)

    def look(self) -> None:
        """Look at all files once."""
        before, self._seen = self._seen, states(self._directory)
        if self._seen != before or self._seen == self._told:
            return
        names = sorted(name for name in {*self._told, *self._seen} if self._told.get(name) != self._seen.get(name))
        self._told = self._seen
        self._log.info("{file} has changed ({count} in all)", file=names[0], count=len(names))
        self._changed()


def hang_up_at_change(directory: str, reactor: Any) -> None:
    """Send SIGHUP to this process at each change in ``directory`` from now on, once the reactor runs."""
    watch = DirectoryWatch(directory, lambda: signal.raise_signal(signal.SIGHUP))
    looking = LoopingCall(watch.look)
    looking.clock = reactor
    reactor.callWhenRunning(looking.start, LOOK_SECONDS, now=False)


def states(directory: str) -> Mapping[str, _State]:
    """What tells the files in ``directory`` from those of another time, by their paths; at most ``MOST_FILES``."""
    found = {}
    for path in islice(files(directory), MOST_FILES):
        try:
            status = os.stat(path)
        except OSError:  # it is being replaced
            continue
        found[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found


def files(directory: str) -> Iterator[str]:
    """The files with one of ``SUFFIXES`` in ``directory`` and below, without what is hidden."""
    for folder, folders, names in os.walk(directory):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found = (name for name in sorted(names) if name.endswith(SUFFIXES) and not name.startswith("."))
        yield from (os.path.join(folder, name) for name in found)
