# -*- test-case-name: tests.policy.test_sidecar_rules -*-
"""Which requests to a sidecar are relayed to the application, and which wait in the queue."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import attrs

MOST_PATTERN = 256

_STANDARD = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"))
_PATTERN = re.compile(r"/[!-~]*\Z")
_TOKEN = re.compile(r"[!#$%&'*+\-.^`|~0-9A-Za-z]+\Z")
_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")


def _matcher(pattern: str) -> Callable[[str], object]:
    """A matcher of a glob: ``*`` is any text within a segment, and ``**``, at the end only, is any text.

    Each star matches the shortest text that what follows it allows, and is not tried again. So the time is bounded by
    the lengths.
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
    """Requests that wait in the queue: by path and, where given, by method and by header field.

    ``path`` is a glob over the path as it is sent, without the query: ``/reports/*/pdf``, ``/jobs/**``. No ``methods``
    means all methods. ``header`` is a field that must be present; with ``value``, it must have that value. ``wait`` is
    for how many seconds the caller waits for the reply, or None for a 202 at once.

    Raises `ValueError` for an invalid path, whose text continues a sentence that begins with the key.
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
        """Whether the rule matches a request. The names of ``fields`` are in lower case."""
        if (self.methods and method not in self.methods) or not self._matches(path):
            return False
        if self.header is None:
            return True
        name = self.header.lower().encode()
        wanted = None if self.value is None else self.value.encode()
        return any(key == name and (wanted is None or value == wanted) for key, value in fields)


def check_pattern(path: str) -> None:
    """Raise `ValueError` unless ``path`` is a glob as in `Rule`."""
    if _PATTERN.match(path) is None or "?" in path or "#" in path or len(path) > MOST_PATTERN:
        raise ValueError(f"must be a path of at most {MOST_PATTERN} visible characters, not {path!r}")
    if "**" in path.removesuffix("**") or path.endswith("***"):
        raise ValueError(f"may have ** at its end only, not {path!r}")


def check_methods(methods: Sequence[str]) -> None:
    """Raise `ValueError` unless all ``methods`` can be those of a request. Upper and lower case differ in them."""
    for method in methods:
        if method in ("CONNECT", "TRACE") or _METHOD.match(method) is None:
            raise ValueError(f"must be methods such as GET or POST, not {method!r}")
        if method not in _STANDARD and method.upper() in _STANDARD:
            raise ValueError(f"must have {method.upper()} in upper case, not {method!r}")


def check_header(name: str | None) -> None:
    """Raise `ValueError` unless ``name`` is None or a header name."""
    if name is not None and _TOKEN.match(name) is None:
        raise ValueError(f"must be the name of a header field, not {name!r}")


@attrs.frozen
class Queued:
    """The request waits in the queue. Its caller waits ``wait`` seconds for the reply; None: it gets a 202 at once."""

    wait: float | None = None


def decide(
    rules: Sequence[Rule], method: bytes, path: bytes, fields: Sequence[tuple[bytes, bytes]], prefers_async: bool
) -> Queued | None:
    """`Queued`, or None for a request that is relayed. The first rule that matches decides.

    ``prefers_async``: the client prefers ``respond-async`` (RFC 7240, section 4.1), which overrides all rules. How long
    such a client waits is in its own preferences.
    """
    if prefers_async:
        return Queued()
    if rules:
        name, text = method.decode("ascii"), path.decode("ascii", "replace")
        for rule in rules:
            if rule.matches(name, text, fields):
                return Queued(rule.wait)
    return None
