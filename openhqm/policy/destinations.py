# -*- test-case-name: tests.policy.test_destinations -*-
"""Where a request may make the gateway call: URLs and addresses, judged without asking anybody.

RFC 3986 leaves room that readers fill differently, and that room is where a check is got around. So a URL is read by
one narrow grammar here, and goes on as `Destination.url`, written anew from what was understood. A host beyond ASCII
has to come as the A-label it is in the DNS (RFC 5890, section 2.3.2.1): there is one way to write it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv6Address
from typing import NoReturn

import attrs

from openhqm.errors import DestinationRefused
from openhqm.policy.host_lists import NOWHERE, HostList, ends_in_a_number, is_host_name, is_reserved, places
from openhqm.policy.networks import read_address, why_not_public

MOST_CHARACTERS = 2048
_DEFAULT_PORTS = {"https": 443, "http": 80}
_NOT_IN_A_URL = re.compile(r"[^\x21-\x7e]|[\\#]")
_URL = re.compile(r"(?P<scheme>[a-z]+)://(?P<authority>[^/?]*)(?P<target>.*)", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?:\[(?P<ipv6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9.-]+))(?::(?P<port>[1-9][0-9]{0,4}))?")


def _refuse(reason: str) -> NoReturn:
    raise DestinationRefused(reason)


def _words(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(value)


def _numbers(value: Iterable[int]) -> tuple[int, ...]:
    return tuple(value)


def _known(instance: object, attribute: object, value: tuple[str, ...]) -> None:
    if not value or not set(value) <= set(_DEFAULT_PORTS):
        raise ValueError(f"must be https or http, not {value!r}")


def _ports(instance: object, attribute: object, value: tuple[int, ...]) -> None:
    if not value or not all(1 <= port <= 65535 for port in value):
        raise ValueError(f"must be ports from 1 to 65535, not {value!r}")


@attrs.frozen
class Destination:
    """A URL that was found sound. ``host`` is in small letters, an IPv6 address without its brackets."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def url(self) -> str:
        """The URL, written anew from its parts."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.target}"


@attrs.frozen
class DestinationPolicy:
    """What may be called. ``allow`` is what an operator trusts although it is not public, ``deny`` comes before it.

    Whoever allows a name trusts whatever it resolves to. Scheme and port are judged for everything.
    """

    schemes: tuple[str, ...] = attrs.field(default=("https",), converter=_words, validator=_known)
    ports: tuple[int, ...] = attrs.field(default=(443,), converter=_numbers, validator=_ports)
    allow: HostList = attrs.field(default=NOWHERE, converter=places)
    deny: HostList = attrs.field(default=NOWHERE, converter=places)

    def check(self, url: str) -> Destination:
        """What ``url`` leads to, as far as it can be told before its name is resolved. `DestinationRefused`."""
        if len(url) > MOST_CHARACTERS:
            _refuse(f"longer than {MOST_CHARACTERS} characters")
        if _NOT_IN_A_URL.search(url):
            _refuse("a character that is not visible ASCII, a backslash or a fragment")
        parts = _URL.fullmatch(url)
        if parts is None or (scheme := parts["scheme"].lower()) not in self.schemes:
            _refuse("the scheme")
        if "@" in parts["authority"]:
            _refuse("user information")
        authority = _AUTHORITY.fullmatch(parts["authority"].lower())
        if authority is None:
            _refuse("the host or the port is not written plainly")
        port = int(authority["port"] or _DEFAULT_PORTS[scheme])
        if port not in self.ports:
            _refuse(f"port {port}")
        host = authority["ipv6"] or authority["name"]
        self._check_host(host, bracketed=authority["ipv6"] is not None)
        target = parts["target"]
        return Destination(scheme, host, port, target if target.startswith("/") else f"/{target}")

    def permits(self, address: str, host: str) -> bool:
        """Whether ``address``, which ``host`` was resolved to, may be connected to."""
        return not self.why_not(address, host)

    def why_not(self, address: str, host: str) -> str:
        """What speaks against ``address``, for a log; empty where nothing does."""
        found = read_address(address)
        if found is None:
            return "not an address"
        if self.deny.hold(found, host.lower()):
            return "on the operator's deny list"
        return "" if self.allow.hold(found, host.lower()) else why_not_public(found)

    def _check_host(self, host: str, *, bracketed: bool) -> None:
        if bracketed or ends_in_a_number(host):
            found = read_address(host)
            if found is None or isinstance(found, IPv6Address) is not bracketed:
                _refuse("a number that is neither a dotted quad nor IPv6 in brackets")
            if reason := self.why_not(host, host):
                _refuse(reason)
        elif not is_host_name(host):
            _refuse("not a host name")
        elif host in self.deny.names:
            _refuse("on the operator's deny list")
        elif host not in self.allow.names and ("." not in host or is_reserved(host)):
            _refuse("a name that is not for the public internet")
