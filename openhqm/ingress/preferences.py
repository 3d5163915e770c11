# -*- test-case-name: tests.ingress.test_preferences -*-
"""Parsers of header fields with a syntax of their own: Prefer, Accept, Idempotency-Key, Content-Type."""

from __future__ import annotations

import re
from hashlib import blake2b

from openhqm.errors import InvalidRequest
from openhqm.ingress.answers import HTTPProblem
from openhqm.messages import IdempotencyClaim

_ELEMENT = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')  # of a list, in which a quoted comma is no separator
MOST_PREFER = 1000
_KEY = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,255}\Z")


def prefer_wait(value: str | None, most: float) -> float | None:
    """The seconds of ``Prefer: wait=N`` (RFC 7240, section 4.3), at most ``most``; None without this preference.

    A preference that cannot be parsed is ignored, and the first of several counts (section 2).
    """
    if not value or len(value) > MOST_PREFER:
        return None
    for element in _ELEMENT.findall(value):
        name, _, seconds = element.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            seconds = seconds.strip()
            if len(seconds) > 2 and seconds[0] == seconds[-1] == '"':
                seconds = seconds[1:-1]
            if seconds.isascii() and seconds.isdigit() and len(seconds) < 10 and int(seconds) > 0:
                return min(float(seconds), most)
            return None
    return None


def prefers_async(value: str | None) -> bool:
    """Whether ``respond-async`` (RFC 7240, section 4.1) is among the preferences."""
    if not value or len(value) > MOST_PREFER:
        return False
    names = (element.partition(";")[0].partition("=")[0] for element in _ELEMENT.findall(value))
    return any(name.strip().lower() == "respond-async" for name in names)


def cancels_on_disconnect(value: str | None) -> bool:
    """Whether ``OpenHQM-Cancel-On-Disconnect`` asks for that."""
    return value is not None and value.lower() == "true"


def query_wait(values: list[bytes], most: float) -> float | None:
    """The seconds of ``?wait=N``, at most ``most``. `InvalidRequest` unless it is one whole number from 0 up."""
    if not values:
        return None
    text = values[0]
    if len(values) > 1 or not text.isdigit() or len(text) > 9:
        raise InvalidRequest("wait", f"must be one whole number of seconds, at most {most:.0f}")
    return min(float(text), most)


def wants_events(accept: str | None) -> bool:
    """Whether the Accept field names the event stream with a weight above 0."""
    for part in (accept or "").split(","):
        kind, *parameters = [piece.strip().lower() for piece in part.split(";")]
        if kind == "text/event-stream":
            return not any(re.fullmatch(r"q=0(\.0*)?", parameter) for parameter in parameters)
    return False


def claim_of(value: str | None, scope: str, body: bytes) -> IdempotencyClaim | None:
    """The claim of an Idempotency-Key field, or None without one. `HTTPProblem` 400 where the key is malformed.

    A key has 1 to 255 visible ASCII characters, quoted or not. ``scope`` separates keys of different routes.
    """
    if value is None:
        return None
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = value[1:-1]
    if _KEY.match(value) is None:
        raise HTTPProblem(400, "Idempotency-Key must be 1 to 255 visible ASCII characters, quoted or not")
    return IdempotencyClaim(value, blake2b(body, digest_size=16).digest(), scope=scope)


def check_json_type(value: str | None) -> None:
    """`HTTPProblem` 415 unless the content is JSON in UTF-8 (RFC 8259, section 8.1)."""
    if value == "application/json":
        return
    kind, *parameters = [piece.strip().lower() for piece in (value or "").split(";")]
    charset = next((piece[8:].strip('"') for piece in parameters if piece.startswith("charset=")), "utf-8")
    if kind != "application/json" or charset not in ("utf-8", "utf8", "us-ascii"):
        raise HTTPProblem(
            415, "the content must be application/json in UTF-8", ((b"Accept-Post", b"application/json"),)
        )


def check_encoding(value: str | None) -> None:
    """`HTTPProblem` 415 for encoded content; Accept-Encoding says what is taken (RFC 9110, section 15.5.16)."""
    if value is not None and value.lower() not in ("", "identity"):
        raise HTTPProblem(415, "the content must have no Content-Encoding", ((b"Accept-Encoding", b"identity"),))


def last_event_id(field: str | None, query: list[bytes]) -> int:
    """The number of the event after which a stream resumes: Last-Event-ID, else ``?last_event_id=``, else 0.

    `InvalidRequest` where it is not a number.
    """
    text = field if field else (query[0].decode("ascii", "replace") if query else "")
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise InvalidRequest("last_event_id", "must be the id of an event")
    return int(text)
