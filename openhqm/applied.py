# -*- test-case-name: tests.config.test_reloading,tests.test_service -*-
"""What a SIGHUP applies in one process, and what has no effect in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from openhqm.backends import PRODUCTS
from openhqm.config.contradictions import contradictions
from openhqm.config.handler_rules import about_handlers
from openhqm.config.model import Settings
from openhqm.config.queue_rules import about_halves
from openhqm.config.reloading import Prepare, Reloading
from openhqm.policy.limits import Limits
from openhqm.runtime.logs import are_written_here, set_level

ASSEMBLED = (
    *("proxy.enabled", "proxy.endpoints", "proxy.default_endpoint", "proxy.caller_targets"),
    *("proxy.forward_headers", "proxy.strip_headers", "proxy.max_response_bytes", "routing"),
    *("worker.handler", "worker.handlers", "worker.executor", "worker.executors"),
    *("worker.schema", "worker.schemas"),
    "callbacks",
    *("worker.timeout_seconds", "worker.max_retries", "worker.retry"),
)
"""The keys and sections that the assembly prepares."""


def reloading(
    settings: Settings,
    read: Callable[[], Settings],
    assemble: Prepare,
    limit: Sequence[Callable[[Limits], None]] = (),
    always: Sequence[Prepare] = (),
) -> Reloading:
    """The reloading of a process that runs with ``settings``. ``assemble`` prepares what `ASSEMBLED` names.

    ``always`` is prepared also where no key has changed. Each of ``limit`` is told of other limits; none: those of the
    queue cannot change.
    """
    applied: dict[str, Prepare] = {"monitoring.log_level": _prepare_level, **dict.fromkeys(ASSEMBLED, assemble)}
    if limit:
        applied["queue.limits"] = lambda wanted: partial(_tell_all, limit, wanted.queue.limits.limits)
    return Reloading(
        settings,
        read,
        applied,
        always=always,
        check=lambda mixed: (
            *contradictions(mixed, PRODUCTS),
            *about_halves(mixed, PRODUCTS),
            *about_handlers(mixed),
        ),
        without_effect=_without_effect,
    )


def _tell_all(told: Sequence[Callable[[Limits], None]], limits: Limits) -> None:
    for tell in told:
        tell(limits)


def _prepare_level(settings: Settings) -> Callable[[], None]:
    return partial(set_level, settings.monitoring.log_level)


def _without_effect(key: str) -> str | None:
    """Why this process does not care for ``key``, whatever it says, or None."""
    if key in ("monitoring.log_level", "monitoring.log_format") and not are_written_here():
        return "the log goes where twistd's own options say"
    return None
