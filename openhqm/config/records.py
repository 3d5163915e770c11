# -*- test-case-name: tests.config.test_products -*-
"""The records of the settings that follow from the table of products.

`openhqm.config.model` has what is the same with any table. Here each of its records that depends on the table gets the
fields that are missing: ``queue.connection`` one for each product, ``queue`` and ``cache`` the short forms.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, get_type_hints

import attrs
from attrs.validators import optional

from openhqm.config.bridges import NamedBroker, broker_names
from openhqm.config.model import Cache, Connection, Queue, Settings, short_forms
from openhqm.config.products import Product, Products
from openhqm.config.structure import tagged
from openhqm.config.validators import one_of


@cache
def settings_record(products: Products) -> type[Settings]:
    """The class of the settings over ``products``, the same one in every call; each of its fields has a default."""
    found = {row.name: row.settings for row in products.rows if row.settings is not None}
    connection = _record(Connection, {name: attrs.field(factory=record, type=record) for name, record in found.items()})
    types = one_of([row.name for row in products.rows])
    queue = _record(
        Queue,
        {
            "type": attrs.field(default=products.default.name, type=str, validator=types),
            "connection": attrs.field(factory=connection, type=connection),
            **_short_fields(products.rows),
        },
    )
    stores = one_of([row.name for row in products.stores])
    cached = _record(Cache, {"type": _optional(str, stores), **_short_fields(products.record_keepers)})
    fields = {"queue": attrs.field(factory=queue, type=queue), "cache": attrs.field(factory=cached, type=cached)}
    foreign = {row.name: row.settings for row in products.rows if row.foreign and row.settings is not None}
    broker = tagged(NamedBroker, foreign)
    fields["brokers"] = attrs.field(factory=dict, type=dict[str, broker], validator=broker_names)  # type: ignore[valid-type]
    return _record(Settings, fields)


def _record(base: type[Any], fields: dict[str, Any]) -> type[Any]:
    return attrs.make_class(base.__name__, fields, bases=(base,), frozen=True, kw_only=True, slots=True)


def _short_fields(products: Iterable[Product]) -> dict[str, Any]:
    """A field for each short form: None, or what the field it stands for allows."""
    fields = {}
    for row in products:
        if row.settings is not None:
            types = get_type_hints(row.settings)
            for short, field in short_forms(row.settings).items():
                fields[short] = _optional(types[field.name], field.validator, repr=field.repr, metadata=field.metadata)
    return fields


def _optional(kind: Any, validator: Any, **more: Any) -> Any:
    """A field that is None by default."""
    return attrs.field(default=None, type=kind | None, validator=optional(validator) if validator else None, **more)
