# -*- test-case-name: tests.policy.test_foreign -*-
"""Messages that others put into a queue: bytes and fields as a broker has them, made into a submission, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from openhqm.errors import MalformedJSON, UnreadableMessage
from openhqm.messages import Reply, Submission
from openhqm.policy.json_text import members

FORMATS = ("auto", "envelope", "json", "raw")
CONTENT = (b"payload", b"body", b"data")
REPLY_TO = "reply_to"
MOST_HEADERS = 100
LONGEST_NAME = 1024
# What a reply says for itself. A header of such a name would say something else in its place.
OWN_FIELDS = frozenset(("correlation_id", "in_reply_to", "status", "status_code", "payload", "error", REPLY_TO))
_VERSIONED = msgspec.json.Decoder(dict[str, msgspec.Raw])
_VERSION = re.compile(rb"-?[0-9]+")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\U0010ffff]{0,8192}")
Fields = Iterable[tuple[bytes, bytes]]


def take_apart(entry: Fields) -> tuple[bytes | None, str | None, dict[bytes, bytes]]:
    """The content of a message (None: it has none), where its reply is to go, and its other fields.

    The content is the field ``payload``, ``body`` or ``data``, or the only one there is beside ``reply_to``.
    `UnreadableMessage` where a field stands twice.
    """
    fields: dict[bytes, bytes] = {}
    seen: set[bytes] = set()
    for name, value in entry:
        if name.lower() in seen:
            raise UnreadableMessage(f"the field {_shown(name)} stands twice")
        seen.add(name.lower())
        fields[name] = value
    to = fields.pop(REPLY_TO.encode(), b"")
    named = [each for each in CONTENT if each in fields] or (list(fields) if len(fields) == 1 else [])
    content = fields.pop(named[0]) if named else None
    return content, to.decode("utf-8", "replace") or None, fields


def is_envelope(content: bytes) -> bool:
    """Whether this is one of our own messages, as its version field says."""
    try:
        if content.lstrip()[:1] != b"{":
            return False
        version = _VERSIONED.decode(content).get("openhqm")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return version is not None and _VERSION.fullmatch(bytes(version)) is not None


def read_foreign(content: bytes, fields: Mapping[bytes, bytes], format: str) -> Submission:
    """The submission that a foreign message stands for; ``format`` is json, raw or auto. `UnreadableMessage`.

    JSON, as strictly read as at the door, becomes the payload byte for byte; anything else is kept as the body.
    """
    headers = read_headers(fields)
    if format != "raw":
        try:
            return Submission(_json(content), headers)
        except MalformedJSON as error:
            if format == "json":
                raise UnreadableMessage(f"not JSON: {error.reason}") from None
    return Submission(b"null", headers, body=content)


def read_headers(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    """A broker's fields as headers. What no header can be is refused, never repaired: `UnreadableMessage`."""
    if len(fields) > MOST_HEADERS:
        raise UnreadableMessage(f"it has more than {MOST_HEADERS} fields")
    headers = {}
    for name, value in fields.items():
        try:
            text = name.decode("ascii"), value.decode("utf-8")
        except UnicodeDecodeError:
            raise UnreadableMessage(f"the field {_shown(name)} is no header: it is not UTF-8") from None
        if not _NAME.fullmatch(text[0]):
            raise UnreadableMessage(f"the field {_shown(name)} is no header: its name cannot be one")
        if not _VALUE.fullmatch(text[1]):
            raise UnreadableMessage(
                f"the field {_shown(name)} is no header: it is too long, or has a control character"
            )
        headers[text[0]] = text[1]
    return headers


def check_reply_to(name: str, inbox: str, prefix: str) -> None:
    """`UnreadableMessage` for a name under which no reply may be put: that of the inbox, or one of our own keys."""
    if name == inbox or name.startswith(prefix):
        raise UnreadableMessage(f"{REPLY_TO} must not name a stream that is read here")
    if len(name) > LONGEST_NAME or not name.isprintable() or "\N{REPLACEMENT CHARACTER}" in name:
        raise UnreadableMessage(f"{REPLY_TO} must be printable, and at most {LONGEST_NAME} characters")


def reply_fields(reply: Reply) -> list[str | bytes]:
    """A reply as the fields of a message, names and values in turn: what it says for itself, and then its headers."""
    fields: list[str | bytes] = ["correlation_id", reply.correlation_id, "status", reply.status.value]
    fields += ["status_code", str(reply.status_code)]
    fields += ["payload", reply.body if reply.body is not None else reply.result or b""]
    if reply.error is not None:
        fields += ["error", reply.error]
    for name, value in reply.headers.items():
        if name.lower() not in OWN_FIELDS:
            fields += [name, value]
    return fields


def _json(content: bytes) -> bytes:
    """The one JSON text in ``content``, without the white space around it. `MalformedJSON`."""
    found = members(b'{"payload":%b}' % content)
    if list(found) != ["payload"]:  # it went on with more members of what was put around it
        raise MalformedJSON("something follows its end")
    return found["payload"]


def _shown(name: bytes) -> str:
    return repr(name[:64])[1:]
