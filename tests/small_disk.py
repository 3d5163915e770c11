"""A disk of its own for what is to fill it: mounted in memory, which only root can."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest


def small_disk(case: Any, directory: Path, size: str = "8m") -> Callable[[str], object]:
    """Mount a disk of ``size`` at ``directory`` until the test ``case`` is over, and return what makes it larger."""
    directory.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        if os.environ.get("CI"):
            raise AssertionError(mounted.stderr)
        raise SkipTest("a small disk can only be mounted by root")
    case.addCleanup(subprocess.run, ["umount", "-l", str(directory)])
    return lambda larger: subprocess.run(["mount", "-o", f"remount,size={larger}", str(directory)], check=True)
