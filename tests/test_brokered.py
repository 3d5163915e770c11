"""A queue and a store in two places keep the same promises, whatever becomes of the process between two steps."""

from __future__ import annotations

from openhqm.testing import backend_contract
from tests.benches import brokered_bench


class BrokeredContract(backend_contract(brokered_bench)):  # type: ignore[misc]
    """A broker in memory, and the books in the embedded file."""


del backend_contract
