"""Publishes as bytes."""

from __future__ import annotations

from typing import Any
from unittest import SkipTest

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.interfaces.broker import REPLY_CHANNEL

try:
    from pika import BasicProperties
    from pika.frame import Body, Header, Method, decode_frame
    from pika.spec import Basic

    from openhqm.rabbitmq.framing import MOST_QUEUES, Framing
except ImportError as error:
    raise SkipTest(f"rabbitmq needs more than is installed: {error}") from None

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=60)
HEADERS = st.dictionaries(TEXT, st.text(st.characters(codec="utf-8"), max_size=300), max_size=4)


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

    @given(TEXT, HEADERS, st.none() | TEXT, st.integers(1, 2**63 - 1), st.binary(max_size=300))
    def test_as_pika_does(
        self, queue: str, headers: dict[str, str], reply_to: str | None, number: int, body: bytes
    ) -> None:
        """What is sent is what pika would send, whatever is published, and however many frames it takes."""
        framing = Framing(3, 100_000)
        framing_of_body = Framing(3, 108)
        properties = BasicProperties(
            delivery_mode=2, headers=headers or None, message_id=str(number), reply_to=reply_to
        )
        if reply_to is not None:
            headers = {**headers, REPLY_CHANNEL: reply_to}
        method = Method(3, Basic.Publish(exchange="", routing_key=queue, mandatory=True)).marshal()
        head = method + Header(3, len(body), properties).marshal()
        for _ in range(2):  # the second time it is made of what was kept
            sent = framing.publish(queue, headers, b"%d" % number, body)
            self.assertEqual(sent, head + (Body(3, body).marshal() if body else b""))
        head = method + Header(3, len(body), BasicProperties(delivery_mode=2, message_id="1")).marshal()
        parts = b"".join(Body(3, body[start : start + 100]).marshal() for start in range(0, len(body), 100))
        self.assertEqual(framing_of_body.publish(queue, {}, b"1", body), head + parts)

    def test_no_frame_too_long(self) -> None:
        """No frame is longer than the connection allows, and together they hold the message."""
        body = bytes(range(256)) * 40
        sent = Framing(1, 4096).publish("q", {}, b"7", body)
        method, header, *bodies = frames(sent)
        self.assertEqual((method.method.routing_key, method.method.mandatory), ("q", True))
        self.assertEqual(
            (header.properties.message_id, header.properties.delivery_mode, header.body_size), ("7", 2, 10240)
        )
        self.assertEqual(b"".join(each.fragment for each in bodies), body)
        self.assertLessEqual(max(len(each.marshal()) for each in bodies), 4096)

    def test_no_header_too_long(self) -> None:
        """Headers go into one frame: those that fill it are sent, and a byte more is refused (AMQP 0-9-1, 4.2.6.1)."""
        longest = 0
        with self.assertRaises(ValueError):
            for length in range(4000, 4100):
                sent = Framing(1, 4096).publish("q", {"n": "v" * length}, b"7", b"")
                longest = len(frames(sent)[1].marshal())
        self.assertEqual(longest, 4096)

    def test_long_reply_channel(self) -> None:
        """A reply channel that is longer than AMQP's property allows stays a header."""
        header = frames(Framing(1, 4096).publish("q", {REPLY_CHANNEL: "ä" * 128}, b"7", b""))[1]
        self.assertEqual((header.properties.reply_to, header.properties.headers), (None, {REPLY_CHANNEL: "ä" * 128}))

    def test_bounded(self) -> None:
        """What is kept for the next message does not grow without end."""
        framing = Framing(1, 4096)
        for number in range(2 * MOST_QUEUES + 1):
            framing.publish(f"q{number}", {}, b"1", b"x")
        self.assertLessEqual(len(framing._methods), MOST_QUEUES)
