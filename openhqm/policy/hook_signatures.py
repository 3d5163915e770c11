# -*- test-case-name: tests.policy.test_hook_signatures -*-
"""Who has sent a webhook, by its signature: one row for each way in which senders sign.

Each row has the vendor's page. All of them are an HMAC of the raw body and of what stands with it.
"""

from __future__ import annotations

import hmac
import json
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from openhqm.policy.webhooks import read_secret

Field = Callable[[bytes], bytes | None]
_WHOLE_SECONDS = re.compile(rb"[0-9]{1,12}")
MOST_SIGNATURES = 16


class NotGenuine(Exception):
    """The signature is missing, malformed, too old, or another one."""


@attrs.frozen
class Preset:
    """How a sender signs.

    ``signature`` is the field with it, of which ``read`` makes the signatures that there are and the time. ``signed``
    makes what is signed of the id, the time and the body. ``written`` writes a digest as the sender does. ``at`` is
    the field with the time, and ``id`` that with the id of the delivery; None: there is none, or it is elsewhere.
    ``member`` is the member of a JSON body that is the id.
    """

    page: str
    signature: bytes
    read: Callable[[bytes], tuple[Sequence[bytes], bytes | None]]
    signed: Callable[[bytes, bytes, bytes], bytes]
    written: Callable[[bytes], bytes]
    at: bytes | None = None
    id: bytes | None = None
    member: str | None = None
    secret: Callable[[str], bytes] = str.encode


def _hex(digest: bytes) -> bytes:
    return digest.hex().encode()


def _pairs(value: bytes) -> tuple[Sequence[bytes], bytes | None]:
    """``t=1492774577,v1=5257a8...,v0=...``"""
    pairs = [each.strip().partition(b"=") for each in value.split(b",")]
    times = [text for name, _, text in pairs if name == b"t"]
    return [text for name, _, text in pairs if name == b"v1"], times[0] if len(times) == 1 else None


def _versions(value: bytes) -> tuple[Sequence[bytes], bytes | None]:
    """``v1,K5oZfzN95Z9UVu1... v1,...``"""
    return [each[3:] for each in value.split(b" ") if each.startswith(b"v1,")], None


def _after(prefix: bytes) -> Callable[[bytes], tuple[Sequence[bytes], bytes | None]]:
    return lambda value: ([value.removeprefix(prefix)] if value.startswith(prefix) else [], None)


PRESETS: Mapping[str, Preset] = {
    "standard_webhooks": Preset(
        "https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md",
        b"webhook-signature",
        _versions,
        lambda id, at, body: b"%b.%b.%b" % (id, at, body),
        b64encode,
        at=b"webhook-timestamp",
        id=b"webhook-id",
        secret=read_secret,
    ),
    "stripe": Preset(
        "https://docs.stripe.com/webhooks#verify-manually",
        b"stripe-signature",
        _pairs,
        lambda id, at, body: b"%b.%b" % (at, body),
        _hex,
        member="id",
    ),
    "github": Preset(
        "https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries",
        b"x-hub-signature-256",
        _after(b"sha256="),
        lambda id, at, body: body,
        _hex,
        id=b"x-github-delivery",
    ),
    "shopify": Preset(
        "https://shopify.dev/docs/apps/build/webhooks/subscribe/https",
        b"x-shopify-hmac-sha256",
        _after(b""),
        lambda id, at, body: body,
        b64encode,
        id=b"x-shopify-webhook-id",
    ),
    "slack": Preset(
        "https://docs.slack.dev/authentication/verifying-requests-from-slack",
        b"x-slack-signature",
        _after(b"v0="),
        lambda id, at, body: b"v0:%b:%b" % (at, body),
        _hex,
        at=b"x-slack-request-timestamp",
        member="event_id",
    ),
}
TIMED = frozenset(name for name, row in PRESETS.items() if row.at is not None or row.read is _pairs)
"""Those whose signature has a time, so that an old one can be refused."""


def check_secret(preset: str, secret: str) -> None:
    """`ValueError` where it cannot be a secret of that sender."""
    if not PRESETS[preset].secret(secret):
        raise ValueError("must not be empty")


def verify(preset: str, secrets: Sequence[str], field: Field, body: bytes, now: float, tolerance: float) -> str:
    """The id of the delivery: the sender's, or else what it has signed it with, which is the same for the same bytes.

    `NotGenuine` without saying why: it may be a stranger.

    ``field`` returns the one value of a header field; None: there is none. A signature whose time is more than
    ``tolerance`` seconds from ``now`` is none.
    """
    row = PRESETS[preset]
    value = field(row.signature)
    if not value:
        raise NotGenuine
    said, at = row.read(value)
    if row.at is not None:
        at = field(row.at)
    if preset in TIMED and (at is None or not _WHOLE_SECONDS.fullmatch(at) or abs(int(at) - now) > tolerance):
        raise NotGenuine
    id = field(row.id) if row.id is not None else None
    if row.id is not None and not id:
        raise NotGenuine
    signed = row.signed(id or b"", at or b"", body)
    expected = [row.written(hmac.digest(row.secret(secret), signed, "sha256")) for secret in secrets]
    # Each is compared, whatever came before: the time says nothing about which was right.
    equal = [one for one in expected for other in said[:MOST_SIGNATURES] if hmac.compare_digest(one, other)]
    if not equal:
        raise NotGenuine
    found = id.decode("latin-1") if id is not None else _member(body, row.member or "")
    return found or equal[0].decode("ascii")


def _member(body: bytes, name: str) -> str | None:
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    value = document.get(name) if isinstance(document, dict) else None
    return value if isinstance(value, str) and value else None
