# -*- test-case-name: tests.policy.test_networks -*-
"""Which addresses are in the public internet, by a table of our own.

Libraries answer another question: Python's ``is_global`` accepts multicast, and addresses that translate to 127.0.0.1.
This table is made from IANA's registries of special-purpose addresses for IPv4 and IPv6 (RFC 6890, RFC 8190), including
ranges they call reachable where no server on the internet has such an address, and from the metadata addresses of the
large clouds.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

NOT_PUBLIC: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), what)
    for network, what in (
        ("0.0.0.0/8", "this network, RFC 791 section 3.2"),
        ("10.0.0.0/8", "private use, RFC 1918"),
        ("100.64.0.0/10", "shared by carriers, RFC 6598; the metadata of Alibaba Cloud"),
        ("127.0.0.0/8", "loopback, RFC 1122 section 3.2.1.3"),
        ("168.63.129.16/32", "the host agent of Azure"),
        ("169.254.0.0/16", "link local, RFC 3927; the metadata of most clouds"),
        ("172.16.0.0/12", "private use, RFC 1918"),
        ("192.0.0.0/24", "protocol assignments, RFC 6890; the metadata of Oracle Cloud"),
        ("192.0.2.0/24", "documentation, RFC 5737"),
        ("192.88.99.0/24", "6to4 relays, RFC 7526"),
        ("192.168.0.0/16", "private use, RFC 1918"),
        ("198.18.0.0/15", "benchmarks, RFC 2544"),
        ("198.51.100.0/24", "documentation, RFC 5737"),
        ("203.0.113.0/24", "documentation, RFC 5737"),
        ("224.0.0.0/4", "multicast, RFC 5771"),
        ("240.0.0.0/4", "reserved, RFC 1112 section 4; broadcast, RFC 919"),
        ("::/96", "unspecified, loopback and IPv4-compatible, RFC 4291 section 2.5"),
        ("64:ff9b::/96", "translated to IPv4, RFC 6052"),
        ("64:ff9b:1::/48", "translated to IPv4 locally, RFC 8215"),
        ("100::/64", "discard only, RFC 6666"),
        ("100:0:0:1::/64", "dummy prefix, RFC 9780"),
        ("2001::/23", "protocol assignments, RFC 2928: Teredo, ORCHID, benchmarks"),
        ("2001:db8::/32", "documentation, RFC 3849"),
        ("2002::/16", "6to4, RFC 3056"),
        ("3fff::/20", "documentation, RFC 9637"),
        ("5f00::/16", "segment routing, RFC 9602"),
        ("fc00::/7", "unique local, RFC 4193; the metadata of Amazon and Google"),
        ("fe80::/10", "link local, RFC 4291 section 2.5.6"),
        ("fec0::/10", "site local, RFC 3879"),
        ("ff00::/8", "multicast, RFC 4291 section 2.7"),
        # The rest outside of 2000::/3 is not assigned (RFC 4291, section 2.4).
        ("::/3", "not global unicast"),
        ("4000::/2", "not global unicast"),
        ("8000::/1", "not global unicast"),
    )
)
# These reach the IPv4 address in them: RFC 4291, section 2.5.5.2, and RFC 2765, section 2.1.
_WRAPPERS = (IPv6Network("::ffff:0:0/96"), IPv6Network("::ffff:0:0:0/96"))


def read_address(text: str) -> Address | None:
    """The address in ``text``, or None: a dotted quad or IPv6, without a zone."""
    if "%" in text:
        return None
    try:
        return ip_address(text)
    except ValueError:
        return None


def unwrapped(address: Address) -> Address:
    """The IPv4 address inside an IPv4-mapped or translated IPv6 address; any other address as it is."""
    if any(address in wrapper for wrapper in _WRAPPERS):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def why_not_public(address: Address) -> str:
    """The network because of which ``address`` is not public; empty where it is."""
    inner = unwrapped(address)
    return next((f"{network} ({what})" for network, what in NOT_PUBLIC if inner in network), "")


def is_public(address: str) -> bool:
    """Whether ``address`` is an address in the public internet."""
    found = read_address(address)
    return found is not None and not why_not_public(found)
