"""What the settings of a topic mean for the requests in it."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import Future
from types import SimpleNamespace

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.errors import NotDurable
from openhqm.kafka.topics import Topic, Topics, look_at

DAY = 24 * 3_600_000


class SettingsOfATopicTests(SynchronousTestCase):
    """`look_at`"""

    def look(self, replicas: int = 3, brokers: int = 3, **values: str) -> tuple[str | None, str]:
        """The fault, and the warnings as one text."""
        topic = Topic("orders", (0, 1), replicas, brokers)
        fault, warnings = look_at(topic, {name.replace("_", "."): value for name, value in values.items()})
        return fault, " ".join(warnings)

    def test_sound(self) -> None:
        """Nothing is said of a topic that keeps what it confirms."""
        sound = {"cleanup_policy": "delete", "retention_ms": str(7 * DAY), "min_insync_replicas": "2"}
        self.assertEqual(self.look(**sound), (None, ""))
        self.assertEqual(self.look(**{**sound, "retention_ms": "-1"}), (None, ""))
        self.assertEqual(self.look(1, 1, cleanup_policy="delete"), (None, ""))

    def test_compacted(self) -> None:
        """A topic that is compacted loses requests that no worker has read: it is refused."""
        for policy in ("compact", "compact,delete"):
            fault, _ = self.look(cleanup_policy=policy)
            self.assertIn("set it to delete", fault or "")

    def test_warnings(self) -> None:
        """Short retention, one replica, and one replica in sync are warnings that say what to do."""
        for values, text in (
            ({"retention_ms": str(DAY // 4)}, "after 6 hours"),
            ({"retention_ms": "0"}, "after 0 hours"),
            ({"replicas": 1}, "one replica"),
            ({"min_insync_replicas": "1"}, "min.insync.replicas 1"),
        ):
            fault, warnings = self.look(**{"min_insync_replicas": "2", **values})  # type: ignore[arg-type]
            self.assertIsNone(fault)
            self.assertIn(text, warnings)


class StoppedTests(SynchronousTestCase):
    """`Topics`"""

    def test_stopped(self) -> None:
        """Those who wait for an answer when the client is stopped, or ask then, are told so, and no timer is left."""
        clock = Clock()
        topics = Topics({}, clock)
        topics._admin = SimpleNamespace(describe_topics=lambda asked, **more: {"a": Future()})
        asking = topics.find("a"), topics.made_again({"a": "id"})
        topics.stop()
        self.assertIn("was stopped", self.failureResultOf(asking[0], NotDurable).value.reason)
        self.assertEqual(self.successResultOf(asking[1]), [])
        self.failureResultOf(topics.find("a"), NotDurable)
        self.assertEqual(clock.getDelayedCalls(), [])


class FencedTests(SynchronousTestCase):
    def test_fenced(self) -> None:
        """A cluster that tells of no broker, for it was too slow to say that it lives, does not end the process."""
        asked = subprocess.run([sys.executable, "-m", "tests.kafka.fenced"], capture_output=True, text=True, timeout=60)
        self.assertEqual((asked.returncode, asked.stderr), (0, ""))
        self.assertIn("we live", asked.stdout)
