"""The queue over SQS keeps the same promises as every other backend, on ElasticMQ, with a file beside it."""

from __future__ import annotations

from openhqm.testing import backend_contract
from tests.sqs.backend_bench import sqlite_and_sqs


class SqliteLedgerContract(backend_contract(sqlite_and_sqs)):  # type: ignore[misc]
    """The ledger in the embedded file."""

    timeout = 60


del backend_contract
