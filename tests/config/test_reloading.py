"""SIGHUP in one process: what is applied, what needs a restart, and what a bad file changes: nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from openhqm.backends import PRODUCTS
from openhqm.config.contradictions import contradictions
from openhqm.config.loading import load
from openhqm.config.model import Settings
from openhqm.config.reloading import MIXED, Reloading, changed_keys, covers
from openhqm.errors import Complaint, ConfigurationError
from openhqm.runtime.logs import text_line

FIRST = "worker: {handler: 'jobs:one'}\nproxy: {enabled: true, endpoints: {a: {url: 'http://a.test'}}}"
DEBUG = "monitoring: {log_level: DEBUG}"
BAD_FILES = {
    "no YAML": ("proxy: {", "is not YAML"),
    "no mapping": ("- proxy", "must be a mapping of sections"),
    "an unknown section": (f"{FIRST}\nsever: {{}}", "sever: unknown key"),
    "an unknown key": (FIRST.replace("url:", "uri:"), "proxy.endpoints.a.uri: unknown key"),
    "a wrong type": (FIRST.replace("'http://a.test'", "7"), "proxy.endpoints.a.url: must be a string"),
    "a bad value": (f"{FIRST}\nqueue: {{lease_seconds: 0}}", "queue.lease_seconds"),
    "no endpoint of a route": (
        f"{FIRST}\nrouting: {{routes: [{{name: r, is_default: true, endpoint: b}}]}}",
        "routing.routes.0.endpoint: there is no endpoint 'b'",
    ),
    "no default endpoint": (
        FIRST.replace("enabled: true", "enabled: true, default_endpoint: b"),
        "proxy.default_endpoint: 'b' is neither a URL nor one of the endpoints",
    ),
    "a reserved name": (FIRST.replace("a: {url", "callers: {url"), "proxy.endpoints.callers: is reserved"),
    "no variable": (FIRST.replace("a.test", "${NOWHERE}"), "proxy.endpoints.a.url: the environment has no NOWHERE"),
    "no file of a secret": (
        FIRST.replace("url: 'http://a.test'", "url: 'http://a.test', auth_token_file: /nowhere"),
        "proxy.endpoints.a.auth_token_file: cannot read /nowhere",
    ),
}


def settings(text: str, environment: Mapping[str, str] | None = None) -> Settings:
    return load("cfg.yaml", environment or {}, PRODUCTS, text.encode())


class ReloadingTests(SynchronousTestCase):
    """`Reloading`"""

    def setUp(self) -> None:
        self.text = FIRST
        self.levels: list[str] = []
        self.prepared: list[Settings] = []
        self.running: list[Settings] = []
        self.complaints: list[Complaint] = []
        self.without_effect: list[str] = []
        self.reloading = self.running_with(FIRST)
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self.note)
        self.addCleanup(globalLogPublisher.removeObserver, self.note)

    def running_with(self, text: str) -> Reloading:
        return Reloading(
            settings(text),
            lambda: settings(self.text),
            {
                "monitoring.log_level": lambda wanted: lambda: self.levels.append(wanted.monitoring.log_level),
                "proxy.endpoints": self.prepare,
                "routing": self.prepare,
            },
            check=lambda mixed: contradictions(mixed, PRODUCTS),
            without_effect=lambda key: "it is so" if key in self.without_effect else None,
        )

    def prepare(self, wanted: Settings) -> Callable[[], None]:
        self.prepared.append(wanted)
        if self.complaints:
            raise ConfigurationError(self.complaints)
        return lambda: self.running.append(wanted)

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
        self.assertEqual((self.prepared, self.levels), ([], []))

    def test_applied(self) -> None:
        """What can change while the process runs does, each time, also back to what it was at the start."""
        self.assertIn("monitoring.log_level has changed", self.reload(f"{FIRST}\n{DEBUG}"))
        self.reload(FIRST)
        self.assertEqual(self.levels, ["DEBUG", "INFO"])

    def test_section(self) -> None:
        """What is applied for a section is applied for the keys in it: changed, added and removed."""
        for text, keys in (
            (FIRST.replace("a.test", "b.test"), ["proxy.endpoints.a.url"]),
            (FIRST.replace("a: {url", "b: {url: 'http://b.test'}, a: {url"), ["proxy.endpoints.b"]),
            (FIRST.replace("a: {url", "b: {url"), ["proxy.endpoints.a", "proxy.endpoints.b"]),
        ):
            self.reload(FIRST)
            self.running.clear()
            said = self.reload(text)
            for key in keys:
                self.assertIn(f"{key} has changed", said)
            self.assertIn("all of it is applied", said)
            self.assertEqual(self.running, [settings(text)])

    def test_together(self) -> None:
        """What is for several sections prepares the changes in all of them at once, and before any is made."""
        text = FIRST.replace("a.test", "b.test")
        text += f"\nrouting: {{routes: [{{name: r, is_default: true, endpoint: a}}]}}\n{DEBUG}"
        self.reload(text)
        self.assertEqual(self.prepared, [settings(text)])
        self.assertEqual((self.running, self.levels), ([settings(text)], ["DEBUG"]))

    def test_one_cannot_be_prepared(self) -> None:
        """Where one change cannot be made, none is. Each complaint is told with its key; the next reload can do it."""
        self.complaints = [Complaint("proxy.endpoints.a.tls", "no"), Complaint("worker.handler", "cannot import x")]
        text = f"{FIRST.replace('a.test', 'b.test')}\n{DEBUG}"
        said = self.reload(text)
        self.assertIn("proxy.endpoints.a.tls: no; the process keeps its configuration", said)
        self.assertIn("worker.handler: cannot import x; the process keeps its configuration", said)
        self.assertNotIn("has changed", said)
        self.assertEqual((self.running, self.levels), ([], []))
        self.complaints = []
        self.assertIn("all of it is applied", self.reload(text))
        self.assertEqual((self.running, self.levels), ([settings(text)], ["DEBUG"]))

    def test_a_bug(self) -> None:
        """An unexpected error ends nothing and changes nothing."""
        self.patch(self.reloading, "_read", lambda: 1 / 0)
        self.assertIn("the process keeps its configuration", self.reload(FIRST))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_restart(self) -> None:
        """What cannot change is named, at every reload until it is as it was at the start; its value is not shown."""
        changed = FIRST.replace("jobs:one", "secret:two")
        for _ in range(2):
            said = self.reload(changed)
            self.assertIn("worker.handler has changed in the configuration: restart openhqm", said)
            self.assertNotIn("secret", said)
            self.assertNotIn("all of it is applied", said)
        self.assertIn("all of it is applied", self.reload(FIRST))

    def test_beside_a_restart(self) -> None:
        """What can be applied is applied beside what needs a restart, and runs with the old value of that."""
        said = self.reload(FIRST.replace("jobs:one", "jobs:two").replace("a.test", "b.test"))
        self.assertIn("proxy.endpoints.a.url has changed\n", f"{said}\n")
        self.assertIn("worker.handler has changed in the configuration: restart", said)
        self.assertEqual(self.running, [settings(FIRST.replace("a.test", "b.test"))])
        self.assertIn("worker.handler has changed in the configuration: restart", self.reload(self.text))
        self.assertEqual(len(self.running), 1)

    def test_contradiction_with_what_runs(self) -> None:
        """Sound together, but not with the old values of what needs a restart: nothing is applied."""
        partitions = "partitioning: {{enabled: true, partition_count: {}}}"
        self.reloading = self.running_with(f"{FIRST}\n{partitions.format(256)}")
        endpoints = ", ".join(f"e{number}: {{url: 'http://a.test'}}" for number in range(5))
        text = f"worker: {{handler: 'jobs:one'}}\nproxy: {{enabled: true, endpoints: {{{endpoints}}}}}\n{DEBUG}"
        said = self.reload(f"{text}\n{partitions.format(2)}")
        self.assertIn("partitioning.partition_count: makes", said)
        self.assertIn(MIXED, said)
        self.assertEqual((self.prepared, self.levels), ([], []))

    def test_without_effect(self) -> None:
        """A key that this process does not care for is not told as changed, nor as one that takes a restart."""
        self.without_effect = ["monitoring.log_level", "monitoring.log_format"]
        said = self.reload(f"{FIRST}\nmonitoring: {{log_level: DEBUG, log_format: text}}")
        for key in self.without_effect:
            self.assertIn(f"{key} has changed in the configuration, without effect: it is so", said)
        self.assertNotIn("log_level has changed\n", said)
        self.assertNotIn("restart", said)

    def test_broken(self) -> None:
        """Each error is named, and nothing is applied: not even what is right in the same file."""
        said = self.reload(f"{FIRST}\n{DEBUG}\nqueue: {{lease_seconds: 0}}\nsever: {{}}")
        self.assertIn("queue.lease_seconds", said)
        self.assertIn("sever: unknown key", said)
        self.assertEqual(said.count("; the process keeps its configuration"), 2)
        self.assertEqual(self.levels, [])

    def test_every_bad_file(self) -> None:
        """Whatever is wrong with a file, its key is named, and nothing is applied."""
        for kind, (text, expected) in BAD_FILES.items():
            said = self.reload(f"{DEBUG}\n{text}" if kind != "no mapping" else text)
            self.assertIn(expected, said, f"{kind}: {said}")
            self.assertIn("; the process keeps its configuration", said, kind)
            self.assertEqual((self.prepared, self.running, self.levels), ([], [], []), kind)


class CoversTests(SynchronousTestCase):
    """`covers`"""

    def test_whole_names(self) -> None:
        """A section covers itself and its keys, and nothing whose name only begins like it."""
        for section, key, expected in (
            ("queue.limits", "queue.limits.requests", True),
            ("queue.limits", "queue.limits", True),
            ("worker.handler", "worker.handlers", False),
            ("worker.handler", "worker.handlers.a", False),
            ("worker.handlers", "worker.handlers.a.b", True),
            ("queue.limits", "queue", False),
        ):
            self.assertEqual(covers(section, key), expected, (section, key))


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

    def test_brokers(self) -> None:
        """The keys of a broker are told as they stand in the file; of another product, that its type has changed."""
        bridges = "bridges: [{name: b, from: {broker: plant, CHANNEL}}]\nbrokers: {plant: "
        mqtt = bridges.replace("CHANNEL", "topics: [t]") + "{type: mqtt, password: secret, tls: {ca: a.pem}}}"
        kafka = bridges.replace("CHANNEL", "topic: t") + "{type: kafka}}"
        for text, keys in (
            (mqtt.replace("secret", "other"), ["brokers.plant.password"]),
            (mqtt.replace("a.pem", "b.pem"), ["brokers.plant.tls.ca"]),
            (kafka, ["brokers.plant.type", "bridges"]),
        ):
            found = changed_keys(settings(f"{FIRST}\n{mqtt}"), settings(f"{FIRST}\n{text}"))
            self.assertEqual(sorted(found), sorted(keys))
