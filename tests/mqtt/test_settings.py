"""What an operator can say about MQTT, and what is refused with its key."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openhqm.interfaces import Acks, BrokerTraits, DepthKind
from openhqm.mqtt.address import Address, TLSFiles, topic_fault
from openhqm.mqtt.broker import MQTTBroker
from openhqm.mqtt.settings import MQTTSettings
from tests.config.test_config import ConfigCase

SAID = """
queue:
  type: mqtt
  connection:
    mqtt: {host: plant, port: 8883, client_id: line1, username: gateway, password: secret, qos: 1, protocol: 4,
           transport: websockets, path: /ws, keepalive_seconds: 20, tls: {ca: ca.pem, cert: cert.pem, key: key.pem}}
"""


class SettingsTests(ConfigCase):
    """``queue.connection.mqtt``"""

    def test_defaults(self) -> None:
        """Without a word it is the local broker, plain, MQTT 5; the short form names another host."""
        for text, host in (("", "localhost"), (", mqtt_host: plant", "plant")):
            ours = self.load(f"queue: {{type: mqtt{text}}}").queue.of(MQTTSettings)
            self.assertEqual(ours.address, Address(host))
            self.assertEqual((ours.client_id, ours.prefix, ours.keeps), ("openhqm", "openhqm/", 1000))

    def test_everything(self) -> None:
        """Every key is where it belongs, and the password is in no text."""
        settings = self.load(SAID)
        files = TLSFiles("ca.pem", "cert.pem", "key.pem")
        address = Address("plant", 8883, "gateway", "secret", 4, "/ws", files, 20)
        self.assertEqual(settings.queue.of(MQTTSettings).address, address)
        self.assertEqual(str(address), "wss://plant:8883/ws")
        for text in (repr(settings), repr(address), str(address)):
            self.assertNotIn("secret", text)

    def test_tls(self) -> None:
        """TLS is used where it is switched on, or a file is named."""
        for text, expected in (
            ("{}", None),
            ("{enabled: true}", TLSFiles()),
            ("{ca: a.pem}", TLSFiles("a.pem")),
            ("{cert: a.pem}", TLSFiles(None, "a.pem")),
        ):
            settings = self.load(f"queue: {{type: mqtt, connection: {{mqtt: {{tls: {text}}}}}}}")
            self.assertEqual(settings.queue.of(MQTTSettings).address.tls, expected)

    def test_refused(self) -> None:
        """What does not go together, and what can be no topic, is refused with its key."""
        for text, key, reason in (
            ("prefix: 'a/+/'", "prefix", "wildcard"),
            ("prefix: '#'", "prefix", "wildcard"),
            ("prefix: $SYS/", "prefix", "begins with $"),
            ('prefix: "a\\0b"', "prefix", "control character"),
            ("prefix: ''", "prefix", "empty"),
            ("qos: 0", "qos", "must be 1"),
            ("qos: 2", "qos", "must be 1"),
            ("protocol: 3", "protocol", "MQTT 3.1.1"),
            ("password: secret", "password", "needs queue.connection.mqtt.username"),
            ("tls: {key: a.pem}", "tls.key", "needs queue.connection.mqtt.tls.cert"),
            ("protocol: 4, message_expiry_seconds: 5", "message_expiry_seconds", "needs protocol 5"),
            ("transport: quic", "transport", "websockets"),
            ("client_id: ''", "client_id", "empty"),
            ("largest_message: 100000", "largest_message", "is for brokers"),
            ("largest_message: 268435455", "largest_message", "must be from 1024"),
        ):
            complaint = self.complaint(f"queue: {{type: mqtt, connection: {{mqtt: {{{text}}}}}}}")
            self.assertEqual(complaint.key, f"queue.connection.mqtt.{key}")
            self.assertIn(reason, complaint.reason)
            self.assertNotIn("secret", complaint.reason)

    def test_request_queue(self) -> None:
        """The request queue is a part of topics, and must be able to be one."""
        complaint = self.complaint("queue: {type: mqtt, request_queue: a/#}")
        self.assertEqual(complaint.key, "queue.request_queue")


class TopicTests(SynchronousTestCase):
    """What can be a topic"""

    def test_topics(self) -> None:
        """Text of every kind can be one, up to 65535 bytes of UTF-8; wildcards, controls and $ cannot."""
        for name in ("a", "a/b", "/", "a//b", "é", "漢字", "🦆", " ", "a" * 65_535, "é" * 32_767):
            self.assertIsNone(topic_fault(name), name[:20])
        for name in ("", "+", "a/+", "#", "a#", "$SYS/x", "a\0", "\x1f", "\x7f", "\ud800", "a" * 65_536, "é" * 32_768):
            self.assertIsNotNone(topic_fault(name), name[:20])

    def test_traits(self) -> None:
        """It is declared what MQTT does not do, and how much the broker keeps."""
        broker = MQTTBroker(Address("localhost"), "me", None, lambda: 0.5, seconds=1.0, keeps=77)
        expected = BrokerTraits(
            acks=Acks.IN_ORDER,
            requeues=False,
            counts_redeliveries=False,
            keeps=77,
            competing_consumers=False,
            depth=DepthKind.NONE,
        )
        self.assertEqual(broker.traits, expected)
