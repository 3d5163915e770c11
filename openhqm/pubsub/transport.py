# -*- test-case-name: tests.pubsub.test_faults -*-
"""HTTP for google-auth, which blocks: run it in a thread. It follows no redirect, and limits what it reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

import attrs

SECONDS = 10.0
MOST_BYTES = 1 << 20


@attrs.frozen
class Response:
    """As ``google.auth.transport.Response`` has it."""

    status: int
    headers: Any
    data: bytes


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        """A token goes to no other server."""


_opener = build_opener(_NoRedirects)


def request(
    url: str,
    method: str = "GET",
    body: bytes | str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | None = None,
    **more: Any,
) -> Response:
    """As ``google.auth.transport.Request`` has it. Raises its ``TransportError`` where there is no answer."""
    from google.auth.exceptions import TransportError

    data = body.encode() if isinstance(body, str) else body
    asked = Request(url, data, dict(headers or {}), method=method)  # noqa: S310, of the credentials file
    try:
        with _opener.open(asked, timeout=min(timeout or SECONDS, SECONDS)) as answer:
            return Response(answer.status, answer.headers, answer.read(MOST_BYTES))
    except HTTPError as error:
        return Response(error.code, error.headers, error.read(MOST_BYTES))
    except OSError as error:
        raise TransportError(str(error)) from error
