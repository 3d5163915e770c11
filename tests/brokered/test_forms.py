"""The queue over a broker keeps every promise, with either ledger, whatever the broker can and cannot do."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import TestCase

from openhqm.interfaces import BrokerTraits
from openhqm.testing import FORMS, backend_contract
from tests.benches import BrokeredBench
from tests.redis.bench import brokered_redis_bench

JOURNALED = " journaled"


def _sqlite_suite(traits: BrokerTraits, journaled: bool) -> type[TestCase]:
    return backend_contract(lambda test: BrokeredBench(traits, journaled=journaled))


def _redis_suite(traits: BrokerTraits, journaled: bool) -> type[TestCase]:
    return backend_contract(lambda test: brokered_redis_bench(test, traits, journaled=journaled))


for _form in (*FORMS, "amqp" + JOURNALED, "mqtt" + JOURNALED):
    _traits = FORMS[_form.removesuffix(JOURNALED)]
    # The handlers of the contract work for longer than 10 s; test_leases shows what becomes of them then.
    _traits = evolve(_traits, longest_lease_seconds=None)
    for _ledger, _make in (("the embedded file", _sqlite_suite), ("Redis", _redis_suite)):
        _suite = _make(_traits, _form.endswith(JOURNALED))
        _words = f"{_form} and {_ledger}".replace(",", "").replace("-", " ").split()
        _suite.__name__ = _suite.__qualname__ = "".join(word.capitalize() for word in _words)
        _suite.__doc__ = f"A broker with the traits of {_form}, and the ledger in {_ledger}"
        _suite.__module__ = __name__
        _suite.timeout = 120  # type: ignore[attr-defined]
        globals()[_suite.__name__] = _suite

del _suite
