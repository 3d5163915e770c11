"""SIGHUP in one process: what is applied, what needs a restart, and what a bad file changes: nothing."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from openhqm.backends import PRODUCTS
from openhqm.config.loading import load
from openhqm.config.model import Settings
from openhqm.config.reloading import Reloading, changed_keys
from openhqm.runtime.logs import text_line

FIRST = "worker: {handler: 'jobs:one'}\nproxy: {enabled: true, endpoints: {a: {url: 'http://a.test'}}}"


def settings(text: str, environment: Mapping[str, str] | None = None) -> Settings:
    return load("cfg.yaml", environment or {}, PRODUCTS, text.encode())


class ReloadingTests(SynchronousTestCase):
    """`Reloading`"""

    def setUp(self) -> None:
        self.text = FIRST
        self.levels: list[str] = []
        self.reloading = Reloading(
            settings(FIRST),
            lambda: settings(self.text),
            {"monitoring.log_level": lambda changed: self.levels.append(changed.monitoring.log_level)},
        )
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self.note)
        self.addCleanup(globalLogPublisher.removeObserver, self.note)

    def note(self, event: LogEvent) -> None:
        self.lines.append(text_line(event))

    def reload(self, text: str) -> str:
        self.lines.clear()
        self.text = text
        self.reloading.reload()
        return "\n".join(self.lines)

    def test_unchanged(self) -> None:
        """Nothing has changed, and that is said."""
        self.assertIn("all of it is applied", self.reload(FIRST))

    def test_applied(self) -> None:
        """What can change while the process runs does, each time, also back to what it was at the start."""
        self.assertIn("monitoring.log_level has changed", self.reload(f"{FIRST}\nmonitoring: {{log_level: DEBUG}}"))
        self.reload(FIRST)
        self.assertEqual(self.levels, ["DEBUG", "INFO"])

    def test_restart(self) -> None:
        """What cannot change is named, at every reload until it is as it was at the start; its value is not shown."""
        changed = FIRST.replace("jobs:one", "secret:two")
        for _ in range(2):
            said = self.reload(changed)
            self.assertIn("worker.handler has changed in the configuration: restart openhqm", said)
            self.assertNotIn("secret", said)
            self.assertNotIn("all of it is applied", said)
        self.assertIn("all of it is applied", self.reload(FIRST))

    def test_broken(self) -> None:
        """Each error is named, and nothing is applied: not even what is right in the same file."""
        said = self.reload(f"{FIRST}\nmonitoring: {{log_level: DEBUG}}\nqueue: {{lease_seconds: 0}}\nsever: {{}}")
        self.assertIn("queue.lease_seconds", said)
        self.assertIn("sever: unknown key", said)
        self.assertEqual(said.count("; the process keeps its configuration"), 2)
        self.assertEqual(self.levels, [])


class ChangedKeysTests(SynchronousTestCase):
    """`changed_keys`"""

    def test_dotted(self) -> None:
        """Keys are those of the file, down to the entries of a mapping that were added, removed or changed."""
        for text, keys in (
            (FIRST, []),
            (FIRST.replace("one", "two"), ["worker.handler"]),
            (FIRST.replace("http://a.test", "http://b.test"), ["proxy.endpoints.a.url"]),
            (FIRST.replace("a: {url", "b: {url"), ["proxy.endpoints.a", "proxy.endpoints.b"]),
        ):
            self.assertEqual(changed_keys(settings(FIRST), settings(text)), keys)
