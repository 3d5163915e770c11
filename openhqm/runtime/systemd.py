# -*- test-case-name: tests.runtime.test_systemd -*-
"""Tells systemd how the process stands: ready, reloading, stopping, alive.

The protocol: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from typing import Any

from twisted.logger import Logger


class Systemd:
    """Where systemd does not wait for these messages (no ``NOTIFY_SOCKET``), nothing is sent.

    The watchdog is told from the reactor, so systemd restarts a process whose reactor stands still for ``WatchdogSec``.
    The variables are taken out of ``environment``: they are not for the processes that this one starts.
    """

    _log = Logger()

    def __init__(self, environment: MutableMapping[str, str], clock: Any) -> None:
        self._path = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        pid = environment.pop("WATCHDOG_PID", "")
        ours = not pid or pid == str(os.getpid())
        self._every = int(microseconds) / 2_000_000 if ours and microseconds.isdigit() else 0.0
        self._clock = clock
        self._watchdog: Any = None

    def ready(self) -> None:
        """The process does its work, or has read its configuration again."""
        self._send("READY=1")
        if self._every and self._watchdog is None:
            self._alive()

    def reloading(self) -> None:
        """The process reads its configuration again; `ready` follows."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The process stops. It is watched until it has ended."""
        self._send("STOPPING=1")

    def stop(self) -> None:
        """The process has stopped."""
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None

    def _alive(self) -> None:
        self._send("WATCHDOG=1")
        self._watchdog = self._clock.callLater(self._every, self._alive)

    def _send(self, message: str) -> None:
        if not self._path:
            return
        address = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as to:
                to.sendto(message.encode(), address)
        except OSError as error:
            self._log.warn("systemd cannot be told {told}: {error}", told=message.partition("=")[0], error=error)
