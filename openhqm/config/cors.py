# -*- test-case-name: tests.policy.test_cors -*-
"""What an operator decides about pages of other origins."""

from __future__ import annotations

import attrs

from openhqm.config.structure import Wrong
from openhqm.config.validators import between
from openhqm.policy.cors import EVERY, Cors, check_origins


def _origins(instance: object, attribute: object, value: list[str]) -> None:
    check_origins(value)


@attrs.frozen
class CorsSettings:
    """The origins whose pages may call (`openhqm.policy.cors.Cors`). Empty: none."""

    origins: list[str] = attrs.field(factory=list, validator=_origins)
    credentials: bool = False
    max_age_seconds: int = attrs.field(default=600, validator=between(0, 86400))

    def __attrs_post_init__(self) -> None:
        """Check keys that depend on each other. Raises `Wrong`, so that each complaint has its key."""
        if self.credentials and EVERY in self.origins:
            raise Wrong([(("origins",), "must not have * with credentials, by which every page could act as its user")])
        if not self.origins and (self.credentials or self.max_age_seconds != 600):
            raise Wrong([(("origins",), "is missing: the other keys of cors have no effect without it")])

    @property
    def cors(self) -> Cors | None:
        """What these settings describe; None: pages of other origins may not call."""
        if not self.origins:
            return None
        return Cors(frozenset(each.encode() for each in self.origins), self.credentials, self.max_age_seconds)
