# -*- test-case-name: tests.command.test_addresses -*-
"""Where the process of this configuration listens."""

from __future__ import annotations

from collections.abc import Mapping

from openhqm.backends import PRODUCTS
from openhqm.config.loading import load

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (where it listens, it is reached by loopback)


def default_url(config: str | None, environment: Mapping[str, str]) -> str:
    """The URL of the process that runs with this configuration, on this host.

    `ConfigurationError` where it cannot be read, `ValueError` where the URL does not follow from it.
    """
    server = load(config, environment, PRODUCTS).server
    if not server.enabled:
        raise ValueError(
            "server.enabled is false, and this process answers no HTTP: ask another process that has the same store, "
            "or let this one listen on a Unix socket (server.endpoints)"
        )
    secure = server.tls.cert is not None
    if not server.endpoints:
        return _url(server.host, server.port, secure)
    for endpoint in server.endpoints:
        kind, *parts = endpoint.replace("\\:", "\0").split(":")
        named = dict(part.split("=", 1) for part in parts if "=" in part)
        plain = [part for part in parts if "=" not in part]
        if kind == "unix":
            return "unix:" + (named.get("address") or plain[0]).replace("\0", ":")
        if kind in ("tcp", "tcp6"):
            default = "::1" if kind == "tcp6" else "127.0.0.1"
            return _url(named.get("interface", default).replace("\0", ":"), int(named.get("port") or plain[0]), secure)
    raise ValueError("server.endpoints has neither tcp nor unix: say with --url where the process listens")


def _url(host: str, port: int, secure: bool) -> str:
    host = _EVERYWHERE.get(host, host)
    return f"{'https' if secure else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
