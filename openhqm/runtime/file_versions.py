# -*- test-case-name: tests.runtime.test_renewed_tls -*-
"""Whether a file is still the one that was read."""

from __future__ import annotations

import os


def file_version(path: str) -> object:
    """What differs once the file has another content, or cannot be read any more."""
    try:
        about = os.stat(path)
    except OSError:
        return None
    return about.st_dev, about.st_ino, about.st_mtime_ns, about.st_size, about.st_mode
