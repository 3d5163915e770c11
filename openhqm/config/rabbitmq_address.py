# -*- test-case-name: tests.rabbitmq.test_parts -*-
"""Where RabbitMQ is found: what a URL says.

::

    amqp://user:password@host:5672/vhost                plain; without a path the virtual host is /
    amqps://user:password@host:5671/%2F?ca=FILE         TLS, verified; ``ca`` for an authority of one's own
    amqp://user:password@one:5672,two:5672/vhost        nodes of one cluster, tried in turn
"""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

import attrs

PORT = 5672
TLS_PORT = 5671


@attrs.frozen
class Address:
    """The nodes of one RabbitMQ, and who we are there."""

    hosts: tuple[tuple[str, int], ...]
    vhost: str = "/"
    tls: bool = False
    ca: str | None = None
    username: str = "guest"
    password: str = attrs.field(default="guest", repr=False)

    def __str__(self) -> str:
        """For people: without anything secret."""
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{'amqps' if self.tls else 'amqp'}://{hosts} (virtual host {self.vhost})"


def parse_address(url: str) -> Address:
    """The address in ``url``; `ValueError` with words that do not repeat the password."""
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError:
        raise ValueError("must be a URL like amqp://user:password@localhost:5672/%2F") from None
    if parts.scheme not in ("amqp", "amqps"):
        raise ValueError("must begin with amqp:// or amqps://")
    strange = set(options) - {"ca"}
    if strange:
        raise ValueError(f"has options that are not known: {', '.join(sorted(strange))}")
    tls = parts.scheme == "amqps"
    if options.get("ca") and not tls:
        raise ValueError("has ca, which only amqps:// uses")
    login, _, place = parts.netloc.rpartition("@")
    username, _, password = login.partition(":")
    path = parts.path[1:]
    if "/" in path:
        raise ValueError("has more than one part in its path; a / in the name of a virtual host is written %2F")
    return Address(
        hosts=tuple(_host(one, TLS_PORT if tls else PORT) for one in place.split(",")),
        vhost=unquote(path) or "/",
        tls=tls,
        ca=options.get("ca"),
        username=unquote(username) or "guest",
        password=unquote(password) or ("guest" if not username else ""),
    )


def _host(text: str, port: int) -> tuple[str, int]:
    # urlsplit knows brackets around IPv6 and what a port may be; it is asked for one host at a time.
    try:
        parts = urlsplit(f"//{text}")
        return parts.hostname or "localhost", parts.port or port
    except ValueError:
        raise ValueError("has a host or port that is none") from None
