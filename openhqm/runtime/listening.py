# -*- test-case-name: tests.test_service -*-
"""Listening for connections: on sockets of this process, and on sockets that it shares with other processes."""

from __future__ import annotations

import ctypes
import socket
import struct
from contextlib import suppress
from typing import Any

from twisted.internet import tcp
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IReadDescriptor
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from openhqm.errors import CannotStart
from openhqm.runtime.deferreds import deferred
from openhqm.runtime.unix_sockets import unix_endpoint

BACKLOG = 1024
PAUSE_SECONDS = 1.0
HANDSHAKE_SECONDS = 0.1
"""How long connections that have begun may take to be there, once no other ones begin."""
_SO_ATTACH_FILTER = 26
# Linux's classic packet filter over a segment of TCP: load its flags; with SYN, take nothing of it; else take it all.
_NO_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


@deferred
async def listen(
    reactor: Any, factory: IProtocolFactory, host: str, port: int, endpoints: list[str]
) -> list[IListeningPort]:
    """Listen on ``endpoints`` (Twisted's server endpoint strings), or on ``host`` and ``port`` where there are none.

    Fires with the ports. Raises `CannotStart` where one cannot be opened.
    """
    if not endpoints:
        try:
            return [reactor.listenTCP(port, factory, backlog=BACKLOG, interface=host)]
        except CannotListenError as error:
            raise CannotStart(_cannot_listen(error)) from None
    ports = []
    for endpoint in endpoints:
        try:
            opened = await _endpoint(reactor, endpoint).listen(factory)
            opened.is_shared = endpoint.startswith("systemd:")
            ports.append(opened)
        except CannotListenError as error:
            raise CannotStart(_cannot_listen(error)) from None
        except LookupError:
            raise CannotStart(
                "server.endpoints: there is no such socket from systemd: check its .socket unit"
            ) from None
        except (ValueError, TypeError, AttributeError, ImportError, OSError) as error:
            raise CannotStart(f"server.endpoints: {error}") from None
    return ports


@deferred
async def stop_listening(reactor: Any, port: Any) -> None:
    """Listen on ``port`` no more, and accept the connections that wait there, which closing would reset.

    Fires when the port is closed. A socket that the service manager has, too, is left as it is: it resets nothing.
    """
    if isinstance(port, tcp.Port) and not getattr(port, "is_shared", False):
        with suppress(OSError):  # only Linux can
            _begin_none(port.socket)
            await deferLater(reactor, HANDSHAKE_SECONDS)
        # Twisted closes it in the next turn of the reactor, and this comes just before.
        reactor.callLater(0, _accept_all, reactor, port)
    await maybeDeferred(port.stopListening)


def _begin_none(listening: socket.socket) -> None:
    """Have the kernel drop what would begin a connection (TCP's SYN), and finish those that have begun (socket(7)).

    A client that is dropped so asks again after a second, and is refused then.
    """
    program = b"".join(struct.pack("=HBBI", *each) for each in _NO_SYN)
    held = ctypes.create_string_buffer(program, len(program))
    listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(_NO_SYN), ctypes.addressof(held)))


def _accept_all(reactor: Any, port: Any) -> None:
    while True:
        try:
            connection, _ = port.socket.accept()
        except OSError:  # there are no more, or too many files are open
            return
        with connection, suppress(OSError):
            _adopt(reactor, connection, port.factory)


def _adopt(reactor: Any, connection: socket.socket, factory: Any) -> None:
    connection.setblocking(False)
    # The reactor duplicates the descriptor. OSError: the peer has closed the connection.
    reactor.adoptStreamConnection(connection.fileno(), connection.family, factory)


def _endpoint(reactor: Any, description: str) -> Any:
    return (unix_endpoint if description.startswith("unix:") else serverFromString)(reactor, description)


def _cannot_listen(error: CannotListenError) -> str:
    where = error.port if isinstance(error.port, str) else f"{error.interface or '*'}:{error.port}"
    return f"cannot listen on {where}: {error.socketError}"


@implementer(IReadDescriptor)
class InheritedPort:
    """A listening socket shared with other processes, given by its file descriptor, which this object then owns.

    Each process accepts one connection at a time, so that a busy process leaves connections to the others. Closing the
    socket here leaves it open in the other processes, which accept the waiting connections.
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
        """Begin to accept connections."""
        self._factory.doStart()
        self._reactor.addReader(self)

    def stopListening(self) -> None:
        """Accept no more connections, and close the socket."""
        if self._pause is not None and self._pause.active():
            self._pause.cancel()
        self._reactor.removeReader(self)
        self._socket.close()
        self._factory.doStop()

    def getHost(self) -> object:
        """The address of the socket, for logs."""
        return self._socket.getsockname()

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "InheritedPort"

    def doRead(self) -> None:
        """Accept one connection, unless another process has accepted it first."""
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:  # often EMFILE: until then, other processes may accept it
            self._log.warn(
                "cannot accept a connection: {error}; trying again in {pause} s", error=error, pause=PAUSE_SECONDS
            )
            self._reactor.removeReader(self)
            self._pause = self._reactor.callLater(PAUSE_SECONDS, self._reactor.addReader, self)
            return
        with connection:
            try:
                _adopt(self._reactor, connection, self._factory)
            except OSError as error:
                self._log.debug("a connection was lost before it was adopted: {error}", error=error)

    def connectionLost(self, reason: object) -> None:
        """The reactor has dropped the socket."""
        self._socket.close()
