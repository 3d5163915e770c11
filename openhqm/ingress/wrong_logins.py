# -*- test-case-name: tests.ingress.test_wrong_logins -*-
"""Addresses that send wrong credentials too often: what they send is not verified any more for a while."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.logger import Logger

from openhqm.config.auth import WrongLogins as Settings
from openhqm.http1.messages import Answer
from openhqm.ingress.answers import problem
from openhqm.ingress.rate_limiting import client_network
from openhqm.policy.rate_limits import RateLimits
from openhqm.runtime.counting import Counts


class WrongLogins:
    """Counts wrong credentials and signatures against ``limits``, those of each address by themselves; None: no limit.

    A client without an address, as on a Unix socket, may be any. ``checked`` and ``unseen`` are called for each wrong
    one, as it was verified or refused without that.
    """

    _log = Logger()

    def __init__(
        self,
        limits: RateLimits | None,
        seconds: Callable[[], float],
        checked: Callable[[], object],
        unseen: Callable[[], object],
    ) -> None:
        self._limits = limits
        self._seconds = seconds
        self._checked = checked
        self._unseen = unseen
        self._refusal: tuple[int, Answer] | None = None  # the last one, and for how many seconds

    def wait(self, connection: Any) -> float:
        """For how many seconds what this client sends is not to be verified; 0: it is."""
        if self._limits is None:
            return 0.0
        network = client_network(connection.peer_host)
        return self._limits.wait(network, self._seconds()) if network else 0.0

    def note(self, connection: Any) -> None:
        """The client has sent a wrong one."""
        self._checked()
        host = connection.peer_host
        network = client_network(host)
        if network and self._limits is not None:
            self._limits.take(network, 1, self._seconds())
            if self._limits.wait(network, self._seconds()):
                self._log.warn("too many wrong credentials from {address}: they are refused unseen", address=host)

    def refusal(self, wait: float) -> Answer:
        """The answer to a client that has to wait so many seconds."""
        self._unseen()
        assert self._limits is not None, "without a limit none has to wait"
        seconds = max(1, math.ceil(wait))
        if self._refusal is None or self._refusal[0] != seconds:
            most = f"{self._limits.requests} in {self._limits.per_seconds:g} s"
            detail = f"too many wrong credentials from this address: at most {most}"
            self._refusal = seconds, problem(429, detail, fields=((b"Retry-After", b"%d" % seconds),))
        return self._refusal[1]


def make_wrong_logins(settings: Settings, seconds: Callable[[], float], registry: CollectorRegistry) -> WrongLogins:
    """What ``settings`` ask for. Its metric is registered in ``registry``."""
    limits = None if settings.requests is None else RateLimits(settings.requests, settings.per_seconds)
    counts = Counts(
        "openhqm_wrong_credentials",
        "Wrong keys, tokens and signatures of webhooks: checked, or unseen, because the address has sent too many.",
        "outcome",
        ("checked", "unseen"),
        registry,
    )
    return WrongLogins(limits, seconds, counts["checked"].inc, counts["unseen"].inc)
