# -*- test-case-name: tests.pubsub.test_faults -*-
"""What Pub/Sub answers where it does not do what it was asked: https://cloud.google.com/pubsub/docs/reference/error-codes."""

from __future__ import annotations

import msgspec

from openhqm.errors import Complaint, ConfigurationError, NotDurable, how_to_install

LONGEST_TEXT = 300


class Missing(NotDurable):
    """There is no such topic, subscription or project."""


class Forbidden(NotDurable):
    """The account may not do that. Pub/Sub was reached, and knows the account."""


class AlreadyThere(NotDurable):
    """What was to be made is there."""


class Busy(NotDurable):
    """It answered that it cannot do that now, until our time was over."""


_KINDS: dict[int, type[NotDurable]] = {403: Forbidden, 404: Missing, 409: AlreadyThere}


class _Said(msgspec.Struct):
    message: str = ""
    status: str = ""


class _Error(msgspec.Struct):
    error: _Said = msgspec.field(default_factory=_Said)


def refusal(status: int, body: bytes) -> NotDurable:
    """The error for an answer that is none of success."""
    try:
        said = msgspec.json.decode(body, type=_Error).error
    except msgspec.DecodeError:  # of a proxy in between, say
        said = _Said()
    text = f"{said.status} {said.message}".strip()[:LONGEST_TEXT]
    reason = f"Pub/Sub answered {status}" + (f": {text}" if text else "")
    return _KINDS.get(status, NotDurable)(reason)


def check_installed(key: str) -> None:
    """`ConfigurationError` where a package that Pub/Sub needs is not installed."""
    try:
        import google.auth  # noqa: F401
        import OpenSSL  # noqa: F401
    except ImportError as error:
        reason = f"gcp_pubsub needs more than is installed ({error}): {how_to_install('pubsub')}"
        raise ConfigurationError([Complaint(key, reason)]) from None
