# -*- test-case-name: tests.ingress.test_submission -*-
"""Reads a submission: bytes in, a `Submission` out, or an error that names the first wrong field."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from openhqm.errors import InvalidRequest
from openhqm.ingress.coalescing import COALESCE, read_coalescing
from openhqm.messages import Priority, Submission
from openhqm.policy.callbacks import CALLBACK_URL
from openhqm.policy.forwarding import METHODS, query_text
from openhqm.policy.json_text import MAX_DEPTH, members, parse_object
from openhqm.policy.redrive import OWN_METADATA
from openhqm.policy.tags import MOST_TAG_CHARACTERS, MOST_TAGS, TAGS, is_tag
from openhqm.runtime.times import parse_rfc3339

MEMBERS = ("payload", "headers", "metadata")
LONGEST_TIMEOUT = 30 * 86400.0
LONGEST_DELAY = 30 * 86400.0
MOST_HEADERS = 100
MOST_METADATA_BYTES = 64 * 1024
_PRIORITIES = {priority.value: priority for priority in Priority}

# RFC 9110, section 5.6.2 (token) and 5.5 (field value, without the obsolete bytes above 127)
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}\Z")
# RFC 3986, sections 3.3 and 3.4, with every percent sign followed by two digits
_PATH = re.compile(r"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2}){0,4096}\Z")
_QUERY = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?\[\]]|%[0-9A-Fa-f]{2}){0,8192}\Z")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\U0010ffff]{0,8192}\Z")


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    """The usual submission: headers are strings, metadata are strings, integers, booleans or null."""

    payload: msgspec.Raw
    headers: dict[str, str] = {}
    metadata: dict[str, str | int | bool | None] = {}


_decode = msgspec.json.Decoder(_Envelope).decode


def read_submission(body: bytes, now: float, carried: Mapping[str, str] | None = None) -> Submission:
    """The submission in ``body``. `MalformedJSON`, or `InvalidRequest` that names the field.

    ``now`` is in seconds since the epoch. ``carried`` are header fields that the request carries unless it has its own
    (trace context).
    """
    payload, headers, metadata = _read_fast(body) or _read_strictly(body)
    if carried:
        own = {name.lower() for name in headers}
        headers = {**{name: value for name, value in carried.items() if name not in own}, **headers}
    if not metadata:
        return Submission(payload, headers)
    return _with_metadata(payload, headers, metadata, now)


def _read_fast(body: bytes) -> tuple[bytes, dict[str, str], dict[str, Any]] | None:
    """Payload, headers and metadata of a body that is valid beyond doubt; None: `_read_strictly` has to read it.

    Duplicate names are found by counting quotation marks: a name that stood twice is read once, and leaves marks over.
    So do escaped marks. Names within the payload are the handler's business.
    """
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH:
        return None
    try:
        body.isascii() or body.decode("utf-8")
        envelope = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    payload, headers, metadata = bytes(envelope.payload), envelope.headers, envelope.metadata
    if len(body) - len(payload) > MOST_METADATA_BYTES:
        return None
    strings = 1 + (1 + 2 * len(headers) if headers else 0) + (1 + len(metadata) if metadata else 0)
    for value in metadata.values():
        if type(value) is str:
            strings += 1
        elif type(value) is int and not -(2**63) <= value < 2**64:
            return None
    if body.count(b'"') != payload.count(b'"') + 2 * strings:
        return None
    if headers:
        _check_headers(headers)
    return payload, headers, metadata


def _read_strictly(body: bytes) -> tuple[bytes, dict[str, str], dict[str, Any]]:
    found = members(body)
    for name in found:
        if name not in MEMBERS:
            raise InvalidRequest(name, f"unknown field; a request has {', '.join(MEMBERS)}")
    if "payload" not in found:
        raise InvalidRequest("payload", "is missing")
    headers: dict[str, str] = {}
    if "headers" in found and found["headers"] != b"null":
        headers = read_headers(found["headers"])
    text = found.get("metadata", b"null")
    if len(text) > MOST_METADATA_BYTES:
        raise InvalidRequest("metadata", f"must have at most {MOST_METADATA_BYTES} bytes")
    return found["payload"], headers, {} if text == b"null" else _object(text, "metadata")


def check_submission(submission: Submission, now: float) -> None:
    """`InvalidRequest` that names the field, where the door would not have accepted ``submission``."""
    _check_headers(submission.headers)
    _with_metadata(submission.payload, submission.headers, dict(submission.metadata), now)
    if submission.timeout is not None:
        _seconds("timeout", submission.timeout, LONGEST_TIMEOUT, above_zero=True)
    if submission.not_before is not None and not 0 <= submission.not_before <= now + LONGEST_DELAY:
        raise InvalidRequest("not_before", f"must be a time at most {LONGEST_DELAY:.0f} seconds ahead")


def _with_metadata(payload: bytes, headers: Mapping[str, str], metadata: dict[str, Any], now: float) -> Submission:
    priority, timeout, not_before, coalescing = Priority.NORMAL, None, None, None
    for name, value in metadata.items():
        if name == "priority":
            priority = _priority(value)
        elif name == "timeout":
            timeout = _seconds("metadata.timeout", value, LONGEST_TIMEOUT, above_zero=True)
        elif name == "delay":
            not_before = now + _seconds("metadata.delay", value, LONGEST_DELAY, above_zero=False)
        elif name == "not_before":
            not_before = _moment(value, now)
        elif name == TAGS:
            _tags(value)
        elif name == COALESCE:
            coalescing = read_coalescing(value)
        elif name in ("partition_key", "operation", "endpoint", CALLBACK_URL):
            _string(f"metadata.{name}", value)
        elif name in OWN_METADATA:
            raise InvalidRequest(f"metadata.{name}", "is set by OpenHQM alone, where a dead letter is redriven")
        elif name in _TARGET_FIELDS:
            _TARGET_FIELDS[name](value)
    if "delay" in metadata and "not_before" in metadata:
        raise InvalidRequest("metadata.delay", "cannot be used together with not_before")
    if timeout is not None and not_before is not None and not_before >= now + timeout:
        raise InvalidRequest("metadata.timeout", "ends before the request may begin")
    if coalescing is None:
        return Submission(payload, headers, metadata, priority, timeout, not_before)
    if not_before is not None:
        raise InvalidRequest(
            f"metadata.{COALESCE}", "cannot be used together with delay or not_before: its window delays it"
        )
    if timeout is not None and coalescing.window >= timeout:
        raise InvalidRequest("metadata.timeout", "ends before the request may begin")
    return Submission(payload, headers, metadata, priority, timeout, coalescing=coalescing)


def _object(text: bytes, field: str) -> dict[str, Any]:
    if text[:1] != b"{":
        raise InvalidRequest(field, "must be an object")
    return parse_object(text, field)


def read_headers(text: bytes) -> dict[str, str]:
    """The header fields in a JSON object. `InvalidRequest`."""
    # Each name and each value is between two quotes, so this many are of too many members: they are not parsed first.
    if text.count(b'"') - text.count(b'\\"') > 4 * MOST_HEADERS:
        raise InvalidRequest("headers", f"must have at most {MOST_HEADERS} members")
    headers = _object(text, "headers")
    _check_headers(headers)
    return headers


def _check_headers(headers: Mapping[str, Any]) -> None:
    if len(headers) > MOST_HEADERS:
        raise InvalidRequest("headers", f"must have at most {MOST_HEADERS} members")
    for name, value in headers.items():
        if not _TOKEN.match(name):
            raise InvalidRequest(f"headers.{name[:64]}", "is not a header name")
        if not isinstance(value, str):
            raise InvalidRequest(f"headers.{name}", "must be a string")
        if not _FIELD_VALUE.match(value):
            raise InvalidRequest(f"headers.{name}", "must be at most 8192 characters without line breaks or controls")


def _priority(value: Any) -> Priority:
    priority = _PRIORITIES.get(value) if isinstance(value, str) else None
    if priority is None:
        raise InvalidRequest("metadata.priority", "must be low, normal or high")
    return priority


def _seconds(field: str, value: Any, most: float, *, above_zero: bool) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidRequest(field, "must be a number of seconds")
    if value < 0 or value > most or (above_zero and value == 0):
        raise InvalidRequest(field, f"must be {'above' if above_zero else 'at least'} 0 and at most {most:.0f} seconds")
    return float(value)


def _moment(value: Any, now: float) -> float:
    field = "metadata.not_before"
    try:
        moment = parse_rfc3339(value if isinstance(value, str) else "")
    except ValueError as error:
        raise InvalidRequest(field, str(error)) from None
    if moment > now + LONGEST_DELAY:
        raise InvalidRequest(field, f"must be at most {LONGEST_DELAY:.0f} seconds ahead")
    return moment


def _string(field: str, value: Any) -> None:
    if not isinstance(value, str):
        raise InvalidRequest(field, "must be a string")


def _method(value: Any) -> None:
    if value not in METHODS:
        raise InvalidRequest("metadata.method", f"must be one of {', '.join(METHODS)}")


def _path(value: Any) -> None:
    """A path below that of the endpoint, which cannot lead out of it."""
    if not isinstance(value, str) or _PATH.match(value) is None:
        raise InvalidRequest("metadata.path", "must begin with a slash and be ASCII, percent-encoded where needed")
    plain = value.lower().replace("%2e", ".").replace("%2f", "/").replace("%5c", "/").replace("%3b", ";")
    # Some servers cut off a segment at its semicolon before they resolve the dots.
    if any(segment.partition(";")[0] in (".", "..") for segment in plain.split("/")):
        raise InvalidRequest("metadata.path", "must not have . or .. as a segment")


def _query(value: Any) -> None:
    try:
        text = query_text(value)
    except ValueError as error:
        raise InvalidRequest("metadata.query", str(error)) from None
    if _QUERY.match(text) is None:
        raise InvalidRequest(
            "metadata.query", "must be ASCII, percent-encoded where needed, and at most 8192 characters"
        )


_TARGET_FIELDS: Mapping[str, Callable[[Any], None]] = {"method": _method, "path": _path, "query": _query}


def _tags(value: Any) -> None:
    if not isinstance(value, list) or len(value) > MOST_TAGS:
        raise InvalidRequest("metadata.tags", f"must be a list of at most {MOST_TAGS} strings")
    for tag in value:
        if not is_tag(tag):
            raise InvalidRequest("metadata.tags", f"must be strings of 1 to {MOST_TAG_CHARACTERS} characters")
