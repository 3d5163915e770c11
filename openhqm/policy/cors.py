# -*- test-case-name: tests.policy.test_cors -*-
"""What a page of another origin may ask for (Fetch standard, section 3.2, "CORS protocol").

A browser asks first, by a request with OPTIONS, whether a page may send what is not as harmless as a form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import attrs

EVERY = "*"
_ORIGIN = re.compile(r"https?://(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[1-9]\d{0,4})?")
_DEFAULT_PORTS = (("http://", ":80"), ("https://", ":443"))
METHODS = b"GET, POST, DELETE"
ASKED = b", ".join(
    (
        *(b"Authorization", b"OpenHQM-Key", b"Content-Type", b"Accept", b"Idempotency-Key", b"Prefer"),
        *(b"Last-Event-ID", b"Cache-Control", b"traceparent", b"tracestate"),
    )
)
"""The header fields that a page may set. ``*`` would not cover Authorization."""
SHOWN = b", ".join(
    (
        *(b"Location", b"Link", b"Retry-After", b"Idempotency-Replayed", b"Preference-Applied"),
        *(b"RateLimit", b"RateLimit-Policy", b"WWW-Authenticate"),
    )
)
"""The header fields of an answer that a page may read, beside those that each may."""

Fields = tuple[tuple[bytes, bytes], ...]


def check_origins(origins: Iterable[str]) -> None:
    """`ValueError` unless each is an origin in the one form that browsers send, or ``*``."""
    for each in origins:
        usual = any(each.startswith(scheme) and each.endswith(port) for scheme, port in _DEFAULT_PORTS)
        if each != EVERY and (_ORIGIN.fullmatch(each) is None or usual):
            raise ValueError(
                f"must be origins as browsers send them, https://app.example.com or http://localhost:3000, not {each!r}"
            )


@attrs.frozen
class Cors:
    """The ``origins`` whose pages may call. ``credentials``: with cookies and client certificates of the browser.

    ``seconds`` is how long a browser may remember that it asked.
    """

    origins: frozenset[bytes]
    credentials: bool = False
    seconds: int = 600

    def allows(self, origin: bytes) -> bool:
        """Whether pages of ``origin`` may call."""
        return origin in self.origins or b"*" in self.origins

    def fields(self, origin: bytes | None) -> Fields:
        """The fields of an answer to a page of ``origin``. Caches keep the answers for different origins apart."""
        if origin is None or not self.allows(origin):
            return ((b"Vary", b"Origin"),)
        return (
            (b"Vary", b"Origin"),
            (b"Access-Control-Allow-Origin", origin),
            *(((b"Access-Control-Allow-Credentials", b"true"),) if self.credentials else ()),
            (b"Access-Control-Expose-Headers", SHOWN),
        )

    def preflight(self, field: Callable[[bytes], bytes | None]) -> Fields | None:
        """The fields of the answer to a browser that asks first; None: its page may not, or this is another request.

        ``field`` returns the value of a header field by its name.
        """
        origin = field(b"origin")
        if origin is None or field(b"access-control-request-method") is None:
            return None
        found = self.fields(origin)
        if len(found) == 1:
            return None
        return (
            *found[:-1],
            (b"Access-Control-Allow-Methods", METHODS),
            (b"Access-Control-Allow-Headers", ASKED),
            (b"Access-Control-Max-Age", b"%d" % self.seconds),
        )
