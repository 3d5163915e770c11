"""What librdkafka says, in our words, and which outcome of a publish it is."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import NotDurable
from openhqm.interfaces.broker import ChannelMissing
from openhqm.kafka.errors import describe, name_of, outcome


class ErrorsTests(SynchronousTestCase):
    """`describe`, `outcome`"""

    def test_described(self) -> None:
        """Usual errors are plain text; of a connection that failed the reason stays, without librdkafka's own names."""
        refused = "127.0.0.1:9092/bootstrap: Connect to ipv4#127.0.0.1:9092 failed: Connection refused"
        refused += " (after 0ms in state CONNECT)"
        for error, text in (
            (KafkaError(KafkaError._TIMED_OUT), "it does not answer"),
            (KafkaException(KafkaError(KafkaError._TIMED_OUT)), "it does not answer"),
            (KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), "larger than the topic takes"),
            (KafkaError(KafkaError._TRANSPORT, refused), "Connection refused"),
            (NotDurable("a reason"), "a reason"),
            (ValueError("x"), "ValueError: x"),
        ):
            self.assertIn(text, describe(error))
        self.assertNotIn("after 0ms", describe(KafkaError(KafkaError._TRANSPORT, refused)))

    def test_outcomes(self) -> None:
        """A missing topic is told as such; what may be in the topic nevertheless says so."""
        self.assertIsNone(outcome(None, "orders"))
        for code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
            self.assertIsInstance(outcome(KafkaError(code), "orders"), ChannelMissing)
        for code, maybe in (
            (KafkaError._MSG_TIMED_OUT, True),
            (KafkaError.MSG_SIZE_TOO_LARGE, False),
            (KafkaError._PURGE_QUEUE, False),
            (KafkaError._PURGE_INFLIGHT, True),
        ):
            found = outcome(KafkaError(code), "orders")
            assert found is not None
            self.assertEqual((type(found), found.maybe_done), (NotDurable, maybe), found.reason)

    def test_names(self) -> None:
        """The name of a code, where there is one."""
        self.assertEqual(name_of(KafkaException(KafkaError(KafkaError._TIMED_OUT))), "_TIMED_OUT")
        self.assertEqual(name_of(ValueError("x")), "")
