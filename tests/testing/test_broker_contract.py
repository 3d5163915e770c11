"""The contract of a broker, as a suite of tests."""

from __future__ import annotations

from twisted.trial.reporter import TestResult
from twisted.trial.unittest import SynchronousTestCase

from openhqm.testing import FORMS, broker_contract
from tests.testing.fake_bench import FakeBench


class SuiteTests(SynchronousTestCase):
    """The suite itself"""

    def test_no_test_hides_another(self) -> None:
        """Each test has a name of its own: two of one name in two parts would be one test."""
        parts = broker_contract(lambda case: FakeBench(FORMS["amqp"])).__mro__
        names = [name for part in parts for name in vars(part) if name.startswith("test_")]
        self.assertEqual(sorted(names), sorted(set(names)))

    def test_a_bench_that_cannot(self) -> None:
        """What the bench cannot do is a skip with its reason; every other test runs."""
        bench = FakeBench(FORMS["amqp"])
        bench.cannot = {"delete": "operators of this product delete nothing"}
        case = broker_contract(lambda case: bench)("test_deleted")
        case.run(result := TestResult())
        ((_, reason),) = result.skips
        self.assertEqual(reason, "delete: operators of this product delete nothing")
