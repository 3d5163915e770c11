"""Streams of endings over the stores in one process: nothing is missed, nothing is told twice, and nothing hangs."""

from __future__ import annotations

from tests.benches import brokered_bench, memory_bench, sqlite_bench
from tests.delivery.ending_stream_contract import ending_stream_contract


class MemoryEndingStreamTests(ending_stream_contract(memory_bench)):  # type: ignore[misc]
    """Over memory."""


class SqliteEndingStreamTests(ending_stream_contract(sqlite_bench)):  # type: ignore[misc]
    """Over the embedded file."""


class BrokeredEndingStreamTests(ending_stream_contract(brokered_bench)):  # type: ignore[misc]
    """Over the embedded file beside a broker."""


del ending_stream_contract
