"""Signatures of webhooks: what senders sign, beside what they publish, and what is refused."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from datetime import UTC, datetime
from urllib.parse import parse_qsl

from standardwebhooks import Webhook
from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.hook_signatures import PRESETS, TIMED, NotGenuine, check_secret, verify

NOW = 1531420618.0
WHSEC = "whsec_" + b64encode(b"s" * 32).decode()
URL = "https://mycompany.com/myapp.php?foo=1&bar=2"
FORM = b"Digits=1234&To=%2B18005551212&From=%2B14158675309&Caller=%2B14158675309&CallSid=CA1234567890ABCDE"
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


def twilio(secret: str, body: bytes, at: int) -> dict[str, str]:
    fields = sorted(set(parse_qsl(body.decode("ascii", "ignore"), keep_blank_values=True)))
    signed = URL + "".join(name + value for name, value in fields)
    return {"x-twilio-signature": b64encode(hmac.new(secret.encode(), signed.encode(), hashlib.sha1).digest()).decode()}


SENDERS = {
    "standard_webhooks": (standard, WHSEC, "msg_1"),
    "stripe": (stripe, "whsec_stripe", "evt_1"),
    "github": (github, "secret", "72d3162e"),
    "shopify": (shopify, "hush", "b54557e4"),
    "slack": (slack, "8f742231b10e8888abcd99yyyzzz85a5", "Ev1"),
    "twilio": (twilio, "12345", "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
}
BODIES = {"twilio": FORM}


def ask(preset: str, fields: dict[str, str], body: bytes, *secrets: str, now: float = NOW, url: str = URL) -> str:
    given = {name.encode(): value.encode() for name, value in fields.items()}
    return verify(preset, secrets, given.get, body, now, 300, url.encode())


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

    def test_twilio(self) -> None:
        """The example of Twilio's own library holds, with and without the port, and nothing that differs from it."""
        fields = {"x-twilio-signature": "RSOYDt4T1cUTdK1PDd93/VVr8B8="}
        self.assertEqual(ask("twilio", fields, FORM, "12345"), fields["x-twilio-signature"])
        ask("twilio", fields, b"&".join(reversed(FORM.split(b"&"))), "12345")
        ask("twilio", fields, FORM, "12345", url=URL.replace(".com/", ".com:443/"))
        for url, body in (
            (URL.replace("https", "http"), FORM),
            (URL.replace("mycompany", "other"), FORM),
            (URL.replace(".com/", ".com:8443/"), FORM),
            (URL + "&a=b", FORM),
            (URL.partition("?")[0], FORM),
            (URL, FORM + b"&a=b"),
            (URL, FORM.replace(b"1234", b"1235")),
            (URL, b""),
            (URL, b"\xff=1"),
            (URL, b"a=%FF"),
            (URL, b"a=b&" * 5000),
        ):
            self.assertRaises(NotGenuine, ask, "twilio", fields, body, "12345", url=url)

    def test_twilio_json(self) -> None:
        """JSON is signed by its hash in the URL, which has to be that of the body, and stand there once."""
        body = b'{"property": "value", "boolean": true}'
        hashed = hashlib.sha256(body).hexdigest()
        for query, sent, genuine in (
            (f"bodySHA256={hashed}", body, True),
            (f"foo=1&bodySHA256={hashed}", body, True),
            (f"bodySHA256={hashed}", body + b" ", False),
            (f"bodySHA256={hashed}&bodySHA256={hashed}", body, False),
            ("bodySHA256=", body, False),
            (f"bodySHA256={hashed.upper()}", body, False),
        ):
            url = f"https://mycompany.com/myapp.php?{query}"
            signature = b64encode(hmac.new(b"12345", url.encode(), hashlib.sha1).digest()).decode()
            try:
                found = ask("twilio", {"x-twilio-signature": signature}, sent, "12345", url=url)
            except NotGenuine:
                found = None
            self.assertEqual(found, signature if genuine else None, query)

    def test_genuine(self) -> None:
        """A signature by any of the secrets holds, and the delivery has the sender's id."""
        for preset, (sign, secret, id) in SENDERS.items():
            other = WHSEC[:-8] + "AAAAAAA=" if preset == "standard_webhooks" else "other"
            body = BODIES.get(preset, BODY)
            self.assertEqual(ask(preset, sign(secret, body, int(NOW)), body, other, secret), id, preset)

    def test_refused(self) -> None:
        """Nothing else holds: another secret or body, fields that are missing, empty, malformed or another sender's."""
        for preset, (sign, secret, _) in SENDERS.items():
            body = BODIES.get(preset, BODY)
            good = sign(secret, body, int(NOW))
            other = WHSEC[:-8] + "AAAAAAA=" if preset == "standard_webhooks" else "other"
            row = PRESETS[preset]
            signature = row.signature.decode()
            wrong: list[tuple[dict[str, str], bytes, str]] = [
                (good, body + b" ", secret),
                (good, body, other),
                ({}, body, secret),
                *(({name: value for name, value in good.items() if name != each}, body, secret) for each in good),
                *(
                    ({**good, signature: value}, body, secret)
                    for value in ("", "=", "v1,", "t=,v1=", "sha256=", "v0=", good[signature][:-2], "\xff", "a," * 5000)
                ),
                ({**good, signature: good[signature].upper()}, body, secret),
            ]
            for fields, sent, key in wrong:
                try:
                    ask(preset, fields, sent, key)
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
