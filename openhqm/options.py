# -*- test-case-name: tests.test_service -*-
"""The command line: ``twistd -n openhqm [--config FILE] [--role ROLE] [--check] [--dry-run SAMPLE] [--watch DIR]``."""

from __future__ import annotations

import os
import re
import sys
import time
from typing import Any

import attrs
from attrs import evolve
from twisted.python.usage import Options, UsageError

from openhqm import __version__
from openhqm.backends import PRODUCTS
from openhqm.config.handler_rules import about_handlers, about_watching, for_a_first_look
from openhqm.config.inbox import about_the_inbox, with_inbox
from openhqm.config.loading import configures, load, read_text
from openhqm.config.queue_rules import about_halves
from openhqm.dry_run import dry_run
from openhqm.errors import CannotStart, Complaint, ConfigurationError
from openhqm.fleet.inheritance import Inheritance, Source
from openhqm.runtime.logs import FACTORIES_NAME, usual_format
from openhqm.runtime.signals import note_early_reload

ROLES = ("all", "listener", "worker")


class OpenHQMOptions(Options):
    """The options of the ``openhqm`` command of twistd."""

    synopsis = "[options]"
    longdesc = "A durable queue between HTTP callers and the code or service that answers them."
    optParameters = [
        ["config", "c", None, "YAML file; OPENHQM_* variables override it. Without a file: the defaults, on loopback."],
        ["role", "r", "all", "all, listener (without workers) or worker (without HTTP)."],
        [
            "dry-run",
            None,
            None,
            "A file with a submission, or - (standard input): print its route and what is sent.",
        ],
        ["watch", None, None, "A directory: what SIGHUP does, whenever a file in it changes. For writing handlers."],
    ]
    optFlags = [["check", None, "Check the configuration, connect, print what the backend promises, exit with 0 or 1."]]

    inheritance: Inheritance | None
    source: Source

    def opt_version(self) -> None:
        """Print the version of openhqm, and exit."""
        print(f"openhqm {__version__}")
        raise SystemExit(0)

    def parseArgs(self, *words: str) -> None:
        """There are options only."""
        if words:
            raise UsageError(f"{words[0]!r} is no option: twistd -n openhqm starts the process, without another word")

    def parseOptions(self, options: Any = None) -> None:
        """Parse the command line. Where an option is unknown that the configuration has a key for, say which."""
        note_early_reload()
        try:
            super().parseOptions(options)
        except UsageError as error:
            unknown = re.fullmatch(r"option --([a-z-]+) not recognized", str(error))
            meant = "" if unknown is None else did_you_mean(unknown[1])
            if not meant:
                raise
            raise UsageError(f"{error}. {meant}") from None

    def postOptions(self) -> None:
        """Read the configuration. Each complaint is printed on a line of its own, and the process exits with 1."""
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
            default = settings.proxy.default_endpoint if settings.proxy.enabled else None
            raise SystemExit(dry_run(settings.routing, sample, time.time(), *streams, default))
        if self.parent is not None:
            self._set_twistd_options(self.parent)

    def read(self, text: bytes | None = None) -> Source:
        """Read the configuration, and apply ``--role`` to it. ``text`` replaces the content of the file.

        `ConfigurationError` holds every complaint.
        """
        role, path = self["role"], self["config"]
        if text is None and path is not None:
            text = read_text(path)
        settings = load(path, os.environ, PRODUCTS, text, has_door=role != "worker")
        if self.unconfigured:
            settings = for_a_first_look(settings)
        if role == "listener":
            settings = evolve(settings, worker=evolve(settings.worker, enabled=False))
        elif role == "worker":
            settings = evolve(settings, server=evolve(settings.server, enabled=False))
        if not settings.server.enabled and not settings.worker.enabled:
            reason = "with this configuration the process would have neither a door nor workers"
            raise ConfigurationError([Complaint(f"--role {role}", reason)])
        halves = about_halves(settings, PRODUCTS)
        if halves:
            raise ConfigurationError([Complaint(f"--role {role}", f"{key}: {reason}") for key, reason in halves])
        works_for_others = role == "worker"
        found = [*about_handlers(settings), *(() if works_for_others else about_the_inbox(settings, PRODUCTS))]
        if self["watch"] is not None:
            found += about_watching(settings, self["watch"])
        if found:
            raise ConfigurationError([Complaint(key, reason) for key, reason in found])
        return Source(with_inbox(settings, PRODUCTS, is_a_worker=works_for_others), text)

    @property
    def unconfigured(self) -> bool:
        """Whether nothing at all is configured: no file, no role, and no variable."""
        return self["config"] is None and self["role"] == "all" and not configures(os.environ)

    def read_again(self) -> Source:
        """Read the configuration while the process runs. `ConfigurationError` also for a file that is there once.

        A pipe would be empty by now, which says that every key has its default; or hold up the process.
        """
        path = self["config"]
        if path is not None and os.path.exists(path) and not os.path.isfile(path):
            raise ConfigurationError([Complaint(path, "is no regular file, and can be read only once")])
        return self.read()

    def _set_twistd_options(self, twistd: Any) -> None:
        """Set twistd's log observer, unless its own options do, and keep it from writing a pid file in the foreground.

        The pid file of a killed process would stop the next start.
        """
        if not (twistd.get("logger") or twistd.get("logfile") or twistd.get("syslog")):
            # twistd imports the observer factory that this option names.
            monitoring = self.source.settings.monitoring
            twistd["logger"] = f"{FACTORIES_NAME}.{monitoring.log_format or usual_format()}_{monitoring.log_level}"
        if twistd.get("nodaemon") and twistd.get("pidfile") == "twistd.pid":
            twistd["pidfile"] = ""
        if self.inheritance is not None:
            # The parent has done all this before it started this process.
            twistd.update(nodaemon=True, pidfile="", rundir=".", chroot=None, uid=None, gid=None)


def did_you_mean(option: str) -> str:
    """The keys that are called like an option which there is not, as a question; nothing where there are none."""
    keys = _keys_named(option.replace("-", "_"))
    variables = " or ".join(f"OPENHQM_{key.upper().replace('.', '__')}" for key in keys)
    return f"Did you mean {' or '.join(keys)} in the file, or the variable {variables}?" if keys else ""


def _keys_named(name: str) -> list[str]:
    """The keys of the configuration's sections whose last part is ``name``."""
    settings = load(None, {}, PRODUCTS)
    sections = [(field.name, getattr(settings, field.name)) for field in attrs.fields(type(settings))]
    return [f"{each}.{name}" for each, section in sections if attrs.has(type(section)) and hasattr(section, name)]
