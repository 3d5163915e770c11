"""The queue over MQTT keeps the same promises as every other backend, on a real Mosquitto."""

from __future__ import annotations

from functools import partial

from openhqm.testing import backend_contract
from tests.mqtt.backend_bench import sqlite_and_mqtt


class MQTT5BackendContract(backend_contract(partial(sqlite_and_mqtt, protocol=5))):  # type: ignore[misc]
    """MQTT 5, and the ledger in the embedded file."""

    timeout = 240


del backend_contract
