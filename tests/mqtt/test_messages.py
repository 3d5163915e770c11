"""A message in MQTT 5 and in MQTT 3.1.1, and what other programs publish."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.interfaces import Message
from openhqm.interfaces.broker import REPLY_CHANNEL
from openhqm.mqtt.messages import FRAME, from_own, to_payload
from openhqm.mqtt.received import Received, read_publish

HEADERS = {"name": "Zoë ☃ 漢字", "empty": "", REPLY_CHANNEL: "replies/1"}


def came(payload: bytes, properties: Any, is_5: bool) -> Received:
    """What is received where that was published."""
    packed = (b"\0" if properties is None else properties.pack()) if is_5 else b""
    return read_publish(0x32, b"\0\x01a\0\x07" + packed + payload, is_5)


class MessageTests(SynchronousTestCase):
    """There and back"""

    def test_there_and_back(self) -> None:
        """Body, headers and key are the same in either version."""
        for message in (
            Message(b"", {}),
            Message(bytes(range(256)), HEADERS, "a key"),
            Message(FRAME + b"\0\0\0\x02{}body"),
            Message(FRAME, {"a": "b"}),
            Message(b"{}", {}, "key"),
        ):
            for is_5 in (True, False):
                payload, properties = to_payload(message, is_5)
                self.assertEqual(from_own(came(payload, properties, is_5)), message)

    def test_plain_where_it_can_be(self) -> None:
        """What has a body alone is published as that: no properties, no frame."""
        for is_5 in (True, False):
            self.assertEqual(to_payload(Message(b"1"), is_5), (b"1", None))

    def test_properties(self) -> None:
        """In MQTT 5 headers are user properties, the reply channel is the response topic, and the expiry is told."""
        payload, properties = to_payload(Message(b"1", HEADERS), True, 60)
        self.assertEqual(payload, b"1")
        self.assertEqual(dict(properties.UserProperty), {"name": HEADERS["name"], "empty": ""})
        self.assertEqual((properties.ResponseTopic, properties.MessageExpiryInterval), ("replies/1", 60))

    def test_of_other_programs(self) -> None:
        """In MQTT 3.1.1 what is no frame of ours is a body, all of it: a broken frame, too."""
        for payload in (
            b"",
            b"21.5",
            FRAME,
            FRAME + b"\xff\xff\xff\xff{}",
            FRAME + b"\0\0\0\x02[]1",
            FRAME + b'\0\0\0\x07{"a":1}x',
            FRAME + b"\0\0\0\x01\xff",
        ):
            self.assertEqual(from_own(came(payload, None, False)), Message(payload))
