# -*- test-case-name: tests.config.test_products -*-
"""What configuration knows of the products that can hold the queue, before anything connects.

No module of this package names a product. The table of products is a value: `openhqm.backends` makes it, and `load`
takes it. The record of ``queue.connection``, the short forms beside it and the allowed values of ``queue.type`` and
``cache.type`` follow from it, and so do the rules about them (`openhqm.config.queue_rules`).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from openhqm.config.model import Settings

Check = Callable[[Settings], Sequence[tuple[str, str]]]
"""Returns each key with what is wrong with it. It is called for the product that ``queue.type`` names."""


class Kind(enum.Enum):
    """What a product is to us.

    ``BACKEND``: it holds the queue and its results. ``BROKER``: it moves messages, and needs a result store beside it.
    ``EITHER``: that is known only once it is made.
    """

    BACKEND = "a whole backend"
    BROKER = "a broker"
    EITHER = "a backend or a broker"


class Reach(enum.Enum):
    """Which processes can use what a product holds.

    ``PROCESS``: the one that made it, for as long as it runs. ``FILE``: one process at a time. ``SHARED``: any number.
    """

    PROCESS = "is seen by one process only"
    FILE = "is a file that one process opens at a time"
    SHARED = "is shared by any number of processes"


def _nothing_wrong(settings: Settings) -> Sequence[tuple[str, str]]:
    return ()


def _no_fault(name: str) -> str | None:
    return None


def _nothing_wrong_with(record: Any) -> Sequence[tuple[str, str]]:
    return ()


def _always(name: str) -> bool:
    return True


def _never(name: str) -> bool:
    return False


def _same(one: str, other: str) -> bool:
    return one == other


@attrs.frozen
class ForeignChannels:
    """How the channels of other programs are named in a product.

    ``key`` is that of a bridge's source: ``topics``, ``topic``, ``queue``, ``stream`` or ``subscription``.
    ``source_fault`` says what keeps a name from being read from, ``fault`` what keeps it from being published to; None:
    nothing. ``covers``: what is published to the second name comes to a reader of the first. ``one_reader``: a reader
    has its name for itself, and its messages are acknowledged in their order. ``answers``: an answer to what was
    published can be waited for. ``unused`` are the fields of the product's record that are for our own queue alone,
    ``without`` the keys of ``publish`` that it does not have. ``check`` finds what is wrong with the product's record:
    each field with the reason. ``in_order``: a bridge receives the messages of a key in the order in which they were
    published, also those that it receives again. ``keyed``: a message has a key of its own, which partitions them.
    ``answers_by_topic``: the answer may come into a channel that the request names. ``exchanges``: what is published
    may go to an exchange, which routes it by its topic.
    ``ordered``: the messages of one key stay in order in the channel of that name. ``needs_key``: a message that is
    published there must have a key.
    """

    key: str
    source_fault: Callable[[str], str | None] = _no_fault
    fault: Callable[[str], str | None] = _no_fault
    covers: Callable[[str, str], bool] = _same
    one_reader: bool = False
    answers: bool = False
    unused: Sequence[str] = ()
    without: Sequence[str] = ()
    check: Callable[[Any], Sequence[tuple[str, str]]] = _nothing_wrong_with
    in_order: bool = False
    keyed: bool = False
    answers_by_topic: bool = False
    exchanges: bool = False
    ordered: Callable[[str], bool] = _always
    needs_key: Callable[[str], bool] = _never


@attrs.frozen
class Product:
    """One product. ``name`` is its value of ``queue.type``, and the name of its record in ``queue.connection``.

    ``settings`` is that record, an attrs class whose fields all have defaults (None: there is nothing to configure).
    ``check`` finds what is wrong with the settings where the queue is in this product. ``keeps_records``: it can be
    the result store beside a broker. ``foreign_messages``: other programs put messages into its queues, which
    ``queue.format`` says how to read. ``foreign``: it can be one of ``brokers``. ``accept`` is what ``queue.accept`` is
    where it is left out, over a broker, and ``priorities`` what ``queue.priorities`` is; None: all three.
    """

    name: str
    kind: Kind
    reach: Reach
    settings: type[attrs.AttrsInstance] | None = None
    check: Check = _nothing_wrong
    keeps_records: bool = False
    foreign_messages: bool = False
    accept: str = "confirmed"
    priorities: list[str] | None = None
    foreign: ForeignChannels | None = None


@attrs.frozen(eq=False)
class Products:
    """The products of this build, in the order in which an operator is told of them.

    The first one holds the queue where ``queue.type`` is left out, and the first that can keep records is the result
    store of a broker where ``cache.type`` is left out. ``absent`` are products that other builds have, by name, each
    with its short forms in ``queue``: they are refused as such, and not as spelling mistakes.
    """

    rows: Sequence[Product]
    absent: Mapping[str, Sequence[str]] = attrs.field(factory=dict)

    def __getitem__(self, name: str) -> Product:
        return next(row for row in self.rows if row.name == name)

    @property
    def default(self) -> Product:
        """The product that holds the queue where ``queue.type`` is left out."""
        return self.rows[0]

    @property
    def stores(self) -> Sequence[Product]:
        """The products that hold results: the values of ``cache.type``."""
        return [row for row in self.rows if row.kind is Kind.BACKEND]

    @property
    def record_keepers(self) -> Sequence[Product]:
        """The products that can keep the records beside a broker, the default one first."""
        return [row for row in self.rows if row.keeps_records]
