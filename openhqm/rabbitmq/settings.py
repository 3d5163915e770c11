# -*- test-case-name: tests.config.test_config -*-
"""What an operator decides about RabbitMQ, and what of it does not go together."""

from __future__ import annotations

import attrs

from openhqm.config.model import Settings, short_form
from openhqm.config.validators import between, has_tls, not_empty
from openhqm.errors import how_to_install
from openhqm.rabbitmq.address import parse_address


def _url(instance: object, attribute: object, value: str) -> None:
    parse_address(value)


@attrs.frozen
class RabbitMQSettings:
    """Where RabbitMQ is, or the nodes of a cluster.

    ``url``: see `openhqm.rabbitmq.address`. ``prefix`` is what the names of all our queues begin with.
    ``timeout_seconds`` is how long a confirmation may take. ``consumer_timeout_seconds`` is what the server has as its
    ``consumer_timeout``; 0: it is switched off. ``lost_after_seconds`` is how long a server that has none of our queues
    is not believed, before requests whose only message was there end.
    """

    url: str = attrs.field(
        default="amqp://guest:guest@localhost:5672/%2F",
        repr=False,
        validator=_url,
        metadata=short_form("rabbitmq_url"),
    )
    prefix: str = attrs.field(default="openhqm.", validator=not_empty)
    timeout_seconds: float = attrs.field(default=1.5, validator=between(0.1, 60))
    consumer_timeout_seconds: float = attrs.field(default=1800.0, validator=between(0, 366 * 86400))
    lost_after_seconds: float = attrs.field(default=60.0, validator=between(0, 366 * 86400))


def check(settings: Settings) -> list[tuple[str, str]]:
    """What does not go together where the queue is in RabbitMQ: each key with the reason.

    RabbitMQ closes the channel of a consumer that does not acknowledge a message within its ``consumer_timeout``
    (https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout).
    """
    found = []
    ours = settings.queue.of(RabbitMQSettings)
    if parse_address(ours.url).tls and not has_tls():
        found.append((settings.queue.key(RabbitMQSettings, "url"), f"amqps needs TLS: {how_to_install('tls')}"))
    limit, lease = ours.consumer_timeout_seconds, settings.queue.lease_seconds
    if limit and settings.worker.enabled:
        found += [
            (
                key,
                f"{seconds:g} s and a lease of {lease:g} s are more than the {limit:g} s for which RabbitMQ lets a "
                "message be unacknowledged: raise its consumer_timeout, and "
                "queue.connection.rabbitmq.consumer_timeout_seconds with it (0: it is switched off)",
            )
            for key, seconds in settings.attempt_limits()
            if seconds + lease > limit
        ]
    return found
