# -*- test-case-name: tests.sqlite.test_soundness -*-
"""Whether the embedded file is sound when it is opened, and whether it is still there while it is used."""

from __future__ import annotations

import os
import time
from contextlib import suppress

import apsw

from openhqm.errors import CannotStart
from openhqm.sqlite.sql import fetch_one

CHECK_SECONDS = 5.0
STEPS_BETWEEN_LOOKS = 100_000
LOG_HEADER, FRAME_HEADER = 32, 24
DAMAGE = "restore it from a backup, or move the directory away to begin with an empty one"


def check_files(path: str) -> bool:
    """Whether there is a database at ``path``. `CannotStart` where there is one in part.

    Only an installation without any of these files is a new one: its database takes its name when it is complete.
    """
    if not os.path.exists(path):
        if os.path.exists(f"{path}-wal"):
            raise CannotStart(f"{path} is missing, and {path}-wal is there: {DAMAGE}")
        return False
    if os.path.getsize(path) == 0:
        raise CannotStart(f"{path} has 0 bytes: its content is lost; {DAMAGE}")
    return True


def check_pages(connection: apsw.Connection, path: str, seconds: float = CHECK_SECONDS) -> None:
    """Look for damage, for at most ``seconds``: what takes longer is found when it is read. `CannotStart`."""
    due = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > due, STEPS_BETWEEN_LOOKS)
    found: object = "ok"
    try:
        with suppress(apsw.InterruptError, apsw.AbortError):  # the time is over
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchall()[0]
    except (apsw.CorruptError, apsw.NotADBError) as error:
        found = str(error)
    finally:
        connection.set_progress_handler(None)
    if found != "ok":
        raise CannotStart(f"{path} is damaged ({' '.join(str(found).split())}): {DAMAGE}")


def frames_in_log(path: str) -> int:
    """How many frames the current generation of the log of ``path`` has, whole and torn; 0 where there is no log.

    A frame of it has the salts of the log's header, and one that an older generation left behind has others
    (https://www.sqlite.org/fileformat2.html#walformat).
    """
    try:
        size = os.path.getsize(f"{path}-wal")
        with open(f"{path}-wal", "rb") as log:
            header = log.read(LOG_HEADER)
            if len(header) < LOG_HEADER:
                return 0
            frame = FRAME_HEADER + int.from_bytes(header[8:12], "big")
            found = 0
            for start in range(LOG_HEADER, size, frame):
                log.seek(start + 8)
                if log.read(8) != header[16:24]:
                    break
                found += 1
            return found
    except FileNotFoundError:
        return 0


def torn_frames(connection: apsw.Connection, before: int) -> int:
    """How many of the frames that were in the log ``before`` SQLite does not read: they were never confirmed.

    Nothing is written, for the disk may be full.
    """
    _, whole, _ = fetch_one(connection, "PRAGMA wal_checkpoint(NOOP)")
    return max(0, before - whole) if whole >= 0 else 0  # below 0: it was locked


class Presence:
    """The files that were at the paths of a database and its log when it was opened."""

    def __init__(self, path: str) -> None:
        self._files = [(name, os.stat(name)) for name in (path, f"{path}-wal") if os.path.exists(name)]

    def check(self) -> None:
        """`apsw.CantOpenError` where one was removed or replaced: what is written to it is lost with the process."""
        for name, before in self._files:
            try:
                same = os.path.samestat(before, os.stat(name))
            except OSError as error:
                raise apsw.CantOpenError(f"{name} was removed or moved ({error.strerror})") from None
            if not same:
                raise apsw.CantOpenError(f"{name} was replaced by another file")
