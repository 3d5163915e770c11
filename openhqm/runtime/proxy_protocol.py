# -*- test-case-name: tests.runtime.test_proxy_protocol -*-
"""The PROXY protocol, versions 1 and 2: a proxy in front says whose connection it passes on, before anything else.

https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt. The parser of Twisted takes any text for an address, and a
path for a client, which would count as one on this host; so this one is our own.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import attrs
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

HEAD_SECONDS = 5.0
"""How long a trusted proxy may take to say whose connection it is."""
MOST_BYTES = 4096
_LONGEST_LINE = 107
_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_LINE = b"PROXY "
_TCP = re.compile(rb"PROXY TCP([46]) ([0-9a-fA-F.:]+) ([0-9a-fA-F.:]+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4})")
_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [\x20-\x7e]*)?")
_FORMS = {0x11: "!4s4sHH", 0x21: "!16s16sHH"}
_NO_ADDRESS = (0x00, 0x31)  # unspecified, and a socket in the file system


@implementer(IAddress)
@attrs.frozen
class ProxiedAddress:
    """Where a connection came from, as a proxy says. It is never a program on this host, whatever the address."""

    host: str
    port: int


@attrs.frozen
class Head:
    """What a proxy has said, in so many bytes. ``source`` None: the connection is the proxy's own."""

    source: tuple[str, int] | None
    size: int


def read_head(data: bytes) -> Head | None:
    """What stands at the beginning of ``data``; None: more is needed. `ValueError` where it is something else."""
    if data.startswith(_SIGNATURE):
        return _read_binary(data)
    if data.startswith(_LINE):
        return _read_line(data)
    if _SIGNATURE.startswith(data) or _LINE.startswith(data):
        return None
    raise ValueError("it does not begin as the PROXY protocol does")


def _read_line(data: bytes) -> Head | None:
    end = data.find(b"\r\n", 0, _LONGEST_LINE)
    if end < 0:
        if len(data) >= _LONGEST_LINE:
            raise ValueError(f"its first line is longer than {_LONGEST_LINE} bytes")
        return None
    line = data[:end]
    if _UNKNOWN.fullmatch(line):
        return Head(None, end + 2)
    found = _TCP.fullmatch(line)
    if found is None:
        raise ValueError("its first line is malformed")
    kind = IPv4Address if found[1] == b"4" else IPv6Address
    addresses = [ip_address(found[each].decode()) for each in (2, 3)]
    ports = [int(found[each]) for each in (4, 5)]
    if not all(isinstance(each, kind) for each in addresses) or max(ports) > 65535:
        raise ValueError("its first line has an address of another kind, or a port beyond 65535")
    return Head((str(addresses[0]), ports[0]), end + 2)


def _read_binary(data: bytes) -> Head | None:
    if len(data) < 16:
        return None
    command, family, length = struct.unpack("!BBH", data[12:16])
    size = 16 + length
    if command not in (0x20, 0x21):
        raise ValueError("its version or its command is not known")
    if size > MOST_BYTES:
        raise ValueError(f"its head is longer than {MOST_BYTES} bytes")
    if len(data) < size:
        return None
    if command == 0x20 or family in _NO_ADDRESS:
        return Head(None, size)
    form = _FORMS.get(family)
    if form is None:
        raise ValueError("its kind of address is not known")
    if length < struct.calcsize(form):
        raise ValueError("its addresses are cut")
    source, _, port, _ = struct.unpack_from(form, data, 16)
    return Head((str(ip_address(source)), port), size)


class ProxyProtocolFactory(Factory):
    """In front of ``wrapped``: connections of ``trusts`` begin with the PROXY protocol, all others are as they are.

    ``trusts`` is given the address of a peer (None: it has connected to a socket in the file system). What an other
    peer says of itself is not read: to it, ``wrapped`` speaks its own protocol.
    """

    noisy = False

    def __init__(self, wrapped: Any, trusts: Callable[[str | None], bool], clock: IReactorTime) -> None:
        self.wrapped = wrapped
        self.clock = clock
        self._trusts = trusts

    def doStart(self) -> None:
        self.wrapped.doStart()

    def doStop(self) -> None:
        self.wrapped.doStop()

    def buildProtocol(self, addr: Any) -> Any:
        if self._trusts(getattr(addr, "host", None)):
            return _Head(self)
        return self.wrapped.buildProtocol(addr)


class _Head(Protocol):
    """A connection whose proxy has not said yet whose it is. Then another protocol takes its place."""

    transport: Any
    _log = Logger()

    def __init__(self, factory: ProxyProtocolFactory) -> None:
        self._factory = factory
        self._data = b""
        self._deadline: Any = None

    def connectionMade(self) -> None:
        self._deadline = self._factory.clock.callLater(
            HEAD_SECONDS, self._refuse, f"nothing came in {HEAD_SECONDS:g} s"
        )

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        try:
            head = read_head(self._data)
        except ValueError as error:
            self._refuse(str(error))
            return
        if head is not None:
            self._pass_on(head)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._deadline.active():
            self._deadline.cancel()

    def _pass_on(self, head: Head) -> None:
        self._deadline.cancel()
        transport, rest = self.transport, self._data[head.size :]
        peer = transport.getPeer()
        source = head.source or (str(getattr(peer, "host", "")), getattr(peer, "port", 0))
        address = ProxiedAddress(*source)
        protocol = self._factory.wrapped.buildProtocol(address)
        # What stands above, TLS included, asks the transport for its peer.
        transport.getPeer = lambda: address
        transport.protocol = protocol
        protocol.makeConnection(transport)
        if rest:
            protocol.dataReceived(rest)

    def _refuse(self, reason: str) -> None:
        self._log.warn(
            "a connection of the trusted proxy {peer} is closed: {reason}; see server.proxy_protocol",
            peer=getattr(self.transport.getPeer(), "host", "unix"),
            reason=reason,
        )
        self.transport.abortConnection()
