"""Which addresses are public, by IANA's registries and the documents behind them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.networks import NOT_PUBLIC, is_public, read_address, unwrapped, why_not_public
from tests import hypothesis_profile  # noqa: F401

# First and last of each network, and the neighbours that lie outside: copied from the registries, not from the code.
BORDERS = (
    # the last before, the first and the last within, the first behind
    ("", "0.0.0.0", "0.255.255.255", "1.0.0.0"),
    ("9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0"),
    ("100.63.255.255", "100.64.0.0", "100.127.255.255", "100.128.0.0"),
    ("126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0"),
    ("168.63.129.15", "168.63.129.16", "168.63.129.16", "168.63.129.17"),
    ("169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0"),
    ("172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0"),
    ("191.255.255.255", "192.0.0.0", "192.0.0.255", "192.0.1.0"),
    ("192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0"),
    ("192.88.98.255", "192.88.99.0", "192.88.99.255", "192.88.100.0"),
    ("192.167.255.255", "192.168.0.0", "192.168.255.255", "192.169.0.0"),
    ("198.17.255.255", "198.18.0.0", "198.19.255.255", "198.20.0.0"),
    ("198.51.99.255", "198.51.100.0", "198.51.100.255", "198.51.101.0"),
    ("203.0.112.255", "203.0.113.0", "203.0.113.255", "203.0.114.0"),
    ("223.255.255.255", "224.0.0.0", "255.255.255.255", ""),
    ("2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:200::"),
    ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::"),
    ("2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2003::"),
    ("3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:1000::"),
    ("", "::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2000::"),
    ("3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ""),
)
# Addresses for which Python 3.11's ``is_global`` is True, and which lead to 127.0.0.1, a cloud's metadata or nowhere.
PASSED_ELSEWHERE = (
    *("64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1", "::ffff:0:127.0.0.1", "fec0::1", "ff02::1", "224.0.0.1"),
    *("168.63.129.16", "192.88.99.1", "192.0.0.192", "3fff::1", "5f00::1"),
)
DENIED = [network for network, _ in NOT_PUBLIC]


def within(network: IPv4Network | IPv6Network) -> st.SearchStrategy[IPv4Address | IPv6Address]:
    first = network.network_address
    return st.integers(0, network.num_addresses - 1).map(lambda offset: first + offset)


DENIED_IPV4 = st.sampled_from([network for network in DENIED if network.version == 4]).flatmap(within)
PUBLIC_IPV4 = st.ip_addresses(v=4).filter(lambda address: not why_not_public(address))


class NetworksTests(SynchronousTestCase):
    """`is_public`"""

    def test_borders(self) -> None:
        """A network is refused from its first address to its last. The addresses next to it are not."""
        for before, first, last, behind in BORDERS:
            for inside in (first, last):
                self.assertFalse(is_public(inside), inside)
            for outside in filter(None, (before, behind)):
                self.assertTrue(is_public(outside), outside)

    def test_global_to_python(self) -> None:
        """Addresses that Python calls global, and that must not be called, are refused."""
        for address in PASSED_ELSEWHERE:
            self.assertFalse(is_public(address), address)

    @given(st.sampled_from(DENIED).flatmap(within))
    def test_all_of_a_network(self, address: IPv4Address | IPv6Address) -> None:
        """Every address of a refused network is refused, except the IPv6 forms of public IPv4 addresses."""
        self.assertEqual(is_public(str(address)), unwrapped(address) != address and is_public(str(unwrapped(address))))

    @given(DENIED_IPV4)
    def test_ipv6_forms(self, address: IPv4Address) -> None:
        """A refused IPv4 address is refused in every IPv6 form that leads to it (RFC 4291, 6052, 3056)."""
        for prefix in ("::ffff:0:0", "::ffff:0:0:0", "::", "64:ff9b::"):
            self.assertFalse(is_public(str(IPv6Address(int(IPv6Address(prefix)) | int(address)))), prefix)
        self.assertFalse(is_public(str(IPv6Address(0x2002 << 112 | int(address) << 80))))

    @given(PUBLIC_IPV4)
    def test_unwrapping(self, address: IPv4Address) -> None:
        """A public IPv4 address is public in its mapped form. Addresses of tunnels and translators are not."""
        self.assertTrue(is_public(f"::ffff:{address}"))
        self.assertEqual(unwrapped(IPv6Address(f"::ffff:{address}")), address)
        self.assertFalse(is_public(f"64:ff9b::{address}"))
        self.assertFalse(is_public(f"::{address}"))
        self.assertFalse(is_public(str(IPv6Address(0x2002 << 112 | int(address) << 80))))

    @given(st.ip_addresses())
    def test_never_more_than_python(self, address: IPv4Address | IPv6Address) -> None:
        """No address is public here that Python calls private, reserved or multicast."""
        if is_public(str(address)):
            inner = unwrapped(address)
            self.assertFalse(inner.is_private or inner.is_multicast or inner.is_loopback or inner.is_link_local)

    @given(st.text(max_size=20))
    def test_any_text(self, text: str) -> None:
        """Text that is not an address is not public, and raises nothing."""
        if read_address(text) is None:
            self.assertFalse(is_public(text))

    def test_spelling(self) -> None:
        """An address must be complete, without a zone (RFC 4007) and without a prefix length."""
        for text in (
            "8.8.8",
            "8.8.8.08",
            "8.8.8.8/32",
            "134744072",
            "2606:4700::1%eth0",
            "[2606:4700::1]",
            "",
            " 8.8.8.8",
        ):
            self.assertFalse(is_public(text), text)

    def test_table(self) -> None:
        """Every row has a description, which the reason for a refusal repeats."""
        for network, what in NOT_PUBLIC:
            self.assertEqual(ip_network(str(network)), network)
            self.assertTrue(what)
        self.assertIn("127.0.0.0/8 (loopback", why_not_public(ip_address("127.9.9.9")))
        self.assertEqual(why_not_public(ip_address("9.9.9.9")), "")
