# -*- test-case-name: tests.runtime.test_forks,tests.fleet.test_fleet -*-
"""File descriptors that processes forked by handlers (by ``multiprocessing``, for example) must not keep open.

A forked process has a copy of every open file, and may outlive this process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress


def keep_from_forks(descriptors: Iterable[int]) -> None:
    """Close ``descriptors`` in each process that is forked from this one.

    Close-on-exec would close them only in processes that execute another program. A descriptor that stands for another
    file at the time of the fork is left open.
    """
    known = [(descriptor, os.fstat(descriptor)) for descriptor in descriptors]

    def close() -> None:
        for descriptor, before in known:
            with suppress(OSError):  # it was closed before the fork
                if os.path.samestat(os.fstat(descriptor), before):
                    os.close(descriptor)

    os.register_at_fork(after_in_child=close)
