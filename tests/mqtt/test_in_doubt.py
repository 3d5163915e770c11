"""What may be lost with a connection to an MQTT broker."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openhqm.interfaces import Message
from openhqm.mqtt.in_doubt import InDoubt


class Compared(AssertionError):
    """A message was compared with another one."""


class Incomparable(Message):
    def __eq__(self, other: object) -> bool:
        raise Compared

    __hash__ = None  # type: ignore[assignment]


class InDoubtTests(SynchronousTestCase):
    """`InDoubt`"""

    def test_what_comes_again(self) -> None:
        """What comes again is in doubt no more; the rest is told in the order in which it came."""
        messages = [Message(b"%d" % number, {"a": "b"}) for number in range(5)]
        doubt = InDoubt()
        doubt.add(messages)
        for number in (3, 0):
            self.assertTrue(doubt.remove(Message(b"%d" % number, {"a": "b"})))
        self.assertEqual(len(doubt), 3)
        self.assertEqual(doubt.clear(), [messages[1], messages[2], messages[4]])
        self.assertFalse(doubt)

    def test_alike(self) -> None:
        """Of two that are alike one comes again; another body, key or header is another message."""
        doubt = InDoubt()
        doubt.add([Message(b"1", {"a": "b"}, "key")] * 2)
        for other in (Message(b"2", {"a": "b"}, "key"), Message(b"1", {"a": "c"}, "key"), Message(b"1", {"a": "b"})):
            self.assertFalse(doubt.remove(other))
        self.assertTrue(doubt.remove(Message(b"1", {"a": "b"}, "key")))
        self.assertEqual(len(doubt), 1)
        self.assertTrue(doubt.remove(Message(b"1", {"a": "b"}, "key")))
        self.assertFalse(doubt.remove(Message(b"1", {"a": "b"}, "key")))

    def test_cost(self) -> None:
        """None is compared with the others: thousands that a broker has lost cost nothing with what comes."""
        doubt = InDoubt()
        doubt.add(Incomparable(b"%d" % number) for number in range(2000))
        for number in reversed(range(1000, 2000)):
            self.assertTrue(doubt.remove(Incomparable(b"%d" % number)))
        self.assertEqual(len(doubt), 1000)
