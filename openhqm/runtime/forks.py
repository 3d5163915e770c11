# -*- test-case-name: tests.runtime.test_forks,tests.fleet.test_fleet -*-
"""What a handler forks, by ``multiprocessing`` for one, has a copy of every open file, and may outlive its process."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress


def keep_from_forks(descriptors: Iterable[int]) -> None:
    """Have each process that is forked from this one close them. Close-on-exec does so only for what is executed.

    A number that stands for something else by then is left alone.
    """
    known = [(descriptor, os.fstat(descriptor)) for descriptor in descriptors]

    def close() -> None:
        for descriptor, before in known:
            with suppress(OSError):  # it is closed already
                if os.path.samestat(os.fstat(descriptor), before):
                    os.close(descriptor)

    os.register_at_fork(after_in_child=close)
