"""SQS keeps the contract of a broker, on ElasticMQ, with standard queues and with FIFO queues."""

from __future__ import annotations

import os
from typing import Any

from openhqm.testing import broker_contract
from openhqm.testing.broker_publishing import Publishing
from openhqm.testing.broker_settling import Settling
from tests.sqs.bench import fifo_bench, moto_bench, sqs_bench


class StandardContract(broker_contract(sqs_bench)):  # type: ignore[misc]
    """Standard queues"""


class FifoContract(Publishing, Settling):
    """FIFO queues, in what is different there: how messages are published, and what is out keeps others back"""

    def make_bench(self) -> Any:
        return fifo_bench(self)


if "TEST_MOTO" in os.environ:  # a second opinion, whose packages are more than all others together

    class MotoContract(broker_contract(moto_bench)):  # type: ignore[misc]
        """Standard queues of another server, which shares no code with ElasticMQ"""


del broker_contract, Publishing, Settling
