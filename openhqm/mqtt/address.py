# -*- test-case-name: tests.mqtt.test_settings -*-
"""Where an MQTT broker is and who we are there, and which texts can be a topic."""

from __future__ import annotations

import attrs

LONGEST_TOPIC = 65_535
"""In bytes of UTF-8 (MQTT 5, section 1.5.4)."""

LARGEST_PACKET = 268_435_455
LARGEST_MESSAGE = 32 * 1024 * 1024
"""In bytes: the largest message of another program, unless an operator says otherwise. It lies in memory."""
ROOM = 256 * 1024
"""For the topic and the properties of a message, in its packet."""


@attrs.frozen
class TLSFiles:
    """PEM files. ``ca``: the trusted CAs; None: those of the machine. ``cert`` and ``key``: shown to the broker."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


@attrs.frozen
class Address:
    """``tls`` None: plain TCP. ``path`` None: no websockets. ``protocol``: 5, or 4 for MQTT 3.1.1.

    ``keepalive`` is in seconds: the broker gives up a client that was silent for one and a half times as long, and the
    client a broker that has not answered for twice as long.
    """

    host: str
    port: int = 1883
    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    protocol: int = 5
    path: str | None = None
    tls: TLSFiles | None = None
    keepalive: int = 10

    def __str__(self) -> str:
        """A text for logs, without secrets."""
        scheme = ("mqtt" if self.path is None else "ws") + ("" if self.tls is None else "s")
        return f"{scheme}://{self.host}:{self.port}{self.path or ''}"


def topic_fault(name: str) -> str | None:
    """What keeps ``name`` from being the topic of a message, or None (MQTT 5, section 4.7)."""
    try:
        data = name.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    if not data:
        return "is empty"
    if len(data) > LONGEST_TOPIC:
        return f"has more than {LONGEST_TOPIC} bytes"
    if any(mark in name for mark in "+#"):
        return "has a wildcard (+ or #)"
    if any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in name):
        return "has a control character"  # a broker may close the connection over one
    return "begins with $, which is for the broker itself" if name.startswith("$") else None


def filter_fault(name: str) -> str | None:
    """What keeps ``name`` from being a topic filter (MQTT 5, sections 4.7 and 4.8.2), or None."""
    plain = name
    if name.startswith("$share/"):
        parts = name.split("/", 2)
        if len(parts) < 3 or not parts[1] or any(mark in parts[1] for mark in "+#"):
            return "is no shared subscription: $share/GROUP/FILTER"
        plain = parts[2]
    levels = plain.split("/")
    if any("+" in level and level != "+" for level in levels):
        return "has a + beside other characters in a level"
    if any("#" in level for level in levels[:-1]) or ("#" in levels[-1] and levels[-1] != "#"):
        return "has a # that is not its whole last level"
    plain = plain.replace("+", "x").replace("#", "x")
    return topic_fault(plain[1:] if plain.startswith("$") else plain)


def covers(topic_filter: str, topic: str) -> bool:
    """Whether what is published to ``topic`` comes to a subscriber of ``topic_filter`` (MQTT 5, section 4.7)."""
    if topic_filter.startswith("$share/"):
        topic_filter = topic_filter.split("/", 2)[2]
    if topic.startswith("$") and topic_filter[:1] in ("+", "#"):
        return False
    levels, given = topic_filter.split("/"), topic.split("/")
    for index, level in enumerate(levels):
        if level == "#":
            return True
        if index >= len(given) or level not in ("+", given[index]):
            return False
    return len(levels) == len(given)
