# -*- test-case-name: tests.runtime.test_connecting -*-
"""The endpoint for a host and a port that an operator has configured: every product connects by it."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.endpoints import HostnameEndpoint

_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,253}\Z")


class _AnyHostname(HostnameEndpoint):  # type: ignore[misc]
    """Twisted's endpoint, for any name that is letters, digits, hyphens, dots and underscores.

    Twisted takes the rules of IDNA (RFC 5891) for those of all names, and fails before it looks a name up. Compose and
    Swarm make names with ``_``, and clouds names with hyphens in the third and fourth place. Which names there are is
    for the resolver to say (RFC 2181, section 11).
    """

    @staticmethod
    def _hostAsBytesAndText(host: bytes | str) -> tuple[bool, bytes, str]:
        text = host.decode("latin-1") if isinstance(host, bytes) else host
        if _PLAIN.match(text) is not None:
            return False, text.encode("ascii"), text
        return HostnameEndpoint._hostAsBytesAndText(host)  # type: ignore[no-any-return]


def host_endpoint(reactor: Any, host: bytes | str, port: int, seconds: float) -> Any:
    """A client endpoint for a host name or an IP address: it connects to the first address that answers.

    Connecting to one address takes at most ``seconds``.
    """
    return _AnyHostname(reactor, host, port, timeout=seconds)
