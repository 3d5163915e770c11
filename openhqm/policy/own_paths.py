# -*- test-case-name: tests.policy.test_sidecar_rules -*-
"""Which paths are the gateway's own: those of the API, and those for operators, which can be moved under a prefix."""

from __future__ import annotations

import re

import attrs

SIDECAR_PREFIX = "/_openhqm"
"""The default in front of an application, which often has a ``/health`` and a ``/metrics`` of its own."""

_API = b"/api/v1/"
_OPERATIONS = (b"/health", b"/metrics", b"/openapi.json")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)*/?\Z")


def check_prefix(value: str | None) -> None:
    """Raise `ValueError` unless ``value`` is None, ``/``, or a path that no route of the API can be taken for."""
    if value is None:
        return
    if not value.startswith("/") or _PREFIX.match(value) is None or (value.endswith("/") and value != "/"):
        raise ValueError(f"must be / or a path such as /_openhqm, not {value!r}")
    if any(segment in (".", "..") for segment in value.split("/")):
        raise ValueError(f"must not have . or .. as a segment, not {value!r}")
    if f"{value}/".startswith("/api/"):
        raise ValueError(f"must not be below /api, where the paths for callers are, not {value!r}")


@attrs.frozen
class OwnPaths:
    """The paths that the gateway serves itself. Those for operators lie below ``prefix``: empty, or like ``/_openhqm``.

    Paths are compared as they were sent, with their escapes. Where an application stands behind the gateway, it has all
    others.
    """

    prefix: str = ""
    _exact: frozenset[bytes] = attrs.field(init=False, repr=False, eq=False)
    _below: tuple[bytes, ...] = attrs.field(init=False, repr=False, eq=False)

    @_exact.default
    def _operations(self) -> frozenset[bytes]:
        return frozenset(self.prefix.encode() + path for path in _OPERATIONS)

    @_below.default
    def _trees(self) -> tuple[bytes, ...]:
        return (_API, self.prefix.encode() + b"/health/")

    def __call__(self, path: bytes) -> bool:
        return path in self._exact or path.startswith(self._below)

    def unprefixed(self, path: bytes) -> bytes | None:
        """The route for ``path``: without the prefix, for the paths that have one. None: there is none."""
        if not self.prefix or path.startswith(_API):
            return path
        prefix = self.prefix.encode() + b"/"
        rest = path[len(prefix) - 1 :]
        return rest if path.startswith(prefix) and not rest.startswith(_API) else None


ROOT = OwnPaths()
