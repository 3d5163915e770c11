"""What Redis's error replies mean for an operator."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openhqm.redis.errors import refusal


class RefusalTests(SynchronousTestCase):
    def test_reasons(self) -> None:
        """Redis's own error codes (redis.io, and its sources) are explained; an unknown one is quoted."""
        for text, reason in (
            ("OOM command not allowed when used memory > 'maxmemory'.", "maxmemory"),
            ("READONLY You can't write against a read only replica.", "replica"),
            ("WRONGPASS invalid username-password pair or user is disabled.", "password"),
            ("ERR invalid password", "password"),
            ("NOPERM this user has no permissions to run the 'eval' command", "'eval'"),
            ("ERR something new", "something new"),
        ):
            self.assertIn(reason, refusal(text).reason)

    def test_elsewhere(self) -> None:
        """A replica may have a master elsewhere; a full Redis is the right one."""
        self.assertTrue(refusal("READONLY ").elsewhere)
        self.assertFalse(refusal("OOM ").elsewhere)
