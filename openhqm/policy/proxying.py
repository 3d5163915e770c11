# -*- test-case-name: tests.policy.test_proxying -*-
"""Which header fields go through a gateway, and which ones it writes itself.

What belongs to one connection ends with it (RFC 9110, section 7.6.1), whoever is on the other side of the gateway; and
who asked, by which name and scheme, is the gateway's own word, unless a proxy that the operator trusts said so before.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

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
        # Not of one connection by name, but written anew on each: by whoever frames the body, and asks for it.
        "content-length",
        "expect",
        # No field at all, and yet a variable of CGI programs that name a proxy by it (CVE-2016-5385, "httpoxy").
        "proxy",
    )
)
"""Names, in lower case, that never go through; those that ``Connection`` names go with them."""

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
"""Names, in lower case, that say who asked, and how: a client's own word about that is not passed on."""

_DROPPED = frozenset(name.encode() for name in HOP_BY_HOP)
_NAME = re.compile(rb"[!#$%&'*+\-.^`|~0-9A-Za-z]+\Z")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")


def end_to_end(fields: Fields) -> list[tuple[bytes, bytes]]:
    """What of ``fields`` is meant for the other end, in order and as it was written. `ValueError` for a value that
    has a control character, and for a name that is none (RFC 9110, sections 5.1 and 5.5): neither is repaired.

    Left out are `HOP_BY_HOP`, all that ``Connection`` names, and names with an underscore, which many applications
    cannot tell from a hyphen. ``Cookie`` and ``Authorization`` go through: this is for the straight path, where the
    application is the one the client talks to. The queued path leaves them out, unless it was told otherwise.

    A client can have any field removed by naming it in ``Connection``. So whoever adds a field of its own adds it
    behind this, and takes ``Host`` from the head of the request.
    """
    named = {
        option.strip().lower()
        for name, value in fields
        if name.lower() == b"connection"
        for option in value.split(b",")
    }
    passed = []
    for name, value in fields:
        if b"_" in name:
            continue
        _check(name, value)
        key = name.lower()
        if key not in _DROPPED and key not in named:
            passed.append((name, value))
    return passed


def forwarded_fields(
    fields: Fields, *, peer: str | None, scheme: str, host: bytes | None, trusted: bool = False
) -> list[tuple[bytes, bytes]]:
    """``fields`` with our word on who asked: ``Forwarded`` (RFC 7239), and X-Forwarded-For, -Proto and -Host.

    ``peer`` is the address that is connected, without a port, or None where there is none (a socket in the file
    system); ``host`` is the client's ``Host``. What came under the names in `FORWARDING` is left out, unless the peer
    is ``trusted``: then its lists are kept with ours behind them, and what it said of scheme and host stands.
    `ValueError` for a host with a control character.
    """
    if host is not None:
        _check(b"host", host)
    passed = [(name, value) for name, value in fields if trusted or name.lower() not in FORWARDING]
    address = _address(peer)
    element = f"for={_node(address)};proto={scheme}"
    if host:
        element += f";host={_quoted(host.decode('latin-1'))}"
    _append(passed, b"forwarded", element.encode("latin-1"))
    if address is not None:
        _append(passed, b"x-forwarded-for", str(address).encode())
    _default(passed, b"x-forwarded-proto", scheme.encode())
    if host:
        _default(passed, b"x-forwarded-host", host)
    return passed


def _check(name: bytes, value: bytes) -> None:
    if _NAME.match(name) is None:
        raise ValueError(f"{name!r} is not the name of a header field")
    if _CONTROL.search(value) is not None:
        raise ValueError(f"the header field {name.decode()} has a control character")


def _append(fields: list[tuple[bytes, bytes]], name: bytes, value: bytes) -> None:
    """One line of it: several in a row are a list (RFC 9110, section 5.3), and not every reader knows that."""
    before = [came for key, came in fields if key.lower() == name and came]
    fields[:] = [field for field in fields if field[0].lower() != name]
    fields.append((name, b", ".join((*before, value))))


def _default(fields: list[tuple[bytes, bytes]], name: bytes, value: bytes) -> None:
    if all(key.lower() != name for key, _ in fields):
        fields.append((name, value))


def _address(peer: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    if peer is None:
        return None
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])  # a zone means nothing on another machine
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _node(address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> str:
    """RFC 7239, section 6."""
    if address is None:
        return "unknown"
    return str(address) if address.version == 4 else f'"[{address}]"'


def _quoted(text: str) -> str:
    """A token, or a quoted string (RFC 9110, section 5.6.4)."""
    if _TOKEN.match(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
