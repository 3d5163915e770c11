# -*- test-case-name: tests.config.test_config -*-
"""What an operator decides about the embedded database."""

from __future__ import annotations

import attrs

from openhqm.config.validators import not_empty


@attrs.frozen
class SqliteSettings:
    """``path`` is a directory of its own, relative to where the process was started; it is made if it is missing."""

    path: str = attrs.field(default="openhqm-data", validator=not_empty)
