# -*- test-case-name: tests.test_service -*-
"""The command line: ``twistd -n openhqm [--config FILE] [--role ROLE] [--check] [--dry-run SAMPLE]``."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from attrs import evolve
from twisted.python.usage import Options, UsageError

from openhqm.config.loading import HALF_IN_MEMORY, load
from openhqm.config.model import Settings
from openhqm.dry_run import dry_run
from openhqm.errors import ConfigurationError
from openhqm.runtime.logs import FACTORIES_NAME

ROLES = ("all", "listener", "worker")


class OpenHQMOptions(Options):
    """The options of the ``openhqm`` command of twistd."""

    synopsis = "[options]"
    longdesc = "A durable queue between whoever calls over HTTP and whatever answers."
    optParameters = [
        ["config", "c", None, "YAML file; OPENHQM_* variables stand above it. Without one: defaults on loopback."],
        ["role", "r", "all", "all, listener (no workers) or worker (no HTTP)."],
        ["dry-run", None, None, "A file with a submission, or -: print which route it takes and what it becomes."],
    ]
    optFlags = [["check", None, "Validate, connect, print what the backend can promise, and end with 0 or 1."]]

    settings: Settings

    def postOptions(self) -> None:
        """Read the configuration: every complaint on a line of its own, and an exit code of 1."""
        role = self["role"]
        if role not in ROLES:
            raise UsageError(f"--role must be {', '.join(ROLES[:-1])} or {ROLES[-1]}, not {role}")
        try:
            settings = load(self["config"], os.environ)
        except ConfigurationError as error:
            for complaint in error.complaints:
                print(f"openhqm: {complaint}", file=sys.stderr)
            raise SystemExit(1) from None
        if self["dry-run"] is not None:
            sample, streams = self["dry-run"], (sys.stdin.buffer, sys.stdout, sys.stderr)
            raise SystemExit(dry_run(settings.routing, sample, time.time(), *streams))
        if role == "listener":
            settings = evolve(settings, worker=evolve(settings.worker, enabled=False))
        elif role == "worker":
            settings = evolve(settings, server=evolve(settings.server, enabled=False))
        reason = None
        if not settings.server.enabled and not settings.worker.enabled:
            reason = "nothing is left to do with this configuration"
        elif role != "all" and settings.queue.type == "memory":
            reason = f"queue.type {HALF_IN_MEMORY}"
        if reason is not None:
            print(f"openhqm: --role {role}: {reason}", file=sys.stderr)
            raise SystemExit(1)
        self.settings = settings
        if self.parent is not None:
            self._arrange(self.parent)

    def _arrange(self, twistd: Any) -> None:
        """Log our way unless twistd was told another, and leave no pid file that outlives a kill."""
        if not (twistd.get("logger") or twistd.get("logfile") or twistd.get("syslog")):
            # twistd takes the name of a factory and imports it
            monitoring = self.settings.monitoring
            twistd["logger"] = f"{FACTORIES_NAME}.{monitoring.log_format}_{monitoring.log_level}"
        if twistd.get("nodaemon") and twistd.get("pidfile") == "twistd.pid":
            twistd["pidfile"] = ""
