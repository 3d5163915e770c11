# -*- test-case-name: tests.sqs.test_messages -*-
"""A message as SQS carries it: text, and up to ten attributes.

A body is text of the characters that XML allows, and not empty. Any other body is in base64, and an attribute says so.
The headers and the key of a message of our own stand in one attribute, in JSON. To another program each header is an
attribute. https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from binascii import Error
from collections.abc import Mapping
from typing import Any

from openhqm.interfaces import Message, Properties
from openhqm.interfaces.broker import REPLY_CHANNEL

MOST_BYTES = 1024 * 1024
"""Of a message with its attributes, and of a batch."""
OURS_BYTES = 16 * 1024
"""Room for the headers and the key of a message of our own."""
LARGEST_BODY = (MOST_BYTES - OURS_BYTES) * 3 // 4
"""Bytes of a body that fits whatever is in it: base64 makes four of three."""
MOST_ATTRIBUTES = 10
OURS = "openhqm"
ENCODING = "openhqm-encoding"
GROUP, DEDUPLICATION = "MessageGroupId", "MessageDeduplicationId"
CONTENT_TYPE, CORRELATION, REPLY_TO = "content-type", "correlation-id", "reply-to"
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ATTRIBUTE = re.compile(r"(?!(?:aws|amazon)\.)(?!.*\.\.)[A-Za-z0-9_-](?:[A-Za-z0-9_.-]{0,254}[A-Za-z0-9_-])?\Z", re.I)


class Unsendable(ValueError):
    """SQS takes no such message."""


def to_entry(message: Message) -> tuple[dict[str, Any], int]:
    """The message as an entry of a batch, without its ``Id``, and how many bytes SQS counts. `Unsendable`."""
    text = _text(message.body)
    attributes: dict[str, Any] = {}
    entry: dict[str, Any] = {"MessageBody": text, "MessageAttributes": attributes}
    if text is None:
        entry["MessageBody"] = text = b64encode(message.body).decode() or "="
        attributes[ENCODING] = _string("base64")
    if message.properties is None:
        _add_ours(message, attributes)
    else:
        _add_foreign(message, message.properties, entry)
    size = len(text.encode()) + sum(_size(name, each) for name, each in attributes.items())
    if size > MOST_BYTES:
        raise Unsendable(f"SQS takes {MOST_BYTES} bytes with all attributes, and the message has {size}")
    if message.properties is None and len(message.body) > LARGEST_BODY:
        raise Unsendable(f"the body has {len(message.body)} bytes, and {LARGEST_BODY} fit whatever is in it")
    return entry, size


def from_sqs(found: Mapping[str, Any]) -> Message:
    """The message in an answer to ``ReceiveMessage``. What is not ours has its attributes as headers."""
    attributes: dict[str, Any] = found.get("MessageAttributes") or {}
    body = _body(found.get("Body") or "", attributes)
    ours = attributes.get(OURS)
    if ours is not None:
        try:
            text = ours.get("StringValue") or ""
            said = json.loads(text)
            headers, key = said.get("headers", {}), said.get("key")
            if isinstance(headers, dict) and all(isinstance(each, str) for each in headers.values()):
                if "\\u" in text:
                    json.dumps(said, ensure_ascii=False).encode()  # `ValueError` where it is not Unicode
                return Message(body, headers, key if isinstance(key, str) else None)
        except (ValueError, AttributeError, RecursionError):
            pass  # an attribute of another program with our name: a header as any other
    headers = {name: _value(each) for name, each in attributes.items() if name != ENCODING}
    return Message(body, headers, (found.get("Attributes") or {}).get(GROUP))


def foreign_message(found: Message, queue: str, id: str | None, redelivered: bool) -> Message:
    """The message of another program, with what its attributes say of it. The group of a FIFO queue is its key."""
    headers = {name: value for name, value in found.headers.items() if name != REPLY_CHANNEL}
    by_name = {name.lower().replace("_", "-").replace(".", "-"): name for name in headers}

    def take(*names: str) -> str | None:
        for name in names:
            if name in by_name:
                return headers.pop(by_name[name])
        return None

    correlation = take(CORRELATION, "correlationid")
    about = Properties(
        topic=queue,
        content_type=take(CONTENT_TYPE, "contenttype"),
        message_id=id,
        duplicate=True if redelivered else None,
        reply_to=take(REPLY_TO, "replyto") or found.headers.get(REPLY_CHANNEL),
        correlation=None if correlation is None else correlation.encode(),
    )
    return Message(found.body, headers, found.key, about)


def _add_ours(message: Message, attributes: dict[str, Any]) -> None:
    said: dict[str, Any] = {}
    if message.headers:
        said["headers"] = dict(message.headers)
    if message.key is not None:
        said["key"] = message.key
    attributes[OURS] = _string(json.dumps(said, separators=(",", ":")))


def _add_foreign(message: Message, about: Properties, entry: dict[str, Any]) -> None:
    attributes = entry["MessageAttributes"]
    headers = dict(message.headers)
    for name in (GROUP, DEDUPLICATION):
        if (value := _pop(headers, name)) is not None:
            entry[name] = value
    if message.key is not None:
        entry.setdefault(GROUP, message.key)
    if about.correlation is not None:
        headers[CORRELATION] = about.correlation.decode(errors="replace")
    for name, value in ((CONTENT_TYPE, about.content_type), (REPLY_TO, about.reply_to)):
        if value is not None:
            headers[name] = value
    for name, value in headers.items():
        if not _ATTRIBUTE.match(name):
            raise Unsendable(f"SQS takes no attribute with the name {name[:64]!r}")
        if value == "" or _FORBIDDEN.search(value):
            raise Unsendable(f"the attribute {name[:64]} is empty, or has a character that SQS refuses")
        attributes[name] = _string(value)
    if len(attributes) > MOST_ATTRIBUTES:
        raise Unsendable(f"SQS takes {MOST_ATTRIBUTES} attributes, and the message has {len(attributes)} headers")


def _pop(headers: dict[str, str], name: str) -> str | None:
    found = next((each for each in headers if each.lower() == name.lower()), None)
    return None if found is None else headers.pop(found)


def _text(body: bytes) -> str | None:
    """The body as SQS takes it, or None."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    return None if not text or _FORBIDDEN.search(text) else text


def _body(text: str, attributes: Mapping[str, Any]) -> bytes:
    if (attributes.get(ENCODING) or {}).get("StringValue") == "base64":
        try:
            return b"" if text == "=" else b64decode(text, validate=True)
        except (Error, ValueError):
            pass  # another program says so, and it is not
    return text.encode()


def _string(value: str) -> dict[str, str]:
    return {"DataType": "String", "StringValue": value}


def _value(attribute: Mapping[str, Any]) -> str:
    """A header is text: of an attribute of bytes, base64."""
    binary = attribute.get("BinaryValue")
    return b64encode(binary).decode() if binary is not None else attribute.get("StringValue") or ""


def _size(name: str, attribute: Mapping[str, str]) -> int:
    return len(name.encode()) + len(attribute["DataType"]) + len(attribute["StringValue"].encode())
