"""The text of a token. What it refuses is in the table of ``tests.ingress.test_tokens``."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.token_text import TokenRefused, read_token
from tests.signing import base64, claims, token


class ReadTests(SynchronousTestCase):
    """`read_token`"""

    def test_parts(self) -> None:
        """What is read is what was written."""
        found = read_token(token(header={"alg": "RS256", "kid": "one"}))
        self.assertEqual((found.algorithm, found.key_id, found.claims), ("RS256", "one", claims()))

    @given(st.lists(st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(base64)), max_size=5))
    def test_anything(self, parts: list[bytes]) -> None:
        """Bytes of any kind are refused, and never break anything."""
        self.assertRaises(TokenRefused, read_token, b".".join(parts))

    def test_reason_quotes_nothing(self) -> None:
        """The reason for the log has nothing of the token, which may be good for another service."""
        for secret in (b"canary", b"canary.canary.canary", base64(b'{"alg":"canary","crit":1}') + b".a.b"):
            self.assertNotIn("canary", str(self.assertRaises(TokenRefused, read_token, secret)))
