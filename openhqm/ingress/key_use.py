# -*- test-case-name: tests.ingress.test_key_use -*-
"""Writes down when API keys were used last, once a minute, in a thread, and nothing for a request."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.policy.key_use import MOST_BYTES, SUFFIX, read_use, write_use

WRITE_SECONDS = 60.0
Run = Callable[[Callable[[], None]], Deferred[None]]


class KeyUse:
    """When the keys of the file at ``path`` were used, in a file beside it, which processes that share it add to.

    ``run`` runs a function in a thread. Where the file cannot be written, that is logged once, and all else goes on.
    """

    _log = Logger()

    def __init__(self, path: str, clock: Any, run: Run) -> None:
        self._path = Path(path + SUFFIX)
        self._run = run
        self._used: dict[str, int] = {}
        self._told = False
        self.known: Callable[[], Collection[str]] = tuple
        self._loop = LoopingCall(self._write)
        self._loop.clock = clock

    def note(self, id: str, now: float) -> None:
        """The key was used."""
        self._used[id] = int(now)

    def start(self) -> None:
        """Begin to write."""
        self._loop.start(WRITE_SECONDS, now=False)

    def stop(self) -> None:
        """Write what was used since, and end."""
        if self._loop.running:
            self._loop.stop()
            if self._used:
                try:
                    self._adding()()
                except OSError as error:
                    self._failed(Failure(error))

    def _write(self) -> Deferred[None] | None:
        return self._run(self._adding()).addErrback(self._failed) if self._used else None

    def _adding(self) -> Callable[[], None]:
        used, self._used = self._used, {}
        return partial(_add, self._path, used, self.known())

    def _failed(self, failure: Failure) -> None:
        failure.trap(OSError)
        error: Any = failure.value
        if not self._told:
            self._log.warn(
                "when API keys were used last is not kept: {path}: {reason}",
                path=str(self._path),
                reason=error.strerror or str(error),
            )
        self._told = True


def _add(path: Path, used: Mapping[str, int], known: Collection[str]) -> None:
    """Add to the file what was used, in one step. Processes that write at once wait for each other."""
    with open(f"{path}.lock", "w", opener=_private) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = read_use(path.read_bytes()[:MOST_BYTES]) if path.exists() else {}
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with open(temporary, "w", opener=_private) as file:
                file.write(write_use(before, used, known))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
