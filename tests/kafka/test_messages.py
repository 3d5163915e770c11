"""What of a record of another program is taken, and how."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from openhqm.interfaces import Message, Properties
from openhqm.kafka.messages import from_record, to_record


@attrs.frozen
class Record:
    """What ``confluent_kafka.Message`` says of a record."""

    _value: bytes | None
    _key: bytes | None = None
    _headers: Any = None

    def value(self) -> bytes | None:
        return self._value

    def key(self) -> bytes | None:
        return self._key

    def headers(self) -> Any:
        return self._headers


class MessagesTests(SynchronousTestCase):
    """`to_record`, `from_record`"""

    def test_and_back(self) -> None:
        """A message comes back as it was."""
        for message in (
            Message(b""),
            Message(b"\x00\xff", {"a": "", "b": "Jos\u00e9"}, "key"),
            Message(b"1", {"": "x"}, ""),
        ):
            body, key, headers = to_record(message)
            self.assertEqual(from_record(Record(body, key, headers)), message)

    def test_properties(self) -> None:
        """What a message has besides is in headers: its type, its correlation, and where its reply goes."""
        sent = Message(b"1", {"a": "b"}, None, Properties("t", "x/y", reply_to="r", correlation=b"\xff"))
        headers = [("a", b"b"), ("content-type", b"x/y"), ("kafka_correlationId", b"\xff"), ("kafka_replyTopic", b"r")]
        self.assertEqual(to_record(sent), (b"1", None, headers))

    def test_foreign(self) -> None:
        """A tombstone has an empty body; what is no UTF-8 is replaced; of two headers with one name the last counts."""
        record = Record(None, b"\xff", [("a", b"1"), ("a", b"2"), ("b", None), ("c", b"\xfe")])
        self.assertEqual(from_record(record), Message(b"", {"a": "2", "b": "", "c": "\ufffd"}, "\ufffd"))
        self.assertEqual(from_record(Record(b"x")), Message(b"x"))
