"""MQTT keeps the contract of a broker, on a real Mosquitto."""

from __future__ import annotations

from openhqm.testing import broker_contract
from tests.mqtt.bench import bench_on


class MQTT5Contract(broker_contract(bench_on(5))):  # type: ignore[misc]
    """MQTT 5"""


class MQTT311Contract(broker_contract(bench_on(4))):  # type: ignore[misc]
    """MQTT 3.1.1"""


del broker_contract
