# -*- test-case-name: tests.runtime.test_private_files -*-
"""Files with secrets: one that other users of the machine can read is refused."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress

from twisted.logger import Logger

MODES = stat.S_IWGRP | stat.S_IRWXO
CURE = "can be read by others, or written by its group: chmod 640, or 600"
MOUNTS = "/proc/self/mountinfo"
_IN_MEMORY = frozenset(("tmpfs", "ramfs"))
_log = Logger()


def read_private(path: str, most: int) -> tuple[os.stat_result, bytes]:
    """What the system says about a file, and its content, of at most ``most`` bytes. `ValueError` says what is wrong.

    The group may read it: that is how a service manager or Kubernetes (``fsGroup``) passes a file on.
    """
    try:
        with open(path, "rb") as file:
            about = os.fstat(file.fileno())
            content = file.read(most + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from None
    if not stat.S_ISREG(about.st_mode) or len(content) > most:
        raise ValueError(f"must be a file of at most {most} bytes")
    check_private(path, about.st_mode)
    return about, content


def check_private(path: str, mode: int) -> None:
    """`ValueError` with the cure where a file of this ``mode`` is open to others.

    Kubernetes and Docker mount secrets as 0644 or 0444 on a file system in memory that is read-only and the container's
    own, and Compose mounts a file by itself, with the mode that it has for another user: there it is only logged.
    """
    open_to = mode & MODES
    if not stat.S_ISREG(mode) or not open_to:  # a pipe, as of a shell's <(...), is its owner's
        return
    if open_to == stat.S_IROTH and _is_secret_volume(path):
        _log.warn(
            "{path} can be read by all users of this container: set defaultMode: 0440 of its volume, or the mode of "
            "the secret",
            path=path,
        )
        return
    raise ValueError(CURE)


def is_secret_volume(path: str, mounts: str) -> bool:
    """Whether a path, without links, is on a read-only file system in memory, or is mounted read-only by itself.

    ``mounts``: see proc_pid_mountinfo(5).
    """
    found, longest = False, -1
    for line in mounts.splitlines():
        before, _, behind = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 6:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        within = path == point or path.startswith(point.rstrip("/") + "/")
        if within and len(point) >= longest:  # of two at one place, the later one is on top
            longest = len(point)
            alone = path == point or behind.partition(" ")[0] in _IN_MEMORY
            found = alone and "ro" in fields[5].split(",")
    return found


def _is_secret_volume(path: str) -> bool:
    with suppress(OSError, UnicodeDecodeError), open(MOUNTS, encoding="utf-8") as file:
        return is_secret_volume(os.path.realpath(path), file.read())
    return False
