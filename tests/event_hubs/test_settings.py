"""What an operator can say about Azure Event Hubs, and what is refused with its key."""

from __future__ import annotations

from twisted.internet.defer import succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.backends import make_backend
from openhqm.errors import ConfigurationError
from openhqm.event_hubs.connection_string import ConnectionString, parse_connection_string
from openhqm.event_hubs.settings import EventHubsSettings
from tests.config.test_config import ConfigCase

TEXT = "Endpoint=sb://plant.servicebus.windows.net/;SharedAccessKeyName=gateway;SharedAccessKey=s3cr/et=="
EMULATOR = "Endpoint=sb://localhost;SharedAccessKeyName=root;SharedAccessKey=s3cret;UseDevelopmentEmulator=true;"
KEY = "queue.connection.azure_eventhubs"


def said(connection: str) -> str:
    """A configuration."""
    return f"queue: {{type: azure_eventhubs, connection: {{azure_eventhubs: {{{connection}}}}}}}"


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

    def test_emulator(self) -> None:
        """Where the connection string is that of the emulator, there is no TLS. Nothing else turns that off."""
        properties = self.load(said(f"connection_string: '{EMULATOR}'")).queue.of(EventHubsSettings).properties
        self.assertEqual(properties["bootstrap.servers"], "localhost:9092")
        self.assertEqual(properties["security.protocol"], "SASL_PLAINTEXT")

    def test_nothing_said(self) -> None:
        """Without a connection string there is nothing to reach, and the complaint names the key."""
        error = self.assertRaises(ConfigurationError, lambda: EventHubsSettings().properties)
        self.assertEqual([each.key for each in error.complaints], ["connection_string"])

    def test_one_hub_for_an_endpoint(self) -> None:
        """Where no priorities are named, requests of all of them wait in one hub: hubs are few, and made by hand."""
        backend = make_backend(self.load(said(f"connection_string: '{TEXT}'")), Clock(), lambda commit: succeed(None))
        assert backend.channels is not None
        self.assertEqual(backend.channels().total, 1)

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
            (said(f"connection_string: '{EMULATOR}', ca: ca.pem"), f"{KEY}.ca", "no TLS"),
            ("queue: {type: azure_eventhubs}", f"{KEY}.connection_string", "Send and Listen"),
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
