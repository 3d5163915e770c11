# -*- test-case-name: tests.ingress.test_local_access -*-
"""Who may use the routes for operators: until there are keys and roles, a program on the same host, and no one else."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.interfaces import IAddress

from openhqm.policy.networks import read_address, unwrapped
from openhqm.runtime.proxy_protocol import ProxiedAddress

LOCAL_ONLY = "this path is for programs on the same host only"
# What proxies and load balancers add to a request that they pass on, beside X-Forwarded-*.
_FORWARDED = frozenset(
    (
        b"forwarded",  # RFC 7239
        b"via",  # RFC 9110, section 7.6.3
        b"x-real-ip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-envoy-external-address",
        b"true-client-ip",
        b"cf-connecting-ip",
    )
)


def why_not_local(peer: IAddress, version: bytes, fields: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Why a request is not one of a program on this host, as a sentence for its sender; None: it is.

    ``peer`` is the other end of the connection, ``version`` that of HTTP (``HTTP/1.1``), ``fields`` are the header
    fields, with names in lower case. A Unix socket is local: the file system says who may open it.
    """
    if isinstance(peer, ProxiedAddress):
        return f"{LOCAL_ONLY}, and this connection came through a proxy"
    socket = getattr(peer, "host", None) is None
    if not socket and not _is_loopback(peer.host):  # type: ignore[attr-defined]
        return f"{LOCAL_ONLY}, and the connection is from another one"
    if version == b"HTTP/1.0":
        # nginx before 1.29.7 passes requests on in this version, and by default without a field that says so.
        return f"{LOCAL_ONLY}, and needs HTTP/1.1"
    hosts = []
    for name, value in fields:
        if name in _FORWARDED or name.startswith(b"x-forwarded-"):
            return f"{LOCAL_ONLY}, and this request came through a proxy: it has the field {name.decode('latin-1')}"
        if name == b"sec-fetch-site" and value.strip().lower() in (b"cross-site", b"same-site"):
            return f"{LOCAL_ONLY}, and a page of another origin has sent the request"
        if name == b"host":
            hosts.append(value)
    # A page may resolve the name of its own host to 127.0.0.1, and would be of the same origin as this server then.
    if not socket and not (len(hosts) == 1 and _is_loopback_host(hosts[0])):
        return f"{LOCAL_ONLY}, and the request must name it in Host: localhost, or an address such as 127.0.0.1"
    return None


def _is_loopback(address: str) -> bool:
    found = read_address(address)
    return found is not None and unwrapped(found).is_loopback


def _is_loopback_host(value: bytes) -> bool:
    host = value.strip().decode("latin-1").lower()
    if host.startswith("["):
        host, bracket, port = host[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            return False
    else:
        host = host.partition(":")[0]
    return host == "localhost" or _is_loopback(host)
