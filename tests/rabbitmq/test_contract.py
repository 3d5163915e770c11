"""RabbitMQ keeps the contract of a broker, on real servers.

Debian 12 has 3.10. Where ``TEST_RABBITMQ4`` names a directory that was made as `tests.brokers.RabbitMQServer`
says, the contract is run on the RabbitMQ 4 in there, too.
"""

from __future__ import annotations

import os

from openhqm.testing import broker_contract
from tests.rabbitmq.bench import bench_on

ROOT_OF_4 = os.environ.get("TEST_RABBITMQ4")


class RabbitMQContract(broker_contract(bench_on())):  # type: ignore[misc]
    """The RabbitMQ that is installed"""


if ROOT_OF_4:

    class RabbitMQ4Contract(broker_contract(bench_on(ROOT_OF_4))):  # type: ignore[misc]
        """RabbitMQ 4"""


del broker_contract
