# -*- test-case-name: tests.kafka.test_settings -*-
"""What an operator decides about Kafka, and what of it does not go together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs
from attrs.validators import optional

from openhqm.config.model import Settings, short_form
from openhqm.config.structure import PRIVATE
from openhqm.config.validators import between, not_empty, one_of

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
LARGEST_MESSAGE = 1_000_000
_TOPIC = re.compile(r"[A-Za-z0-9._-]+\Z")
LONGEST_TOPIC = 249
LONGEST_NAME = 200
"""What the longest request queue and prefix may have together, in a topic's name."""


def topic_fault(name: str) -> str | None:
    """What keeps ``name`` from being that of a topic, or None. The rule is Kafka's (``Topic.validate``)."""
    if name in ("", ".", ".."):
        return "is no name of a topic"
    if not _TOPIC.fullmatch(name):
        return "has characters besides letters, digits, '.', '_' and '-'"
    return f"has more than {LONGEST_TOPIC} characters" if len(name) > LONGEST_TOPIC else None


@attrs.frozen
class OAuth:
    """Where a token for OAUTHBEARER comes from: the client credentials grant (RFC 6749, section 4.4)."""

    token_url: str = attrs.field(default="", validator=not_empty)
    client_id: str = attrs.field(default="", validator=not_empty)
    client_secret: str = attrs.field(default="", repr=False)
    scope: str | None = None


@attrs.frozen
class Security:
    """How to connect. ``tls``: encrypted, and the broker's certificate is verified, with the CAs in the file ``ca``
    (None: those of the system). ``cert`` and ``key`` are files with what is shown to the broker. All files are in PEM.
    ``mechanism`` is that of SASL, with ``username`` and ``password``, or with ``oauth``.
    """

    tls: bool = False
    ca: str | None = attrs.field(default=None, validator=optional(not_empty))
    cert: str | None = attrs.field(default=None, validator=optional(not_empty))
    key: str | None = attrs.field(default=None, validator=optional(not_empty), metadata=PRIVATE)
    mechanism: str | None = attrs.field(default=None, validator=optional(one_of(MECHANISMS)))
    username: str | None = attrs.field(default=None, validator=optional(not_empty))
    password: str | None = attrs.field(default=None, repr=False)
    oauth: OAuth | None = None

    @property
    def properties(self) -> dict[str, Any]:
        """The same in the properties of librdkafka."""
        sasl = self.mechanism is not None
        found: dict[str, Any] = {"security.protocol": ("SASL_" if sasl else "") + ("SSL" if self.tls else "PLAINTEXT")}
        found |= {
            "ssl.ca.location": self.ca,
            "ssl.certificate.location": self.cert,
            "ssl.key.location": self.key,
            "sasl.mechanism": self.mechanism,
            "sasl.username": self.username,
            "sasl.password": self.password,
        }
        if self.oauth is not None:
            found |= {
                "sasl.oauthbearer.method": "oidc",
                "sasl.oauthbearer.token.endpoint.url": self.oauth.token_url,
                "sasl.oauthbearer.client.id": self.oauth.client_id,
                "sasl.oauthbearer.client.secret": self.oauth.client_secret,
                "sasl.oauthbearer.scope": self.oauth.scope,
            }
        return {name: value for name, value in found.items() if value is not None}


def _servers(instance: object, attribute: object, value: list[str]) -> None:
    if not value:
        raise ValueError("must name at least one server")
    for server in value:
        host, colon, port = server.rpartition(":")
        if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise ValueError(f"must have entries like kafka-1:9092, not {server!r}")


@attrs.frozen
class KafkaSettings:
    """Where Kafka is, and what our topics and groups are called.

    The group of a topic is ``consumer_group``, a dot and the name of the topic. ``prefix`` is what the names of all our
    topics begin with. A topic that is missing is made with ``partitions`` partitions (as many processes can work on it
    at a time), each on ``replication`` brokers; -1: as many as the cluster has as its default. ``timeout_seconds`` is
    how long a confirmation may take. ``largest_message`` is how many bytes of a message the cluster takes, less what
    its headers need. ``lost_after_seconds`` is how long a cluster that has none of our topics is not believed, before
    requests whose only message was there end.
    """

    bootstrap_servers: list[str] = attrs.field(
        factory=lambda: ["localhost:9092"], validator=_servers, metadata=short_form("kafka_bootstrap_servers")
    )
    consumer_group: str = attrs.field(default="openhqm-workers", validator=not_empty)
    security: Security = attrs.field(factory=Security)
    prefix: str = attrs.field(default="openhqm.", validator=not_empty)
    partitions: int = attrs.field(default=12, validator=between(1, 10_000))
    replication: int = attrs.field(default=-1, validator=between(-1, 100))
    timeout_seconds: float = attrs.field(default=5.0, validator=between(0.1, 300))
    largest_message: int = attrs.field(default=LARGEST_MESSAGE, validator=between(1000, 1_000_000_000))
    lost_after_seconds: float = attrs.field(default=60.0, validator=between(0, 366 * 86400))

    @property
    def properties(self) -> Mapping[str, Any]:
        """How to reach the cluster, in the properties of librdkafka."""
        return {"bootstrap.servers": ",".join(self.bootstrap_servers), **self.security.properties}


def check(settings: Settings) -> list[tuple[str, str]]:
    """What does not go together where the queue is in Kafka: each key with the reason."""
    ours = settings.queue.of(KafkaSettings)

    def key(name: str) -> str:
        return settings.queue.key(KafkaSettings, name)

    found = []
    for name, value in ((key("prefix"), ours.prefix), ("queue.request_queue", settings.queue.request_queue)):
        if not _TOPIC.match(value):
            found.append((name, "is part of a topic's name, which has letters, digits, '.', '_' and '-' alone"))
    if len(ours.prefix + settings.queue.request_queue) > LONGEST_NAME:
        found.append((key("prefix"), f"and queue.request_queue have more than {LONGEST_NAME} characters together"))
    if ours.replication == 0:
        found.append((key("replication"), "must be 1 or more, or -1 for the default of the cluster"))
    return [*found, *((key(name), reason) for name, reason in check_connection(ours))]


def check_connection(ours: KafkaSettings) -> list[tuple[str, str]]:
    """What does not go together about reaching a cluster: each field of the record with the reason."""
    security, found = ours.security, []
    if not security.tls:
        for name in ("ca", "cert", "key"):
            if getattr(security, name) is not None:
                found.append((f"security.{name}", "has no effect without security.tls: true"))
    if (security.cert is None) != (security.key is None):
        found.append(("security.cert", "and security.key go together"))
    return found + _about_sasl(security, "security")


def _about_sasl(security: Security, at: str) -> list[tuple[str, str]]:
    by_token = security.mechanism == "OAUTHBEARER"
    found = []
    if security.oauth is not None and not by_token:
        found.append((f"{at}.oauth", f"has no effect without {at}.mechanism: OAUTHBEARER"))
    if by_token and security.oauth is None:
        found.append((f"{at}.oauth", "is needed for OAUTHBEARER: token_url, client_id and client_secret"))
    for name in ("username", "password"):
        given = getattr(security, name) is not None
        if given and (security.mechanism is None or by_token):
            found.append((f"{at}.{name}", f"has no effect without {at}.mechanism: PLAIN or SCRAM"))
        elif not given and security.mechanism is not None and not by_token:
            found.append((f"{at}.{name}", f"is needed for {security.mechanism}"))
    return found
