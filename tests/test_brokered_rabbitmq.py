"""The whole contract on RabbitMQ, with the books beside it."""

from __future__ import annotations

from openhqm.testing import backend_contract
from tests.rabbitmq_bench import rabbitmq_bench


class RabbitMQContract(backend_contract(rabbitmq_bench)):  # type: ignore[misc]
    """RabbitMQ, and the books in the embedded file."""

    timeout = 60


del backend_contract
