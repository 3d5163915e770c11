# -*- test-case-name: tests.test_service,tests.ingress.test_http -*-
"""The metrics of a process: what runs, its connections and certificates, and the requests that have ended."""

from __future__ import annotations

import platform
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

from openhqm import __version__
from openhqm.config.model import Settings
from openhqm.http1.site import HTTP1Site
from openhqm.ingress.certificate_metrics import CertificateMetrics
from openhqm.interfaces import IResultStore
from openhqm.runtime.counting import Counts


def register_process_metrics(
    registry: CollectorRegistry,
    site: HTTP1Site,
    store: IResultStore,
    on_redelivered: list[Callable[[], object]] | None,
    settings: Callable[[], Settings],
) -> None:
    """Register them in ``registry``, for the connections of ``site`` and the requests in ``store``.

    ``on_redelivered`` is that of the backend, ``settings`` gives those that hold now.
    """
    ProcessCollector(registry=registry)
    CertificateMetrics(settings, registry)
    build = Gauge("openhqm_build_info", "What is running.", ["version", "python"], registry=registry)
    build.labels(__version__, platform.python_version()).set(1)
    connections = Gauge("openhqm_connections", "Connections of callers that are open.", registry=registry)
    connections.set_function(lambda: len(site.connections))
    buffered = Gauge("openhqm_buffered_bytes", "Bytes of bodies that have come in part.", registry=registry)
    buffered.set_function(lambda: site.buffered)
    endings = Counts(
        "openhqm_requests",
        "Requests that have ended, by how.",
        "outcome",
        ("completed", "failed", "timeout", "cancelled"),
        registry,
    )
    store.on_ending.append(lambda key, status: endings[status.lower()].inc())
    if on_redelivered is not None:
        redelivered = Counter(
            "openhqm_redelivered",
            "Messages of requests that the broker delivered again although their work had begun before.",
            registry=registry,
        )
        on_redelivered.append(redelivered.inc)
