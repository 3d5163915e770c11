"""Host names (RFC 1123, RFC 5890), and the lists of hosts that an operator configures."""

from __future__ import annotations

from ipaddress import ip_address

from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.host_lists import EMPTY, ends_in_a_number, is_host_name, is_reserved, parse_host_list


class HostNamesTests(SynchronousTestCase):
    """`is_host_name` and `is_reserved`"""

    def test_names(self) -> None:
        """Letters, digits and inner hyphens, at most 63 in a label and 253 in all."""
        longest = ".".join(["a" * 63] * 3 + ["b" * 61])
        for name in ("a", "hooks.corp", "3com.com", "a-b.example.org", "xn--mnchen-3ya.de", "a" * 63, longest):
            self.assertTrue(is_host_name(name), name)
        for name in ("", ".", "a.", ".a", "a..b", "-a.b", "a-.b", "a_b.c", "A.b", "a b", "a" * 64, longest + "b"):
            self.assertFalse(is_host_name(name), name)
        for name in ("ab--cd.example.org", "xn--.de", "xn---.de", "a\n", "bücher.example", "１.example"):
            self.assertFalse(is_host_name(name), name)

    def test_numbers(self) -> None:
        """What inet_aton parses as an address is not a name, nor is anything else that ends in a number."""
        for host in ("1", "127.1", "0x7f.1", "0x7f000001", "017700000001", "1.2.3.0x4", "a.1", "example.0x1"):
            self.assertTrue(ends_in_a_number(host), host)
            self.assertFalse(is_host_name(host), host)
        for host in ("1.a", "0x7f.example", "a1", "9.9.9.9.in-addr.arpa"):
            self.assertFalse(ends_in_a_number(host), host)

    def test_reserved(self) -> None:
        """Names of the machine, the site and the clouds are reserved, with all names below them."""
        for name in ("localhost", "a.localhost", "b.a.local", "metadata.google.internal", "router.home.arpa"):
            self.assertTrue(is_reserved(name), name)
        for name in ("localhost.example.org", "notlocal", "internal.example.org", "home.example.org", "arpa"):
            self.assertFalse(is_reserved(name), name)


class ParseHostListTests(SynchronousTestCase):
    """`parse_host_list`"""

    def test_entries(self) -> None:
        """A name contains whatever it resolves to. A network contains its addresses, also as IPv4-mapped IPv6."""
        found = parse_host_list(["Hooks.Corp", "redis", "10.1.0.0/16", "192.168.0.7", "fd00::/8"])
        self.assertEqual(found.names, {"hooks.corp", "redis"})
        for address in ("10.1.255.255", "192.168.0.7", "fd12::1", "::ffff:10.1.0.1"):
            self.assertTrue(found.contains(ip_address(address), "elsewhere"), address)
        for address in ("10.2.0.0", "192.168.0.8", "fc00::1", "64:ff9b::10.1.0.1"):
            self.assertFalse(found.contains(ip_address(address), "a.hooks.corp"), address)
            self.assertTrue(found.contains(ip_address(address), "hooks.corp"), address)
        self.assertFalse(EMPTY.contains(ip_address("10.1.0.1"), "redis"))

    def test_invalid_entries(self) -> None:
        """An entry that is neither a name nor a network raises an error that shows it."""
        for entry in (
            "",
            "10.0.0.1/8",
            "10.0.0",
            "127.1",
            "a_b",
            "*.corp",
            "https://a.corp",
            "a.corp:443",
            "10.0.0.0/33",
        ):
            error = self.assertRaises(ValueError, parse_host_list, ["a.corp", entry])
            self.assertIn(repr(entry), str(error))
        self.assertRaises(ValueError, parse_host_list, "10.0.0.0/8")
