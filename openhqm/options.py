# -*- test-case-name: tests.test_service -*-
"""The command line: ``twistd -n openhqm [--config FILE] [--role ROLE] [--check] [--dry-run SAMPLE]``."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from attrs import evolve
from twisted.python.usage import Options, UsageError

from openhqm.config.contradictions import about_halves
from openhqm.config.loading import load, read_text
from openhqm.dry_run import dry_run
from openhqm.errors import CannotStart, Complaint, ConfigurationError
from openhqm.fleet.inheritance import Inheritance, Source
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

    inheritance: Inheritance | None
    source: Source

    def postOptions(self) -> None:
        """Read the configuration: every complaint on a line of its own, and an exit code of 1."""
        role = self["role"]
        if role not in ROLES:
            raise UsageError(f"--role must be {', '.join(ROLES[:-1])} or {ROLES[-1]}, not {role}")
        try:
            self.inheritance = Inheritance.take(os.environ)
            self.source = self.read(None if self.inheritance is None else self.inheritance.text)
        except (ConfigurationError, CannotStart) as error:
            for line in error.complaints if isinstance(error, ConfigurationError) else [error]:
                print(f"openhqm: {line}", file=sys.stderr)
            raise SystemExit(1) from None
        settings = self.source.settings
        if self["dry-run"] is not None:
            sample, streams = self["dry-run"], (sys.stdin.buffer, sys.stdout, sys.stderr)
            raise SystemExit(dry_run(settings.routing, sample, time.time(), *streams))
        if self.parent is not None:
            self._arrange(self.parent)

    def read(self, text: bytes | None = None) -> Source:
        """The configuration as it is now (or with ``text`` for the file), with what ``--role`` makes of it."""
        role, path = self["role"], self["config"]
        if text is None and path is not None:
            text = read_text(path)
        settings = load(path, os.environ, text)
        if role == "listener":
            settings = evolve(settings, worker=evolve(settings.worker, enabled=False))
        elif role == "worker":
            settings = evolve(settings, server=evolve(settings.server, enabled=False))
        if not settings.server.enabled and not settings.worker.enabled:
            reason = "nothing is left to do with this configuration"
            raise ConfigurationError([Complaint(f"--role {role}", reason)])
        halves = about_halves(settings)
        if halves:
            raise ConfigurationError([Complaint(f"--role {role}", f"{key}: {reason}") for key, reason in halves])
        return Source(settings, text)

    def _arrange(self, twistd: Any) -> None:
        """Log our way unless twistd was told another, and leave no pid file that outlives a kill."""
        if not (twistd.get("logger") or twistd.get("logfile") or twistd.get("syslog")):
            # twistd takes the name of a factory and imports it
            monitoring = self.source.settings.monitoring
            twistd["logger"] = f"{FACTORIES_NAME}.{monitoring.log_format}_{monitoring.log_level}"
        if twistd.get("nodaemon") and twistd.get("pidfile") == "twistd.pid":
            twistd["pidfile"] = ""
        if self.inheritance is not None:
            # The parent has done all this, and this process has it from there.
            twistd.update(nodaemon=True, pidfile="", rundir=".", chroot=None, uid=None, gid=None)
