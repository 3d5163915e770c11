# -*- test-case-name: tests.event_hubs.test_settings -*-
"""What an operator decides about Azure Event Hubs, and what of it does not go together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from attrs.validators import optional

from openhqm.config.model import Settings
from openhqm.config.validators import between, not_empty
from openhqm.errors import Complaint, ConfigurationError
from openhqm.event_hubs.connection_string import parse_connection_string

USER = "$ConnectionString"
"""The name under which a connection string is the password: the service's own word for it."""
LARGEST_MESSAGE = 1_000_000


def _connection_string(instance: object, attribute: object, value: str) -> None:
    if value:
        parse_connection_string(value)


@attrs.frozen
class EventHubsSettings:
    """Where the namespace is, and what our hubs and groups are called.

    Hubs are named like our queues, and ``prefix`` is what their names begin with: nothing makes them but an operator.
    ``endpoint`` (``host:port``) stands in for the namespace's own, behind a private link, say. The group of a hub is
    ``consumer_group``, a dot and the name of the hub. ``timeout_seconds`` is how long a confirmation may take.
    ``lost_after_seconds`` is how long a namespace that has none of our hubs is not believed, before requests whose only
    message was there end.
    """

    connection_string: str = attrs.field(default="", repr=False, validator=_connection_string)
    consumer_group: str = attrs.field(default="openhqm-workers", validator=not_empty)
    prefix: str = ""
    endpoint: str | None = attrs.field(default=None, validator=optional(not_empty))
    ca: str | None = attrs.field(default=None, validator=optional(not_empty))
    timeout_seconds: float = attrs.field(default=5.0, validator=between(0.1, 300))
    lost_after_seconds: float = attrs.field(default=60.0, validator=between(0, 366 * 86400))

    @property
    def properties(self) -> Mapping[str, Any]:
        """How to reach the namespace, in the properties of librdkafka. `ConfigurationError` without a string."""
        missing = check_connection(self)
        if missing:
            raise ConfigurationError([Complaint(*each) for each in missing])
        namespace = parse_connection_string(self.connection_string)
        found: dict[str, Any] = {
            "bootstrap.servers": self.endpoint or f"{namespace.host}:{namespace.port}",
            "security.protocol": "SASL_PLAINTEXT" if namespace.emulator else "SASL_SSL",
            "sasl.mechanism": "PLAIN",
            "sasl.username": USER,
            "sasl.password": self.connection_string.strip(),  # a file ends with a line
        }
        return found if self.ca is None else {**found, "ssl.ca.location": self.ca}


def check(settings: Settings) -> list[tuple[str, str]]:
    """What does not go together where the queue is in Event Hubs: each key with the reason."""
    ours = settings.queue.of(EventHubsSettings)
    missing = check_connection(ours)
    if missing:
        return [(settings.queue.key(EventHubsSettings, name), reason) for name, reason in missing]
    hub = parse_connection_string(ours.connection_string).hub
    requests = ours.prefix + settings.queue.request_queue
    if hub is not None and hub != requests:
        key = settings.queue.key(EventHubsSettings, "connection_string")
        return [(key, f"is for the hub {hub} alone, and requests wait in {requests}")]
    return []


def check_connection(ours: EventHubsSettings) -> list[tuple[str, str]]:
    """What is missing to reach a namespace: each field of the record with the reason."""
    if not ours.connection_string:
        return [("connection_string", "is needed: the connection string of a policy with Send and Listen")]
    if ours.ca is not None and parse_connection_string(ours.connection_string).emulator:
        return [("ca", "has no effect: the emulator speaks no TLS")]
    return []
