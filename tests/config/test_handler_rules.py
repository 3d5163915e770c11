"""What answers requests: a worker that was started without its configuration does not answer those of others."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from openhqm.config.handler_rules import echoes
from openhqm.errors import ConfigurationError
from openhqm.options import OpenHQMOptions

REDIS = "queue: {type: redis, redis_url: 'redis://127.0.0.1:1'}\n"
ENDPOINT = "proxy: {enabled: true, endpoints: {a: {url: 'http://127.0.0.1:1/'}}}\n"


class HandlerRulesTests(SynchronousTestCase):
    """`about_handlers`, as the options of a process apply it"""

    def read(self, text: str, role: str | None = None) -> OpenHQMOptions:
        path = Path(self.mktemp())
        path.write_text(text)
        options = OpenHQMOptions()
        self.patch(os, "environ", {})
        options["config"], options["role"] = str(path), role
        options.source = options.read()
        return options

    def refused(self, text: str, role: str | None = None) -> str:
        error = self.assertRaises(ConfigurationError, self.read, text, role)
        (complaint,) = error.complaints
        self.assertEqual(complaint.key, "worker.handler")
        return str(complaint)

    def test_refused(self) -> None:
        """A process that shares a queue, and has no handler and no endpoint, does not start."""
        self.assertIn("Say echo if that is meant", self.refused(REDIS))
        self.refused(REDIS, "worker")
        self.refused(REDIS + "server: {workers: 2}")
        self.refused(REDIS + ENDPOINT.replace("true", "false"), "worker")

    def test_something_answers(self) -> None:
        """A handler, handlers of operations, an endpoint or a named echo is enough; a listener needs none of them."""
        self.read(REDIS, "listener")
        for answers in (
            "worker: {handler: 'jobs:handle'}",
            "worker: {handlers: {resize: 'jobs:resize'}}",
            "worker: {handler: echo}",
            ENDPOINT,
        ):
            for role in (None, "worker"):
                self.assertFalse(echoes(self.read(REDIS + answers, role).source.settings), answers)

    def test_alone(self) -> None:
        """One process with its own file answers with the payload, until something is configured that answers."""
        for text in ("", "queue: {type: memory}", "server: {port: 8001}"):
            self.assertTrue(echoes(self.read(text).source.settings), text)
