"""A client of MQTT as a device has one: paho's own loop, in a thread."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

SECONDS = 20


class Device:
    """Connected to 127.0.0.1:``port``. ``answer`` is called with each message that comes."""

    def __init__(
        self,
        port: int,
        protocol: int = 5,
        answer: Callable[[Device, MQTTMessage], object] | None = None,
    ) -> None:
        self.messages: queue.Queue[MQTTMessage] = queue.Queue()
        self._subscribed: queue.Queue[Any] = queue.Queue()
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion(protocol))
        self._client.on_message = lambda _, __, message: (
            self.messages.put(message) if answer is None else answer(self, message)
        )
        self._client.on_subscribe = lambda *arguments: self._subscribed.put(arguments)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def subscribe(self, topic: str) -> None:
        """Subscribe, and come back once the broker has said so."""
        self._client.subscribe(topic, 1)
        self._subscribed.get(timeout=SECONDS)

    def publish(self, topic: str, payload: bytes | str, *, wait: bool = True, **properties: Any) -> None:
        """Publish with QoS 1, and come back once the broker has it, unless it is not to ``wait``."""
        made = None
        if properties:
            made = Properties(PacketTypes.PUBLISH)
            for name, value in properties.items():
                setattr(made, name, value)
        sent = self._client.publish(topic, payload, 1, properties=made)
        if wait:
            sent.wait_for_publish(SECONDS)
            assert sent.is_published()

    def retain(self, topic: str, payload: bytes) -> None:
        """Publish what the broker keeps for the topic."""
        sent = self._client.publish(topic, payload, 1, retain=True)
        sent.wait_for_publish(SECONDS)
        assert sent.is_published()

    def next(self) -> MQTTMessage:
        """The next message that comes."""
        return self.messages.get(timeout=SECONDS)

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()
