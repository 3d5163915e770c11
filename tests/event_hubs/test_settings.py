"""What an operator can say about Azure Event Hubs, and what is refused with its key."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openhqm.event_hubs.connection_string import ConnectionString, parse_connection_string
from openhqm.event_hubs.settings import EventHubsSettings
from tests.config.test_config import ConfigCase

TEXT = "Endpoint=sb://plant.servicebus.windows.net/;SharedAccessKeyName=gateway;SharedAccessKey=s3cr/et=="
KEY = "queue.connection.azure_eventhubs"


def said(connection: str, queue: str = "priorities: [normal]") -> str:
    """A configuration."""
    return f"queue: {{type: azure_eventhubs, {queue}, connection: {{azure_eventhubs: {{{connection}}}}}}}"


class SettingsTests(ConfigCase):
    """``queue.connection.azure_eventhubs``"""

    def test_properties(self) -> None:
        """The connection string is the password, over TLS; the endpoint of the namespace is the Kafka one."""
        settings = self.load(said(f"connection_string: '{TEXT}'"))
        properties = settings.queue.of(EventHubsSettings).properties
        self.assertEqual(properties["bootstrap.servers"], "plant.servicebus.windows.net:9093")
        self.assertEqual(properties["security.protocol"], "SASL_SSL")
        self.assertEqual((properties["sasl.username"], properties["sasl.password"]), ("$ConnectionString", TEXT))
        self.assertNotIn("s3cr", repr(settings))

    def test_endpoint(self) -> None:
        """Another endpoint, and another authority, are what is said."""
        text = said(f"connection_string: '{TEXT}', endpoint: 'private:9093', ca: ca.pem")
        properties = self.load(text).queue.of(EventHubsSettings).properties
        self.assertEqual(properties["bootstrap.servers"], "private:9093")
        self.assertEqual(properties["ssl.ca.location"], "ca.pem")

    def test_refused(self) -> None:
        """What is missing or does not go together is refused with its key, and no key of the service is repeated."""
        for text, key, reason in (
            (said("consumer_group: a"), f"{KEY}.connection_string", "is needed"),
            (
                said("connection_string: 'Endpoint=sb://a/;SharedAccessKey=s3cret'"),
                f"{KEY}.connection_string",
                "KeyName",
            ),
            (said("connection_string: s3cret"), f"{KEY}.connection_string", "must begin with"),
            (said(f"connection_string: '{TEXT};EntityPath=other'"), f"{KEY}.connection_string", "the hub other"),
            (said(f"connection_string: '{TEXT}'", "format: auto"), "queue.priorities", "[normal]"),
        ):
            complaint = self.complaint(text)
            self.assertEqual(complaint.key, key, text)
            self.assertIn(reason, complaint.reason)
            self.assertNotIn("s3cr", complaint.reason)


class ConnectionStringTests(SynchronousTestCase):
    """`parse_connection_string`"""

    def test_read(self) -> None:
        """In any order, with or without a hub; a key may have ``=`` in it."""
        for text, hub in (
            (TEXT, None),
            (f"{TEXT};EntityPath=orders", "orders"),
            (f"EntityPath=orders;{TEXT};", "orders"),
        ):
            self.assertEqual(parse_connection_string(text), ConnectionString("plant.servicebus.windows.net", hub))
