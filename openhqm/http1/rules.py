# -*- test-case-name: tests.http1.test_rules -*-
"""What a request's head must be before anybody acts on it: RFC 9110 and 9112, read strictly.

The parser (llhttp) refuses what is malformed as bytes. What is left are the rules about meaning, where two
readers that differ are how requests get smuggled: one Host, one way to tell the length, plain names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from urllib.parse import unquote

import attrs

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case."""

MOST_HEADERS = 100
MOST_LINE = 16 * 1024
MOST_HEAD = 64 * 1024
MOST_TARGET = 8 * 1024
MALFORMED = "the request is malformed"

METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"))
REFUSED_METHODS = frozenset((b"CONNECT", b"TRACE"))

# RFC 3986, section 3.2.2, without user information; and nothing at all, which RFC 9112, section 3.2 allows.
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]{0,5})?\Z")
_ORIGIN_FORM = re.compile(rb"/[!-~]*\Z")
_ABSOLUTE_FORM = re.compile(rb"https?://[^/?#@\\]+(?=[/?]|\Z)", re.IGNORECASE)
_NOT_IN_TARGET = re.compile(rb"[#\\\"<>^`{|}]|%00|%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NAME = re.compile(rb"[!#$%&'*+\-.^`|~0-9a-z]+\Z")
# What has one value, and is acted upon: with two, each reader takes the one it likes.
_ONCE = frozenset((b"content-type", b"idempotency-key"))
# Seen in nearly every request: known to be plain.
_COMMON = frozenset((b"host", b"accept", b"user-agent", b"content-type", b"content-length", b"connection"))


@attrs.frozen
class Refusal(Exception):
    """Why a request is not served: the status, and words for whoever sent it."""

    status: int
    reason: str


@attrs.frozen
class Head:
    """A request head that is sound. ``length``: of the body, or None where it is chunked."""

    method: bytes
    target: bytes
    version: bytes
    headers: Headers
    length: int | None
    expects_continue: bool
    field: Callable[[bytes], bytes | None] = attrs.field(init=False, eq=False, repr=False)
    """The value of a header field by its name in lower case; the last one, where there are several."""

    @field.default
    def _field(self) -> Callable[[bytes], bytes | None]:
        return dict(self.headers).get


def check_head(method: bytes, target: bytes, version: str, headers: Headers) -> Head:
    """The head, or `Refusal`."""
    if version not in ("1.1", "1.0"):
        raise Refusal(505, "HTTP/1.1 and HTTP/1.0 are spoken here")
    if method in REFUSED_METHODS:
        raise Refusal(405, "this method is not allowed")
    if method not in METHODS:
        raise Refusal(501, "this method is not known")
    hosts = 0
    length: int | None = 0
    chunked = expects_continue = False
    once: set[bytes] = set()
    for name, value in headers:
        if name not in _COMMON and _NAME.match(name) is None:
            raise Refusal(400, "a header name may have letters, digits and hyphens; underscores are not served")
        if _CONTROL.search(value) is not None:
            raise Refusal(400, "a header value has a control character")
        if name == b"host":
            hosts += 1
            if _HOST.match(value) is None:
                raise Refusal(400, "Host is malformed")
        elif name in _ONCE:
            if name in once:
                raise Refusal(400, f"there must be one {name.decode().title()}")
            once.add(name)
        elif name == b"content-length":
            if not value.isdigit() or len(value) > 18:
                raise Refusal(400, "Content-Length must be one number")
            length = int(value)
        elif name == b"transfer-encoding":
            # RFC 9112, section 6.1: what is not understood, or comes twice, leaves the length in doubt.
            if chunked or value.lower() != b"chunked" or version == "1.0":
                raise Refusal(400, "Transfer-Encoding must be chunked alone, in HTTP/1.1")
            chunked = True
        elif name == b"expect":
            if value.lower() != b"100-continue":
                raise Refusal(417, "only 100-continue can be expected")
            expects_continue = version == "1.1"
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise Refusal(400, "there must be one Host")
    if chunked:
        if any(name == b"content-length" for name, _ in headers):
            raise Refusal(400, "Content-Length and Transfer-Encoding exclude each other")
        length = None
    version_bytes = b"HTTP/1.1" if version == "1.1" else b"HTTP/1.0"
    return Head(method, check_target(method, target), version_bytes, headers, length, expects_continue)


def check_target(method: bytes, target: bytes) -> bytes:
    """The target in origin form; `Refusal`."""
    if len(target) > MOST_TARGET:
        raise Refusal(414, f"the target is longer than {MOST_TARGET} bytes")
    if target == b"*" and method == b"OPTIONS":
        return target
    absolute = _ABSOLUTE_FORM.match(target)
    if absolute is not None:  # RFC 9112, section 3.2.2: it must be taken
        target = target[absolute.end() :]
        target = target if target[:1] == b"/" else b"/" + target
    if _ORIGIN_FORM.match(target) is None or _NOT_IN_TARGET.search(target) is not None:
        raise Refusal(400, "the target is malformed")
    if b"%" in target and not _is_text(target.partition(b"?")[0]):
        raise Refusal(400, "the path is not UTF-8")
    return target


def _is_text(path: bytes) -> bool:
    try:
        return bool(unquote(path.decode("ascii"), errors="strict"))
    except UnicodeDecodeError:
        return False
