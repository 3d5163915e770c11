# -*- test-case-name: tests.policy.test_forwarding -*-
"""The HTTP request that is sent to a target: method, URL, header fields and content."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode, urlsplit

import attrs

from openhqm.messages import Request, Submission
from openhqm.policy.field_text import field_bytes
from openhqm.policy.fields import Document
from openhqm.policy.outcome import NOT_A_SUCCESS, RETRY_ON
from openhqm.policy.proxying import FORWARDING, HOP_BY_HOP
from openhqm.policy.routing import CompiledRoute, Outgoing

TRACE = ("traceparent", "tracestate")
IDEMPOTENCY_KEY = "Idempotency-Key"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# RFC 9110, sections 9.3.1 and 9.3.2: content in these has no meaning, and servers may refuse it.
_WITHOUT_CONTENT = frozenset(("GET", "HEAD"))
_ANNOUNCE_NO_CONTENT = frozenset(("POST", "PUT", "PATCH"))  # RFC 9110, section 8.6
_OWN_PREFIX = "openhqm-"
# A cookie belongs to one client and one server. Neither is the gateway.
_NEVER = HOP_BY_HOP | {"host", "cookie", "set-cookie"}
# The gateway itself says who sent the request, and by which scheme and host.
_NOT_FROM_CALLERS = _NEVER | {name.decode() for name in FORWARDING}
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SHAPING = ("method", "path", "query")  # the metadata that shape a request
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@attrs.frozen
class Target:
    """An HTTP endpoint that requests are forwarded to.

    ``forward`` are the names, in lower case, of the caller's header fields that are forwarded (None: all that may be),
    and ``strip`` those that never are. ``headers`` are sent with every request, and replace the caller's. ``url`` None:
    each request names its own, in ``metadata.endpoint``. ``retry_on`` are the status codes after which an attempt is
    repeated, and ``failures`` those with which a request fails; with any other one it is complete. ``relays``: it is
    the application behind the sidecar.
    """

    name: str
    url: str | None
    method: str = "POST"
    headers: Mapping[str, str] = attrs.field(factory=dict)
    forward: frozenset[str] | None = frozenset()
    strip: frozenset[str] = frozenset()
    retry_on: frozenset[int] = RETRY_ON
    failures: frozenset[int] = NOT_A_SUCCESS
    relays: bool = False


class KeptFields(dict[str, str]):
    """The header fields of a response that are kept. It is shared by the responses that have the same ones.

    ``json``: they say that the body is JSON, and not compressed.
    """

    json = False


@attrs.frozen
class TargetRequest:
    """One HTTP request to a target. ``relayed``: see `is_relayed`."""

    method: str
    url: str
    headers: Mapping[str, str] = attrs.field(repr=False)  # not shown, because they may contain credentials
    content: bytes | None
    relayed: bool = False

    def raw_headers(self) -> Iterator[tuple[str, bytes]]:
        """The header fields with their values as bytes: those that a relayed request came with, and otherwise UTF-8."""
        for name, value in self.headers.items():
            yield name, field_bytes(value) if self.relayed else value.encode("utf-8")


def is_relayed(submission: Submission, target: Target) -> bool:
    """Whether a submission is a request that came to the sidecar for its application, and is sent to it as it came.

    A message from a broker may look like one. To any other endpoint its fields and its path go by that one's rules.

    Then its header fields were chosen when it was accepted, each character of a value is one byte (RFC 9110, section
    5.5: bytes above 127 are opaque), and its method and target are in ``metadata``.
    """
    metadata = submission.metadata
    return target.relays and submission.body is not None and "method" in metadata and "path" in metadata


def is_plain(submission: Submission, target: Target, route: CompiledRoute | None) -> bool:
    """Whether requests for ``target`` with such a submission differ only in their content and in what is said about an
    attempt. What else there is to send can then be made once for all of them.
    """
    return (
        route is None
        and not submission.headers
        and target.url is not None
        and not target.relays
        and submission.metadata.keys().isdisjoint(_SHAPING)
    )


def target_request(
    target: Target,
    request: Request,
    route: CompiledRoute | None,
    document: Document,
    *,
    about: Mapping[str, str],
    credentials: Mapping[str, str],
) -> TargetRequest:
    """The HTTP request for one attempt at ``request``. Raises `TransformFailed`.

    ``about`` are the gateway's own header fields about this attempt. They and ``credentials`` replace all others, but
    for an ``Idempotency-Key`` of the caller; below them, in this order, stand the endpoint's fields, the route's, and
    the caller's.
    """
    submission = request.submission
    metadata = submission.metadata
    shaped = route.outgoing(document) if route is not None else None
    relayed = is_relayed(submission, target)
    method = _method(submission, route, target, relayed)
    content = _content(submission, shaped) if relayed or method not in _WITHOUT_CONTENT else None
    if relayed and not content and method not in _ANNOUNCE_NO_CONTENT:
        content = None
    fields = _Fields()
    if content is not None and submission.body is None:
        fields.set("Content-Type", "application/json")
    if submission.headers:
        named = _named_by_connection(submission.headers.items())
        fields.update(
            (name, value)
            for name, value in submission.headers.items()
            if relayed
            or (_passes(target, name.lower()) and name.lower() not in named)
            or (submission.body is not None and name.lower() == "content-type")  # bytes have their own type or none
        )
    if shaped is not None:
        if content is shaped.content and content is not submission.payload:
            fields.set(
                "Content-Type", shaped.content_type
            )  # the caller's Content-Type describes the payload before the transform
        fields.update(shaped.headers.items())
    if content is None and not relayed:
        fields.remove("Content-Type")  # it describes the content that is not sent
    fields.update(target.headers.items())
    if submission.headers:
        fields.update((name, value) for name, value in submission.headers.items() if name.lower() in TRACE)
    fields.update(credentials.items())
    given = _given_key(submission, target)
    fields.update(about.items() if given is None else {**about, IDEMPOTENCY_KEY: given}.items())
    base = target.url or str(metadata["endpoint"])
    mapped = shaped.query if shaped else {}
    if relayed:
        url = relayed_url(base, metadata, mapped)
    else:
        url = target_url(base, metadata.get("path"), metadata.get("query"), mapped)
    return TargetRequest(method, url, fields.as_dict(), content, relayed)


def relayed_url(base: str, metadata: Mapping[str, Any], mapped: Mapping[str, str]) -> str:
    """``base``, a URL without path and query, with the target that a request came with, character for character.

    The target ``*`` adds nothing (RFC 9112, section 3.2.4). A route's ``mapped`` is added to the query.
    """
    path = str(metadata["path"])
    queries = [str(metadata["query"])] if "query" in metadata else []
    if mapped:
        queries = [*filter(None, queries), urlencode(list(mapped.items()))]
    return base.rstrip("/") + ("" if path == "*" else path) + ("?" + "&".join(queries) if queries else "")


def target_url(base: str, path: Any, query: Any, mapped: Mapping[str, str]) -> str:
    """``base`` with ``path`` below its own path, and with its own query, the caller's ``query`` and the route's
    ``mapped``.
    """
    if not path and not query and not mapped:
        return _own_url(base)
    parts = urlsplit(base)
    whole = parts.path.rstrip("/") + path if isinstance(path, str) and path else parts.path or "/"
    queries = [parts.query, query_text(query), urlencode(list(mapped.items()))]
    text = "&".join(piece for piece in queries if piece)
    return parts._replace(path=whole, query=text).geturl()


@lru_cache(maxsize=256)
def _own_url(base: str) -> str:
    parts = urlsplit(base)
    return parts._replace(path=parts.path or "/").geturl()


def query_text(query: Any) -> str:
    """A query as it stands in a URL, from text or from an object of scalars and lists. Raises `ValueError`."""
    if query is None or query == "":
        return ""
    if isinstance(query, str):
        return query
    if not isinstance(query, Mapping):
        raise ValueError("must be a string or an object")
    pairs = []
    for name, value in query.items():
        for each in value if isinstance(value, list) else [value]:
            if not isinstance(each, str | int | float):
                raise ValueError(f"{name!r} must be a string, a number, a boolean, or a list of them")
            pairs.append((name, str(each).lower() if isinstance(each, bool) else str(each)))
    return urlencode(pairs)


def reply_fields(fields: Sequence[tuple[bytes, bytes]], *, bodiless: bool = False) -> KeptFields:
    """The header fields of a response that are kept with the reply. A repeated field becomes a list (RFC 9110, section
    5.3).

    Fields that ``Connection`` names are left out (RFC 9110, section 7.6.1), and those with ``_`` in their name, which
    many applications take for a hyphen. ``Content-Length`` is kept where the response is ``bodiless``, because it then
    says something that the body does not.

    Each byte becomes one character, so that the fields can go out as they came. An invalid field (with a control
    character in it, for example) is left out: the target has done its work, and its response must not be lost.
    """
    return _kept_fields(tuple(fields), bodiless)


@lru_cache(maxsize=64)
def _kept_fields(fields: tuple[tuple[bytes, bytes], ...], bodiless: bool) -> KeptFields:
    # Cached, because a target's responses mostly have the same fields within a second.
    kept = KeptFields()
    names: dict[str, str] = {}
    texts = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]
    named = _named_by_connection(texts)
    for name, value in texts:
        key = name.lower()
        if (key in _NEVER and not (bodiless and key == "content-length")) or key in named or "_" in key:
            continue
        if _NAME.fullmatch(name) is None or _CONTROL.search(value) is not None:
            continue
        if key in names:
            kept[names[key]] += f", {value}"
        else:
            names[key] = name
            kept[name] = value
    kind = next((value for name, value in kept.items() if name.lower() == "content-type"), "")
    kind = kind.partition(";")[0].strip().lower()
    kept.json = (kind == "application/json" or kind.endswith("+json")) and "content-encoding" not in names
    return kept


class _Fields:
    """Header fields by name, without regard to case. A field that is set again is replaced."""

    def __init__(self) -> None:
        self._by_name: dict[str, tuple[str, str]] = {}

    def set(self, name: str, value: str) -> None:
        self._by_name[name.lower()] = (name, value)

    def update(self, fields: Iterable[tuple[str, str]]) -> None:
        for name, value in fields:
            self.set(name, value)

    def remove(self, name: str) -> None:
        self._by_name.pop(name.lower(), None)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def as_dict(self) -> dict[str, str]:
        return dict(self._by_name.values())


def _passes(target: Target, name: str) -> bool:
    if name in _NOT_FROM_CALLERS or name in target.strip or name.startswith(_OWN_PREFIX) or name in TRACE:
        return False
    if "_" in name:  # many applications take _ for a hyphen, and the field for one of the gateway's own
        return False
    return target.forward is None or name in target.forward


def _given_key(submission: Submission, target: Target) -> str | None:
    """The caller's own name for the request, by which its target recognises a repetition; None: it gave none."""
    for name, value in submission.headers.items():
        if name.lower() == IDEMPOTENCY_KEY.lower() and name.lower() not in target.strip:
            return value
    return None


def _named_by_connection(fields: Iterable[tuple[str, str]]) -> set[str]:
    """The fields that ``Connection`` names: they are for this connection only (RFC 9110, section 7.6.1)."""
    return {
        option.strip().lower() for name, value in fields if name.lower() == "connection" for option in value.split(",")
    }


def _method(submission: Submission, route: CompiledRoute | None, target: Target, relayed: bool) -> str:
    asked = submission.metadata.get("method")
    if relayed:
        return str(asked)  # upper and lower case differ in methods (RFC 9110, section 9.1)
    routed = route.method if route is not None else None
    return str(asked or routed or target.method).upper()


def _content(submission: Submission, shaped: Outgoing | None) -> bytes:
    if submission.body is not None:
        return submission.body
    return shaped.content if shaped is not None else submission.payload
