# -*- test-case-name: tests.policy.test_foreign -*-
"""Messages that other programs put into a broker: their bytes and fields as a submission, and a reply as fields."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from openhqm.errors import MalformedJSON, UnreadableMessage
from openhqm.messages import Reply, Submission
from openhqm.policy.field_text import readable
from openhqm.policy.json_text import MAX_DEPTH, json_value

RAW = "raw"
FORMATS = ("auto", "envelope", "json", RAW)
CONTENT = (b"payload", b"body", b"data")
REPLY_TO = "reply_to"
MESSAGE_ID = "message_id"
"""The metadata of a request that a message became: the id of that message, which a reply quotes."""
MOST_HEADERS = 100
# Fields of a reply message that the gateway sets. A header of the reply must not replace one of them.
OWN_FIELDS = frozenset(("correlation_id", "in_reply_to", "status", "status_code", "payload", "error", REPLY_TO))
_VERSIONED = msgspec.json.Decoder(dict[str, msgspec.Raw])
_VERSION = re.compile(rb"-?[0-9]+")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\U0010ffff]{0,8192}")
Fields = Iterable[tuple[bytes, bytes]]


def take_apart(entry: Fields) -> tuple[bytes | None, str | None, dict[bytes, bytes]]:
    """Split a message into its content (or None), the address for its reply (or None), and its other fields.

    The content is the field ``payload``, ``body`` or ``data``, or the only field beside ``reply_to``. Raises
    `UnreadableMessage` where a field is repeated.
    """
    entry = list(entry)
    if len(entry) == 1 and entry[0][0] != REPLY_TO.encode():
        return entry[0][1], None, {}
    fields: dict[bytes, bytes] = {}
    seen: set[bytes] = set()
    for name, value in entry:
        if name.lower() in seen:
            raise UnreadableMessage(f"the field {_shown(name)} is repeated")
        seen.add(name.lower())
        fields[name] = value
    to = fields.pop(REPLY_TO.encode(), b"")
    named = [each for each in CONTENT if each in fields] or (list(fields) if len(fields) == 1 else [])
    content = fields.pop(named[0]) if named else None
    return content, to.decode("utf-8", "replace") or None, fields


def is_envelope(content: bytes) -> bool:
    """Whether the content is a message of OpenHQM's own wire format, as its version field says."""
    if not may_name(content, b"openhqm"):
        return False
    try:
        if content.lstrip()[:1] != b"{":
            return False
        version = _VERSIONED.decode(content).get("openhqm")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return version is not None and _VERSION.fullmatch(bytes(version)) is not None


def may_name(content: bytes, name: bytes) -> bool:
    """Whether an object of JSON may have a member ``name``, in ASCII letters: else it need not be read for that."""
    return name in content or b"\\" in content


def read_foreign(content: bytes, fields: Mapping[bytes, bytes], format: str) -> Submission:
    """The submission for a message of another program, with its ``fields`` as headers; see `read_content`."""
    headers = read_headers(fields)
    payload, body = read_content(content, format)
    return Submission(payload, headers, body=body)


def read_content(content: bytes, format: str) -> tuple[bytes, bytes | None]:
    """The payload and the body of a message of another program. ``format`` is json, raw or auto.

    Content that is JSON, by the rules for HTTP submissions, becomes the payload byte for byte. Any other content
    becomes the body, or raises `UnreadableMessage` where the format is json.
    """
    if format != "raw":
        try:
            return json_value(content, MAX_DEPTH - 1), None  # it lies in a document, which is a level
        except MalformedJSON as error:
            if format == "json":
                raise UnreadableMessage(f"the message is not JSON: {error.reason}") from None
    return b"null", content


def read_headers(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    """A message's fields as headers. A field that cannot be a header is not repaired: it raises `UnreadableMessage`."""
    if len(fields) > MOST_HEADERS:
        raise UnreadableMessage(f"the message has more than {MOST_HEADERS} fields")
    headers = {}
    for name, value in fields.items():
        try:
            text = name.decode("ascii"), value.decode("utf-8")
        except UnicodeDecodeError:
            raise UnreadableMessage(f"the field {_shown(name)} cannot be a header: it is not UTF-8") from None
        if not _NAME.fullmatch(text[0]):
            raise UnreadableMessage(f"the field {_shown(name)} cannot be a header: its name is not a header name")
        if not _VALUE.fullmatch(text[1]):
            raise UnreadableMessage(
                f"the field {_shown(name)} cannot be a header: it is too long, or has a control character"
            )
        headers[text[0]] = text[1]
    return headers


def reply_fields(reply: Reply) -> list[str | bytes]:
    """A reply as the fields of a message, names and values in turn: the gateway's own fields, then the
    reply's headers.
    """
    fields: list[str | bytes] = ["correlation_id", reply.correlation_id, "status", reply.status.value]
    fields += ["status_code", str(reply.status_code)]
    fields += ["payload", reply.body if reply.body is not None else reply.result or b""]
    if reply.error is not None:
        fields += ["error", reply.error]
    for name, value in reply.headers.items():
        if name.lower() not in OWN_FIELDS:
            fields += [name, readable(value)]
    return fields


def _shown(name: bytes) -> str:
    return repr(name[:64])[1:]
