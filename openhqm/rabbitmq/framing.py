# -*- test-case-name: tests.rabbitmq.test_framing -*-
"""A publish as bytes (AMQP 0-9-1, section 4.2): the same that pika makes.

Making them by pika's general means took longer than everything else that accepting does together. From one message to
the next only its headers, size, number and body change.

The header that names the reply channel travels as AMQP's own ``reply_to``: a table of headers in each message costs
RabbitMQ a tenth of what it takes in a second.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from openhqm.interfaces.broker import REPLY_CHANNEL, Properties

MOST_QUEUES = 1000
MOST_PROPERTIES = 100
_METHOD, _HEADER, _BODY = 1, 2, 3
_BASIC, _PUBLISH = 60, 40
_END = b"\xce"
_OVERHEAD = 8  # of a frame: its type, channel and size, and the end
_LONGEST_SHORT_STRING = 255  # bytes
_MANDATORY = 1
_PERSISTENT = 2
_HAS_CONTENT_TYPE, _HAS_CORRELATION_ID, _HAS_EXPIRATION = 1 << 15, 1 << 10, 1 << 8
_HAS_HEADERS, _HAS_DELIVERY_MODE, _HAS_REPLY_TO, _HAS_MESSAGE_ID = 1 << 13, 1 << 12, 1 << 9, 1 << 7
_Properties = tuple[int, bytes]
"""The flags of all properties, and those that come before the message's id."""
_frame = struct.Struct(">BHI").pack  # type, channel, size
_method = struct.Struct(">HHH").pack  # class, method, reserved
_content = struct.Struct(">HHQH").pack  # class, weight, size of the body, which properties there are
_long = struct.Struct(">I").pack


class Framing:
    """For the AMQP channel with the number ``channel``, on a connection whose frames have at most ``largest`` bytes."""

    def __init__(self, channel: int, largest: int) -> None:
        self._channel = channel
        self._largest = largest - _OVERHEAD
        self._methods: dict[tuple[str, str], bytes] = {}
        self._known: dict[tuple[tuple[str, str], ...], _Properties] = {}

    def publish(
        self,
        queue: str,
        headers: Mapping[str, str],
        message_id: bytes,
        body: bytes,
        about: Properties | None = None,
    ) -> bytes:
        """All frames of a persistent, mandatory message to ``queue``. `ValueError` for what AMQP cannot carry.

        ``about``: it is for another program; its exchange gets it with ``queue`` as the routing key.
        """
        exchange = (about.exchange if about is not None else None) or ""
        method = self._methods.get((exchange, queue)) or self._method(exchange, queue)
        flags, properties = self._properties(headers) if about is None else _properties(dict(headers), about)
        content = _content(_BASIC, 0, len(body), flags)
        content = b"%b%b%c%b" % (content, properties, len(message_id), message_id)
        if len(content) > self._largest:
            raise ValueError(f"its headers take more than {self._largest} bytes")
        return b"%b%b%b" % (method, self._frame(_HEADER, content), self._body(body))

    def _method(self, exchange: str, queue: str) -> bytes:
        if len(self._methods) >= MOST_QUEUES:
            self._methods.clear()
        # The default exchange, which has no name, leads to the queue that is named.
        names = _short_string(exchange) + _short_string(queue)
        method = b"%b%b%c" % (_method(_BASIC, _PUBLISH, 0), names, _MANDATORY)
        frame = self._methods[exchange, queue] = self._frame(_METHOD, method)
        return frame

    def _properties(self, headers: Mapping[str, str]) -> _Properties:
        """Most messages have the same headers as the one before."""
        items = tuple(headers.items())
        properties = self._known.get(items)
        if properties is None:
            if len(self._known) >= MOST_PROPERTIES:
                self._known.clear()
            properties = self._known[items] = _properties(dict(items))
        return properties

    def _body(self, body: bytes) -> bytes:
        if len(body) <= self._largest:
            return self._frame(_BODY, body) if body else b""
        parts = (body[start : start + self._largest] for start in range(0, len(body), self._largest))
        return b"".join(self._frame(_BODY, part) for part in parts)

    def _frame(self, kind: int, payload: bytes) -> bytes:
        return b"%b%b%b" % (_frame(kind, self._channel, len(payload)), payload, _END)


def _properties(headers: dict[str, str], about: Properties | None = None) -> _Properties:
    flags, table, address = _HAS_DELIVERY_MODE | _HAS_MESSAGE_ID, b"", b""
    reply_to = headers.get(REPLY_CHANNEL) if about is None else about.reply_to
    if reply_to is not None and len(reply_to.encode()) <= _LONGEST_SHORT_STRING:
        headers.pop(REPLY_CHANNEL, None)
        flags, address = flags | _HAS_REPLY_TO, _short_string(reply_to)
    if headers:
        flags, table = flags | _HAS_HEADERS, _table(headers.items())
    content_type = correlation = expiration = b""
    if about is not None:
        if about.content_type is not None:
            flags, content_type = flags | _HAS_CONTENT_TYPE, _short_string(about.content_type)
        if about.correlation is not None:
            flags, correlation = flags | _HAS_CORRELATION_ID, _short_bytes(about.correlation)
        if about.expiry is not None:  # in milliseconds, as text
            flags, expiration = flags | _HAS_EXPIRATION, _short_string(str(1000 * about.expiry))
    # In the order of their flags, from the highest one.
    return flags, b"".join((content_type, table, b"%c" % _PERSISTENT, correlation, address, expiration))


def _table(items: Iterable[tuple[str, str]]) -> bytes:
    fields = []
    for name, value in items:
        text = value.encode()
        fields.append(b"%bS%b%b" % (_short_string(name), _long(len(text)), text))
    table = b"".join(fields)
    return _long(len(table)) + table


def _short_string(text: str) -> bytes:
    return _short_bytes(text.encode())


def _short_bytes(data: bytes) -> bytes:
    if len(data) > _LONGEST_SHORT_STRING:
        raise ValueError(f"{data[:40].decode(errors='replace')}... has more than {_LONGEST_SHORT_STRING} bytes")
    return b"%c%b" % (len(data), data)
