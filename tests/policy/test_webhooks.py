"""Signatures by Standard Webhooks, beside the library that its authors publish."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime

from standardwebhooks import Webhook, WebhookVerificationError
from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.webhooks import read_secret, signature

SECRETS = ["whsec_" + b64encode(bytes([each]) * 32).decode() for each in range(3)]
CONTENT = b'{"result":"\xc3\xbc"}'


class SignatureTests(SynchronousTestCase):
    def test_verified(self) -> None:
        """A receiver that has any of the secrets verifies it; one with another secret, or other bytes, does not."""
        now = int(datetime.now(UTC).timestamp())
        keys = [read_secret(each) for each in SECRETS[:2]]
        headers = {
            "webhook-id": "e2459c70-87e2-405c-b8a1-8ec252fd5be0",
            "webhook-timestamp": str(now),
            "webhook-signature": signature(keys, "e2459c70-87e2-405c-b8a1-8ec252fd5be0", now, CONTENT),
        }
        for secret in SECRETS[:2]:
            self.assertEqual(Webhook(secret).verify(CONTENT, headers), {"result": "ü"})
        for secret, content, changed in (
            (SECRETS[2], CONTENT, {}),
            (SECRETS[0], CONTENT + b" ", {}),
            (SECRETS[0], CONTENT, {"webhook-id": "e2459c70-87e2-405c-b8a1-8ec252fd5be1"}),
            (SECRETS[0], CONTENT, {"webhook-timestamp": str(now - 1)}),
        ):
            self.assertRaises(WebhookVerificationError, Webhook(secret).verify, content, {**headers, **changed})


class SecretTests(SynchronousTestCase):
    def test_refused(self) -> None:
        """What is no secret by the specification is refused, and not repeated."""
        for text in (
            "",
            "whsec_",
            "hunter2hunter2hunter2hunter2hunter2",
            "whsec_hunter2 hunter2 hunter2 hunter2",
            "whsec_" + b64encode(b"x" * 23).decode(),
            "whsec_" + b64encode(b"x" * 65).decode(),
            "WHSEC_" + b64encode(b"x" * 32).decode(),
        ):
            error = self.assertRaises(ValueError, read_secret, text)
            self.assertNotIn("hunter2", str(error))
