"""What answers requests: a worker that was started without its configuration does not answer those of others."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import ConfigurationError
from openhqm.options import OpenHQMOptions

REDIS = "queue: {type: redis, redis_url: 'redis://127.0.0.1:1'}\n"
ENDPOINT = "proxy: {enabled: true, endpoints: {a: {url: 'http://127.0.0.1:1/'}}}\n"


class HandlerRulesTests(SynchronousTestCase):
    """`about_handlers`, `about_watching` and `for_a_first_look`, as the options of a process apply them"""

    def read(
        self, text: str | None, role: str = "all", *, watch: str | None = None, **environment: str
    ) -> OpenHQMOptions:
        options = OpenHQMOptions()
        self.patch(os, "environ", environment)
        options["config"], options["role"], options["watch"] = None, role, watch
        if text is not None:
            path = Path(self.mktemp())
            path.write_text(text)
            options["config"] = str(path)
        options.source = options.read()
        return options

    def refused(self, text: str | None, role: str = "all", **environment: str) -> str:
        error = self.assertRaises(ConfigurationError, self.read, text, role, **environment)
        (complaint,) = error.complaints
        self.assertEqual(complaint.key, "worker.handler")
        return str(complaint)

    def test_refused(self) -> None:
        """A process that works, and has neither a handler nor an endpoint, does not start: whatever the rest is."""
        self.assertIn("Say echo to have them", self.refused(REDIS))
        self.refused(REDIS, "worker")
        self.refused(REDIS + "server: {workers: 2}")
        self.refused(REDIS + ENDPOINT.replace("true", "false"), "worker")
        for text in ("", "queue: {type: memory}", "server: {port: 8001}", "worker: {count: 3}", "worker: {handler: }"):
            self.refused(text)
        self.refused("worker: {handler: '${H:-}'}", H="")
        self.refused(None, "worker")
        self.refused(None, OPENHQM_SERVER__PORT="8001")
        self.refused(None, OPENHQM_WORKER__HANDLER="null")

    def test_something_answers(self) -> None:
        """A handler, handlers of operations, an endpoint or a named echo is enough; a listener needs none of them."""
        self.read(REDIS, "listener")
        self.read("", "listener")
        self.read("worker: {enabled: false}")
        for answers in (
            "worker: {handler: 'jobs:handle'}",
            "worker: {handlers: {resize: 'jobs:resize'}}",
            "worker: {handler: echo}",
            ENDPOINT,
            "proxy: {sidecar: {enabled: true, upstream: 'http://127.0.0.1:1'}}",
        ):
            for before, role in ((REDIS, "all"), (REDIS, "worker"), ("", "all"), ("", "worker")):
                self.read(before + answers, role)

    def test_a_first_look(self) -> None:
        """One process for which nothing at all is configured echoes; empty and foreign variables configure nothing."""
        foreign = {"PATH": "/bin", "OPENHQM_WORKER__HANDLER": "", "OPENHQM_PORT": "tcp://10.0.0.1:80"}
        for environment in ({}, foreign):
            options = self.read(None, **environment)
            self.assertTrue(options.unconfigured)
            self.assertEqual(options.source.settings.worker.handler, "echo")
            self.assertEqual(options.read_again().settings, options.source.settings)
        for text, role, environment in (
            ("worker: {handler: echo}", "all", {}),
            (None, "listener", {}),
            (None, "all", {"OPENHQM_WORKER__HANDLER": "echo"}),
        ):
            self.assertFalse(self.read(text, role, **environment).unconfigured)

    def test_watching(self) -> None:
        """``--watch`` is refused where it could not bring in new code, and where there is no such directory."""
        handlers = "worker: {handler: 'jobs:handle', handlers: {a: 'jobs:a', b: echo}, executors: {a: process}}"
        for text, key, directory in (
            (handlers, "worker.handler", "."),
            (handlers.replace("a: process", "a: thread").replace("'jobs:handle'", "echo"), "worker.handlers.a", "."),
            ("worker: {handler: 'jobs:handle', executor: process}", "--watch nowhere", "nowhere"),
        ):
            error = self.assertRaises(ConfigurationError, self.read, text, watch=directory)
            self.assertEqual([complaint.key for complaint in error.complaints], [key])
        self.read(f"{REDIS}server: {{workers: 2}}\n{handlers}", watch=".")
        self.read(REDIS + handlers, "listener", watch=".")
        self.read("worker: {handlers: {a: 'jobs:a', b: echo}, executor: process}", watch=".")
