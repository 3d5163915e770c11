# -*- test-case-name: tests.rabbitmq.test_parts -*-
"""The address of a RabbitMQ, given by a URL.

::

    amqp://user:password@host:5672/vhost                plain; without a path the virtual host is /
    amqps://user:password@host:5671/%2F?ca=FILE         TLS, verified; ``ca`` is a file of trusted CAs
    amqp://user:password@one:5672,two:5672/vhost        nodes of one cluster, tried in turn
"""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote

import attrs

from openhqm.policy.cluster_urls import split_cluster_url, split_host

PORT = 5672
TLS_PORT = 5671
LONGEST_NAME = 255
"""In bytes: names are short strings (AMQP 0-9-1, section 4.2.5.3)."""


@attrs.frozen
class Address:
    """The nodes of a RabbitMQ, and the credentials for it."""

    hosts: tuple[tuple[str, int], ...]
    vhost: str = "/"
    tls: bool = False
    ca: str | None = None
    username: str = "guest"
    password: str = attrs.field(default="guest", repr=False)

    def __str__(self) -> str:
        """A text for logs, without secrets."""
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{'amqps' if self.tls else 'amqp'}://{hosts} (virtual host {self.vhost})"


def parse_address(url: str) -> Address:
    """The address in ``url``. Raises `ValueError`, whose text does not contain the password."""
    try:
        parts, login, hosts = split_cluster_url(url)
        options = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError:
        raise ValueError("must be a URL like amqp://user:password@localhost:5672/%2F") from None
    if parts.scheme not in ("amqp", "amqps"):
        raise ValueError("must begin with amqp:// or amqps://")
    unknown = set(options) - {"ca"}
    if unknown:
        raise ValueError(f"has unknown options: {', '.join(sorted(unknown))}")
    tls = parts.scheme == "amqps"
    if options.get("ca") and not tls:
        raise ValueError("has the option ca, which needs amqps://")
    username, _, password = login.partition(":")
    path = parts.path[1:]
    if "/" in path:
        raise ValueError("has more than one segment in its path: write a / in the name of a virtual host as %2F")
    return Address(
        hosts=tuple(split_host(one, TLS_PORT if tls else PORT) for one in hosts),
        vhost=unquote(path) or "/",
        tls=tls,
        ca=options.get("ca"),
        username=unquote(username) or "guest",
        password=unquote(password) or ("guest" if not username else ""),
    )


def queue_fault(name: str) -> str | None:
    """What keeps ``name`` from being that of a queue, or None."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "is not UTF-8"
    return "is empty" if not name else f"has more than {LONGEST_NAME} bytes" if size > LONGEST_NAME else None
