# -*- test-case-name: tests.rabbitmq.test_framing -*-
"""A publish as bytes (AMQP 0-9-1, section 4.2): the same that pika makes.

Making them by pika's general means took longer than everything else that accepting does together. From one message to
the next only its headers, size, number and body change.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

MOST_QUEUES = 1000
MOST_TABLES = 100
_METHOD, _HEADER, _BODY = 1, 2, 3
_BASIC, _PUBLISH = 60, 40
_END = b"\xce"
_OVERHEAD = 8  # of a frame: its type, channel and size, and the end
_MANDATORY = 1
_PERSISTENT = 2
_HAS_HEADERS, _HAS_DELIVERY_MODE, _HAS_MESSAGE_ID = 1 << 13, 1 << 12, 1 << 7
_frame = struct.Struct(">BHI").pack  # type, channel, size
_method = struct.Struct(">HHH").pack  # class, method, reserved
_content = struct.Struct(">HHQH").pack  # class, weight, size of the body, which properties there are
_long = struct.Struct(">I").pack


class Framing:
    """For the AMQP channel with the number ``channel``, on a connection whose frames have at most ``largest`` bytes."""

    def __init__(self, channel: int, largest: int) -> None:
        self._channel = channel
        self._largest = largest - _OVERHEAD
        self._methods: dict[str, bytes] = {}
        self._tables: dict[tuple[tuple[str, str], ...], bytes] = {}

    def publish(self, queue: str, headers: Mapping[str, str], message_id: bytes, body: bytes) -> bytes:
        """All frames of a persistent, mandatory message to ``queue``. `ValueError` for what AMQP cannot carry."""
        method = self._methods.get(queue) or self._method(queue)
        if headers:
            flags, properties = _HAS_HEADERS | _HAS_DELIVERY_MODE | _HAS_MESSAGE_ID, self._table(headers)
        else:
            flags, properties = _HAS_DELIVERY_MODE | _HAS_MESSAGE_ID, b""
        content = _content(_BASIC, 0, len(body), flags)
        content = b"%b%b%c%c%b" % (content, properties, _PERSISTENT, len(message_id), message_id)
        if len(content) > self._largest:
            raise ValueError(f"its headers take more than {self._largest} bytes")
        return b"%b%b%b" % (method, self._frame(_HEADER, content), self._body(body))

    def _method(self, queue: str) -> bytes:
        if len(self._methods) >= MOST_QUEUES:
            self._methods.clear()
        # The default exchange, which has no name, leads to the queue that is named.
        method = b"%b%b%b%c" % (_method(_BASIC, _PUBLISH, 0), _short_string(""), _short_string(queue), _MANDATORY)
        frame = self._methods[queue] = self._frame(_METHOD, method)
        return frame

    def _table(self, headers: Mapping[str, str]) -> bytes:
        """Most messages have the same headers as the one before."""
        items = tuple(headers.items())
        table = self._tables.get(items)
        if table is None:
            if len(self._tables) >= MOST_TABLES:
                self._tables.clear()
            table = self._tables[items] = _table(items)
        return table

    def _body(self, body: bytes) -> bytes:
        if len(body) <= self._largest:
            return self._frame(_BODY, body) if body else b""
        parts = (body[start : start + self._largest] for start in range(0, len(body), self._largest))
        return b"".join(self._frame(_BODY, part) for part in parts)

    def _frame(self, kind: int, payload: bytes) -> bytes:
        return b"%b%b%b" % (_frame(kind, self._channel, len(payload)), payload, _END)


def _table(items: Iterable[tuple[str, str]]) -> bytes:
    fields = []
    for name, value in items:
        text = value.encode()
        fields.append(b"%bS%b%b" % (_short_string(name), _long(len(text)), text))
    table = b"".join(fields)
    return _long(len(table)) + table


def _short_string(text: str) -> bytes:
    data = text.encode()
    if len(data) > 255:
        raise ValueError(f"{text[:40]}... has more than 255 bytes")
    return b"%c%b" % (len(data), data)
