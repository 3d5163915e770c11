"""The endpoint and the partition of a submission: by what it names, its route, the Python handler, or the default."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import DestinationRefused, InvalidRequest
from openhqm.messages import Submission
from openhqm.policy.addressing import Addressing, Partitioning
from openhqm.policy.destinations import DestinationPolicy
from openhqm.policy.fields import Field
from openhqm.policy.routing import CompiledRoute, Condition, RouteTable
from tests import hypothesis_profile  # noqa: F401

ORDERS = CompiledRoute("orders", Condition(Field.parse("payload.type"), value="order"), endpoint="billing")
SHAPES = CompiledRoute("shapes", Condition(Field.parse("payload.type"), value="shape"))
ROUTES = RouteTable([ORDERS, SHAPES])
KEY = Partitioning(Field.parse("metadata.partition_key"), 16)


def address(addressing: Addressing, payload: bytes = b"1", **metadata: Any) -> tuple[str | None, int | None]:
    found = addressing.addressed(Submission(payload, metadata=metadata))
    return found.endpoint, found.partition


class EndpointTests(SynchronousTestCase):
    def refused(self, addressing: Addressing, payload: bytes = b"1", **metadata: Any) -> InvalidRequest:
        error: InvalidRequest = self.assertRaises(InvalidRequest, address, addressing, payload, **metadata)
        return error

    def test_without_endpoints(self) -> None:
        """Without endpoints a submission is unchanged. One that names an endpoint is refused, with the reason."""
        submission = Submission(b"1")
        self.assertIs(Addressing().addressed(submission), submission)
        for endpoint in ("billing", "https://example.com/", "", "callers", "default"):
            error = self.refused(Addressing(), endpoint=endpoint)
            self.assertEqual(
                (error.field, error.reason),
                ("metadata.endpoint", "there is no such endpoint: no endpoints are configured"),
            )

    def test_precedence(self) -> None:
        """The endpoint that the request names comes first, then its route's, then the default."""
        addressing = Addressing(endpoints=("billing", "mail", "rest"), default="rest", routes=ROUTES)
        self.assertEqual(address(addressing, b'{"type":"order"}', endpoint="mail"), ("mail", None))
        self.assertEqual(address(addressing, b'{"type":"order"}'), ("billing", None))
        self.assertEqual(address(addressing, b'{"type":"shape"}'), (None, None))
        self.assertEqual(address(addressing), (None, None))
        self.assertEqual(address(addressing, endpoint="rest"), (None, None))
        self.assertEqual(addressing.shared, "rest")
        self.assertEqual(self.refused(addressing, endpoint="nowhere").reason, "there is no such endpoint")

    def test_handler(self) -> None:
        """A Python handler gets what no route sends elsewhere. The default must then be named by the request."""
        addressing = Addressing(endpoints=("billing", "rest"), default="rest", handler=True, routes=ROUTES)
        self.assertEqual(address(addressing), (None, None))
        self.assertEqual(address(addressing, endpoint="rest"), ("rest", None))
        self.assertEqual(address(addressing, b'{"type":"order"}'), ("billing", None))
        self.assertIsNone(addressing.shared)

    def test_operations(self) -> None:
        """A handler for one operation gets it, by metadata or payload, and the default gets the others."""
        addressing = Addressing(endpoints=("rest",), default="rest", operations=frozenset({"resize"}))
        self.assertEqual(address(addressing, operation="resize"), (None, None))
        self.assertEqual(address(addressing, b'{"operation":"resize"}'), (None, None))
        for payload in (b"1", b'{"operation":"other"}', b'{"operation":["resize"]}', b'{"operation":null}'):
            self.assertEqual(address(addressing, payload), ("rest", None))

    def test_no_destination(self) -> None:
        """A request for none of the endpoints is refused at once, because no worker would ever handle it."""
        addressing = Addressing(endpoints=("billing",), routes=ROUTES)
        self.assertEqual(self.refused(addressing).field, "metadata.endpoint")
        self.assertIn("no route matches the request", self.refused(addressing, b'{"type":"shape"}').reason)
        self.assertEqual(address(addressing, b'{"type":"order"}'), ("billing", None))


class CallersTests(SynchronousTestCase):
    addressing = Addressing(endpoints=("billing", "callers"), callers="callers", check_url=DestinationPolicy().check)

    def test_public(self) -> None:
        """A public URL goes to the queue of callers' URLs. The name of an endpoint still means the endpoint."""
        self.assertEqual(address(self.addressing, endpoint="https://example.com/a"), ("callers", None))
        self.assertEqual(address(self.addressing, endpoint="billing"), ("billing", None))

    def test_not_allowed(self) -> None:
        """Every URL that is not allowed is refused with the same text."""
        for url in (
            "http://example.com/",
            "https://127.0.0.1/",
            "https://localhost/",
            "https://[::1]/",
            "https://a@b.com/",
        ):
            error = self.assertRaises(InvalidRequest, address, self.addressing, endpoint=url)
            self.assertEqual((error.field, error.reason), ("metadata.endpoint", "the destination is not allowed"))

    def test_name_of_callers(self) -> None:
        """The queue of callers' URLs cannot be named without a URL."""
        for name in ("callers", "example.com", "https:example.com"):
            self.assertRaises(InvalidRequest, address, self.addressing, endpoint=name)

    def test_without_a_check(self) -> None:
        """Without a check, all URLs are refused."""
        self.assertRaises(DestinationRefused, Addressing().check_url, "https://example.com/")


class PartitionTests(SynchronousTestCase):
    def test_key(self) -> None:
        """Equal keys have the same partition, whatever their type. A request without a key has none."""
        addressing = Addressing(partitioning=KEY)
        for key in ("a", "", 1, True, [1], {"a": 1}):
            _, first = address(addressing, partition_key=key)
            self.assertEqual(address(addressing, b'{"other":1}', partition_key=key), (None, first))
            assert first is not None
            self.assertIn(first, range(16))
        self.assertEqual(address(addressing), (None, None))
        self.assertEqual(address(addressing, partition_key=None), (None, None))

    def test_crc32(self) -> None:
        """The partition is the CRC-32 of the key, the same in every version: 0xCBF43926 is the check value of
        "123456789".
        """
        _, found = address(Addressing(partitioning=KEY), partition_key="123456789")
        self.assertEqual(found, 0xCBF43926 % 16)

    def test_in_the_payload(self) -> None:
        """The field may be in the payload, and the request has an endpoint as well."""
        addressing = Addressing(
            endpoints=("billing",), routes=ROUTES, partitioning=Partitioning(Field.parse("payload.id"), 4)
        )
        endpoint, partition = address(addressing, b'{"type":"order","id":"x"}')
        self.assertEqual(endpoint, "billing")
        self.assertIn(partition, range(4))

    def test_invalid_text(self) -> None:
        """A lone surrogate is not a valid key."""
        error = self.assertRaises(InvalidRequest, address, Addressing(partitioning=KEY), partition_key="\ud800")
        self.assertEqual(error.field, "metadata.partition_key")


class WorkedQueuesTests(SynchronousTestCase):
    @given(
        st.lists(st.sampled_from(("billing", "rest", "mail")), unique=True),
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.sampled_from((b"1", b'{"type":"order"}', b'{"type":"shape"}', b'{"operation":"resize"}')),
        st.sampled_from((None, "billing", "rest", "mail")),
        st.sampled_from((None, "a", "b")),
    )
    def test_every_queue_is_worked(
        self,
        endpoints: list[str],
        default: bool,
        handler: bool,
        partitioned: bool,
        payload: bytes,
        named: str | None,
        key: str | None,
    ) -> None:
        """Every accepted submission waits in one of the queues that have workers, and each queue is listed once."""
        addressing = Addressing(
            endpoints=endpoints,
            default=endpoints[0] if endpoints and default else None,
            handler=handler,
            routes=ROUTES if "billing" in endpoints else RouteTable([SHAPES]),
            partitioning=KEY if partitioned else None,
        )
        lanes = [(name, partition) for name, _, partition in addressing.lanes()]
        self.assertEqual(len(lanes), len(set(lanes)))
        metadata = {name: value for name, value in (("endpoint", named), ("partition_key", key)) if value is not None}
        try:
            found = address(addressing, payload, **metadata)
        except InvalidRequest:
            self.assertTrue(named not in (None, *endpoints) or (endpoints and not default and not handler))
            return
        self.assertIn(found, lanes)
