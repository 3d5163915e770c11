"""The parts of the Redis backend that need no Redis: URLs, refusals, and what follows from its settings."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openhqm.config.redis_address import Address, parse_address
from openhqm.redis.errors import refusal
from openhqm.redis.promises import promises, read_info

GOOD = {"redis_version": "7.0.15", "aof_enabled": "1", "maxmemory": "0", "maxmemory_policy": "noeviction"}


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


class RefusalTests(SynchronousTestCase):
    def test_words(self) -> None:
        """Redis's own error codes (redis.io, and its sources) are told in words; an unknown one is quoted."""
        for text, words in (
            ("OOM command not allowed when used memory > 'maxmemory'.", "maxmemory"),
            ("READONLY You can't write against a read only replica.", "replica"),
            ("WRONGPASS invalid username-password pair or user is disabled.", "password"),
            ("ERR invalid password", "password"),
            ("NOPERM this user has no permissions to run the 'eval' command", "'eval'"),
            ("ERR something new", "something new"),
        ):
            self.assertIn(words, refusal(text).words)

    def test_elsewhere(self) -> None:
        """A replica may have a master elsewhere; a full Redis is the right one."""
        self.assertTrue(refusal("READONLY ").elsewhere)
        self.assertFalse(refusal("OOM ").elsewhere)


class PromisesTests(SynchronousTestCase):
    def test_durable(self) -> None:
        """An append-only file that is synced, and nothing thrown away: durable, with a word about the last second."""
        self.assertEqual(promises(GOOD, "always"), promises({**GOOD, "maxmemory_policy": "allkeys-lru"}, "always"))
        self.assertEqual((promises(GOOD, "always").durable, promises(GOOD, "always").warnings), (True, ()))
        found = promises(GOOD, "everysec")
        self.assertTrue(found.durable)
        self.assertIn("may lose up to 1 s on a power cut", found.warnings[0])

    def test_cannot_be_read(self) -> None:
        """A managed Redis refuses CONFIG: that is said."""
        found = promises(GOOD, None)
        self.assertTrue(found.durable)
        self.assertIn("could not be read", found.warnings[0])

    def test_not_durable(self) -> None:
        """What loses requests is not called durable, and the words say why."""
        for changed, appendfsync, word in (
            ({"aof_enabled": "0"}, "always", "appendonly"),
            ({}, "no", "appendfsync"),
            ({"maxmemory": "100", "maxmemory_policy": "allkeys-lru"}, "always", "maxmemory-policy"),
            ({"redis_version": "5.0.1"}, "always", "5.0.1"),
        ):
            found = promises({**GOOD, **changed}, appendfsync)
            self.assertFalse(found.durable)
            self.assertIn(word, found.warnings[0])

    def test_info(self) -> None:
        """INFO is lines of name and value under headings."""
        self.assertEqual(
            read_info(b"# Server\r\nredis_version:7.0\r\n\r\nx:a:b\r\n"), {"redis_version": "7.0", "x": "a:b"}
        )
