# -*- test-case-name: tests.config.test_hooks -*-
"""What an operator decides about the webhooks of others."""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs
from attrs.validators import optional

from openhqm.config.endpoints import http_url
from openhqm.config.structure import SECRET, Wrong
from openhqm.config.validators import between, not_empty, one_of, tenant_name
from openhqm.policy.hook_signatures import OF_URLS, PRESETS, TIMED, check_secret

MOST_SECRETS = 5
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@attrs.frozen
class Hook:
    """``POST /hooks/NAME`` of a sender that signs as ``preset`` says, by one of ``secrets``.

    What comes is for ``endpoint`` or ``operation``; for neither: routes and the handler decide. ``tolerance_seconds``
    is how far the time of a signature may be off. The requests are on behalf of ``tenant``, whose keys may read them.
    ``url`` is what the sender calls, without a query, for one that signs it.
    """

    preset: str | None = attrs.field(default=None, validator=optional(one_of(list(PRESETS))))
    secrets: list[str] = attrs.field(factory=list, repr=False, metadata=SECRET)
    endpoint: str | None = attrs.field(default=None, validator=optional(not_empty))
    operation: str | None = attrs.field(default=None, validator=optional(not_empty))
    tolerance_seconds: float = attrs.field(default=300.0, validator=between(1, 86400))
    tenant: str | None = attrs.field(default=None, validator=optional(tenant_name))
    url: str | None = attrs.field(default=None, validator=http_url)

    def __attrs_post_init__(self) -> None:
        """Check keys that depend on each other. Raises `Wrong`, so that each complaint has its key."""
        found: list[tuple[tuple[str, ...], str]] = []
        if self.preset is None:
            raise Wrong([(("preset",), f"is missing: it says how the sender signs, {', '.join(sorted(PRESETS))}")])
        if not 0 < len(self.secrets) <= MOST_SECRETS:
            found.append((("secrets",), f"must be 1 to {MOST_SECRETS}"))
        for index, secret in enumerate(self.secrets):
            try:
                check_secret(self.preset, secret)
            except ValueError as error:
                found.append((("secrets", str(index)), str(error)))
        if self.preset not in TIMED and self.tolerance_seconds != 300.0:
            found.append((("tolerance_seconds",), f"has no effect: {self.preset} signs no time"))
        if self.preset in OF_URLS and self.url is None:
            found.append((("url",), f"is missing: {self.preset} signs the public URL that it calls"))
        if self.preset not in OF_URLS and self.url is not None:
            found.append((("url",), f"has no effect: {self.preset} signs no URL"))
        if self.url is not None and "?" in self.url:
            found.append((("url",), "must have no query: what comes has its own"))
        if found:
            raise Wrong(found)


def hook_names(instance: object, attribute: object, value: Mapping[str, Hook]) -> None:
    """Each name can stand in a path."""
    for name in value:
        if not _NAME.fullmatch(name):
            raise ValueError(f"must have names of 1 to 64 letters, digits, hyphens and underscores, not {name[:80]!r}")
