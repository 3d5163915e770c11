# -*- test-case-name: tests.test_backends -*-
"""What an operator decides about a queue or a broker of their own."""

from __future__ import annotations

from typing import Any

import attrs

from openhqm.config.model import Settings
from openhqm.config.structure import SECRET
from openhqm.config.validators import dotted_path


@attrs.frozen
class CustomSettings:
    """``factory`` is the dotted path of what makes it (`openhqm.custom.making`), ``options`` what it is called with."""

    factory: str | None = attrs.field(default=None, validator=dotted_path)
    options: dict[str, Any] = attrs.field(factory=dict, repr=False, metadata=SECRET)


def check(settings: Settings) -> list[tuple[str, str]]:
    """What does not go together where the queue is a custom one: each key with the reason."""
    if settings.queue.of(CustomSettings).factory is None:
        return [("queue.connection.custom.factory", "is missing: queue.type custom needs a package.module:callable")]
    return []
