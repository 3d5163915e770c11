# -*- test-case-name: tests.policy.test_cloud_events -*-
"""CloudEvents 1.0 in the messages of a broker, and their attributes as header fields.

In binary mode the attributes are headers of the message: with the prefix ``cloudEvents:`` or ``cloudEvents_`` in AMQP
(AMQP binding, section 3.1), ``ce_`` in Kafka, and without one in MQTT 5 (MQTT binding, section 3.1). In structured mode
the content is a JSON object that holds them beside the data. To an HTTP target they go as ``ce-NAME`` (HTTP binding,
section 3.1.3).
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from urllib.parse import quote

import attrs
import msgspec

from openhqm.errors import UnreadableMessage
from openhqm.policy.json_text import members

REQUIRED = ("specversion", "id", "source", "type")
PREFIXES = ("cloudEvents:", "cloudEvents_", "ce-", "ce_", "")
STRUCTURED = "application/cloudevents+json"
# All printable ASCII but the space, the double quote and the percent sign: HTTP binding, section 3.1.3.2
_SAFE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
_TEXT = msgspec.json.Decoder(str | int | bool)


@attrs.frozen
class CloudEvent:
    """An event: its ``data`` and their media type, and its attributes as header fields."""

    source: str
    id: str
    data: bytes
    content_type: str | None
    headers: dict[str, str]
    others: dict[str, str] = attrs.field(factory=dict)


def binary(content: bytes, headers: Mapping[str, str], content_type: str | None) -> CloudEvent | None:
    """The event whose attributes are in ``headers``; None: they are not those of an event.

    ``others`` are the headers that are no attributes.
    """
    for prefix in PREFIXES:
        if all(prefix + name in headers for name in REQUIRED):
            names = [name for name in headers if name.startswith(prefix)]
            attributes = {name.removeprefix(prefix): headers[name] for name in names}
            others = {} if not prefix else {name: text for name, text in headers.items() if name not in names}
            return _event(attributes, content, content_type, others)
    return None


def structured(content: bytes) -> CloudEvent:
    """The event in a JSON object. `UnreadableMessage`, `MalformedJSON`."""
    found = members(content)
    missing = [name for name in REQUIRED if name not in found]
    if missing:
        raise UnreadableMessage(f"it is no CloudEvent: {', '.join(missing)} is missing")
    attributes = {}
    for name, text in found.items():
        if name not in ("data", "data_base64"):
            try:
                value = _TEXT.decode(text)
            except msgspec.MsgspecError:
                raise UnreadableMessage(f"the attribute {name} of a CloudEvent is no text") from None
            attributes[name] = value if isinstance(value, str) else str(value).lower()
    content_type = attributes.pop("datacontenttype", "application/json")
    if "data_base64" not in found:
        return _event(attributes, found.get("data", b"null"), content_type, {})
    try:
        data = b64decode(msgspec.json.decode(found["data_base64"], type=str), validate=True)
    except ValueError:
        raise UnreadableMessage("data_base64 of a CloudEvent is not Base64") from None
    return _event(attributes, data, attributes.get("datacontenttype", content_type), {})


def _event(attributes: dict[str, str], data: bytes, content_type: str | None, others: dict[str, str]) -> CloudEvent:
    if not attributes["id"] or not attributes["source"]:
        raise UnreadableMessage("it is no CloudEvent: its id or its source is empty")
    content_type = attributes.pop("datacontenttype", None) or content_type
    headers = {f"ce-{name}": quote(text, safe=_SAFE) for name, text in attributes.items()}
    return CloudEvent(attributes["source"], attributes["id"], data, content_type, headers, others)
