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
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl

import attrs

from openhqm.policy.webhooks import read_secret

Field = Callable[[bytes], bytes | None]
BODY_HASH = "bodySHA256"
MOST_FIELDS = 1000
_PORT = re.compile(rb":[0-9]+$")
_WHOLE_SECONDS = re.compile(rb"[0-9]{1,12}")
MOST_SIGNATURES = 16


class NotGenuine(Exception):
    """The signature is missing, malformed, too old, or another one."""


@attrs.frozen
class Preset:
    """How a sender signs.

    ``signature`` is the field with it, of which ``read`` makes the signatures that there are and the time. ``signed``
    makes what is signed of the id, the time, the body and the URL. ``written`` writes a digest as the sender does.
    ``at`` is the field with the time, and ``id`` that with the id of the delivery; None: there is none, or it is
    elsewhere.
    ``member`` is the member of a JSON body that is the id. ``of_url``: the URL is signed, with its query.
    """

    page: str
    signature: bytes
    read: Callable[[bytes], tuple[Sequence[bytes], bytes | None]]
    signed: Callable[[bytes, bytes, bytes, bytes], bytes]
    written: Callable[[bytes], bytes]
    at: bytes | None = None
    id: bytes | None = None
    member: str | None = None
    secret: Callable[[str], bytes] = str.encode
    algorithm: str = "sha256"
    of_url: bool = False


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


def _url_and_form(id: bytes, at: bytes, body: bytes, url: bytes) -> bytes:
    """The URL and the sorted fields of a form, or the URL alone where its query has the hash of the body.

    Names and values stand one after the other without a mark between them: that is how this sender signs.
    """
    try:
        asked = parse_qsl(url.partition(b"?")[2].decode("ascii"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
        hashes = [value for name, value in asked if name == BODY_HASH]
        if hashes:
            if len(hashes) > 1 or not hmac.compare_digest(hashes[0].encode(), _hex(sha256(body).digest())):
                raise NotGenuine
            return url
        fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError:
        raise NotGenuine from None
    return url + "".join(name + value for name, value in sorted(set(fields))).encode()


PRESETS: Mapping[str, Preset] = {
    "standard_webhooks": Preset(
        "https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md",
        b"webhook-signature",
        _versions,
        lambda id, at, body, url: b"%b.%b.%b" % (id, at, body),
        b64encode,
        at=b"webhook-timestamp",
        id=b"webhook-id",
        secret=read_secret,
    ),
    "stripe": Preset(
        "https://docs.stripe.com/webhooks#verify-manually",
        b"stripe-signature",
        _pairs,
        lambda id, at, body, url: b"%b.%b" % (at, body),
        _hex,
        member="id",
    ),
    "github": Preset(
        "https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries",
        b"x-hub-signature-256",
        _after(b"sha256="),
        lambda id, at, body, url: body,
        _hex,
        id=b"x-github-delivery",
    ),
    "shopify": Preset(
        "https://shopify.dev/docs/apps/build/webhooks/subscribe/https",
        b"x-shopify-hmac-sha256",
        _after(b""),
        lambda id, at, body, url: body,
        b64encode,
        id=b"x-shopify-webhook-id",
    ),
    "slack": Preset(
        "https://docs.slack.dev/authentication/verifying-requests-from-slack",
        b"x-slack-signature",
        _after(b"v0="),
        lambda id, at, body, url: b"v0:%b:%b" % (at, body),
        _hex,
        at=b"x-slack-request-timestamp",
        member="event_id",
    ),
    "twilio": Preset(
        "https://www.twilio.com/docs/usage/security#validating-requests",
        b"x-twilio-signature",
        _after(b""),
        _url_and_form,
        b64encode,
        algorithm="sha1",
        of_url=True,
    ),
}
TIMED = frozenset(name for name, row in PRESETS.items() if row.at is not None or row.read is _pairs)
"""Those whose signature has a time, so that an old one can be refused."""
OF_URLS = frozenset(name for name, row in PRESETS.items() if row.of_url)
"""Those that sign the URL that they call."""


def check_secret(preset: str, secret: str) -> None:
    """`ValueError` where it cannot be a secret of that sender."""
    if not PRESETS[preset].secret(secret):
        raise ValueError("must not be empty")


def verify(
    preset: str, secrets: Sequence[str], field: Field, body: bytes, now: float, tolerance: float, url: bytes = b""
) -> str:
    """The id of the delivery: the sender's, or else what it has signed it with, which is the same for the same bytes.

    `NotGenuine` without saying why: it may be a stranger.

    ``field`` returns the one value of a header field; None: there is none. A signature whose time is more than
    ``tolerance`` seconds from ``now`` is none. ``url`` is what was called, as the sender knows it.
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
    signed = [row.signed(id or b"", at or b"", body, each) for each in (_with_ports(url) if row.of_url else (url,))]
    digests = [hmac.digest(row.secret(secret), each, row.algorithm) for secret in secrets for each in signed]
    expected = [row.written(digest) for digest in digests]
    # Each is compared, whatever came before: the time says nothing about which was right.
    equal = [one for one in expected for other in said[:MOST_SIGNATURES] if hmac.compare_digest(one, other)]
    if not equal:
        raise NotGenuine
    found = id.decode("latin-1") if id is not None else _member(body, row.member or "")
    return found or equal[0].decode("ascii")


def _with_ports(url: bytes) -> Sequence[bytes]:
    """The URL as it is, and with the usual port added or left out: this sender may sign either."""
    scheme, _, rest = url.partition(b"://")
    host, slash, path = rest.partition(b"/")
    port = b":443" if scheme == b"https" else b":80"
    other = host.removesuffix(port) if host.endswith(port) else host if _PORT.search(host) else host + port
    return [url] if other == host else [url, b"%b://%b%b%b" % (scheme, other, slash, path)]


def _member(body: bytes, name: str) -> str | None:
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    value = document.get(name) if isinstance(document, dict) else None
    return value if isinstance(value, str) and value else None
