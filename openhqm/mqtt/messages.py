# -*- test-case-name: tests.mqtt.test_messages -*-
"""A message as MQTT carries it.

MQTT 5 has user properties for headers, and a response topic for the channel of a reply. MQTT 3.1.1 has a payload and
nothing else: a message with headers or a key is framed there (`FRAME`, the length of the headers in four bytes, the
headers as JSON, the body). What another program has published is no frame, and all of it is the body.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from openhqm.interfaces.broker import REPLY_CHANNEL, Message, Properties
from openhqm.mqtt.received import Received

KEY = "openhqm-key"
"""The user property, or header of a frame, in which the key of a message travels: MQTT has none."""
FRAME = b"\x00openhqm1"
_length = struct.Struct(">I")


def to_payload(message: Message, is_5: bool, expiry: int | None = None) -> tuple[bytes, Any]:
    """Payload, and properties or None. ``expiry``: after how many seconds the broker drops it (MQTT 5)."""
    headers = dict(message.headers)
    if message.properties is not None:  # for another program
        return message.body, _foreign_properties(headers, message.properties) if is_5 else None
    if message.key is not None:
        headers[KEY] = message.key
    if is_5:
        return message.body, _properties(headers, expiry)
    if not headers and not message.body.startswith(FRAME):
        return message.body, None
    data = json.dumps(headers).encode()
    return b"%b%b%b%b" % (FRAME, _length.pack(len(data)), data, message.body), None


def _properties(headers: dict[str, str], expiry: int | None) -> Any:
    if not headers and expiry is None:
        return None
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties = Properties(PacketTypes.PUBLISH)
    reply_channel = headers.pop(REPLY_CHANNEL, None)
    if reply_channel is not None:
        properties.ResponseTopic = reply_channel
    if headers:
        properties.UserProperty = list(headers.items())
    if expiry is not None:
        properties.MessageExpiryInterval = expiry
    return properties


def _foreign_properties(headers: dict[str, str], about: Properties) -> Any:
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties as PahoProperties

    properties = PahoProperties(PacketTypes.PUBLISH)
    if about.content_type is not None:
        properties.ContentType = about.content_type
    if about.reply_to is not None:
        properties.ResponseTopic = about.reply_to
    if about.correlation is not None:
        properties.CorrelationData = about.correlation
    if about.expiry is not None:
        properties.MessageExpiryInterval = about.expiry
    if headers:
        properties.UserProperty = list(headers.items())
    return properties


def from_foreign(came: Received, identity: str | None, duplicate: bool) -> Message:
    """The message of another program."""
    about = Properties(
        topic=came.topic,
        content_type=came.content_type,
        identity=identity,
        duplicate=duplicate,
        reply_to=came.response_topic,
        correlation=came.correlation,
        retained=came.retained,
        qos=came.qos,
        fault=came.fault,
    )
    return Message(came.payload, came.headers, None, about)


def from_own(came: Received) -> Message:
    """The message that a process of OpenHQM has published."""
    if not came.is_5:
        return _from_frame(came.payload)
    headers = came.headers
    if came.response_topic is not None:
        headers[REPLY_CHANNEL] = came.response_topic
    return Message(came.payload, headers, headers.pop(KEY, None))


def _from_frame(payload: bytes) -> Message:
    start = len(FRAME) + _length.size
    if payload.startswith(FRAME) and len(payload) >= start:
        end = start + _length.unpack_from(payload, len(FRAME))[0]
        try:
            headers = json.loads(payload[start:end]) if end <= len(payload) else None
        except ValueError:
            headers = None
        if isinstance(headers, dict) and all(isinstance(value, str) for value in headers.values()):
            return Message(payload[end:], headers, headers.pop(KEY, None))
    return Message(payload)
