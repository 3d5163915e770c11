# -*- test-case-name: tests.config.test_config,tests.config.test_tenants -*-
"""What an operator decides about how much callers may submit."""

from __future__ import annotations

import attrs
from attrs.validators import optional

from openhqm.config.validators import between


@attrs.frozen
class RateLimit:
    """How often each caller may submit: ``requests`` in ``per_seconds``, and ``burst`` of them at once. None: no limit.

    ``burst`` None: as many as ``requests``.
    """

    requests: int | None = attrs.field(default=None, validator=optional(between(1, 1_000_000)))
    per_seconds: float = attrs.field(default=1.0, validator=between(0.001, 86400))
    burst: int | None = attrs.field(default=None, validator=optional(between(1, 1_000_000)))


@attrs.frozen
class TenantLimits:
    """How much the callers of one tenant may submit together: so many requests and bytes in each second.

    ``queued`` is how many of its requests may wait for their first attempt, ``waits`` how many callers may wait for a
    response, and ``streams`` how many event streams may be open, in each process. None: no limit.
    """

    queued: int | None = attrs.field(default=None, validator=optional(between(1, 10**12)))
    requests_per_second: float | None = attrs.field(default=None, validator=optional(between(0.001, 1_000_000)))
    bytes_per_second: int | None = attrs.field(default=None, validator=optional(between(1, 1 << 40)))
    waits: int | None = attrs.field(default=None, validator=optional(between(0, 1_000_000)))
    streams: int | None = attrs.field(default=None, validator=optional(between(0, 1_000_000)))
