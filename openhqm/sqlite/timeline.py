# -*- test-case-name: tests.sqlite.test_timeline,tests.test_time_steps -*-
"""Goes on with the time of the process that had the file before, so that what is due stays due.

Due times in the file are those of a process's clock, which begins with the time of day and goes on evenly. Where the
time of day was set since then, a process that begins with it as it is now would find everything due an hour late, or
overdue. So the file holds how the two are related.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import msgspec
from twisted.logger import Logger

from openhqm.runtime.steady_time import TOLERATED_SECONDS, SteadyTime
from openhqm.sqlite.sql import fetch_one


class _Kept(msgspec.Struct):
    """``boot``: which start of the machine it was. ``began``: what the process's clock said at that start.

    ``ahead``: how far the time of day was ahead of the process's clock when that was last looked at.
    """

    boot: str
    began: float
    ahead: float


def boot_id() -> str:
    """What tells one start of the machine from every other; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class Timeline:
    """The time by which things are due in one file. Nothing is done where ``clock`` does not keep steady time."""

    _log = Logger()

    def __init__(self, clock: Any, boot: str | None = None) -> None:
        self._clock = clock
        self._steady: SteadyTime | None = getattr(clock, "steady_time", None)
        self._boot = boot_id() if boot is None else boot
        self._ahead = 0.0

    def resume(self, connection: apsw.Connection) -> None:
        """Go on with the time of the process before, and write down how it is related to the time of day."""
        if self._steady is None:
            return
        row = fetch_one(connection, "SELECT value FROM meta WHERE name = 'time'")
        if row is not None:
            kept = msgspec.json.decode(row[0], type=_Kept)
            # After another start of the machine, its elapsed time says nothing about when the last process ran.
            same = kept.boot and kept.boot == self._boot
            set_by = self._steady.began - kept.began if same else kept.ahead
            if abs(set_by) > TOLERATED_SECONDS:
                self._log.info("the clock of this machine was set by {seconds} s", seconds=round(set_by, 1))
                self._steady.set_back(self._clock, set_by)
        self._keep(connection)

    def note(self, connection: apsw.Connection, now: float) -> int:
        """Write down that the time of day was set, where it was."""
        if self._steady is not None and abs(self._steady.ahead() - self._ahead) > TOLERATED_SECONDS:
            self._keep(connection)
        return 0

    def _keep(self, connection: apsw.Connection) -> None:
        assert self._steady is not None
        self._ahead = self._steady.ahead()
        kept = msgspec.json.encode(_Kept(self._boot, self._steady.began, self._ahead))
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('time', ?)", (kept,))
