"""The fake broker keeps the contract of a broker, in the form of every product and in some of none."""

from __future__ import annotations

import re
from typing import Any

from attrs import evolve

from openhqm.interfaces import BrokerTraits, DepthKind
from openhqm.testing import FORMS, broker_contract
from tests.testing.fake_bench import FakeBench

AMQP, KAFKA = FORMS["amqp"], FORMS["kafka"]
OTHER_FORMS = {
    "not durable": evolve(AMQP, durable=False),
    "not durable by prefix": evolve(KAFKA, durable=False),
    "small": evolve(AMQP, keeps=25, largest_message=1024, largest_batch=3),
    "small by prefix": evolve(KAFKA, keeps=25, largest_message=1024, largest_batch=3),
    "single": evolve(AMQP, competing_consumers=False),
    "single by prefix": evolve(KAFKA, competing_consumers=False),
    "exact by prefix": evolve(KAFKA, depth=DepthKind.EXACT, counts_redeliveries=True),
    "endless leases": evolve(AMQP, lease_seconds=5.0, requeues=False),
}


def contract(name: str, traits: BrokerTraits) -> Any:
    """The contract of a broker, for the fake as these traits say."""
    case: Any = broker_contract(lambda test: FakeBench(traits))
    case.__doc__ = f"The fake broker: {name}"
    case.__name__ = case.__qualname__ = "".join(word.capitalize() for word in re.findall(r"\w+", name)) + "Tests"
    case.__module__ = __name__
    return case


for _name, _traits in {**FORMS, **OTHER_FORMS}.items():
    _case = contract(_name, _traits)
    globals()[_case.__name__] = _case
del _case
