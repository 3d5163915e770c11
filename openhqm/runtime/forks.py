# -*- test-case-name: tests.runtime.test_forks,tests.fleet.test_fleet -*-
"""What processes that handlers fork (by ``multiprocessing``, for example) must not do: keep files open, and come back.

A forked process has a copy of every open file, and may outlive this process. One that returned from the handler would
go on as a second gateway, on the same connections.
"""

from __future__ import annotations

import os
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

FORKED_EXIT = 70  # EX_SOFTWARE of sysexits.h


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


def end_forks_at(reactor: Any) -> None:
    """End each process that is forked from this one where it would run ``reactor``, as this one does."""

    def replace() -> None:
        reactor.runUntilCurrent = reactor.doIteration = _end

    os.register_at_fork(after_in_child=replace)


def end_forks_in(loop: AbstractEventLoop) -> None:
    """End each process that is forked by what runs in ``loop``, where it would come back to the loop."""

    def end_soon() -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon(_end)

    os.register_at_fork(after_in_child=end_soon)


def in_this_process(function: Callable[[], T]) -> T:
    """Call ``function``. A process that it forked, and that returns from it, ends."""
    home = os.getpid()
    try:
        return function()
    finally:
        if os.getpid() != home:
            _end()


def _end(*arguments: Any) -> NoReturn:
    """Without any cleaning up: files, locks and connections are those of the other process."""
    text = f"openhqm: process {os.getpid()} was forked by a handler and returned from it: end it with os._exit()\n"
    os.write(2, text.encode())
    os._exit(FORKED_EXIT)
