# -*- test-case-name: tests.policy.test_host_lists -*-
"""Host names, and the lists of hosts and networks that an operator configures."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_network

import attrs

from openhqm.policy.networks import Address, Network, unwrapped

# RFC 1123, section 2.1; hyphens in the third and fourth place belong to A-labels (RFC 5890, section 2.3.1).
_LABEL = re.compile(r"(?:xn--|(?!..--))[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
# inet_aton and browsers take any host that ends in a number for an IPv4 address (WHATWG URL, section 3.5).
_ENDS_IN_A_NUMBER = re.compile(r"(?:.*\.)?[0-9][^.]*")

RESERVED = frozenset(
    {
        *("localhost", "test", "invalid"),  # RFC 6761
        *("local", "intranet", "internal", "private", "corp", "home", "lan"),  # RFC 6762, and its appendix G
        "localdomain",  # what resolvers make of localhost
        "home.arpa",  # RFC 8375
        "onion",  # RFC 7686
        "alt",  # RFC 9476
        *("metadata.goog", "metadata.packet.net", "metadata.tencentyun.com"),  # clouds, beside *.internal
    }
)


def ends_in_a_number(host: str) -> bool:
    """Whether some readers take ``host`` for an IPv4 address: ``127.1``, ``0x7f000001``, ``1.2.3.0377``."""
    return _ENDS_IN_A_NUMBER.fullmatch(host) is not None


def is_host_name(text: str) -> bool:
    """Whether ``text`` is a host name in lower case, without a final dot, that no reader takes for an address."""
    labels = text.split(".")
    return (
        len(text) <= 253
        and all(_LABEL.fullmatch(label) and len(label) <= 63 for label in labels)
        and not ends_in_a_number(text)
    )


def is_reserved(name: str) -> bool:
    """Whether ``name`` is, or is below, a name that is not part of the public DNS."""
    labels = name.split(".")
    return any(".".join(labels[start:]) in RESERVED for start in range(len(labels)))


@attrs.frozen
class HostList:
    """Hosts and networks that an operator has listed."""

    names: frozenset[str]
    networks: tuple[Network, ...]

    def contains(self, address: Address, host: str) -> bool:
        """Whether the host is listed, or a network with ``address`` in it."""
        addresses = (address, unwrapped(address))
        return host in self.names or any(one in network for network in self.networks for one in addresses)


EMPTY = HostList(frozenset(), ())


def parse_host_list(entries: Iterable[str] | HostList) -> HostList:
    """A `HostList` from entries such as ``hooks.corp``, ``10.1.2.3`` and ``10.0.0.0/8``. Raises `ValueError`."""
    if isinstance(entries, HostList):
        return entries
    names, networks = set(), []
    for entry in entries:
        try:
            networks.append(ip_network(entry))
        except ValueError:
            if not is_host_name(entry.lower()):
                raise ValueError(f"must be host names, addresses or networks, not {entry!r}") from None
            names.add(entry.lower())
    return HostList(frozenset(names), tuple(networks))
