# -*- test-case-name: tests.test_service -*-
"""Puts together what serves HTTP: the routes, the ways past them for what is asked often, and the sidecar."""

from __future__ import annotations

from functools import partial
from typing import Any

from openhqm.config.model import Settings
from openhqm.delivery.ending_streams import EndingStreams
from openhqm.delivery.streams import EventStreams
from openhqm.http1.access import AccessLog
from openhqm.http1.admission import Admit
from openhqm.http1.rules import always_own
from openhqm.http1.send_budget import SendBudget
from openhqm.http1.site import HTTP1Site
from openhqm.ingress.admission import Admission
from openhqm.ingress.authentication import Authentication
from openhqm.ingress.clients import Clients
from openhqm.ingress.common_limits import CommonLimits
from openhqm.ingress.dead_letters import DeadLetters
from openhqm.ingress.door import Door
from openhqm.ingress.fast_path import FastPath, refused
from openhqm.ingress.health import Health
from openhqm.ingress.hooks import Hooks
from openhqm.ingress.metrics import DoorMetrics
from openhqm.ingress.rate_limiting import make_limiter
from openhqm.ingress.routes import Routes
from openhqm.ingress.sidecar import Sidecar
from openhqm.ingress.web_sockets import WebSockets
from openhqm.policy.proxying import TrustedProxies
from openhqm.queue.backend import CountTaken


def make_site(
    settings: Settings,
    reactor: Any,
    door: Door,
    streams: EventStreams,
    ending_streams: EndingStreams | None,
    health: Health,
    letters: DeadLetters | None,
    authentication: Authentication,
    sidecar: Sidecar | None,
    metrics: DoorMetrics,
    send_budget: SendBudget,
    note: AccessLog | None,
    count_taken: CountTaken | None,
) -> tuple[HTTP1Site, WebSockets, CommonLimits]:
    """The site that ``settings`` ask for, the WebSockets on it, and the limits that all processes keep together.

    ``note`` takes the lines of the access log.
    """
    server = settings.server
    cors, access = settings.cors.cors, authentication.access
    limiter = make_limiter(settings.rate_limit, settings.tenants, reactor, partial(metrics.count, "limited"))
    hooks = Hooks(settings.hooks, door, authentication.wrong)
    routes = Routes(door, streams, health, letters, settings.own_paths(), access, cors, limiter, hooks, ending_streams)
    web_sockets = WebSockets(
        door, streams, ending_streams, reactor, server.max_body_bytes, metrics.open_sockets.set, access, cors, limiter
    )
    fast_path = web_sockets.fast_path(FastPath(door, streams, access, cors, limiter, ending_streams))
    whole = fast_path if sidecar is None else sidecar.fast_path(fast_path)
    admit: Admit = Admission(settings.own_paths(), access, cors, limiter, hooks)
    if server.trusted_proxies:
        clients = Clients(TrustedProxies(server.trusted_proxies))
        whole, admit = clients.fast_path(whole), clients.admit(admit)
    site = HTTP1Site(
        routes.resource(server.tls.hsts_seconds),
        reactor,
        whole,
        refused,
        server.max_body_bytes,
        None if sidecar is None else sidecar.select_sink,
        server.max_connections,
        server.max_buffered_bytes,
        note,
        always_own if sidecar is None else sidecar.is_own,
        send_budget,
        admit,
    )
    return site, web_sockets, CommonLimits(count_taken, reactor, () if limiter is None else limiter.limits)
