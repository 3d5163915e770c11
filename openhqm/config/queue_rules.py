# -*- test-case-name: tests.config.test_config,tests.test_backends -*-
"""What does not go together about the queue and its result store, whichever products they are.

Each rule is about a property of a product (`openhqm.config.products`), and none about a name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from openhqm.config.inbox import is_fed_by_others
from openhqm.config.model import RESPONSES, Settings, short_forms
from openhqm.config.products import Kind, Product, Products, Reach
from openhqm.messages import Priority

Found = list[tuple[str, str]]


def about_the_queue(settings: Settings, products: Products) -> Found:
    """Each key with what is wrong with it, as far as that can be told before the product is made."""
    product = products[settings.queue.type]
    found = [*about_halves(settings, products), *_about_processes(settings, products), *_about_names(settings)]
    is_fed = product.foreign_messages or (product.foreign is not None and is_fed_by_others(settings))
    if settings.queue.format not in ("auto", "envelope") and not is_fed:
        reason = f"{settings.queue.format} is for messages of other programs, which do not reach {product.name}"
        found.append(("queue.format", reason))
    limits = settings.queue.limits.limits
    if limits.drop_oldest and not limits.any:
        reason = "drop_oldest is for a full queue, and nothing limits this one: set queue.limits.requests or .bytes"
        found.append(("queue.limits.overflow", reason))
    if product.kind is not Kind.EITHER:
        found += about_the_kind(settings, products, product.kind)
    return [*found, *product.check(settings)]


def about_halves(settings: Settings, products: Products) -> Found:
    """What is wrong with a process that only listens, or only works, on the queue that it has.

    One that works on what its bridges bring needs no listener: `openhqm.config.bridge_rules` has what they need.
    """
    product = products[settings.queue.type]
    if settings.worker.enabled and settings.bridges:
        return []
    if settings.server.enabled == settings.worker.enabled or product.reach is not Reach.PROCESS:
        return []
    reason = "server.enabled and worker.enabled are needed together, or what a listener accepts is never worked on"
    return [("queue.type", f"{product.name} {product.reach.value}: {reason}")]


def about_the_kind(settings: Settings, products: Products, kind: Kind) -> Found:
    """What is wrong where the queue is of ``kind``. A product of either kind is asked about once it is made."""
    if kind is Kind.BROKER:
        return [*_about_the_store_of_a_broker(settings, products), *_about_steps(settings, products)]
    return [
        *_about_the_store_of_a_backend(settings, products),
        *_about_replies(settings, products),
        *_about_priorities(settings),
        *_about_accepting(settings),
    ]


def record_keeper(settings: Settings, products: Products) -> Product | None:
    """The product that keeps the records of what is in a broker; None: this process works without a store.

    A process that only works needs no store of its own: it reports to the process that keeps the records. One with
    bridges accepts requests, as one with a door does. Where the store is shared, every process uses it.
    """
    keeper = _named_store(settings, products)
    accepts = settings.server.enabled or bool(settings.bridges)
    return keeper if accepts or keeper.reach is Reach.SHARED else None


def is_shared(settings: Settings, products: Products) -> bool:
    """Whether other processes, on any machine, work on what this one accepts, and answer for it."""
    product = products[settings.queue.type]
    keeper = product if product.kind is Kind.BACKEND else _named_store(settings, products)
    return product.reach is Reach.SHARED and keeper.reach is Reach.SHARED


def _named_store(settings: Settings, products: Products) -> Product:
    return products.record_keepers[0] if settings.cache.type is None else products[settings.cache.type]


def _about_processes(settings: Settings, products: Products) -> Found:
    count, product = settings.server.workers, products[settings.queue.type]
    if count == 1 or product.reach is Reach.SHARED:
        return []
    shared = _one_of(row for row in products.rows if row.reach is Reach.SHARED)
    return [("server.workers", f"{count} processes need queue.type {shared}: {product.name} {product.reach.value}")]


def _about_the_store_of_a_broker(settings: Settings, products: Products) -> Found:
    keeper, count = _named_store(settings, products), settings.server.workers
    if not keeper.keeps_records:
        able = _one_of(products.record_keepers)
        return [("cache.type", f"{keeper.name} {keeper.reach.value}, and a 202 must outlive the process: say {able}")]
    found: Found = []
    for row in products.record_keepers:
        if row is not keeper:
            found += [(key, f"is only used with cache.type: {row.name}") for key in _said_in_cache(settings, row)]
    if count > 1 and keeper.reach is not Reach.SHARED:
        shared = _one_of(row for row in products.record_keepers if row.reach is Reach.SHARED)
        found.append(
            ("server.workers", f"{count} processes need cache.type {shared}: {keeper.name} {keeper.reach.value}")
        )
    return found


def _about_the_store_of_a_backend(settings: Settings, products: Products) -> Found:
    found: Found = []
    name = settings.queue.type
    if settings.cache.type not in (None, name):
        reason = "must be left out" if products[name] not in products.stores else f"must be {name} or left out"
        found.append(("cache.type", f"{reason}: it follows queue.type"))
    for row in products.record_keepers:
        if row.settings is not None and settings.store_of(row.settings) != settings.queue.of(row.settings):
            reason = "must be that of the queue or left out: a reply and the end of its request are one step"
            found += [(key, reason) for key in _said_in_cache(settings, row)]
    return found


def _said_in_cache(settings: Settings, product: Product) -> Iterable[str]:
    """The keys under ``cache`` that say where a store of this product is."""
    if product.settings is None:
        return ()
    return [f"cache.{short}" for short in short_forms(product.settings) if getattr(settings.cache, short) is not None]


def _about_names(settings: Settings) -> Found:
    queue = settings.queue
    if queue.dead_letter_queue == queue.request_queue:
        return [("queue.dead_letter_queue", "must not be the request queue")]
    if queue.dead_letter_queue.startswith(queue.request_queue + "."):
        return [("queue.dead_letter_queue", "must not begin with the request queue's name and a dot")]
    return []


def _about_steps(settings: Settings, products: Products) -> Found:
    """Where workers without a store report what they do, unless every process shares a store."""
    queue = settings.queue
    if _named_store(settings, products).reach is Reach.SHARED:
        return _about_replies(settings, products)
    name = queue.steps_queue
    if name in (queue.request_queue, queue.dead_letter_queue) or name.startswith(queue.request_queue + "."):
        return [("queue.response_queue", f"{name} is for the reports of workers without a store, and nothing else")]
    return []


def _about_replies(settings: Settings, products: Products) -> Found:
    queue, product = settings.queue, products[settings.queue.type]
    if not product.foreign_messages:
        # The contract's own name may stay in a file that several installations share: it asks for nothing here.
        if queue.response_queue in (None, RESPONSES):
            return []
        reason = f"other programs do not reach {product.name}: replies are in the result store"
        return [("queue.response_queue", reason)]
    if queue.response_queue in (queue.request_queue, queue.dead_letter_queue):
        return [("queue.response_queue", "must not name a queue that is read here")]
    return []


def _about_priorities(settings: Settings) -> Found:
    if len(settings.queue.channel_priorities) == len(Priority):
        return []
    reason = f"{settings.queue.type} keeps all three by itself: leave the key out, or name all three"
    return [("queue.priorities", reason)]


def _about_accepting(settings: Settings) -> Found:
    if settings.queue.accept != "journaled":
        return []
    reason = f"{settings.queue.type} has no broker that a 202 could wait for: leave the key out"
    return [("queue.accept", reason)]


def _one_of(products: Iterable[Product]) -> str:
    names: Sequence[str] = [product.name for product in products]
    return " or ".join(names)
