# -*- test-case-name: tests.bridges.test_reading -*-
"""The content of a foreign message as a submission, by the format of its bridge."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import msgspec
from msgspec.structs import replace

from openhqm.codec import decode_request
from openhqm.errors import MalformedJSON, UnreadableMessage
from openhqm.interfaces import Message, Properties
from openhqm.messages import Submission
from openhqm.policy.cloud_events import STRUCTURED, CloudEvent, binary, structured
from openhqm.policy.fields import to_json
from openhqm.policy.foreign import is_envelope, may_name, read_content, read_foreign, read_headers
from openhqm.policy.json_text import members

SPECIFIED = frozenset(("correlation_id", "timestamp", "payload", "metadata", "headers"))
"""The members of the specification's message (3.2.2), and ``headers``."""
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Content(msgspec.Struct, frozen=True):
    """``identity`` is what its producer says is the same in each copy of the message; None: nothing.

    ``reply_to`` is the address for the reply that the content itself has.
    """

    submission: Submission
    identity: str | None = None
    reply_to: str | None = None


ReadSubmission = Callable[[bytes, float], Submission]
"""Reads a submission as the door does: `MalformedJSON`, `InvalidRequest`."""
CheckSubmission = Callable[[Submission, float], None]


@attrs.frozen
class Formats:
    """``read`` and ``check`` are those of the door: a message is not allowed what a caller is not."""

    read: ReadSubmission
    check: CheckSubmission

    def content(self, message: Message, format: str, now: float) -> Content:
        """`UnreadableMessage`, `InvalidRequest` or `MalformedJSON`: it is not of this format."""
        about, body = message.properties or Properties(), message.body
        if format in ("auto", "cloudevents"):
            event = binary(body, message.headers, about.content_type) if message.headers else None
            if event is None and (format == "cloudevents" or _media_type(about) == STRUCTURED):
                event = structured(body)
            if event is not None:
                return self._event(event)
        headers = read_headers(_raw(message.headers)) if message.headers else {}
        if about.tombstone:
            return Content(Submission(b"null", headers))
        if format == "envelope" or (format == "auto" and (is_envelope(body) or is_specified(body))):
            return self._envelope(body, headers, now)
        if format == "text":
            try:
                return Content(Submission(to_json(body.decode()), headers))
            except UnicodeDecodeError:
                raise UnreadableMessage("the message is not UTF-8") from None
        payload, body_bytes = read_content(body, format if format in ("auto", "json") else "raw")
        if body_bytes is not None and about.content_type is not None:
            headers = {"Content-Type": about.content_type, **headers}
        return Content(Submission(payload, headers, body=body_bytes))

    def _event(self, event: CloudEvent) -> Content:
        headers = {**event.others, **event.headers}
        identity = f"{event.source} {event.id}"
        media_type = (event.content_type or "").partition(";")[0].strip().lower()
        if media_type in ("", "application/json") or media_type.endswith("+json"):
            try:
                found = read_foreign(event.data, {}, "json" if media_type else "auto")
            except UnreadableMessage as error:
                raise UnreadableMessage(f"the data of a CloudEvent: {error.reason}") from None
        else:
            found = Submission(b"null", body=event.data)
        if found.body is not None and event.content_type is not None:
            headers["Content-Type"] = event.content_type
        return Content(replace(found, headers=read_headers(_raw(headers))), identity)

    def _envelope(self, body: bytes, headers: dict[str, str], now: float) -> Content:
        if is_envelope(body):
            found = decode_request(body).submission
            self.check(found, now)
            reply_to = found.reply_to
            # An envelope does not decide in which queue it waits, or who it is from.
            found = replace(
                found,
                headers={**headers, **found.headers},
                endpoint=None,
                partition=None,
                tenant=None,
                share=None,
                reply_to=None,
                parent_reply=None,
                keeps_result=True,
                transform=None,
            )
            return Content(found, reply_to=reply_to)
        parts = members(body)
        if "payload" not in parts:
            raise UnreadableMessage("it has no payload")
        unknown = sorted(set(parts) - SPECIFIED)
        if unknown:
            raise UnreadableMessage(f"it has an unknown member {unknown[0][:64]}")
        metadata = _value(parts.get("metadata"), dict, "metadata") or {}
        for name in ("correlation_id", "timestamp"):
            value = _value(parts.get(name), str, name)
            if value is not None:
                metadata.setdefault(name, value)
        own = _value(parts.get("headers"), dict, "headers") or {}
        document = b'{"payload":%b,"headers":%b,"metadata":%b}'
        texts = (json.dumps(each).encode() for each in ({**headers, **own}, metadata))
        return Content(self.read(document % (parts["payload"], *texts), now), metadata.get("correlation_id"))


def is_specified(content: bytes) -> bool:
    """Whether the content is a message of the specification (3.2.2): an id, a payload, and nothing it does not know."""
    if not may_name(content, b"correlation_id"):
        return False
    try:
        found = _MEMBERS.decode(content) if content.lstrip()[:1] == b"{" else {}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return {"correlation_id", "payload"} <= set(found) <= SPECIFIED


def _value(text: bytes | None, kind: type[Any], name: str) -> Any:
    if text is None or text == b"null":
        return None
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.MsgspecError:
        raise UnreadableMessage(f"its {name} is no {'text' if kind is str else 'object'}") from None
    except RecursionError:
        raise MalformedJSON("it is nested too deeply") from None


def _media_type(about: Properties) -> str:
    return "" if about.content_type is None else about.content_type.partition(";")[0].strip().lower()


def _raw(headers: Mapping[str, str]) -> dict[bytes, bytes]:
    return {_bytes(name): _bytes(value) for name, value in headers.items()}


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
