"""The queue over RabbitMQ keeps the same promises as every other backend, on real servers.

Where ``TEST_RABBITMQ4`` names a RabbitMQ 4 (`tests.rabbitmq.test_contract`), the contract is run on that, too.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from openhqm.testing import backend_contract
from tests.rabbitmq.backend_bench import redis_and_rabbitmq, sqlite_and_rabbitmq
from tests.rabbitmq.test_contract import ROOT_OF_4


class SqliteLedgerContract(backend_contract(sqlite_and_rabbitmq)):  # type: ignore[misc]
    """The ledger in the embedded file."""

    timeout = 240


class RedisLedgerContract(backend_contract(redis_and_rabbitmq)):  # type: ignore[misc]
    """The ledger in Redis."""

    timeout = 240


if ROOT_OF_4:
    _root = Path(ROOT_OF_4)

    class SqliteLedgerOn4Contract(backend_contract(partial(sqlite_and_rabbitmq, root=_root))):  # type: ignore[misc]
        """RabbitMQ 4, and the ledger in the embedded file."""

        timeout = 240

    class RedisLedgerOn4Contract(backend_contract(partial(redis_and_rabbitmq, root=_root))):  # type: ignore[misc]
        """RabbitMQ 4, and the ledger in Redis."""

        timeout = 240


del backend_contract
