# -*- test-case-name: tests.http1.test_rules -*-
"""The rules that a request's head must meet before the server acts on it: RFC 9110 and 9112, read strictly.

llhttp refuses heads with malformed bytes. This module checks what the fields mean. Two servers that read one head
differently make request smuggling possible, so a head has one ``Host``, one body length and plain field names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from urllib.parse import unquote

import attrs

Headers = Sequence[tuple[bytes, bytes]]
"""Header fields as (name, value); names are in lower case."""

# Limits: the number of header fields; then bytes of one field, of the whole head, and of the request target.
MOST_HEADERS = 100
MOST_LINE = 16 * 1024
MOST_HEAD = 64 * 1024
MOST_TARGET = 8 * 1024
MALFORMED = "the request is malformed"

METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"))
REFUSED_METHODS = frozenset((b"CONNECT", b"TRACE"))

# RFC 3986, section 3.2.2, without user information. RFC 9112, section 3.2 allows an empty value.
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]{0,5})?\Z")
_ORIGIN_FORM = re.compile(rb"/[!-~]*\Z")
_ABSOLUTE_FORM = re.compile(rb"https?://[^/?#@\\]+(?=[/?]|\Z)", re.IGNORECASE)
_NOT_IN_TARGET = re.compile(rb"[#\\\"<>^`{|}]|%00|%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NAME = re.compile(rb"[!#$%&'*+\-.^`|~0-9a-z]+\Z")
# Fields that the server acts on and that have one value. Of two values, another reader might take the other one.
_ONCE = frozenset((b"content-type", b"idempotency-key"))
# Field names in nearly every request. They are valid, so the regular expression need not look at them.
_COMMON = frozenset((b"host", b"accept", b"user-agent", b"content-type", b"content-length", b"connection"))


@attrs.frozen
class Refusal(Exception):
    """A request is not served. ``status`` is the status code of the response, ``reason`` its text for the client."""

    status: int
    reason: str


@attrs.frozen
class Head:
    """The head of a valid request. ``length`` is that of the body in bytes, or None where the body is chunked."""

    method: bytes
    target: bytes
    version: bytes
    headers: Headers
    length: int | None
    expects_continue: bool
    field: Callable[[bytes], bytes | None] = attrs.field(init=False, eq=False, repr=False)
    """Returns the value of a header field by its name in lower case: the last one where the field is repeated."""

    @field.default
    def _field(self) -> Callable[[bytes], bytes | None]:
        return dict(self.headers).get


def check_head(method: bytes, target: bytes, version: str, headers: Headers) -> Head:
    """Check a request's method, target, version ("1.1") and header fields, and return them as a `Head`.

    Raises `Refusal`: 400, 405, 414, 417, 501 or 505.
    """
    if version not in ("1.1", "1.0"):
        raise Refusal(505, "the server supports HTTP/1.1 and HTTP/1.0 only")
    if method in REFUSED_METHODS:
        raise Refusal(405, "the request method is not allowed")
    if method not in METHODS:
        raise Refusal(501, "the request method is unknown")
    hosts = 0
    length: int | None = 0
    chunked = expects_continue = False
    once: set[bytes] = set()
    for name, value in headers:
        if name not in _COMMON and _NAME.match(name) is None:
            raise Refusal(400, "a header name is invalid: use letters, digits and hyphens, without underscores")
        if _CONTROL.search(value) is not None:
            raise Refusal(400, "a header value contains a control character")
        if name == b"host":
            hosts += 1
            if _HOST.match(value) is None:
                raise Refusal(400, "the Host header is malformed")
        elif name in _ONCE:
            if name in once:
                raise Refusal(400, f"the {name.decode().title()} header must not be repeated")
            once.add(name)
        elif name == b"content-length":
            if not value.isdigit() or len(value) > 18:
                raise Refusal(400, "the Content-Length header must be one number of at most 18 digits")
            length = int(value)
        elif name == b"transfer-encoding":
            # RFC 9112, section 6.1: an unknown or repeated coding leaves the length of the body in doubt.
            if chunked or value.lower() != b"chunked" or version == "1.0":
                raise Refusal(400, "the Transfer-Encoding header must be chunked alone, and needs HTTP/1.1")
            chunked = True
        elif name == b"expect":
            if value.lower() != b"100-continue":
                raise Refusal(417, "the Expect header must be 100-continue")
            expects_continue = version == "1.1"
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise Refusal(400, "the request must have exactly one Host header")
    if chunked:
        if any(name == b"content-length" for name, _ in headers):
            raise Refusal(400, "the request must not have both Content-Length and Transfer-Encoding")
        length = None
    version_bytes = b"HTTP/1.1" if version == "1.1" else b"HTTP/1.0"
    return Head(method, check_target(method, target), version_bytes, headers, length, expects_continue)


def check_target(method: bytes, target: bytes) -> bytes:
    """Check a request target and return it in origin form (RFC 9112, section 3.2.1).

    Raises `Refusal`: 414 where it is too long, 400 where it is malformed.
    """
    if len(target) > MOST_TARGET:
        raise Refusal(414, f"the request target is longer than {MOST_TARGET} bytes")
    if target == b"*" and method == b"OPTIONS":
        return target
    absolute = _ABSOLUTE_FORM.match(target)
    if absolute is not None:  # RFC 9112, section 3.2.2: a server must accept it
        target = target[absolute.end() :]
        target = target if target[:1] == b"/" else b"/" + target
    if _ORIGIN_FORM.match(target) is None or _NOT_IN_TARGET.search(target) is not None:
        raise Refusal(400, "the request target is malformed")
    if b"%" in target and not _is_utf8(target.partition(b"?")[0]):
        raise Refusal(400, "the path of the request target is not UTF-8")
    return target


def _is_utf8(path: bytes) -> bool:
    try:
        return bool(unquote(path.decode("ascii"), errors="strict"))
    except UnicodeDecodeError:
        return False
