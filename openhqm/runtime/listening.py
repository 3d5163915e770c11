# -*- test-case-name: tests.test_service -*-
"""Listening: on sockets of our own, and on those that another process has opened."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from openhqm.errors import CannotStart
from openhqm.runtime.deferreds import deferred

BACKLOG = 1024
PAUSE_SECONDS = 1.0


@deferred
async def listen(
    reactor: Any, factory: IProtocolFactory, host: str, port: int, endpoints: list[str]
) -> list[IListeningPort]:
    """Listen on ``endpoints``, or on ``host`` and ``port`` where there are none. `CannotStart`."""
    if not endpoints:
        try:
            return [reactor.listenTCP(port, factory, backlog=BACKLOG, interface=host)]
        except CannotListenError as error:
            raise CannotStart(_taken(error)) from None
    ports = []
    for endpoint in endpoints:
        try:
            ports.append(await serverFromString(reactor, endpoint).listen(factory))
        except CannotListenError as error:
            raise CannotStart(_taken(error)) from None
        except LookupError:
            raise CannotStart("server.endpoints: there is no such socket from systemd") from None
        except (ValueError, TypeError, AttributeError, ImportError, OSError) as error:
            raise CannotStart(f"server.endpoints: {error}") from None
    return ports


def _taken(error: CannotListenError) -> str:
    return f"cannot listen on {error.interface or '*'}:{error.port}: {error.socketError}"


@implementer(IReadDescriptor)
class Shared:
    """A listening socket that other processes listen on as well, by its file descriptor, which is taken over.

    One connection is taken at a time: a process that is busy leaves the next one to the others. Closing it here closes
    it for nobody else, and what has not been taken is taken by them.
    """

    _log = Logger()

    def __init__(self, descriptor: int, factory: Any, reactor: Any) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        self._socket.set_inheritable(False)
        self._factory = factory
        self._reactor = reactor
        self._pause: Any = None

    def start(self) -> None:
        """Begin to take connections."""
        self._factory.doStart()
        self._reactor.addReader(self)

    def stopListening(self) -> None:
        """Take no more."""
        if self._pause is not None and self._pause.active():
            self._pause.cancel()
        self._reactor.removeReader(self)
        self._socket.close()
        self._factory.doStop()

    def getHost(self) -> object:
        """Where it listens, to be shown."""
        return self._socket.getsockname()

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "Shared"

    def doRead(self) -> None:
        """Somebody connects: to this process, unless another was quicker."""
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:  # most likely as many files are open as may be: let others take it
            self._log.warn("no connection can be taken: {error}", error=error)
            self._reactor.removeReader(self)
            self._pause = self._reactor.callLater(PAUSE_SECONDS, self._reactor.addReader, self)
            return
        with connection:  # it is duplicated
            connection.setblocking(False)
            try:
                self._reactor.adoptStreamConnection(connection.fileno(), self._socket.family, self._factory)
            except OSError as error:  # gone again already
                self._log.debug("a connection was lost before it began: {error}", error=error)

    def connectionLost(self, reason: object) -> None:
        """The reactor has given it up."""
        self._socket.close()
