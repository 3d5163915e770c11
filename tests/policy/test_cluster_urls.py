"""URLs with several hosts in their authority."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.cluster_urls import split_cluster_url, split_host
from openhqm.rabbitmq.address import parse_address as parse_rabbitmq
from openhqm.redis.address import parse_address as parse_redis


class ClusterURLTests(SynchronousTestCase):
    """On every version of Python"""

    def test_parts(self) -> None:
        """Login and hosts are split as they stand, and everything behind the authority is that of a usual URL."""
        parts, login, hosts = split_cluster_url("amqp://u:p%40@[::1]:1,b,[fe80::1%25eth0]/v%2F?ca=a,b@c")
        self.assertEqual((parts.scheme, parts.path, parts.query), ("amqp", "/v%2F", "ca=a,b@c"))
        self.assertEqual((login, hosts), ("u:p%40", ["[::1]:1", "b", "[fe80::1%25eth0]"]))
        self.assertEqual(split_cluster_url("redis:")[1:], ("", [""]))
        self.assertEqual(split_cluster_url("unix:///run/a.sock")[0].path, "/run/a.sock")

    def test_hosts(self) -> None:
        """Names, addresses, ports that are left out, and what is neither."""
        for text, expected in (
            ("", ("localhost", 7)),
            ("a:1", ("a", 1)),
            ("[::1]", ("::1", 7)),
            ("[::1]:2", ("::1", 2)),
        ):
            self.assertEqual(split_host(text, 7), expected)
        for wrong in ("a:b", "a:70000", "[::1", "::1]:3"):
            self.assertRaises(ValueError, split_host, wrong, 7)

    def test_products(self) -> None:
        """An IPv6 address may stand behind another host, for each product that takes several."""
        expected = (("one", 1), ("::1", 2), ("::2", 3))
        self.assertEqual(parse_rabbitmq("amqp://u:p@one:1,[::1]:2,[::2]:3/v").hosts, expected)
        self.assertEqual(parse_redis("redis://u:p@one:1,[::1]:2,[::2]:3/0?sentinel=main").hosts, expected)
