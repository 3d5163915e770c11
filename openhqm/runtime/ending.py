# -*- test-case-name: tests.test_draining -*-
"""The end of a process that was told to stop, whatever does not return in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from twisted.logger import Logger

from openhqm.runtime.logs import end_at_once

LATE_SECONDS = 10.0
"""How much longer than its drain limit a process may take to stop. A parent gives its processes as long."""

_log = Logger()


def end_within(seconds: float) -> None:
    """End the process with code 0 after ``seconds``, unless it has ended by itself until then.

    Python waits for each thread that is not a daemon before it exits: for as long as a handler's function takes. What
    was worked on there is in the queue, and is delivered again.
    """
    main = threading.main_thread()
    names = [thread.name for thread in threading.enumerate() if thread is not main and not thread.daemon]
    if names:
        _log.warn("the process does not wait for these threads, which are not its own: {names}", names=", ".join(names))
    _after(seconds, lambda: end_at_once(0))


def end_late(drain: float) -> None:
    """End the process with code 1 where it has not stopped `LATE_SECONDS` after its drain limit.

    Then something holds it up that it does not wait for with a limit: a handler that runs in the reactor and does not
    return, or a disk that does not answer. What was accepted is in the queue.
    """

    def end() -> None:
        _log.critical(
            "the process has not stopped {seconds:g} s after its drain limit, and ends: the queue delivers again what "
            "it worked on",
            seconds=LATE_SECONDS,
        )
        end_at_once(1)

    _after(drain + LATE_SECONDS, end)


def _after(seconds: float, end: Callable[[], None]) -> None:
    def wait() -> None:
        time.sleep(seconds)
        end()

    threading.Thread(target=wait, name="openhqm-end", daemon=True).start()
