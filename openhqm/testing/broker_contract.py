# -*- test-case-name: tests.testing.test_fake_broker -*-
"""The contract of a broker, for the authors of adapters.

Describe the product under test on a `BrokerBench`, and run the suite::

    class MyContract(broker_contract(MyBench)):
        pass

Every test states one promise of `openhqm.interfaces.IBroker` and its neighbours. Traits decide which behaviour is
asserted; a promise that the bench cannot put to the test is named, with the reason, in ``BrokerBench.cannot``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.trial.unittest import TestCase

from openhqm.testing.broker_bench import BrokerBench
from openhqm.testing.broker_connecting import Connecting
from openhqm.testing.broker_delivering import Delivering
from openhqm.testing.broker_leasing import Leasing
from openhqm.testing.broker_publishing import Channels, Publishing
from openhqm.testing.broker_settling import Settling


def broker_contract(make: Callable[[TestCase], BrokerBench | Awaitable[BrokerBench]]) -> type[TestCase]:
    """The suite for the product on the bench that ``make`` makes, at once or in a while; one for each test."""

    class BrokerContract(Publishing, Channels, Delivering, Settling, Leasing, Connecting):
        def make_bench(self) -> BrokerBench | Awaitable[BrokerBench]:
            return make(self)

    return BrokerContract
