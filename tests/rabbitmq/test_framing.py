"""Publishes as bytes."""

from __future__ import annotations

from typing import Any
from unittest import SkipTest

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

try:
    from pika import BasicProperties
    from pika.frame import Body, Header, Method, decode_frame
    from pika.spec import Basic

    from openhqm.rabbitmq.framing import MOST_TARGETS, Framing
except ImportError as error:
    raise SkipTest(f"rabbitmq needs more than is installed: {error}") from None

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=60)
HEADERS = st.dictionaries(st.sampled_from(("openhqm-due", "openhqm-attempts", "openhqm-wait-3")), st.integers(0, 2**50))


def frames(data: bytes) -> list[Any]:
    """Read by pika."""
    found = []
    while data:
        read, frame = decode_frame(data)
        data = data[read:]
        found.append(frame)
    return found


class FramingTests(SynchronousTestCase):
    """`Framing`"""

    @given(NAMES, NAMES, HEADERS, st.integers(1, 2**63 - 1), st.binary(max_size=300))
    def test_as_pika_does(self, exchange: str, queue: str, headers: dict[str, Any], number: int, body: bytes) -> None:
        """What is sent is what pika would send, whatever is published, and however many frames it takes."""
        framing = Framing(3, 108)
        properties = BasicProperties(
            delivery_mode=2, content_type="application/json", headers=headers, message_id=str(number)
        )
        wanted = Method(3, Basic.Publish(exchange=exchange, routing_key=queue, mandatory=True)).marshal()
        wanted += Header(3, len(body), properties).marshal()
        wanted += b"".join(Body(3, body[start : start + 100]).marshal() for start in range(0, len(body), 100))
        for _ in range(2):  # the second time it is made of what was kept
            self.assertEqual(framing.publish(exchange, queue, headers, number, body), wanted)

    def test_no_frame_too_long(self) -> None:
        """No frame is longer than the connection allows, and together they hold the message."""
        body = bytes(range(256)) * 40
        sent = Framing(1, 4096).publish("", "q", {}, 7, body)
        method, header, *bodies = frames(sent)
        self.assertEqual((method.method.routing_key, method.method.mandatory), ("q", True))
        self.assertEqual(
            (header.properties.message_id, header.properties.delivery_mode, header.body_size), ("7", 2, 10240)
        )
        self.assertEqual(b"".join(each.fragment for each in bodies), body)
        self.assertLessEqual(max(len(each.marshal()) for each in bodies), 4096)

    def test_bounded(self) -> None:
        """What is kept for the next message does not grow without end."""
        framing = Framing(1, 4096)
        for number in range(2 * MOST_TARGETS + 1):
            framing.publish("", f"q{number}", {}, 1, b"x")
        self.assertLessEqual(len(framing._methods), MOST_TARGETS)
