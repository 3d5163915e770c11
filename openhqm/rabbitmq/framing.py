# -*- test-case-name: tests.rabbitmq.test_framing -*-
"""A publish as bytes (AMQP 0-9-1, section 4.2): those that pika makes, out of parts that are mostly the same again.

Of one message to the next only the size, the number and the body change. Making all of it anew took pika longer than
everything else that accepting does together.
"""

from __future__ import annotations

import struct
from typing import Any

from pika import BasicProperties
from pika.frame import Method
from pika.spec import FRAME_BODY, FRAME_END, FRAME_END_SIZE, FRAME_HEADER, FRAME_HEADER_SIZE, Basic

MOST_TARGETS = 1000
_END = bytes((FRAME_END,))
_FRAME = struct.Struct(">BHI").pack  # type, channel, size
_HEADER = struct.Struct(">BHIHxxQ").pack  # and the class, and the size of the body
_CLASS_AND_SIZE = 12


class Framing:
    """For one channel of a connection whose frames have at most ``largest`` bytes."""

    def __init__(self, channel: int, largest: int) -> None:
        self._channel = channel
        self._most_in_one = largest - FRAME_HEADER_SIZE - FRAME_END_SIZE
        self._methods: dict[tuple[str, str], bytes] = {}
        self._plain = _properties({})

    def publish(self, exchange: str, queue: str, headers: dict[str, Any], number: int, body: bytes) -> bytes:
        """All frames of a persistent, mandatory message whose id is ``number``."""
        method = self._methods.get((exchange, queue)) or self._method(exchange, queue)
        properties = _properties(headers) if headers else self._plain
        id = b"%d" % number
        size = _CLASS_AND_SIZE + len(properties) + 1 + len(id)
        header = _HEADER(FRAME_HEADER, self._channel, size, Basic.INDEX, len(body))
        return b"%b%b%b%c%b%b%b" % (method, header, properties, len(id), id, _END, self._body(body))

    def _method(self, exchange: str, queue: str) -> bytes:
        if len(self._methods) >= MOST_TARGETS:
            self._methods.clear()
        publish = Basic.Publish(exchange=exchange, routing_key=queue, mandatory=True)
        method: bytes = Method(self._channel, publish).marshal()
        self._methods[exchange, queue] = method
        return method

    def _body(self, body: bytes) -> bytes:
        if len(body) <= self._most_in_one:
            return b"%b%b%b" % (_FRAME(FRAME_BODY, self._channel, len(body)), body, _END) if body else b""
        chunks = (body[start : start + self._most_in_one] for start in range(0, len(body), self._most_in_one))
        return b"".join(self._body(chunk) for chunk in chunks)


def _properties(headers: dict[str, Any]) -> bytes:
    """As far as the message's id, which is the last of them."""
    found = BasicProperties(delivery_mode=2, content_type="application/json", headers=headers, message_id="")
    return b"".join(found.encode())[:-1]
