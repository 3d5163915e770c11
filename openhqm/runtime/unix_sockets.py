# -*- test-case-name: tests.runtime.test_unix_sockets -*-
"""Listening on a socket in the file system, also where a killed process has left one behind.

Twisted guards such a socket by a link that holds a pid. In a container every start has the same pid, so the link of a
killed process would be that of a living one for ever. Here a socket is in use where something listens on it.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory

LOCK_SECONDS = 5.0
PAUSE_SECONDS = 0.01


def unix_endpoint(reactor: Any, description: str) -> Any:
    """The server endpoint for ``unix:PATH``, with ``mode`` and ``backlog`` as Twisted has them."""
    return serverFromString(_Reactor(reactor), description)


class _Reactor:
    """The reactor, except that it listens by `UnixPort`."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenUNIX(
        self, address: Any, factory: IProtocolFactory, *, backlog: int, mode: int, wantPID: bool
    ) -> UnixPort:
        port = UnixPort(address, factory, backlog, mode, self._reactor)
        port.startListening()
        return port


class UnixPort(unix.Port):  # type: ignore[misc]
    """A listening socket at a path. It removes a socket on which nothing listens, and when it closes only its own."""

    def __init__(self, path: Any, factory: IProtocolFactory, backlog: int, mode: int, reactor: Any) -> None:
        super().__init__(path, factory, backlog, mode, reactor)
        self._path = os.fsdecode(path)
        self._own: os.stat_result | None = None

    def startListening(self) -> None:
        """Listen. `CannotListenError` where something else does, or where a file of another kind is there."""
        path = self._path
        if path.startswith("\0"):  # Linux's abstract namespace: nothing is left behind there
            super().startListening()
            return
        try:
            # Of two processes that start at once, the second one would remove the socket of the first.
            with _locked(os.path.dirname(path) or "."):
                _remove_unused(path)
                super().startListening()
                self._own = os.stat(path)
        except OSError as error:
            raise CannotListenError(None, path, error) from None

    def connectionLost(self, reason: Any) -> None:
        """Close the socket. The path may be gone by now, or be that of another process."""
        own, path = self._own, self._path
        with suppress(OSError):
            if own is not None and os.path.samestat(own, os.stat(path)):
                os.unlink(path)
        tcp.Port.connectionLost(self, reason)


@contextmanager
def _locked(directory: str) -> Iterator[None]:
    """Hold the lock of ``directory``. The kernel frees it when the process ends, however it ends.

    `OSError` where it is not free within `LOCK_SECONDS`.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        due = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= due:
                    raise OSError("another program holds the lock of its directory") from None
                time.sleep(PAUSE_SECONDS)  # the process starts, and its reactor does nothing else yet
        yield
    finally:
        os.close(descriptor)


def _remove_unused(path: str) -> None:
    """Remove the socket at ``path`` where nothing listens on it. `OSError` where something does, or it is no socket."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError("the file there is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # a full backlog is an answer, too
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            with suppress(FileNotFoundError):
                os.unlink(path)
            return
        except BlockingIOError:
            pass
    raise OSError("another process listens there")
