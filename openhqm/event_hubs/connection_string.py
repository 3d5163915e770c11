# -*- test-case-name: tests.event_hubs.test_settings -*-
"""What a connection string of Azure Event Hubs says.

Its form: https://learn.microsoft.com/azure/event-hubs/event-hubs-get-connection-string.
"""

from __future__ import annotations

import re

import attrs

PORT = 9093
"""The Kafka endpoint of a namespace."""
EMULATOR_PORT = 9092
"""That of the emulator: https://learn.microsoft.com/azure/event-hubs/overview-emulator."""
_ENDPOINT = re.compile(r"sb://([A-Za-z0-9.-]+)/?\Z")


@attrs.frozen
class ConnectionString:
    """``host`` is that of the namespace; ``hub`` the one hub that the string is for, or None: all of the namespace.

    ``emulator``: it is that of Microsoft's emulator (``UseDevelopmentEmulator=true``), which speaks no TLS.
    """

    host: str
    hub: str | None
    emulator: bool = False

    @property
    def port(self) -> int:
        """The port of its Kafka endpoint."""
        return EMULATOR_PORT if self.emulator else PORT


def parse_connection_string(text: str) -> ConnectionString:
    """`ValueError`, which names what is missing and repeats nothing of the text: it has a key in it."""
    parts = dict(part.partition("=")[::2] for part in text.strip().split(";") if part)
    endpoint = _ENDPOINT.match(parts.get("Endpoint", ""))
    if endpoint is None:
        raise ValueError("must begin with Endpoint=sb://NAMESPACE.servicebus.windows.net/")
    for name in ("SharedAccessKeyName", "SharedAccessKey"):
        if not parts.get(name):
            raise ValueError(f"has no {name}")
    emulator = parts.get("UseDevelopmentEmulator", "").lower() == "true"
    return ConnectionString(endpoint[1], parts.get("EntityPath") or None, emulator)
