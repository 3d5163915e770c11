# -*- test-case-name: tests.http1.test_rules -*-
"""The rules that a request's head must meet before the server acts on it: RFC 9110 and 9112, read strictly.

llhttp refuses heads with malformed bytes. This module checks what the fields mean. Two servers that read one head
differently make request smuggling possible, so a head has one ``Host``, one body length and plain field names.

What the server passes on to an application is that application's to judge: there, any method and any target are passed
on that cannot change how the request is framed. The strict rules for methods and targets are for the server's own
paths.
"""

from __future__ import annotations

import ipaddress
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

METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS")
REFUSED_METHODS = frozenset((b"CONNECT", b"TRACE"))

# RFC 3986, section 3.2.2, without user information. RFC 9112, section 3.2 allows an empty value.
_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::([0-9]{0,5}))?\Z")
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_ORIGIN_FORM = re.compile(rb"/[!-~]*\Z")
_ABSOLUTE_FORM = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)
_NOT_IN_TARGET = re.compile(rb"[#\\\"<>^`{|}]|%00|%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NAME = re.compile(rb"[!#$%&'*+\-.^`|~0-9a-z]+\Z")
# Fields that the server acts on and that have one value. Of two values, another reader might take the other one.
_ONCE = frozenset((b"content-type", b"content-length", b"idempotency-key"))
CREDENTIALS = frozenset((b"authorization", b"openhqm-key"))
"""The header fields in which a client shows the server's own paths who it is."""
Credentials = tuple[tuple[bytes, bytes], ...]
"""The header fields of a request that are in `CREDENTIALS`."""
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

    credentials: Credentials = attrs.field(init=False, eq=False, repr=False)

    @field.default
    def _field(self) -> Callable[[bytes], bytes | None]:
        return dict(self.headers).get

    @credentials.default
    def _credentials(self) -> Credentials:
        return credentials_in(self.headers)


def credentials_in(headers: Headers) -> Credentials:
    """Those of ``headers`` with which a client shows who it is, in their order."""
    return tuple([field for field in headers if field[0] in CREDENTIALS])


IsOwn = Callable[[bytes], bool]
"""Whether a path, as it was sent, is one of the server's own. The others are an application's behind it."""


def always_own(path: bytes) -> bool:
    """The `IsOwn` of a server that passes nothing on."""
    return True


def check_head(method: bytes, target: bytes, version: str, headers: Headers, is_own: IsOwn = always_own) -> Head:
    """Check a request's method, target, version ("1.1") and header fields, and return them as a `Head`.

    A target in absolute form is returned in origin form, and its authority is returned as ``Host``, whatever the client
    sent there (RFC 9112, section 3.2.2). Raises `Refusal`: 400, 405, 414, 417, 501 or 505.
    """
    if version not in ("1.1", "1.0"):
        raise Refusal(505, "the server supports HTTP/1.1 and HTTP/1.0 only")
    if method in REFUSED_METHODS:
        raise Refusal(405, "the request method is not allowed")
    target, authority = split_target(method, target)
    own = is_own(target.partition(b"?")[0])
    if own:
        check_own(method, target)
    elif _TOKEN.match(method) is None:
        raise Refusal(400, MALFORMED)
    hosts = 0
    length: int | None = 0
    chunked = expects_continue = False
    once: set[bytes] = set()
    for name, value in headers:
        if name not in _COMMON and _NAME.match(name) is None and (own or _TOKEN.match(name) is None):
            raise Refusal(400, "a header name is invalid: use letters, digits and hyphens, without underscores")
        if _CONTROL.search(value) is not None:
            raise Refusal(400, "a header value contains a control character")
        if name in _ONCE:
            if name in once:
                raise Refusal(400, f"the {name.decode().title()} header must not be repeated")
            once.add(name)
        if name == b"host":
            hosts += 1
            if not is_authority(value):
                raise Refusal(400, "the Host header is malformed")
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
    if authority is not None:
        headers = [(b"host", authority), *(field for field in headers if field[0] != b"host")]
    if chunked:
        if any(name == b"content-length" for name, _ in headers):
            raise Refusal(400, "the request must not have both Content-Length and Transfer-Encoding")
        length = None
    version_bytes = b"HTTP/1.1" if version == "1.1" else b"HTTP/1.0"
    return Head(method, target, version_bytes, headers, length, expects_continue)


def is_authority(value: bytes) -> bool:
    """Whether ``value`` is a host with an optional port (RFC 3986, sections 3.2.2 and 3.2.3), or empty."""
    match = _HOST.match(value)
    if match is None or (match[2] and int(match[2]) > 65535):
        return False
    if match[1] is None:
        return True
    try:
        ipaddress.IPv6Address(match[1].decode("ascii"))
    except ValueError:
        return False
    return True


def split_target(method: bytes, target: bytes) -> tuple[bytes, bytes | None]:
    """A request target in origin form (RFC 9112, section 3.2.1), or ``*``, and the authority where it was absolute.

    Raises `Refusal`: 414 where it is too long, 400 where it is in no form that the method allows, or its authority is
    malformed or has no host.
    """
    if len(target) > MOST_TARGET:
        raise Refusal(414, f"the request target is longer than {MOST_TARGET} bytes")
    if target == b"*" and method == b"OPTIONS":
        return target, None
    authority = None
    absolute = None if target[:1] == b"/" else _ABSOLUTE_FORM.match(target)
    if absolute is not None:  # RFC 9112, section 3.2.2: a server must accept it
        authority = absolute[1]
        if not is_authority(authority) or authority[:1] in (b"", b":"):
            raise Refusal(400, "the host of the request target is malformed")
        target = target[absolute.end() :]
        if method == b"OPTIONS" and not target:  # RFC 9112, section 3.2.4
            return b"*", authority
        target = target if target[:1] == b"/" else b"/" + target
    if _ORIGIN_FORM.match(target) is None:
        raise Refusal(400, "the request target is malformed")
    return target, authority


def check_own(method: bytes, target: bytes) -> None:
    """Check the method and the target of a request for one of the server's own paths.

    Raises `Refusal`: 501 for a method that no route has, 400 for a target that is not a valid URI (RFC 3986), or whose
    path is not UTF-8.
    """
    if method not in METHODS:
        raise Refusal(501, "the request method is unknown")
    if target == b"*":
        return
    if _NOT_IN_TARGET.search(target) is not None:
        raise Refusal(400, "the request target is malformed")
    if b"%" in target and not _is_utf8(target.partition(b"?")[0]):
        raise Refusal(400, "the path of the request target is not UTF-8")


def request_target(method: bytes, url: bytes) -> bytes:
    """The target, in origin form, of a request for an http or https ``url``: what follows its authority, byte for byte.

    It is ``*`` for OPTIONS and a URL that ends with its authority (RFC 9112, section 3.2.4).
    """
    absolute = _ABSOLUTE_FORM.match(url)
    target = b"" if absolute is None else url[absolute.end() :]
    if not target:
        return b"*" if method == b"OPTIONS" else b"/"
    return target if target[:1] == b"/" else b"/" + target


def _is_utf8(path: bytes) -> bool:
    try:
        return bool(unquote(path.decode("ascii"), errors="strict"))
    except UnicodeDecodeError:
        return False
