"""Every backend keeps the same promises."""

from __future__ import annotations

from openhqm.testing import backend_contract
from tests.benches import memory_bench, sqlite_bench


class MemoryContract(backend_contract(memory_bench)):  # type: ignore[misc]
    """The memory backend."""


class SqliteContract(backend_contract(sqlite_bench)):  # type: ignore[misc]
    """The embedded SQLite backend."""


del backend_contract
