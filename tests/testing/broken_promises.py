"""One promise of a broker is broken on purpose, in the fake, and the contract has to notice."""

from __future__ import annotations

from typing import Any

from twisted.python.monkey import MonkeyPatcher
from twisted.trial.reporter import TestResult
from twisted.trial.unittest import SynchronousTestCase

from openhqm.testing import FORMS, broker_contract
from tests.testing.fake_bench import FakeBench


class Broken(SynchronousTestCase):
    """One promise is broken; the test of that promise fails."""

    def noticed(self, form: str, test: str, owner: Any, name: str, broken: object) -> None:
        """The test passes as everything is, and fails with ``name`` of ``owner`` replaced."""
        self.assertEqual(self.failures(form, test), [], "it fails although nothing is broken")
        found = MonkeyPatcher((owner, name, broken)).runWithPatches(self.failures, form, test)
        self.assertEqual(len(found), 1, f"{test} does not notice it")

    def failures(self, form: str, test: str) -> list[Any]:
        """What the test reports."""
        case = broker_contract(lambda case: FakeBench(FORMS[form]))(test)
        case.run(result := TestResult())
        self.flushLoggedErrors()
        return [*result.failures, *result.errors, *result.skips]
