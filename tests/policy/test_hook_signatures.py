"""Signatures of webhooks: what senders sign, beside what they publish, and what is refused."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from datetime import UTC, datetime

from standardwebhooks import Webhook
from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.hook_signatures import PRESETS, TIMED, NotGenuine, check_secret, verify

NOW = 1531420618.0
WHSEC = "whsec_" + b64encode(b"s" * 32).decode()
BODY = b'{"id": "evt_1", "event_id": "Ev1", "text": "\xc3\xbc"}'


def standard(secret: str, body: bytes, at: int, id: str = "msg_1") -> dict[str, str]:
    signed = Webhook(secret).sign(id, datetime.fromtimestamp(at, UTC), body.decode())
    return {"webhook-id": id, "webhook-timestamp": str(at), "webhook-signature": signed}


def digest(secret: str, signed: bytes) -> bytes:
    return hmac.new(secret.encode(), signed, hashlib.sha256).digest()


def stripe(secret: str, body: bytes, at: int) -> dict[str, str]:
    return {"stripe-signature": f"t={at},v0=abc,v1={digest(secret, b'%d.%b' % (at, body)).hex()}"}


def github(secret: str, body: bytes, at: int) -> dict[str, str]:
    return {"x-hub-signature-256": f"sha256={digest(secret, body).hex()}", "x-github-delivery": "72d3162e"}


def shopify(secret: str, body: bytes, at: int) -> dict[str, str]:
    return {"x-shopify-hmac-sha256": b64encode(digest(secret, body)).decode(), "x-shopify-webhook-id": "b54557e4"}


def slack(secret: str, body: bytes, at: int) -> dict[str, str]:
    signed = digest(secret, b"v0:%d:%b" % (at, body)).hex()
    return {"x-slack-signature": f"v0={signed}", "x-slack-request-timestamp": str(at)}


SENDERS = {
    "standard_webhooks": (standard, WHSEC, "msg_1"),
    "stripe": (stripe, "whsec_stripe", "evt_1"),
    "github": (github, "secret", "72d3162e"),
    "shopify": (shopify, "hush", "b54557e4"),
    "slack": (slack, "8f742231b10e8888abcd99yyyzzz85a5", "Ev1"),
}


def ask(preset: str, fields: dict[str, str], body: bytes, *secrets: str, now: float = NOW) -> str:
    given = {name.encode(): value.encode() for name, value in fields.items()}
    return verify(preset, secrets, given.get, body, now, 300)


class SendersTests(SynchronousTestCase):
    def test_every_preset(self) -> None:
        """Each row has a sender here."""
        self.assertEqual(set(SENDERS), set(PRESETS))

    def test_published(self) -> None:
        """The examples that GitHub and Slack publish on their pages hold."""
        fields = {
            "x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
            "x-github-delivery": "1",
        }
        self.assertEqual(ask("github", fields, b"Hello, World!", "It's a Secret to Everybody"), "1")
        body = (
            b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
            b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
            b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
            b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
        )
        fields = {
            "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
            "x-slack-request-timestamp": "1531420618",
        }
        self.assertEqual(
            ask("slack", fields, body, "8f742231b10e8888abcd99yyyzzz85a5"), fields["x-slack-signature"][3:]
        )

    def test_genuine(self) -> None:
        """A signature by any of the secrets holds, and the delivery has the sender's id."""
        for preset, (sign, secret, id) in SENDERS.items():
            other = WHSEC[:-8] + "AAAAAAA=" if preset == "standard_webhooks" else "other"
            self.assertEqual(ask(preset, sign(secret, BODY, int(NOW)), BODY, other, secret), id, preset)

    def test_refused(self) -> None:
        """Nothing else holds: another secret or body, fields that are missing, empty, malformed or another sender's."""
        for preset, (sign, secret, _) in SENDERS.items():
            good = sign(secret, BODY, int(NOW))
            other = WHSEC[:-8] + "AAAAAAA=" if preset == "standard_webhooks" else "other"
            row = PRESETS[preset]
            signature = row.signature.decode()
            wrong: list[tuple[dict[str, str], bytes, str]] = [
                (good, BODY + b" ", secret),
                (good, BODY, other),
                ({}, BODY, secret),
                *(({name: value for name, value in good.items() if name != each}, BODY, secret) for each in good),
                *(
                    ({**good, signature: value}, BODY, secret)
                    for value in ("", "=", "v1,", "t=,v1=", "sha256=", "v0=", good[signature][:-2], "\xff", "a," * 5000)
                ),
                ({**good, signature: good[signature].upper()}, BODY, secret),
            ]
            for fields, body, key in wrong:
                try:
                    ask(preset, fields, body, key)
                except NotGenuine:
                    continue
                self.fail(f"{preset} took {fields}")

    def test_time(self) -> None:
        """Where a time is signed, one that is too old, too new or no number is refused, and another one, too."""
        for preset in TIMED:
            sign, secret, _ = SENDERS[preset]
            for at in (NOW - 299, NOW + 299):
                ask(preset, sign(secret, BODY, int(at)), BODY, secret)
            for at in (NOW - 302, NOW + 302, 0):
                self.assertRaises(NotGenuine, ask, preset, sign(secret, BODY, int(at)), BODY, secret)
        for text in ("", "1531420618.0", "-1531420618", "1e9", "\u0661", "9" * 400, " 1531420618"):
            fields = {**slack(SENDERS["slack"][1], BODY, int(NOW)), "x-slack-request-timestamp": text}
            self.assertRaises(NotGenuine, ask, "slack", fields, BODY, SENDERS["slack"][1])
        self.assertEqual(TIMED, {"standard_webhooks", "stripe", "slack"})

    def test_no_id(self) -> None:
        """Without an id in the body the signature is one, whichever other secrets there are."""
        secret, found = SENDERS["stripe"][1], set()
        for body in (b"{}", b"[]", b'{"id": 1}', b'{"id": ""}', b"a=b", b"[" * 100_000, b""):
            fields = stripe(secret, body, int(NOW))
            ids = {ask("stripe", fields, body, *secrets) for secrets in ((secret,), ("other", secret), (secret, "x"))}
            self.assertEqual(len(ids), 1, body[:20])
            found |= ids
        self.assertEqual(len(found), 7)

    def test_secrets(self) -> None:
        """What cannot be a secret of the sender is refused."""
        for preset, secret in (("github", ""), ("standard_webhooks", "secret"), ("standard_webhooks", "whsec_x")):
            self.assertRaises(ValueError, check_secret, preset, secret)
