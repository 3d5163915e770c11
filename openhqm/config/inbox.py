# -*- test-case-name: tests.config.test_inbox -*-
"""The bridge that needs no section: from ``queue.request_queue``, which other programs fill, into our own queue.

The specification's second pattern (2.2) is a process without HTTP that sends on what it finds in its request queue, and
it is configured with two keys: ``server.enabled: false`` and ``proxy.enabled: true``. The channel has that plain name;
our own queue in the same product has a prefix in front of its names.
"""

from __future__ import annotations

import attrs

from openhqm.config.bridges import NONE, Bridge, NamedBroker, Source
from openhqm.config.model import Settings
from openhqm.config.products import Products
from openhqm.policy.foreign import RAW

INBOX = "request_queue"
"""The name of that bridge, and of its broker: the product that has the queue, and its connection."""
MOST = 200


@attrs.frozen
class Inbox(Bridge):
    """The bridge from ``queue.request_queue``.

    ``queue_replies``: the queue itself sends the reply, in the step that ends the request. ``answers`` is then where
    those go that a message names no address for; None: there are none.
    """

    queue_replies: bool = False
    answers: str | None = None


def is_fed_by_others(settings: Settings) -> bool:
    """Whether other programs alone put requests in: there is no door, no bridge, and something to send them on to."""
    bridges = [each for each in settings.bridges if not isinstance(each, Inbox)]
    return not settings.server.enabled and settings.worker.enabled and settings.proxy.enabled and not bridges


def with_inbox(settings: Settings, products: Products, *, is_a_worker: bool) -> Settings:
    """``settings`` with the bridge from ``queue.request_queue``, where there is one.

    There is one in each process that works where the product's queues are shared with other programs, and elsewhere in
    a process that they alone feed. ``is_a_worker``: the process was told to work on what other processes accept.
    """
    product = products[settings.queue.type]
    channels = product.foreign
    fed = product.foreign_messages or (is_fed_by_others(settings) and not is_a_worker)
    if channels is None or product.settings is None or not fed:
        return settings
    queue, shared = settings.queue, product.foreign_messages
    bridge = Inbox(
        INBOX,
        Source.of(INBOX, channels.key, queue.request_queue, "bytes" if queue.format == RAW else queue.format),
        most=MOST,
        reply=NONE if shared else None,
        queue_replies=shared,
        answers=queue.response_queue if shared else None,
    )
    broker = NamedBroker(product.name, queue.of(product.settings))
    return attrs.evolve(settings, brokers={**settings.brokers, INBOX: broker}, bridges=[*settings.bridges, bridge])


def about_the_inbox(settings: Settings, products: Products) -> list[tuple[str, str]]:
    """What is wrong with a process that other programs alone feed, or with names that its bridge has taken."""
    product = products[settings.queue.type]
    if is_fed_by_others(settings) and product.foreign is None:
        able = " or ".join(row.name for row in products.rows if row.foreign is not None)
        reason = (
            f"other programs cannot put messages into {product.name}, and with server.enabled: false nothing else "
            f"does: name what is to be read in brokers and bridges, say {able}, or start the process with "
            "--role worker to work on what another one accepts"
        )
        return [("queue.type", reason)]
    found = []
    if product.foreign_messages or is_fed_by_others(settings):
        reason = "is the name of what reads queue.request_queue: take another one"
        if INBOX in settings.brokers:
            found.append((f"brokers.{INBOX}", reason))
        found += [
            (f"bridges.{index}.name", reason) for index, each in enumerate(settings.bridges) if each.name == INBOX
        ]
    return found
