"""Where RabbitMQ is: what a URL says."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openhqm.rabbitmq.address import parse_address


class AddressTests(SynchronousTestCase):
    """``parse_address``"""

    def test_plain(self) -> None:
        """A URL names the host, the port, the virtual host and who we are there."""
        found = parse_address("amqp://gate:p%40ss@rabbit:5673/prod%2Feu")
        self.assertEqual((found.hosts, found.vhost), ((("rabbit", 5673),), "prod/eu"))
        self.assertEqual((found.username, found.password, found.tls), ("gate", "p@ss", False))

    def test_defaults(self) -> None:
        """What is left out is what RabbitMQ has after it was installed."""
        found = parse_address("amqp://localhost")
        self.assertEqual((found.hosts, found.vhost, found.username), ((("localhost", 5672),), "/", "guest"))
        self.assertEqual(parse_address("amqp://localhost/%2F").vhost, "/")
        self.assertEqual(parse_address("amqps://localhost").hosts, (("localhost", 5671),))

    def test_several(self) -> None:
        """The nodes of a cluster are separated by commas."""
        found = parse_address("amqp://u:p@one,two:5673,[::1]:5674/v")
        self.assertEqual(found.hosts, (("one", 5672), ("two", 5673), ("::1", 5674)))

    def test_refused(self) -> None:
        """What cannot be one is refused, in words that do not hold the password."""
        for url in (
            "redis://u:hush@h/",
            "amqp://u:hush@h:port/",
            "amqp://u:hush@h/a/b",
            "amqp://u:hush@h/?heartbeat=1",
            "amqp://u:hush@h/?ca=file",
            "amqp://u:hush@h/?x",
        ):
            error = self.assertRaises(ValueError, parse_address, url)
            self.assertNotIn("hush", str(error), url)

    def test_secret(self) -> None:
        """Neither what is shown to people nor what a debugger shows has the password in it."""
        found = parse_address("amqp://u:hush@h/")
        self.assertNotIn("hush", f"{found} {found!r}")
