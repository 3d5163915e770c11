"""What an operator can say about Kafka, what is refused with its key, and what librdkafka is told."""

from __future__ import annotations

from openhqm.kafka.settings import KafkaSettings
from tests.config.test_config import ConfigCase

SAID = """
queue:
  type: kafka
  connection:
    kafka:
      bootstrap_servers: ["one:9093", "two:9093"]
      consumer_group: plant
      prefix: plant.
      security: {tls: true, ca: ca.pem, cert: cert.pem, key: key.pem, mechanism: PLAIN, username: u, password: s3cret}
"""
OAUTH = "{token_url: 'https://idp/token', client_id: c, client_secret: s3cret}"


class SettingsTests(ConfigCase):
    """``queue.connection.kafka``"""

    def ours(self, text: str) -> KafkaSettings:
        return self.load(text).queue.of(KafkaSettings)

    def test_defaults(self) -> None:
        """Without a word it is the local broker, plain; the short form names others."""
        for text, servers in (("", "localhost:9092"), (", kafka_bootstrap_servers: ['a:1', 'b:2']", "a:1,b:2")):
            ours = self.ours(f"queue: {{type: kafka{text}}}")
            self.assertEqual(ours.properties, {"bootstrap.servers": servers, "security.protocol": "PLAINTEXT"})

    def test_everything(self) -> None:
        """Every key is where librdkafka expects it, and the password is in no text."""
        settings = self.load(SAID)
        self.assertEqual(
            settings.queue.of(KafkaSettings).properties,
            {
                "bootstrap.servers": "one:9093,two:9093",
                "security.protocol": "SASL_SSL",
                "ssl.ca.location": "ca.pem",
                "ssl.certificate.location": "cert.pem",
                "ssl.key.location": "key.pem",
                "sasl.mechanism": "PLAIN",
                "sasl.username": "u",
                "sasl.password": "s3cret",
            },
        )
        self.assertNotIn("s3cret", repr(settings))

    def test_oauth(self) -> None:
        """OAUTHBEARER takes a token by the client credentials grant, and its secret is in no text."""
        text = (
            f"queue: {{type: kafka, connection: {{kafka: {{security: {{mechanism: OAUTHBEARER, oauth: {OAUTH}}}}}}}}}"
        )
        ours = self.ours(text)
        self.assertEqual(ours.properties["security.protocol"], "SASL_PLAINTEXT")
        self.assertEqual(ours.properties["sasl.oauthbearer.token.endpoint.url"], "https://idp/token")
        self.assertEqual(ours.properties["sasl.oauthbearer.method"], "oidc")
        self.assertNotIn("s3cret", repr(ours))

    def test_refused(self) -> None:
        """What does not go together, has no effect, or can be no topic, is refused with its key."""
        for text, key, reason in (
            ("bootstrap_servers: []", "bootstrap_servers", "at least one"),
            ("bootstrap_servers: [kafka]", "bootstrap_servers", "kafka-1:9092"),
            ("bootstrap_servers: ['http://kafka:x']", "bootstrap_servers", "kafka-1:9092"),
            ("prefix: 'a/'", "prefix", "letters, digits"),
            (f"prefix: {'x' * 190}", "prefix", "more than 200"),
            ("replication: 0", "replication", "1 or more"),
            ("partitions: 0", "partitions", "must be from 1"),
            ("security: {ca: a.pem}", "security.ca", "tls: true"),
            ("security: {tls: true, cert: a.pem}", "security.cert", "go together"),
            ("security: {mechanism: PLAIN, username: u}", "security.password", "is needed for PLAIN"),
            ("security: {username: u}", "security.username", "has no effect"),
            ("security: {mechanism: GSSAPI}", "security.mechanism", "PLAIN"),
            ("security: {mechanism: OAUTHBEARER}", "security.oauth", "token_url"),
            (f"security: {{oauth: {OAUTH}}}", "security.oauth", "OAUTHBEARER"),
        ):
            complaint = self.complaint(f"queue: {{type: kafka, connection: {{kafka: {{{text}}}}}}}")
            self.assertEqual(complaint.key, f"queue.connection.kafka.{key}", text)
            self.assertIn(reason, complaint.reason, text)
        complaint = self.complaint("queue: {type: kafka, request_queue: 'a b'}")
        self.assertEqual(complaint.key, "queue.request_queue")
