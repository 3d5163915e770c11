"""Who may use the routes for operators: a program on the same host, and no page, proxy or other host."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.trial.unittest import SynchronousTestCase

from openhqm.ingress.local_access import why_not_local
from openhqm.runtime.proxy_protocol import ProxiedAddress

HERE = IPv4Address("TCP", "127.0.0.1", 5)
SOCKET = UNIXAddress(b"/run/openhqm.sock")


def asked(peer: IAddress = HERE, *more: tuple[bytes, bytes], host: bytes = b"localhost:8000") -> str | None:
    return why_not_local(peer, b"HTTP/1.1", [(b"host", host), (b"accept", b"*/*"), *more])


class LocalAccessTests(SynchronousTestCase):
    def test_same_host(self) -> None:
        """A program on this host is let in, by whatever address of it the two know each other."""
        for peer, host in (
            (HERE, b"127.0.0.1:8000"),
            (HERE, b"127.0.0.1"),
            (HERE, b"LOCALHOST"),
            (IPv4Address("TCP", "127.8.7.6", 5), b"127.8.7.6:80"),
            (IPv6Address("TCP", "::1", 5), b"[::1]:8000"),
            (IPv6Address("TCP", "::ffff:127.0.0.1", 5), b"localhost"),
            (SOCKET, b"anything"),
            (UNIXAddress(None), b""),
        ):
            self.assertIsNone(asked(peer, host=host), (peer, host))

    def test_other_hosts(self) -> None:
        """Another host is refused, also one that calls itself localhost."""
        for address in ("10.0.0.7", "203.0.113.9", "0.0.0.0", "169.254.1.1"):
            self.assertIn("from another one", asked(IPv4Address("TCP", address, 5)) or "", address)
        for address in ("2001:db8::1", "fe80::1%eth0", "::ffff:10.0.0.7", "::"):
            self.assertIn("from another one", asked(IPv6Address("TCP", address, 5)) or "", address)

    def test_proxies(self) -> None:
        """A request that a proxy on this host has passed on is refused, over a Unix socket as well: it may be from
        anywhere."""
        for name in (
            b"forwarded",
            b"via",
            b"x-forwarded-for",
            b"x-forwarded-host",
            b"x-forwarded-proto",
            b"x-real-ip",
            b"cf-connecting-ip",
        ):
            for peer in (HERE, SOCKET):
                self.assertIn(name.decode(), asked(peer, (name, b"127.0.0.1")) or "", name)

    def test_old_proxies(self) -> None:
        """nginx passes requests on in HTTP/1.0, and by default with no field that says so."""
        for peer in (HERE, SOCKET):
            self.assertIn("needs HTTP/1.1", why_not_local(peer, b"HTTP/1.0", [(b"host", b"localhost")]) or "")

    def test_names_that_point_here(self) -> None:
        """A page whose own name was made to point to this host (DNS rebinding) sends that name, and is refused."""
        for host in (
            b"evil.example:8000",
            b"localhost.evil.example",
            b"127.0.0.1.evil.example",
            b"10.0.0.1",
            b"0.0.0.0",
            b"[::1",
            b"[::1]x",
            b"[::2]",
            b"2130706433",
            b"127.1",
            b"localhost@evil",
            b"\xff",
            b"",
        ):
            self.assertIn("Host", asked(host=host) or "", host)
        self.assertIn("Host", why_not_local(HERE, b"HTTP/1.1", []) or "")
        self.assertIn("Host", asked(HERE, (b"host", b"localhost")) or "", "two of them")

    def test_proxied(self) -> None:
        """A client that a proxy has named is not on this host, whatever address the proxy says."""
        for host in ("127.0.0.1", "::1", "192.0.2.1"):
            self.assertIn(
                "through a proxy", why_not_local(ProxiedAddress(host, 1), b"HTTP/1.1", [(b"host", b"localhost")]) or ""
            )

    def test_pages(self) -> None:
        """A browser says that a page of another origin asks, and is refused; what a person typed is not."""
        for value in (b"cross-site", b"same-site"):
            self.assertIn("another origin", asked(HERE, (b"sec-fetch-site", value)) or "")
        for value in (b"none", b"same-origin"):
            self.assertIsNone(asked(HERE, (b"sec-fetch-site", value)))
