"""What Pub/Sub would refuse is refused here, with its name: else it would refuse the whole request."""

from __future__ import annotations

from base64 import b64encode

from twisted.trial.unittest import SynchronousTestCase

from openhqm.interfaces import Message
from openhqm.pubsub.messages import LARGEST_MESSAGE, MOST_BYTES, fault, from_received, read_pull, to_json


class FaultTests(SynchronousTestCase):
    """`fault`"""

    def test_taken(self) -> None:
        """Everything up to the limits of the service."""
        for message in (
            Message(b"1"),
            Message(b"", {"a": ""}),
            Message(b"1", {"n" * 256: "v" * 1024}, "k" * 1024),
            Message(b"1", {f"{number}": "" for number in range(100)}),
        ):
            self.assertIsNone(fault(message))

    def test_refused(self) -> None:
        """Everything beyond them, with what is wrong."""
        for message, reason in (
            (Message(bytes(LARGEST_MESSAGE + 1)), "9800000 bytes"),
            (Message(b""), "neither a body nor a header"),
            (Message(b"1", {"n" * 257: ""}), "no header called"),
            (Message(b"1", {"": "1"}), "no header called ''"),
            (Message(b"1", {"googclient": "1"}), "'googclient'"),
            (Message(b"1", {"a": "ä" * 513}), "1024 bytes, as 'a' is"),
            (Message(b"1", {f"{number}": "" for number in range(101)}), "100 headers"),
            (Message(b"1", {}, "k" * 1025), "ordering key"),
            (Message(b"1", {"a": "\ud800"}), "not Unicode"),
        ):
            self.assertIn(reason, str(fault(message)))

    def test_room(self) -> None:
        """The largest body with the largest headers is within what the service takes."""
        self.assertLess(LARGEST_MESSAGE + 100 * (256 + 1024 + 16) + 1024, MOST_BYTES)


class FormTests(SynchronousTestCase):
    """What is sent, and what is read"""

    def test_sent(self) -> None:
        """As the reference has it: base64, and no member that says nothing."""
        self.assertEqual(to_json(Message(b"\xff\x00", {}, None)), b'{"data":"/wA="}')
        text = to_json(Message(b"", {"a": "b"}, "k"))
        self.assertEqual(text, b'{"attributes":{"a":"b"},"orderingKey":"k"}')

    def test_read(self) -> None:
        """Members that are missing have their default, and those that are not known are passed over."""
        message = b'{"data":"%b","messageId":"1","publishTime":"t"}' % b64encode(b"\xff")
        answer = b'{"receivedMessages":[{"ackId":"a","message":%b,"deliveryAttempt":2,"new":1},%b]}' % (
            message,
            b'{"ackId":"b","message":{}}',
        )
        first, second = read_pull(answer).received_messages
        self.assertEqual((first.message.message_id, first.delivery_attempt), ("1", 2))
        self.assertEqual(from_received(first.message), Message(b"\xff"))
        self.assertEqual(from_received(second.message), Message(b""))
        self.assertEqual(read_pull(b"{}").received_messages, [])
