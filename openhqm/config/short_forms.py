# -*- test-case-name: tests.config.test_unused -*-
"""Short forms: ``queue.NAME_url`` and ``queue.connection.NAME.url`` are one setting with two names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from openhqm.config.model import short_forms
from openhqm.config.products import Products


def settle_short_forms(
    document: Mapping[str, Any], products: Products, variables: Collection[tuple[str, ...]]
) -> list[tuple[str, str]]:
    """Remove from ``document`` each short form that the environment overrides by the long one.

    ``variables`` are the keys that are from the environment. Returned is each key that says once more, in the same
    place, what another one says differently. Where both stay, the short form wins (`Queue.of`): it is the variable.
    """
    queue = document.get("queue")
    if not isinstance(queue, dict):
        return []
    found = []
    for row in products.rows:
        section = _section(queue, row.name)
        for short, field in {} if row.settings is None else short_forms(row.settings).items():
            for name in (short, f"{short}_file"):
                for long in (field.name, f"{field.name}_file"):
                    if queue.get(name) is None or section.get(long) is None:
                        continue
                    path = ("queue", "connection", row.name, long)
                    ours, other = _is_variable(("queue", name), variables), _is_variable(path, variables)
                    if other and not ours:
                        del queue[name]
                    elif ours == other and (name, queue[name]) != (short, section[long]):
                        found.append((f"queue.{name}", f"says the same as {'.'.join(path)}: leave one of them out"))
    return found


def _section(queue: Mapping[str, Any], product: str) -> Mapping[str, Any]:
    connection = queue.get("connection")
    section = connection.get(product) if isinstance(connection, Mapping) else None
    return section if isinstance(section, Mapping) else {}


def _is_variable(key: tuple[str, ...], variables: Collection[tuple[str, ...]]) -> bool:
    return any(key[: len(each)] == each for each in variables)
