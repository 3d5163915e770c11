# -*- test-case-name: tests.pubsub.test_settings -*-
"""What an operator decides about Pub/Sub, and what of it does not go together."""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs
from attrs.validators import optional

from openhqm.config.model import Settings
from openhqm.config.structure import PRIVATE
from openhqm.config.validators import between, has_tls, not_empty
from openhqm.errors import Complaint, ConfigurationError, how_to_install
from openhqm.pubsub.names import NAME, NAME_RULE, PROJECT
from openhqm.pubsub.subscriptions import DAY, DEFAULT_RETENTION, LONGEST_DEADLINE, SHORTEST_DEADLINE, Wanted

EMULATOR = "PUBSUB_EMULATOR_HOST"
"""The variable by which Google's own clients find an emulator."""
_HOST = re.compile(r"[A-Za-z0-9.-]+(:\d{1,5})?\Z|\[[0-9A-Fa-f:.]+\](:\d{1,5})?\Z")
_URL = re.compile(r"https?://[^/?#@\s]+\Z")


def _project(instance: object, attribute: object, value: str) -> None:
    if value and not PROJECT.match(value):
        raise ValueError("must be the id of a project: 6 to 30 lower-case letters, digits and hyphens")


def _host(instance: object, attribute: object, value: str) -> None:
    if not _HOST.match(value):
        raise ValueError("must be host:port, without a scheme or a path")


def _url(instance: object, attribute: object, value: str) -> None:
    if not _URL.match(value):
        raise ValueError(
            "must be a URL without a path and without a password: https://europe-west1-pubsub.googleapis.com, say"
        )


def _name(instance: object, attribute: object, value: str) -> None:
    if not NAME.match(value):
        raise ValueError(NAME_RULE)


@attrs.frozen
class PubSubSettings:
    """Which project, as whom, and what our topics and subscriptions are called.

    ``credentials_path`` None: as google-auth finds them. ``endpoint`` is the service, or that of one region.
    ``prefix`` is what the names of our topics and subscriptions begin with; ``create``: they are made where they are
    missing, to keep a message for ``retention_seconds``. A delivery stays out for ``lease_seconds`` and is extended
    before. ``dead_letter_topic``: makes Pub/Sub count deliveries. ``timeout_seconds`` is how long an answer may take.
    ``lost_after_seconds`` is how long a project that has none of our topics is not believed, before requests whose only
    message was there end.
    """

    project_id: str = attrs.field(default="", validator=_project)
    credentials_path: str | None = attrs.field(default=None, validator=optional(not_empty), metadata=PRIVATE)
    emulator_host: str | None = attrs.field(default=None, validator=optional(_host))
    endpoint: str = attrs.field(default="https://pubsub.googleapis.com", validator=_url)
    prefix: str = "openhqm."
    create: bool = True
    lease_seconds: float = attrs.field(default=60.0, validator=between(SHORTEST_DEADLINE, LONGEST_DEADLINE))
    retention_seconds: float = attrs.field(default=DEFAULT_RETENTION, validator=between(600, 31 * DAY))
    dead_letter_topic: str | None = attrs.field(default=None, validator=optional(_name))
    timeout_seconds: float = attrs.field(default=5.0, validator=between(0.1, 300))
    lost_after_seconds: float = attrs.field(default=60.0, validator=between(0, 366 * 86400))

    def emulator(self, environment: Mapping[str, str]) -> str | None:
        """The address of the emulator that stands in for the service, or None. `ConfigurationError`."""
        if self.emulator_host is not None:
            return self.emulator_host
        found = environment.get(EMULATOR)
        if found and not _HOST.match(found):
            raise ConfigurationError([Complaint(EMULATOR, "must be host:port, without a scheme or a path")])
        return found or None

    def wanted(self, own: bool = True) -> Wanted:
        """What subscriptions are made with, or should have."""
        return Wanted(self.lease_seconds, self.retention_seconds, self.dead_letter_topic, own)


def check_project(ours: PubSubSettings) -> list[tuple[str, str]]:
    """What is wrong with how the project is reached: each field with the reason."""
    found = []
    if not ours.project_id:
        found.append(("project_id", "is needed: the id of the project that has the topics"))
    if ours.endpoint.startswith("https:") and ours.emulator_host is None and not has_tls():
        found.append(("endpoint", f"https needs TLS: {how_to_install('pubsub')}"))
    return found


def check(settings: Settings) -> list[tuple[str, str]]:
    """What does not go together where the queue is in Pub/Sub: each key with the reason."""
    ours = settings.queue.of(PubSubSettings)

    def key(name: str) -> str:
        return settings.queue.key(PubSubSettings, name)

    found = [(key(name), reason) for name, reason in check_project(ours)]
    requests = ours.prefix + settings.queue.request_queue
    if not NAME.match(requests):
        reason = f"and queue.request_queue make {requests[:80]!r}, and a name in Pub/Sub {NAME_RULE}"
        found.append((key("prefix"), reason))
    return found
