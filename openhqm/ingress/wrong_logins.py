# -*- test-case-name: tests.ingress.test_wrong_logins -*-
"""Addresses that send wrong credentials too often: what they send is not verified any more for a while."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from openhqm.config.auth import WrongLogins as Settings
from openhqm.http1.messages import Answer
from openhqm.ingress.answers import problem
from openhqm.ingress.rate_limiting import client_network
from openhqm.policy.rate_limits import RateLimits


class WrongLogins:
    """Counts wrong credentials and signatures against ``limits``, those of each address by themselves.

    A client without an address, as on a Unix socket, may be any.
    """

    _log = Logger()

    def __init__(self, limits: RateLimits, seconds: Callable[[], float]) -> None:
        self._limits = limits
        self._seconds = seconds
        self._detail = (
            f"too many wrong credentials from this address: at most {limits.requests} in {limits.per_seconds:g} s"
        )

    def wait(self, connection: Any) -> float:
        """For how many seconds what this client sends is not to be verified; 0: it is."""
        network = client_network(_host(connection))
        return self._limits.wait(network, self._seconds()) if network else 0.0

    def note(self, connection: Any) -> None:
        """The client has sent a wrong one."""
        host = _host(connection)
        network = client_network(host)
        if network:
            self._limits.take(network, 1, self._seconds())
            if self._limits.wait(network, self._seconds()):
                self._log.warn("too many wrong credentials from {address}: they are refused unseen", address=host)

    def refusal(self, wait: float) -> Answer:
        """The answer to a client that has to wait so many seconds."""
        return problem(429, self._detail, fields=((b"Retry-After", b"%d" % max(1, math.ceil(wait))),))


def _host(connection: Any) -> str:
    return getattr(connection.getPeer(), "host", None) or ""


def make_wrong_logins(settings: Settings, seconds: Callable[[], float]) -> WrongLogins | None:
    """What ``settings`` ask for; None: any number."""
    if settings.requests is None:
        return None
    return WrongLogins(RateLimits(settings.requests, settings.per_seconds), seconds)
