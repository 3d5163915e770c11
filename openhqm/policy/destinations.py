# -*- test-case-name: tests.policy.test_destinations -*-
"""Which URLs and addresses a request may make the gateway call. Nothing is resolved or connected to here.

RFC 3986 leaves room for readers to differ, and a check that differs from the client can be bypassed. So a URL is parsed
by one narrow grammar, and the client gets `Destination.url`, composed from the parsed parts. A host name beyond ASCII
must be given as its A-label in the DNS (RFC 5890, section 2.3.2.1), which is its only spelling.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address
from typing import NoReturn

import attrs

from openhqm.errors import DestinationRefused
from openhqm.policy.host_lists import EMPTY, HostList, ends_in_a_number, is_host_name, is_reserved, parse_host_list
from openhqm.policy.networks import read_address, why_not_public

MOST_CHARACTERS = 2048
_DEFAULT_PORTS = {"https": 443, "http": 80}
_NOT_IN_A_URL = re.compile(r"[^\x21-\x7e]|[\\#]")
_URL = re.compile(r"(?P<scheme>[a-z]+)://(?P<authority>[^/?]*)(?P<target>.*)", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?:\[(?P<ipv6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9.-]+))(?::(?P<port>[1-9][0-9]{0,4}))?")


def _refuse(reason: str) -> NoReturn:
    raise DestinationRefused(reason)


def _strings(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(value)


def _numbers(value: Iterable[int]) -> tuple[int, ...]:
    return tuple(value)


def _origins(value: Iterable[str]) -> frozenset[tuple[str, str, int]]:
    return frozenset(_parse_origin(each) for each in value)


def _parse_origin(text: str) -> tuple[str, str, int]:
    scheme, host, port, target = _parse(text)
    if scheme not in _DEFAULT_PORTS or target:
        _refuse("an origin is http or https, a host and perhaps a port, and nothing more")
    return scheme, host, port


def _check_schemes(instance: object, attribute: object, value: tuple[str, ...]) -> None:
    if not value or not set(value) <= set(_DEFAULT_PORTS):
        raise ValueError(f"must be https or http, not {value!r}")


def _check_ports(instance: object, attribute: object, value: tuple[int, ...]) -> None:
    if not value or not all(1 <= port <= 65535 for port in value):
        raise ValueError(f"must be ports from 1 to 65535, not {value!r}")


@attrs.frozen
class Destination:
    """A URL that passed the check. ``host`` is in lower case; an IPv6 address has no brackets."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def url(self) -> str:
        """The URL, composed from its parts."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.target}"


@attrs.frozen
class DestinationPolicy:
    """Which destinations are allowed: those of the public internet, and the hosts and networks in ``allow``.

    ``deny`` takes precedence. Allowing a host name allows every address that it resolves to. ``schemes`` and ``ports``
    apply to all but those of ``origins`` (``http://127.0.0.1:9000``), which are allowed as they are: a host
    that one of them names is called at no other.
    """

    schemes: tuple[str, ...] = attrs.field(default=("https",), converter=_strings, validator=_check_schemes)
    ports: tuple[int, ...] = attrs.field(default=(443,), converter=_numbers, validator=_check_ports)
    allow: HostList = attrs.field(default=EMPTY, converter=parse_host_list)
    deny: HostList = attrs.field(default=EMPTY, converter=parse_host_list)
    origins: frozenset[tuple[str, str, int]] = attrs.field(default=(), converter=_origins)
    _named: frozenset[str] = attrs.field(init=False)

    @_named.default
    def _name_hosts(self) -> frozenset[str]:
        return frozenset(host for _, host, _ in self.origins)

    def check(self, url: str) -> Destination:
        """Parse ``url`` and check what is known before its host is resolved. Raises `DestinationRefused`."""
        if len(url) > MOST_CHARACTERS:
            _refuse(f"the URL is longer than {MOST_CHARACTERS} characters")
        if _NOT_IN_A_URL.search(url):
            _refuse("the URL has a character beyond visible ASCII, a backslash or a fragment")
        scheme, host, port, target = _parse(url)
        destination = Destination(scheme, host, port, target if target.startswith("/") else f"/{target}")
        if host in self._named:
            if (scheme, host, port) not in self.origins:
                _refuse("the host is allowed at other origins")
            return destination
        if scheme not in self.schemes:
            _refuse("the scheme of the URL is not allowed")
        if port not in self.ports:
            _refuse(f"port {port} is not allowed")
        self._check_host(host)
        return destination

    def permits(self, address: str, host: str) -> bool:
        """Whether the gateway may connect to ``address``, to which ``host`` was resolved."""
        return not self.why_not(address, host)

    def why_not(self, address: str, host: str) -> str:
        """Why it may not, for a log; empty where it may."""
        found = read_address(address)
        if found is None:
            return "the host has no valid address"
        if self.deny.contains(found, host.lower()):
            return "the address is on the operator's deny list"
        known = host.lower() in self._named or self.allow.contains(found, host.lower())
        return "" if known else why_not_public(found)

    def _check_host(self, host: str) -> None:
        if ":" in host or ends_in_a_number(host):
            if reason := self.why_not(host, host):
                _refuse(reason)
        elif host in self.deny.names:
            _refuse("the host is on the operator's deny list")
        elif host not in self.allow.names and ("." not in host or is_reserved(host)):
            _refuse("the host name is not one of the public internet")


@lru_cache(maxsize=1024)
def _parse(url: str) -> tuple[str, str, int, str]:
    """Scheme, host, port and target of a URL, as they are written; the scheme may be any that is known."""
    parts = _URL.fullmatch(url)
    if parts is None or (scheme := parts["scheme"].lower()) not in _DEFAULT_PORTS:
        _refuse("the scheme of the URL is not allowed")
    if "@" in parts["authority"]:
        _refuse("the URL has user information")
    authority = _AUTHORITY.fullmatch(parts["authority"].lower())
    if authority is None:
        _refuse("the host or the port of the URL is malformed")
    host = authority["ipv6"] or authority["name"]
    if authority["ipv6"] is not None or ends_in_a_number(host):
        found = read_address(host)
        if found is None or isinstance(found, IPv6Address) is not (authority["ipv6"] is not None):
            _refuse("the host is a number, but neither a dotted quad nor IPv6 in brackets")
    elif not is_host_name(host):
        _refuse("the host is not a valid host name")
    return scheme, host, int(authority["port"] or _DEFAULT_PORTS[scheme]), parts["target"]
