# -*- test-case-name: tests.config.test_config -*-
"""What an operator decides about the embedded database."""

from __future__ import annotations

import attrs

from openhqm.config.model import short_form
from openhqm.config.validators import between, not_empty


@attrs.frozen
class SqliteSettings:
    """``path`` is a directory of its own, relative to where the process was started; it is made if it is missing.

    ``encryption_key_files`` have the keys that requests and replies are encrypted with: the first one writes, all read.

    ``sync_milliseconds`` is how long a commit waits for more writes to share its sync with.
    """

    path: str = attrs.field(default="openhqm-data", validator=not_empty)
    sync_milliseconds: float = attrs.field(
        default=0.0, validator=between(0, 1000), metadata=short_form("sync_milliseconds")
    )
    encryption_key_files: list[str] = attrs.field(factory=list)
