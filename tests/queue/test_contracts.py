"""Every backend keeps the same promises, and one that is a single product a few more."""

from __future__ import annotations

from openhqm.testing import backend_contract
from tests.benches import encrypted_bench, memory_bench, sqlite_bench
from tests.queue.single_product import SingleProduct


class MemoryContract(backend_contract(memory_bench), SingleProduct):  # type: ignore[misc]
    """The memory backend."""


class SqliteContract(backend_contract(sqlite_bench), SingleProduct):  # type: ignore[misc]
    """The embedded SQLite backend."""


class EncryptedContract(backend_contract(encrypted_bench), SingleProduct):  # type: ignore[misc]
    """The embedded SQLite backend whose file is encrypted."""


del backend_contract, SingleProduct
