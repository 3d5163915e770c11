# -*- test-case-name: tests.test_announcing,tests.runtime.test_systemd -*-
"""Tells the log and systemd when this process is ready, reads its configuration again, and stops."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from twisted.logger import Logger

from openhqm import __version__
from openhqm.config.endpoints import Endpoint
from openhqm.config.model import Settings
from openhqm.interfaces import IMessageQueue
from openhqm.runtime.readiness import Readiness
from openhqm.runtime.systemd import Systemd


class Announcing:
    """``ports`` are those that the process listens on, once it does."""

    _log = Logger()

    def __init__(
        self,
        settings: Settings,
        queue: IMessageQueue,
        ports: Sequence[Any],
        environment: MutableMapping[str, str],
        reactor: Any,
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._ports = ports
        self._scheme = "http" if settings.server.tls.cert is None else "https"
        self._stopping = False
        self._systemd = Systemd(environment, reactor)
        self._readiness = Readiness(reactor, lambda: queue.unavailable_reason, self._is_ready)

    def serving(self, outcome: object = None) -> None:
        """The process does all it can do: say that it is ready once the queue is."""
        if not self._stopping:
            self._readiness.start()

    def reload(self, read: Callable[[], None]) -> None:
        """Call ``read``, which reads the configuration again."""
        self._systemd.reloading()
        read()
        if not self._stopping:
            self._systemd.ready()

    def stopping(self) -> None:
        """The process begins to stop."""
        self._stopping = True
        self._readiness.stop()
        self._systemd.stopping()

    def stop(self) -> None:
        """The process has stopped."""
        self._systemd.stop()

    def _is_ready(self) -> None:
        worker = self._settings.worker
        self._log.info(
            "openhqm {version} is ready: {port}; queue {queue}, {durable}; {handler}",
            version=__version__,
            port=", ".join(self._url(port.getHost()) for port in self._ports) or "no door: this process is a worker",
            queue=self._settings.queue.type,
            durable="durable" if self._queue.traits.durable else "not durable",
            handler=answers(self._settings) if worker.enabled else "no workers in this process",
        )
        self._systemd.ready()

    def _url(self, address: Any) -> str:
        """Where a port listens: a URL, or the path of a socket."""
        host = getattr(address, "host", None)
        if host is None:
            return str(address)
        return f"{self._scheme}://{f'[{host}]' if ':' in host else host}:{address.port}"


def answers(settings: Settings) -> str:
    """What answers requests, for a person."""
    endpoints = [_endpoint(name, settings.proxy.all_endpoints.get(name)) for name in settings.proxy.names]
    found = [settings.worker.handler or "", *settings.worker.handlers.values(), *endpoints]
    return f"answered by {', '.join(filter(None, found))}"


def _endpoint(name: str, endpoint: Endpoint | None) -> str:
    """An endpoint with where it leads: no more of a URL than its server, for the rest may hold secrets."""
    if endpoint is None:
        return name
    if endpoint.publish is not None:
        return f"{name} (broker {endpoint.publish.broker})"
    url = urlsplit(endpoint.url)
    return f"{name} ({url.scheme}://{url.netloc.rpartition('@')[2]})"
