"""URLs of a Redis: what each form says, and which are refused."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openhqm.redis.address import Address, parse_address


class AddressTests(SynchronousTestCase):
    def test_what_it_says(self) -> None:
        """Each form of URL says where Redis is, how to log in, and which database it is."""
        for url, address in (
            ("redis://", Address((("localhost", 6379),))),
            ("redis://a", Address((("a", 6379),))),
            ("redis://a:1/2", Address((("a", 1),), database=2)),
            ("redis://[::1]:1", Address((("::1", 1),))),
            ("redis://:p%40ss@a", Address((("a", 6379),), password="p@ss")),
            ("redis://u:p@a", Address((("a", 6379),), username="u", password="p")),
            ("rediss://a?ca=/x.pem", Address((("a", 6379),), tls=True, ca="/x.pem")),
            ("unix:///run/r.sock?db=3", Address(path="/run/r.sock", database=3)),
            ("unix://:p@/run/r.sock", Address(path="/run/r.sock", password="p")),
            ("redis://a,b:5/1?sentinel=m", Address((("a", 26379), ("b", 5)), database=1, sentinel="m")),
        ):
            self.assertEqual(parse_address(url), address, url)

    def test_what_it_cannot_be(self) -> None:
        """What is no such URL is refused, and the password is not in the words."""
        for url in (
            "",
            "a:6379",
            "http://u:secret@a",
            "redis://u:secret@a:port",
            "redis://u:secret@a,b",
            "redis://u:secret@a/x",
            "redis://u:secret@a?what=1",
            "redis://u:secret@a?ca=/x",
            "unix://",
        ):
            error = self.assertRaises(ValueError, parse_address, url)
            self.assertNotIn("secret", str(error))

    def test_no_password_is_shown(self) -> None:
        """Neither for people nor for programmers."""
        address = parse_address("redis://u:secret@a?sentinel=m&sentinel_password=secret")
        self.assertNotIn("secret", f"{address} {address!r}")
