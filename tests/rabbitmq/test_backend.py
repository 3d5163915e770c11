"""A queue in RabbitMQ and a store beside it keep the same promises as every other backend, on real servers."""

from __future__ import annotations

from openhqm.testing import backend_contract
from tests.rabbitmq.bench import redis_and_rabbitmq, sqlite_and_rabbitmq


class WithTheFile(backend_contract(sqlite_and_rabbitmq)):  # type: ignore[misc]
    """The books in the embedded file."""

    timeout = 60


class WithRedis(backend_contract(redis_and_rabbitmq)):  # type: ignore[misc]
    """The books in Redis."""

    timeout = 60


del backend_contract
