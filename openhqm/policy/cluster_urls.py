# -*- test-case-name: tests.policy.test_cluster_urls -*-
"""URLs whose authority names several hosts, as clients of clusters write them: ``amqp://user:password@one,two:5673/``.

No RFC knows them. `urllib.parse.urlsplit` refuses the brackets of an IPv6 address behind another host, since CPython
3.11.4 and in distributions that took that change into older versions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

_END = re.compile(r"[/?#]|\Z")  # of the authority (RFC 3986, section 3.2)


def split_cluster_url(url: str) -> tuple[SplitResult, str, Sequence[str]]:
    """The parts of ``url`` without its authority, the login in that ("": none), and its hosts. `ValueError`."""
    scheme, mark, rest = url.partition("://")
    end = _END.search(rest)
    assert end is not None, "the end of the text is one"
    login, _, hosts = rest[: end.start()].rpartition("@")
    return urlsplit(f"{scheme}{mark}{rest[end.start() :]}"), login, hosts.split(",")


def split_host(text: str, port: int) -> tuple[str, int]:
    """Host and port of one of the hosts; ``port`` where it names none. `ValueError`."""
    try:
        parts = urlsplit(f"//{text}")
        return parts.hostname or "localhost", parts.port or port
    except ValueError:
        raise ValueError("has an invalid host or port") from None
