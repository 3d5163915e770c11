# -*- test-case-name: tests.runtime.test_log_writer -*-
"""Writes the lines of the log, in a thread, so that what reads them too slowly holds up nothing else.

A pipe takes 64 KiB; after that its writer waits until something reads. A process that waits for the reader of its log
serves no request.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import IO, NamedTuple

MOST_BYTES = 4 * 1024 * 1024
"""Of the lines that wait. Lines that are not important may take half of it."""
MOST_AT_ONCE = 64 * 1024
PAUSE_SECONDS = 0.05
FLUSH_SECONDS = 1.0


class _Line(NamedTuple):
    """``tells``: of how many dropped lines it tells."""

    data: bytes
    tells: int = 0


class LogWriter:
    """Writes to ``stream``: at once, and from `decouple` on in a thread.

    A line for which there is no room is dropped. ``dropped_line`` makes the line that says how many were; it is written
    in their place. ``dropped`` counts all of them.
    """

    def __init__(self, stream: IO[str], dropped_line: Callable[[int], str]) -> None:
        self._stream = stream
        self._encoding: str = getattr(stream, "encoding", None) or "utf-8"
        self._descriptor = _descriptor(stream)
        self._dropped_line = dropped_line
        self.dropped = 0
        self._thread: threading.Thread | None = None
        self._begin()

    def _begin(self) -> None:
        self._lines: deque[_Line] = deque()
        self._bytes = 0  # of them, and of those that are being written
        self._untold = 0
        self._failing = False
        # A signal handler that logs may interrupt its own thread within this lock.
        self._changed = threading.Condition(threading.RLock())

    def write(self, line: str, important: bool = False) -> None:
        """Write ``line``. What the stream's encoding has no bytes for is escaped."""
        data = self._encoded(line)
        if self._thread is None:
            if self._descriptor is not None:
                self._stream.flush()  # what was printed before comes first
            self._write(data)
            return
        with self._changed:
            if self._bytes + len(data) > (MOST_BYTES if important else MOST_BYTES // 2):
                self.dropped += 1
                self._untold += 1
                return
            self._tell()
            self._add(_Line(data))

    def decouple(self) -> None:
        """From now on, write in a thread. A process that is forked from this one has no such thread, and needs none."""
        if self._thread is None and self._descriptor is not None:
            self._thread = threading.Thread(target=self._work, name="openhqm-log", daemon=True)
            self._thread.start()
            os.register_at_fork(after_in_child=self._couple)
            atexit.register(self.flush)

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until all lines are written, or cannot be, for up to ``seconds``."""
        due = time.monotonic() + seconds
        while self._thread is not None and (self._bytes or self._untold) and not self._failing:
            if time.monotonic() >= due:
                return
            time.sleep(0.002)  # without the lock: a signal handler may be what waits here

    def _couple(self) -> None:
        self._thread = None
        self._begin()

    def _encoded(self, line: str) -> bytes:
        return f"{line}\n".encode(self._encoding, "backslashreplace")

    def _add(self, line: _Line) -> None:
        self._lines.append(line)
        self._bytes += len(line.data)
        self._changed.notify()

    def _tell(self) -> None:
        if self._untold:
            count, self._untold = self._untold, 0
            self._add(_Line(self._encoded(self._dropped_line(count)), count))

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._lines:
                    self._tell()
                    if not self._lines:
                        self._changed.wait()
                batch = [self._lines.popleft()]
                size = len(batch[0].data)
                while self._lines and size < MOST_AT_ONCE:
                    batch.append(self._lines.popleft())
                    size += len(batch[-1].data)
            try:
                self._write(b"".join(line.data for line in batch))
                self._failing = False
            except (OSError, ValueError):  # the disk is full, or nothing reads the pipe any more
                self._failing = True
                with self._changed:
                    self.dropped += sum(line.tells == 0 for line in batch)
                    self._untold += sum(line.tells or 1 for line in batch)
                time.sleep(PAUSE_SECONDS)
            finally:
                with self._changed:
                    self._bytes -= size

    def _write(self, data: bytes) -> None:
        if self._descriptor is None:
            self._stream.write(data.decode(self._encoding))
            self._stream.flush()
            return
        # Not by the stream: at its end, Python waits for the lock of a stream that a thread writes to.
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:  # another process has made the pipe non-blocking
                time.sleep(PAUSE_SECONDS)


def _descriptor(stream: IO[str]) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None
