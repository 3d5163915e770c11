"""What is in a PUBLISH packet, also in those that no broker should send."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from twisted.trial.unittest import SynchronousTestCase

from openhqm.mqtt.received import Received, read_publish

QOS_0, QOS_1, QOS_2 = 0x30, 0x32, 0x34
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=300)


def read(properties: bytes, payload: bytes = b"body") -> Received:
    """A message of MQTT 5 with these properties, which begin with their length."""
    return read_publish(QOS_1, b"\0\x03a/b\x01\x02" + properties + payload, True)


class ReceivedTests(SynchronousTestCase):
    """`read_publish`"""

    def test_plain(self) -> None:
        """Topic, payload, identifier and flags are read, in either version, with and without QoS."""
        for is_5, properties in ((True, b"\0"), (False, b"")):
            found = read_publish(QOS_1 | 9, b"\0\x03a/b\x01\x02" + properties + b"\xff", is_5)
            self.assertEqual((found.topic, found.payload, found.mid, found.qos), ("a/b", b"\xff", 258, 1))
            self.assertEqual((found.duplicate, found.retained, found.fault), (True, True, None))
            found = read_publish(QOS_0, b"\0\x01a" + properties, is_5)
            self.assertEqual((found.topic, found.payload, found.mid, found.qos), ("a", b"", 0, 0))
            self.assertEqual((found.duplicate, found.retained, found.fault), (False, False, None))

    @given(
        TEXTS, TEXTS, st.binary(max_size=300), st.lists(st.tuples(TEXTS, TEXTS), max_size=5), st.booleans(), st.binary()
    )
    def test_properties(
        self,
        content_type: str,
        response_topic: str,
        correlation: bytes,
        pairs: list[tuple[str, str]],
        others: bool,
        payload: bytes,
    ) -> None:
        """What paho packs is read: of a user property that is repeated, the last counts."""
        made = Properties(PacketTypes.PUBLISH)
        made.ContentType, made.ResponseTopic, made.CorrelationData = content_type, response_topic, correlation
        if pairs:
            made.UserProperty = pairs
        if others:
            made.PayloadFormatIndicator, made.MessageExpiryInterval, made.TopicAlias = 1, 4_000_000_000, 7
            made.SubscriptionIdentifier = 200_000_000
        found = read(made.pack(), payload)
        self.assertEqual((found.content_type, found.response_topic), (content_type, response_topic))
        self.assertEqual((found.correlation, found.headers), (correlation, dict(pairs)))
        self.assertEqual((found.payload, found.fault), (payload, None))

    def test_topics_that_are_none(self) -> None:
        """A topic that is not UTF-8, has a wildcard or a NUL, or is empty is a fault of the message, which is read."""
        for topic, read_as, fault in (
            (b"a/\xff", "a/\\xff", "its topic is not UTF-8"),
            (b"\xed\xa0\x80", "\\xed\\xa0\\x80", "its topic is not UTF-8"),
            (b"a/+", "a/+", "its topic has a wildcard"),
            (b"#", "#", "its topic has a wildcard"),
            (b"a\0", "a\0", "its topic has a NUL"),
            (b"", "", "it has no topic"),
        ):
            found = read_publish(QOS_1, b"\0%c%b\0\x07\0body" % (len(topic), topic), True)
            self.assertEqual((found.topic, found.fault), (read_as, fault))
            self.assertEqual((found.payload, found.mid), (b"body", 7))

    def test_properties_that_are_none(self) -> None:
        """A fault of the message, of which payload and identifier are read where they can be told."""
        for properties, payload in (
            (b"\x07\x26\0\x01\xff\0\x01b", b"body"),  # a name that is not UTF-8
            (b"\x02\x03\0", b"body"),  # a length that is cut
            (b"\x03\x03\0\x05", b"body"),  # a text that is longer than all
            (b"\x02\x7f\0", b"body"),  # an identifier that nobody knows
            (b"\x06\x03\0\0\x03\0\0", b"body"),  # one that is repeated
            (b"\x02\x0b\xff", b"body"),  # a number that is cut
            (b"\x05\x0b\xff\xff\xff\xff", b"body"),
            (b"\x7f", b""),  # they are longer than the packet
            (b"\xff\xff\xff\xff", b"\xff\xff\xff\xffbody"),  # no length at all
        ):
            found = read(properties)
            self.assertEqual((found.topic, found.payload, found.mid), ("a/b", payload, 258))
            self.assertIn("its properties cannot be read", found.fault or "", properties)

    def test_no_message(self) -> None:
        """A packet is no message whose topic or identifier is cut or none, or whose QoS was not asked for."""
        for first, packet in (
            (QOS_1, b""),
            (QOS_1, b"\0"),
            (QOS_1, b"\0\x05a"),
            (QOS_1, b"\0\x01a\0"),
            (QOS_0, b"\0\x02a"),
            (QOS_1, b"\0\x01a\0\0\0"),
            (QOS_2, b"\0\x01a\0\x07\0"),
            (QOS_2 | QOS_1, b"\0\x01a\0\x07\0"),
        ):
            self.assertRaises(ValueError, read_publish, first, packet, True)

    @given(st.binary(max_size=60), st.booleans(), st.integers(0x30, 0x3F))
    def test_anything(self, packet: bytes, is_5: bool, first: int) -> None:
        """Whatever comes is a message or is refused."""
        try:
            found = read_publish(first, packet, is_5)
        except ValueError:
            return
        found.topic.encode()
        self.assertTrue(packet.endswith(found.payload))
