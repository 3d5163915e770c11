# -*- test-case-name: tests.runtime.test_private_files -*-
"""Files with secrets: one that other users of the machine can read is refused."""

from __future__ import annotations

import os
import stat

MODES = stat.S_IWGRP | stat.S_IRWXO
CURE = "can be read by others, or written by its group: chmod 640, or 600"


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
    if about.st_mode & MODES:
        raise ValueError(CURE)
    return about, content
