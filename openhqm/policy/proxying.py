# -*- test-case-name: tests.policy.test_proxying -*-
"""Which header fields a gateway forwards, and which it writes itself.

Hop-by-hop fields end with their connection (RFC 9110, section 7.6.1). Who the client is, and by which scheme and host
it asked, is written by the gateway, unless a proxy that the operator trusts has written it before.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence

Fields = Sequence[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
        # Not hop-by-hop by RFC 9110, but written by the client of each connection, which frames the body.
        "content-length",
        "expect",
        # Not a standard field. CGI programs see it as HTTP_PROXY, and use it (CVE-2016-5385, "httpoxy").
        "proxy",
    )
)
"""Names, in lower case, of fields that are never forwarded. Neither are those that ``Connection`` names."""

FORWARDING = frozenset(
    (
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-scheme",
        b"x-forwarded-server",
        b"x-forwarded-ssl",
        b"x-real-ip",
    )
)
"""Names, in lower case, of fields about the client, its scheme and its host. A client's own values are not trusted."""

_DROPPED = frozenset(name.encode() for name in HOP_BY_HOP)
_NAME = re.compile(rb"[!#$%&'*+\-.^`|~0-9A-Za-z]+\Z")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")


class TrustedProxies:
    """The peers whose fields about the client, its scheme and its host are believed: ``proxies``.

    Each is an IP address, a network (``10.0.0.0/8``), or ``unix`` for peers that connect to a socket in the file
    system. Raises `ValueError`, whose text continues a sentence that begins with the key.
    """

    def __init__(self, proxies: Iterable[str] = ()) -> None:
        self._unix = False
        self._networks = []
        for each in proxies:
            if each == "unix":
                self._unix = True
                continue
            try:
                self._networks.append(ipaddress.ip_network(each))
            except ValueError as error:
                raise ValueError(f"must be IP addresses, networks such as 10.0.0.0/8, or unix: {error}") from None

    def __call__(self, peer: str | None) -> bool:
        """Whether the peer with this IP address is trusted. None: it has connected to a socket in the file system."""
        if peer is None:
            return self._unix
        if not self._networks:
            return False
        address = _address(peer)
        return address is not None and any(address in network for network in self._networks)


NO_PROXIES = TrustedProxies()


def end_to_end(fields: Fields) -> list[tuple[bytes, bytes]]:
    """The end-to-end fields among ``fields``, in order and unchanged.

    Left out are `HOP_BY_HOP`, all fields that ``Connection`` names, and fields with an underscore in their name, which
    many applications take for a hyphen. ``Cookie`` and ``Authorization`` are forwarded: this is for relayed requests,
    where the application is the server that the client talks to. Queued requests leave them out, unless configured
    otherwise.

    A client can have any field removed by naming it in ``Connection``. So add the gateway's own fields after calling
    this, and take ``Host`` from the head of the request.

    Raises `ValueError` for an invalid name, and for a value with a control character (RFC 9110, sections 5.1 and 5.5):
    neither is repaired.
    """
    named = {
        option.strip().lower()
        for name, value in fields
        if name.lower() == b"connection"
        for option in value.split(b",")
    }
    forwarded = []
    for name, value in fields:
        if b"_" in name:
            continue
        _check(name, value)
        key = name.lower()
        if key not in _DROPPED and key not in named:
            forwarded.append((name, value))
    return forwarded


def forwarded_fields(
    fields: Fields, *, peer: str | None, scheme: str, host: bytes | None, trusted: bool = False
) -> list[tuple[bytes, bytes]]:
    """``fields`` with fields about the client: ``Forwarded`` (RFC 7239), and X-Forwarded-For, -Proto and -Host.

    ``peer`` is the client's IP address, or None where it has none (a socket in the file system); ``host`` is its
    ``Host``. Fields in `FORWARDING` are left out, unless the peer is ``trusted``: then this hop is appended to its
    lists, and its values for scheme and host stay. Raises `ValueError` for a host with a control character.
    """
    if host is not None:
        _check(b"host", host)
    forwarded = [(name, value) for name, value in fields if trusted or name.lower() not in FORWARDING]
    address = _address(peer)
    element = f"for={_node(address)};proto={scheme}"
    if host:
        element += f";host={_quoted(host.decode('latin-1'))}"
    _append(forwarded, b"forwarded", element.encode("latin-1"))
    if address is not None:
        _append(forwarded, b"x-forwarded-for", str(address).encode())
    _set_default(forwarded, b"x-forwarded-proto", scheme.encode())
    if host:
        _set_default(forwarded, b"x-forwarded-host", host)
    return forwarded


def with_via(fields: Fields, version: bytes, name: bytes) -> list[tuple[bytes, bytes]]:
    """``fields`` with this gateway in ``Via`` (RFC 9110, section 7.6.3), by which it recognises a loop.

    ``version`` is the one of the request line (``HTTP/1.1``), and ``name`` that of the gateway. The newest recipient
    comes last.
    """
    passed = [field for field in fields if field[0].lower() != b"via"]
    before = [value for key, value in fields if key.lower() == b"via"]
    passed.append((b"via", b", ".join((*before, version.removeprefix(b"HTTP/") + b" " + name))))
    return passed


def _check(name: bytes, value: bytes) -> None:
    if _NAME.match(name) is None:
        raise ValueError(f"{name!r} is not the name of a header field")
    if _CONTROL.search(value) is not None:
        raise ValueError(f"the header field {name.decode()} has a control character")


def _append(fields: list[tuple[bytes, bytes]], name: bytes, value: bytes) -> None:
    """Append ``value`` to a list field, in one line. Repeated lines would mean the same (RFC 9110, section 5.3), but
    not every application knows that.
    """
    before = [came for key, came in fields if key.lower() == name and came]
    fields[:] = [field for field in fields if field[0].lower() != name]
    fields.append((name, b", ".join((*before, value))))


def _set_default(fields: list[tuple[bytes, bytes]], name: bytes, value: bytes) -> None:
    if all(key.lower() != name for key, _ in fields):
        fields.append((name, value))


def _address(peer: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    if peer is None:
        return None
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])  # a zone has a meaning on this machine only
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _node(address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> str:
    """A node identifier (RFC 7239, section 6)."""
    if address is None:
        return "unknown"
    return str(address) if address.version == 4 else f'"[{address}]"'


def _quoted(text: str) -> str:
    """A token, or a quoted string (RFC 9110, section 5.6.4)."""
    if _TOKEN.match(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
