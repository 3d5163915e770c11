# -*- test-case-name: tests.mqtt.test_received -*-
"""A message that has come: what is in a PUBLISH packet (MQTT 5, section 3.3; 3.1.1 has no properties).

paho makes a dozen objects of each message, and ends the connection over a property that it cannot read, so that the
broker sends the same message again for ever. Here such a message says what is wrong with it, and can be put away.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

_short = struct.Struct(">H").unpack_from
CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION_DATA = 0x03, 0x08, 0x09
SUBSCRIPTION_IDENTIFIER, USER_PROPERTY = 0x0B, 0x26
_SIZES = {0x01: 1, 0x02: 4, 0x23: 2}
"""The bytes of properties that say nothing here: payload format indicator, expiry, topic alias."""


class Received(msgspec.Struct):
    """``mid`` is the packet identifier; 0: there is nothing to acknowledge. Of user properties that are repeated,
    ``headers`` has the last one. ``fault`` says what no program may send, or is None.
    """

    is_5: bool
    topic: str
    payload: bytes
    mid: int
    qos: int
    duplicate: bool
    retained: bool
    content_type: str | None
    response_topic: str | None
    correlation: bytes | None
    headers: dict[str, str]
    fault: str | None


def read_publish(first: int, packet: bytes, is_5: bool) -> Received:
    """The message in a packet: its ``first`` byte, and what is behind its length. `ValueError`: there is none in it."""
    qos, size = first >> 1 & 3, len(packet)
    if qos > 1:
        raise ValueError(f"a message has QoS {qos}, which was not asked for")
    end = 2 + _short(packet)[0] if size >= 2 else 2
    at = end + 2 if qos else end
    if at > size:
        raise ValueError("a message ends within its topic")
    mid = _short(packet, end)[0] if qos else 0
    if qos and not mid:  # it could not be acknowledged
        raise ValueError("a message with QoS 1 has no packet identifier")
    fault: str | None = None
    headers: dict[str, str] = {}
    found: dict[int, Any] = {}
    name = packet[2:end]
    try:
        topic = name.decode()
    except UnicodeDecodeError:
        topic, fault = name.decode("utf-8", "backslashreplace"), "its topic is not UTF-8"
    else:
        if "+" in topic or "#" in topic:
            fault = "its topic has a wildcard"
        elif not topic or "\0" in topic:
            fault = "its topic has a NUL" if topic else "it has no topic"
    if is_5:
        try:
            length, at = read_number(packet, at)
            at, start = min(at + length, size), at
            if length:
                headers, found = _properties(packet, start, start + length)
        except (ValueError, LookupError, struct.error) as error:
            fault = f"its properties cannot be read: {error}"
    return Received(
        is_5,
        topic,
        packet[at:],
        mid,
        qos,
        bool(first & 8),
        bool(first & 1),
        found.get(CONTENT_TYPE),
        found.get(RESPONSE_TOPIC),
        found.get(CORRELATION_DATA),
        headers,
        fault,
    )


def _properties(packet: bytes, at: int, end: int) -> tuple[dict[str, str], dict[int, Any]]:
    """User properties, and the others by their identifiers."""
    headers: dict[str, str] = {}
    found: dict[int, Any] = {}
    while at < end:
        kind, at = packet[at], at + 1
        if kind == USER_PROPERTY:
            name, at = _data(packet, at)
            value, at = _data(packet, at)
            headers[name.decode()] = value.decode()
        elif kind == SUBSCRIPTION_IDENTIFIER:
            _, at = read_number(packet, at)
        elif kind in _SIZES:
            at += _SIZES[kind]
        elif kind in found or kind not in (CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION_DATA):
            raise ValueError(f"0x{kind:02X} is {'repeated' if kind in found else 'none'}")
        else:
            data, at = _data(packet, at)
            found[kind] = data if kind == CORRELATION_DATA else data.decode()
    if at != end:
        raise ValueError("they are longer than they say")
    return headers, found


def _data(packet: bytes, at: int) -> tuple[bytes, int]:
    end = at + 2 + _short(packet, at)[0]
    return packet[at + 2 : end], end


def read_number(packet: bytes, at: int) -> tuple[int, int]:
    """A variable byte integer (section 1.5.5)."""
    value = 0
    for shift in (0, 7, 14, 21):
        byte, at = packet[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a length has more than four bytes")
