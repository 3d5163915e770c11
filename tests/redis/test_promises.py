"""What a Redis can promise follows from its own settings."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openhqm.redis.promises import promises, read_info

GOOD = {"redis_version": "7.0.15", "aof_enabled": "1", "maxmemory": "0", "maxmemory_policy": "noeviction"}


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
        """A Redis that loses requests is not called durable, and the warning says why."""
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
