# -*- test-case-name: tests.runtime.test_names -*-
"""The look-up of host names, in threads of its own.

Twisted looks names up in the pool of its reactor, which handlers use, too: ten of them that wait there would stop all
connecting.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from openhqm.runtime.threads import Threads

MOST_THREADS = 16
MOST_NAMES = 1000
"""How many names may be looked up at once. Where no name server answers, each takes half a minute, and more wait."""

_FAMILIES = {IPv4Address: socket.AF_INET, IPv6Address: socket.AF_INET6}
_Question = tuple[str, frozenset[int], int]


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """A look-up in a thread cannot be cancelled."""
        raise NotImplementedError


@implementer(IHostnameResolver)
class NameResolver:
    """Looks names up as the system does, by `socket.getaddrinfo`. Those who ask for one name at once share a look-up.

    An IP address is its own answer, and takes no thread.
    """

    _log = Logger()

    def __init__(self, reactor: Any, look_up: Callable[..., Any] = socket.getaddrinfo) -> None:
        self._threads = Threads(reactor, "openhqm-names", MOST_THREADS)
        self._look_up = look_up
        self._asked: dict[_Question, list[tuple[IResolutionReceiver, int]]] = {}
        self._started = False

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """As `IHostnameResolver` has it. A name that cannot be looked up, for any reason, has no address."""
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        families = frozenset(
            int(family) for kind, family in _FAMILIES.items() if addressTypes is None or kind in addressTypes
        )
        semantics = socket.SOCK_DGRAM if transportSemantics == "UDP" else socket.SOCK_STREAM
        literal = _literal(hostName)
        if literal is not None:
            _tell(resolutionReceiver, [literal], families, portNumber, transportSemantics)
            return resolution
        question = (hostName, families, int(semantics))
        asking = self._asked.get(question)
        if asking is not None:
            asking.append((resolutionReceiver, portNumber))
        elif len(self._asked) >= MOST_NAMES:
            self._log.warn("the name {name} is not looked up: {count} others are", name=hostName, count=MOST_NAMES)
            resolutionReceiver.resolutionComplete()
        else:
            self._asked[question] = [(resolutionReceiver, portNumber)]
            self._ask(question, transportSemantics)
        return resolution

    def _ask(self, question: _Question, semantics: str) -> None:
        if not self._started:
            self._started = True
            self._threads.start()
        name, families, kind = question
        family = next(iter(families)) if len(families) == 1 else socket.AF_UNSPEC
        # Without a port: its number is no part of the question.
        looking_up = self._threads.run(partial(self._look_up, name, None, family, kind))
        looking_up.addErrback(self._failed, name)
        looking_up.addCallback(self._found, question, semantics)

    def _failed(self, failure: Failure, name: str) -> Sequence[Any]:
        if not failure.check(OSError):  # such as UnicodeError, for a name that the system has no form for
            self._log.warn("the name {name} cannot be looked up: {reason}", name=name, reason=failure.getErrorMessage())
        return ()

    def _found(self, found: Sequence[Any], question: _Question, semantics: str) -> None:
        for receiver, port in self._asked.pop(question):
            try:
                _tell(receiver, [(each[0], each[4]) for each in found], question[1], port, semantics)
            except Exception:  # of one of those who asked: the others are told all the same
                self._log.failure("telling the addresses of {name} broke down", name=question[0])


def _literal(name: str) -> tuple[int, tuple[str, int]] | None:
    """The family and the address where ``name`` is an IP address. One with a zone (``fe80::1%eth0``) is looked up."""
    if isIPAddress(name):
        return socket.AF_INET, (name, 0)
    if "%" not in name and isIPv6Address(name):
        return socket.AF_INET6, (name, 0)
    return None


def _tell(
    receiver: IResolutionReceiver,
    found: Sequence[tuple[int, tuple[Any, ...]]],
    families: frozenset[int],
    port: int,
    semantics: str,
) -> None:
    for family, (host, _, *rest) in found:
        if family in families:
            kind: Any = IPv4Address if family == socket.AF_INET else IPv6Address
            receiver.addressResolved(kind(semantics, host, port, *rest))
    receiver.resolutionComplete()
