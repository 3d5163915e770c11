"""The adapter for Pub/Sub keeps the contract of a broker, on Google's in-memory server.

The service itself is not reached.
"""

from __future__ import annotations

from openhqm.testing import broker_contract
from tests.pubsub.bench import pubsub_bench


class PubSubContract(broker_contract(pubsub_bench)):  # type: ignore[misc]
    """With a dead-letter policy"""


del broker_contract
