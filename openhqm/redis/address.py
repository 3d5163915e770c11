# -*- test-case-name: tests.redis.test_address -*-
"""The address of a Redis, given by a URL.

::

    redis://host:6379/0                        plain
    rediss://user:password@host:6380/0?ca=FILE TLS, verified; ``ca`` is a file of trusted CAs
    unix:///run/redis/redis.sock?db=0          a socket in the file system
    redis://:password@s1:26379,s2:26379/0?sentinel=NAME&sentinel_password=...   the master that Sentinel names
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote

import attrs

from openhqm.policy.cluster_urls import split_cluster_url, split_host

PORT = 6379
SENTINEL_PORT = 26379
LONGEST_STREAM = 1024
_OPTIONS = {"db", "ca", "sentinel", "sentinel_username", "sentinel_password"}


@attrs.frozen
class Address:
    """One Redis, or the Sentinels that know it: with ``sentinel``, ``hosts`` has one entry for each of them."""

    hosts: tuple[tuple[str, int], ...] = ()
    path: str | None = None
    tls: bool = False
    ca: str | None = None
    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    database: int = 0
    sentinel: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = attrs.field(default=None, repr=False)

    def __str__(self) -> str:
        """A text for logs, without secrets."""
        if self.path is not None:
            return f"unix://{self.path}"
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        name = f" (sentinel {self.sentinel})" if self.sentinel else ""
        return f"{'rediss' if self.tls else 'redis'}://{hosts}/{self.database}{name}"


def parse_address(url: str) -> Address:
    """The address in ``url``. Raises `ValueError`, whose text does not contain the password."""
    try:
        parts, login, named = split_cluster_url(url)
        options = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError:
        raise ValueError("must be a URL like redis://localhost:6379/0") from None
    unknown = set(options) - _OPTIONS
    if unknown:
        raise ValueError(f"has unknown options: {', '.join(sorted(unknown))}")
    username, _, password = login.partition(":")
    common: dict[str, Any] = {"username": unquote(username) or None, "password": unquote(password) or None}
    if parts.scheme == "unix":
        if not parts.path or named != [""]:
            raise ValueError("must be like unix:///run/redis/redis.sock")
        return Address(path=unquote(parts.path), database=_database(options.get("db", "")), **common)
    if parts.scheme not in ("redis", "rediss"):
        raise ValueError("must begin with redis://, rediss:// or unix://")
    sentinel = options.get("sentinel")
    hosts = tuple(split_host(one, SENTINEL_PORT if sentinel else PORT) for one in named)
    if len(hosts) > 1 and not sentinel:
        raise ValueError("has several hosts, which need ?sentinel=NAME")
    tls = parts.scheme == "rediss"
    if options.get("ca") and not tls:
        raise ValueError("has the option ca, which needs rediss://")
    return Address(
        hosts=hosts,
        tls=tls,
        ca=options.get("ca"),
        database=_database(options.get("db") or parts.path.strip("/")),
        sentinel=sentinel,
        sentinel_username=options.get("sentinel_username"),
        sentinel_password=options.get("sentinel_password"),
        **common,
    )


def _database(text: str) -> int:
    if not text:
        return 0
    if not text.isascii() or not text.isdigit():
        raise ValueError("has a database that is not a number")
    return int(text)


def stream_fault(name: str) -> str | None:
    """What keeps ``name`` from being that of a stream, or None."""
    if not name:
        return "is empty"
    if len(name) > LONGEST_STREAM or not name.isprintable():
        return f"is not printable, or has more than {LONGEST_STREAM} characters"
    if "\N{REPLACEMENT CHARACTER}" in name:
        return "is not UTF-8"
    return None
