"""What of a message SQS carries as it is, what is in base64, and what is read of another program's message."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.interfaces import Message, Properties
from openhqm.sqs.messages import LARGEST_BODY, MOST_BYTES, Unsendable, foreign_message, from_sqs, to_entry


def received(entry: dict[str, Any]) -> dict[str, Any]:
    """What ``ReceiveMessage`` answers of an entry that was sent."""
    return {"Body": entry["MessageBody"], "MessageAttributes": entry["MessageAttributes"], "Attributes": {}}


class MessagesTests(SynchronousTestCase):
    """`to_entry`, `from_sqs`"""

    def test_and_back(self) -> None:
        """A message comes back as it was, whatever bytes it has: SQS takes no control characters and no empty body."""
        for message in (
            Message(b""),
            Message(b"="),
            Message(bytes(range(256)), {"a": "", "b": "Zo\u00eb \x01"}, "key"),
            Message("\ufffe".encode()),
            Message(b'{"a": 1}\r\n\t', {"": "x"}, ""),
            Message("\U0001f986".encode(), {}, None),
        ):
            entry, _ = to_entry(message)
            self.assertNotRegex(entry["MessageBody"], "[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
            self.assertTrue(entry["MessageBody"])
            self.assertEqual(from_sqs(received(entry)), message)

    def test_text_is_text(self) -> None:
        """Text stays as it is: another program can read it."""
        entry, _ = to_entry(Message(b'{"a": "\xc3\xa4"}'))
        self.assertEqual(entry["MessageBody"], '{"a": "\u00e4"}')

    def test_keyless(self) -> None:
        """A message of ours without a key has none, also where SQS had to have a group for it."""
        entry, _ = to_entry(Message(b"1"))
        found = {**received(entry), "Attributes": {"MessageGroupId": "g"}}
        self.assertEqual(from_sqs(found), Message(b"1"))

    def test_sizes(self) -> None:
        """Every body up to the largest one fits, whatever is in it; beyond it is refused, and so is a megabyte."""
        for byte in (b"x", b"\x00"):
            _, size = to_entry(Message(byte * LARGEST_BODY, {"a": "b" * 1000}, "k" * 1000))
            self.assertLessEqual(size, MOST_BYTES)
            self.assertRaises(Unsendable, to_entry, Message(byte * (LARGEST_BODY + 1)))
        to_entry(Message(b"x" * MOST_BYTES, properties=Properties()))
        self.assertRaises(Unsendable, to_entry, Message(b"x" * (MOST_BYTES + 1), properties=Properties()))

    def test_of_other_programs(self) -> None:
        """Attributes are headers, of bytes in base64; the group of a FIFO queue is the key; no body is an empty one."""
        attributes = {
            "a": {"DataType": "String", "StringValue": "1"},
            "n": {"DataType": "Number.int", "StringValue": "2"},
            "b": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
        }
        found = {"Body": "text", "MessageAttributes": attributes, "Attributes": {"MessageGroupId": "g"}}
        self.assertEqual(from_sqs(found), Message(b"text", {"a": "1", "n": "2", "b": "AP8="}, "g"))
        self.assertEqual(from_sqs({}), Message(b""))

    def test_looks_like_ours(self) -> None:
        """Attributes with our names and other content are headers as any other, and the body stays as it is."""
        for text in ("", "x", "[]", '{"headers": 1}', '{"headers": {"a": 1}}', '{"key": "\\ud800"}', "[" * 100_000):
            found = {"Body": "1", "MessageAttributes": {"openhqm": {"DataType": "String", "StringValue": text}}}
            self.assertEqual(from_sqs(found), Message(b"1", {"openhqm": text}), text[:10])
        lie = {"openhqm-encoding": {"DataType": "String", "StringValue": "base64"}}
        self.assertEqual(from_sqs({"Body": "no base64!", "MessageAttributes": lie}).body, b"no base64!")

    def test_read_by_a_bridge(self) -> None:
        """Where the answer goes and with what, its type and its id are read, by several spellings of their names."""
        message = Message(b"1", {"ReplyTo": "answers", "correlation_id": "c", "Content-Type": "text/plain", "x": "y"})
        about = Properties("orders", "text/plain", "id", None, True, "answers", b"c")
        self.assertEqual(foreign_message(message, "orders", "id", True), Message(b"1", {"x": "y"}, None, about))

    def test_written_for_another_program(self) -> None:
        """Each header is an attribute, with the type, where to answer and the correlation. The key is the group."""
        about = Properties(content_type="text/plain", reply_to="answers", correlation=b"c")
        entry, _ = to_entry(Message(b"1", {"x": "y"}, "k", about))
        values = {name: each["StringValue"] for name, each in entry["MessageAttributes"].items()}
        expected = {"x": "y", "content-type": "text/plain", "reply-to": "answers", "correlation-id": "c"}
        self.assertEqual((values, entry["MessageGroupId"]), (expected, "k"))

    def test_unsendable(self) -> None:
        """More than ten attributes, a name or a value that SQS refuses, are refused before they are sent."""
        for headers in (
            {f"h{number}": "1" for number in range(11)},
            {"a b": "1"},
            {"aws.x": "1"},
            {".x": "1"},
            {"x": ""},
            {"x": "\x01"},
        ):
            self.assertRaises(Unsendable, to_entry, Message(b"1", headers, properties=Properties()))
