# -*- test-case-name: tests.ingress.test_admission -*-
"""Whether the body of a request is read at all, decided by its head: first by its size, and then by the site."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import attrs

from openhqm.http1.messages import Answer
from openhqm.http1.rules import Head, Refusal

BUSY = "the server is receiving as many request bodies as it can hold; try again later"


@attrs.frozen
class HeadRefused(Refusal):
    """A request that is refused for its head. ``answer`` is the response, beyond ``status`` and ``reason``."""

    answer: Answer


Admit = Callable[[Head, Any], Any]
"""Called with a head whose body is still to come, and its channel. `HeadRefused`: the body is not read. What it returns
is `FullRequest.admitted`."""


def admit_all(head: Head, connection: Any) -> None:
    """The `Admit` of a server that refuses nothing."""


class Site(Protocol):
    """What is asked of a site; see `HTTP1Site`."""

    most_body: int
    most_buffered: int
    buffered: int
    admit: Admit


def admit_head(site: Site, head: Head, connection: Any) -> Any:
    """What ``site.admit`` returns; None: there is no body. `Refusal`."""
    if head.length == 0:
        return None
    if head.length is not None and head.length > site.most_body:
        raise Refusal(413, f"the request body is longer than {site.most_body} bytes")
    if head.length and site.buffered + head.length > site.most_buffered:
        raise Refusal(503, BUSY)
    return site.admit(head, connection)
