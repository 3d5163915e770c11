# -*- test-case-name: tests.mqtt.test_settings -*-
"""What an operator decides about MQTT, and what of it does not go together."""

from __future__ import annotations

import attrs
from attrs.validators import optional

from openhqm.config.model import Settings, short_form
from openhqm.config.structure import PRIVATE
from openhqm.config.validators import between, not_empty, one_of
from openhqm.mqtt.address import LARGEST_MESSAGE, LARGEST_PACKET, ROOM, Address, TLSFiles, topic_fault


def _qos(instance: object, attribute: object, value: int) -> None:
    if value != 1:
        raise ValueError(
            f"must be 1, not {value}: 0 confirms nothing, and 2 adds nothing to what the ledger recognises"
        )


def _protocol(instance: object, attribute: object, value: int) -> None:
    if value not in (4, 5):
        raise ValueError(f"must be 5 (MQTT 5) or 4 (MQTT 3.1.1), not {value}")


@attrs.frozen
class TLS:
    """TLS, where it is ``enabled`` or a file is named. ``ca``: of trusted CAs; ``cert`` and ``key``: shown to the
    broker (None: the key is in the file ``cert``). All are in PEM, and are read again for each connection.
    """

    enabled: bool = False
    ca: str | None = attrs.field(default=None, validator=optional(not_empty))
    cert: str | None = attrs.field(default=None, validator=optional(not_empty))
    key: str | None = attrs.field(default=None, validator=optional(not_empty), metadata=PRIVATE)

    @property
    def files(self) -> TLSFiles | None:
        """None: no TLS."""
        used = self.enabled or self.ca is not None or self.cert is not None or self.key is not None
        return TLSFiles(self.ca, self.cert, self.key) if used else None


def _topic(instance: object, attribute: object, value: str) -> None:
    if (fault := topic_fault(value)) is not None:
        raise ValueError(fault)


@attrs.frozen
class MQTTSettings:
    """Where the broker is, and who we are there.

    ``client_id`` is what the client ids of all our sessions begin with: processes that share a queue have the same one.
    ``protocol`` is 5, or 4 for MQTT 3.1.1. ``path`` is that of the websocket where ``transport`` is ``websockets``.
    ``prefix`` is what all our topics begin with. A broker that answers nothing is given up after twice
    ``keepalive_seconds``. ``timeout_seconds`` is how long a PUBACK may take. ``keeps`` is how many messages the broker
    holds for a session (Mosquitto: ``max_queued_messages``). After ``message_expiry_seconds`` the broker drops what it
    could not deliver; 0: never. ``lost_after_seconds`` is how long a broker that has none of our channels is not
    believed, before requests whose only message was there end. ``status_topic`` is where a broker of other programs
    retains whether this gateway is ``online`` or ``offline``; None: nowhere. Messages of other programs of more than
    ``largest_message`` bytes the broker drops.
    """

    host: str = attrs.field(default="localhost", validator=not_empty, metadata=short_form("mqtt_host"))
    port: int = attrs.field(default=1883, validator=between(1, 65535))
    client_id: str = attrs.field(default="openhqm", validator=not_empty)
    username: str | None = attrs.field(default=None, validator=optional(not_empty))
    password: str | None = attrs.field(default=None, repr=False)
    qos: int = attrs.field(default=1, validator=_qos)
    protocol: int = attrs.field(default=5, validator=_protocol)
    transport: str = attrs.field(default="tcp", validator=one_of(("tcp", "websockets")))
    path: str = attrs.field(default="/mqtt", validator=not_empty)
    tls: TLS = attrs.field(factory=TLS)
    prefix: str = attrs.field(default="openhqm/", validator=not_empty)
    keepalive_seconds: int = attrs.field(default=10, validator=between(2, 3600))
    timeout_seconds: float = attrs.field(default=1.5, validator=between(0.1, 60))
    keeps: int = attrs.field(default=1000, validator=between(1, 10**9))
    message_expiry_seconds: int = attrs.field(default=0, validator=between(0, 0xFFFF_FFFF))
    lost_after_seconds: float = attrs.field(default=60.0, validator=between(0, 366 * 86400))
    status_topic: str | None = attrs.field(default=None, validator=optional(_topic))
    largest_message: int = attrs.field(default=LARGEST_MESSAGE, validator=between(1024, LARGEST_PACKET - ROOM))

    @property
    def address(self) -> Address:
        """The broker that these settings describe."""
        return Address(
            self.host,
            self.port,
            self.username,
            self.password,
            self.protocol,
            self.path if self.transport == "websockets" else None,
            self.tls.files,
            self.keepalive_seconds,
        )


def check(settings: Settings) -> list[tuple[str, str]]:
    """What does not go together where the queue is in MQTT: each key with the reason."""
    found = []
    ours = settings.queue.of(MQTTSettings)

    def key(name: str) -> str:
        return settings.queue.key(MQTTSettings, name)

    if (fault := topic_fault(ours.prefix)) is not None:
        found.append((key("prefix"), f"{fault}: all topics of OpenHQM begin with it"))
    if (fault := topic_fault(settings.queue.request_queue)) is not None:
        found.append(("queue.request_queue", f"{fault}: it is part of a topic"))
    if ours.status_topic is not None:
        found.append((key("status_topic"), "is for brokers: the processes that share a queue would overwrite it"))
    if ours.largest_message != LARGEST_MESSAGE:
        found.append((key("largest_message"), "is for brokers: server.max_body_bytes says how long requests may be"))
    if ours.transport != "websockets" and ours.path != MQTTSettings().path:
        found.append((key("path"), "has no effect without transport: websockets"))
    if ours.password is not None and ours.username is None:
        found.append((key("password"), "needs queue.connection.mqtt.username"))
    if ours.tls.key is not None and ours.tls.cert is None:
        found.append((f"{key('tls')}.key", "needs queue.connection.mqtt.tls.cert"))
    if ours.message_expiry_seconds and ours.protocol != 5:
        found.append((key("message_expiry_seconds"), "needs protocol 5: MQTT 3.1.1 lets no message expire"))
    return found
