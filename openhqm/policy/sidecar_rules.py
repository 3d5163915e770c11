# -*- test-case-name: tests.policy.test_sidecar_rules -*-
"""Which requests of a sidecar are the gateway's own, which go straight through, and which wait in the queue."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import attrs

MOST_PATTERN = 256
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"))

_OWN = frozenset((b"/health", b"/metrics", b"/openapi.json"))
_OWN_BELOW = (b"/api/v1/", b"/health/")
_PATTERN = re.compile(r"/[!-~]*\Z")
_TOKEN = re.compile(r"[!#$%&'*+\-.^`|~0-9A-Za-z]+\Z")


def is_own(path: bytes) -> bool:
    """Whether a path is the gateway's, and never the application's behind it.

    As it was sent, and nothing unescaped: what the gateway's own routes would not know goes to the application.
    """
    return path in _OWN or path.startswith(_OWN_BELOW)


def _matcher(pattern: str) -> Callable[[str], object]:
    """``*`` is anything within a segment, and ``**``, which ends a pattern, anything at all.

    Each star is as short as what follows it allows, and is not tried again: the time is bounded by the lengths.
    """
    rest = pattern.removesuffix("**")
    first, *pieces = rest.split("*")
    expression = re.escape(first)
    for index, piece in enumerate(pieces):
        last = index == len(pieces) - 1 and rest == pattern
        expression += rf"[^/]*{re.escape(piece)}" if last else rf"(?>[^/]*?{re.escape(piece)})"
    return re.compile(expression + (r"\Z" if rest == pattern else "")).match


@attrs.frozen
class Rule:
    """Requests that wait in the queue: by path, and where they are given also by method and by header field.

    ``path`` is a glob over the path as it is sent, without the query: ``/reports/*/pdf``, ``/jobs/**``. No ``methods``
    means all of them. ``header`` is a name, which must be there; with ``value``, it must say just that. ``wait``: how
    many seconds to hold the request open for its answer, or None for a 202 at once.

    `ValueError`, with the rest of a sentence that begins with the key, for what is none of that.
    """

    path: str = attrs.field()
    methods: Sequence[str] = ()
    header: str | None = None
    value: str | None = None
    wait: float | None = None
    _matches: Callable[[str], object] = attrs.field(init=False, eq=False, repr=False)

    @path.validator
    def _check_path(self, attribute: object, path: str) -> None:
        check_pattern(path)

    @_matches.default
    def _compile(self) -> Callable[[str], object]:
        return _matcher(self.path)

    def matches(self, method: str, path: str, fields: Sequence[tuple[bytes, bytes]]) -> bool:
        """Whether it speaks of this request. Names of ``fields`` in lower case, as the HTTP front has them."""
        if (self.methods and method not in self.methods) or not self._matches(path):
            return False
        if self.header is None:
            return True
        name = self.header.lower().encode()
        wanted = None if self.value is None else self.value.encode()
        return any(key == name and (wanted is None or value == wanted) for key, value in fields)


def check_pattern(path: str) -> None:
    """`ValueError` unless it is a glob as `Rule` has it."""
    if _PATTERN.match(path) is None or "?" in path or "#" in path or len(path) > MOST_PATTERN:
        raise ValueError(f"must be a path of at most {MOST_PATTERN} visible characters, not {path!r}")
    if "**" in path.removesuffix("**") or path.endswith("***"):
        raise ValueError(f"may have ** at its end only, not {path!r}")


def check_methods(methods: Sequence[str]) -> None:
    """`ValueError` unless all of them are served here."""
    for method in methods:
        if method not in METHODS:
            raise ValueError(f"must be of {', '.join(sorted(METHODS))}, not {method!r}")


def check_header(name: str | None) -> None:
    """`ValueError` unless it is None, or a name that a header field can have."""
    if name is not None and _TOKEN.match(name) is None:
        raise ValueError(f"must be the name of a header field, not {name!r}")


@attrs.frozen
class Queued:
    """It waits in the queue; its caller for ``wait`` seconds, or not at all."""

    wait: float | None = None


def decide(
    rules: Sequence[Rule], method: bytes, path: bytes, fields: Sequence[tuple[bytes, bytes]], asks_for_it: bool
) -> Queued | None:
    """`Queued`, or None for straight through. The first rule that matches decides.

    ``asks_for_it``: the client prefers ``respond-async`` (RFC 7240, section 4.1), which no rule overrides; such a
    client waits for as long as it says itself, and not for as long as a rule says.
    """
    if asks_for_it:
        return Queued()
    if rules:
        name, place = method.decode("ascii"), path.decode("ascii", "replace")
        for rule in rules:
            if rule.matches(name, place, fields):
                return Queued(rule.wait)
    return None
