"""kill -9 with a broker for the queue, or a bridge from one: no accepted request is lost, and none is done wrong.

`tests.test_crash` has the same without a broker.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests import crash, crash_bridges, crash_kafka, crash_mqtt, crash_pubsub, crash_rabbitmq, crash_redis, crash_sqs


class KillTests(SynchronousTestCase):
    def test_nothing_is_lost_on_rabbitmq(self) -> None:
        """Ten kills of listener, worker, Redis and RabbitMQ in turn: no request is lost, and each ends once."""
        install = crash_rabbitmq.RabbitMQInstallation
        done = crash_redis.run(10, seed=20260207, say=lambda line: None, install=install)
        self.assertEqual(done["kills"], 10)
        self.assertGreater(done["accepted"], 200)

    def test_nothing_is_lost_with_a_journal(self) -> None:
        """Ten kills where a 202 does not wait for RabbitMQ: no request is lost, and each ends once."""
        install = crash_rabbitmq.Journaled
        done = crash_redis.run(10, seed=20260207, say=lambda line: None, install=install)
        self.assertEqual(done["kills"], 10)
        self.assertGreater(done["accepted"], 200)

    def test_nothing_is_lost_on_kafka(self) -> None:
        """Ten kills of listener, worker, Redis and Kafka in turn: no request is lost, and each ends once."""
        install = crash_kafka.KafkaInstallation
        done = crash_redis.run(10, seed=20260207, say=lambda line: None, install=install)
        self.assertEqual(done["kills"], 10)
        self.assertGreater(done["accepted"], 100)

    def test_nothing_is_lost_on_pubsub(self) -> None:
        """Ten kills of listener, worker, Redis and Pub/Sub in turn: no request is lost, and each ends once."""
        install = crash_pubsub.PubSubInstallation
        done = crash_redis.run(10, seed=20260207, say=lambda line: None, install=install)
        self.assertEqual(done["kills"], 10)
        self.assertGreater(done["accepted"], 200)

    def test_nothing_is_lost_on_sqs(self) -> None:
        """Ten kills of listener, worker, Redis and ElasticMQ in turn: no request is lost, and each ends once."""
        install = crash_sqs.SqsInstallation
        done = crash_redis.run(10, seed=20260207, say=lambda line: None, install=install)
        self.assertEqual(done["kills"], 10)
        self.assertGreater(done["accepted"], 50)

    def test_nothing_is_lost_on_mqtt(self) -> None:
        """Ten kills of a gateway and its Mosquitto in turn: no request is lost, and each ends once."""
        done = crash_redis.run(10, seed=20260207, say=lambda line: None, install=crash_mqtt.MQTTInstallation)
        self.assertEqual(done["kills"], 10)
        self.assertGreater(done["accepted"], 200)

    def test_nothing_is_lost_with_an_empty_mosquitto(self) -> None:
        """The same where Mosquitto comes back without anything each time."""
        done = crash_redis.run(10, seed=20260207, say=lambda line: None, install=crash_mqtt.Wiped)
        self.assertEqual(done["kills"], 10)
        self.assertGreater(done["accepted"], 200)

    def test_nothing_is_lost_by_a_bridge(self) -> None:
        """Ten faults of gateway, Mosquitto and target: each acknowledged message is a request, in its order."""
        done = crash_bridges.run(10, seed=20261127, say=lambda line: None)
        self.assertGreater(done["acknowledged"], 200)

    def test_finds_early_acks_of_a_bridge(self) -> None:
        """A bridge that acknowledges a message before it is accepted is found."""
        before = "from tests import fault_injection; fault_injection.bridge_ack_first()"
        caught = self.assertRaises(crash.Broken, crash_bridges.run, 6, 20261127, lambda line: None, before)
        self.assertIn("were acknowledged and are no requests", str(caught))
