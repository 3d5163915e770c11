"""When API keys were used last is written beside their file, and never for a request."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.ingress.key_file import KeyFile
from openhqm.ingress.key_use import WRITE_SECONDS, KeyUse
from openhqm.policy.api_keys import Key, Role, digest_of, new_key, write_keys
from openhqm.policy.key_use import read_use

NOW = 1_800_000_000


class UseTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        self.path = directory / "keys.json"
        self.secrets = [new_key(os.urandom) for _ in range(2)]
        keys = [
            Key(f"{number:012x}", digest_of(secret), "acme", frozenset({Role.SUBMIT}), 1)
            for number, secret in enumerate(self.secrets)
        ]
        self.path.write_text(write_keys(keys))
        self.path.chmod(0o600)
        self.clock, self.writes = Clock(), 0

    def run_it(self, function: Callable[[], None]) -> Deferred[None]:
        self.writes += 1
        return maybeDeferred(function)

    def opened(self) -> tuple[KeyFile, KeyUse]:
        use = KeyUse(str(self.path), self.clock, self.run_it)
        file = KeyFile(str(self.path), self.clock.seconds, lambda: NOW + self.clock.seconds(), use)
        file.open()
        use.start()
        return file, use

    def used(self) -> dict[str, int]:
        path = Path(f"{self.path}.used")
        return read_use(path.read_bytes()) if path.exists() else {}

    def test_once_a_minute(self) -> None:
        """However often keys are used, the file is written once a minute, and not at all where none was used."""
        file, use = self.opened()
        for _ in range(1000):
            assert file.caller(self.secrets[0].encode()) is not None
        self.assertEqual((self.writes, self.used()), (0, {}))
        self.clock.advance(WRITE_SECONDS)
        self.assertEqual((self.writes, self.used()), (1, {"0" * 12: NOW}))
        self.assertEqual(stat.S_IMODE(os.stat(f"{self.path}.used").st_mode), 0o600)
        for _ in range(10):
            self.clock.advance(WRITE_SECONDS)
        self.assertEqual(self.writes, 1)
        use.stop()

    def test_wrong_keys(self) -> None:
        """A wrong key leaves nothing."""
        file, use = self.opened()
        file.caller(new_key(os.urandom).encode())
        use.stop()
        self.assertEqual(self.used(), {})

    def test_at_the_end(self) -> None:
        """A process that stops writes what was used since."""
        file, use = self.opened()
        self.clock.advance(7)
        file.caller(self.secrets[1].encode())
        use.stop()
        self.assertEqual(self.used(), {f"{1:012x}": NOW + 7})

    def test_two_processes(self) -> None:
        """Processes that share the file add to it."""
        (first, one), (second, other) = self.opened(), self.opened()
        first.caller(self.secrets[0].encode())
        second.caller(self.secrets[1].encode())
        one.stop()
        other.stop()
        self.assertEqual(self.used(), {"0" * 12: NOW, f"{1:012x}": NOW})

    def test_cannot_be_written(self) -> None:
        """Where the file cannot be written, keys are good all the same, and the log says so once."""
        file, use = self.opened()
        Path(f"{self.path}.used.lock").mkdir()
        for _ in range(3):
            self.assertIsNotNone(file.caller(self.secrets[0].encode()))
            self.clock.advance(WRITE_SECONDS)
        use.stop()
        self.assertEqual((self.writes, self.used()), (3, {}))
