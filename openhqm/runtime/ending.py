# -*- test-case-name: tests.test_draining -*-
"""The end of a process that has stopped, also where threads that are not ours still run."""

from __future__ import annotations

import threading
import time

from twisted.logger import Logger

from openhqm.runtime.logs import end_at_once

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
    threading.Thread(target=_end, args=(seconds,), name="openhqm-end", daemon=True).start()


def _end(seconds: float) -> None:
    time.sleep(seconds)
    end_at_once(0)
