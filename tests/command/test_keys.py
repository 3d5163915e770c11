"""``openhqm keys``: the file of API keys."""

from __future__ import annotations

import io
import json
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from openhqm.command.main import main
from openhqm.ingress.key_file import KeyFile
from openhqm.policy.api_keys import Role, digest_of, is_key, read_keys


class KeysTests(SynchronousTestCase):
    """The command line"""

    def setUp(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        self.path = directory / "keys.json"

    def run_keys(self, action: str, *arguments: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        code = main(["keys", action, "--file", str(self.path), *arguments], {}, out, err)
        return code, out.getvalue(), err.getvalue()

    def new(self, *arguments: str) -> str:
        code, out, err = self.run_keys("new", "--tenant", "acme", "--role", "submit", *arguments)
        self.assertEqual(code, 0, err)
        self.assertTrue(is_key(out.strip()))
        return out.strip()

    def test_new(self) -> None:
        """A key is printed once, alone on standard output; the file has its digest and is for its owner only."""
        secret = self.new("--role", "read")
        (key,) = read_keys(self.path.read_text())
        self.assertEqual((key.digest, key.tenant, key.expires), (digest_of(secret), "acme", None))
        self.assertEqual(key.roles, {Role.SUBMIT, Role.READ})
        self.assertNotIn(secret, self.path.read_text())
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_list(self) -> None:
        """The list has whose key it is and what for, and neither key nor digest."""
        secret = self.new("--expires-in", "90d")
        (key,) = read_keys(self.path.read_text())
        code, out, _ = self.run_keys("list")
        self.assertEqual(code, 0)
        for text in (key.id, "acme", "submit"):
            self.assertIn(text, out)
        self.assertNotIn(secret[5:], out)
        self.assertNotIn(key.digest, out)
        assert key.expires is not None
        self.assertEqual(key.expires - key.created, 90 * 86400)

    def test_last_used(self) -> None:
        """The list says when a key was used last; unknown before any process has written that."""
        self.new()
        (key,) = read_keys(self.path.read_text())
        self.assertIn("unknown", self.run_keys("list")[1])
        used = self.path.with_name("keys.json.used")
        used.write_text('{"used": {}}')
        self.assertRegex(self.run_keys("list")[1], r"never +never")
        used.write_text(json.dumps({"used": {key.id: 1_800_000_000}}))
        self.assertIn("2027-01-15T08:00:00", self.run_keys("list")[1])

    def test_both_are_good(self) -> None:
        """While a key is rotated, both are its owner's: the old one stops by itself when the overlap is over."""
        first = self.new()
        (old,) = read_keys(self.path.read_text())
        second = self.run_keys("rotate", old.id, "--overlap", "1h")[1].strip()
        now = float(old.created)
        file = KeyFile(str(self.path), lambda: 0.0, lambda: now)
        file.open()
        callers = [file.caller(each.encode()) for each in (first, second)]
        assert callers[0] is not None and callers[1] is not None
        self.assertEqual((callers[0].tenant, callers[0].roles), (callers[1].tenant, callers[1].roles))
        now += 3700
        self.assertIsNone(file.caller(first.encode()))
        self.assertIsNotNone(file.caller(second.encode()))

    def test_rotate(self) -> None:
        """A rotated key has a successor with its roles, and is good for a while beside it."""
        self.new()
        (old,) = read_keys(self.path.read_text())
        code, out, _ = self.run_keys("rotate", old.id, "--overlap", "1h")
        self.assertEqual(code, 0)
        was, new = read_keys(self.path.read_text())
        self.assertEqual((new.digest, new.roles, new.tenant), (digest_of(out.strip()), old.roles, old.tenant))
        self.assertEqual((was.digest, new.expires), (old.digest, None))
        assert was.expires is not None
        self.assertEqual(was.expires - new.created, 3600)

    def test_revoke(self) -> None:
        """A key that is revoked is gone; with an unknown one beside it nothing is done."""
        self.new()
        self.new()
        first, second = read_keys(self.path.read_text())
        code, _, err = self.run_keys("revoke", first.id, "000000000000")
        self.assertEqual((code, len(read_keys(self.path.read_text()))), (2, 2))
        self.assertIn("000000000000", err)
        self.assertEqual(self.run_keys("revoke", first.id)[0], 0)
        self.assertEqual(read_keys(self.path.read_text()), [second])

    def test_wrong(self) -> None:
        """What is wrong is said in a line, and the file stays as it was."""
        for arguments in (
            ("list",),
            ("new", "--tenant", "A/b", "--role", "read"),
            ("new", "--tenant", "a", "--role", "root"),
            ("new", "--tenant", "a"),
            ("new", "--tenant", "a", "--role", "read", "--expires-in", "soon"),
            ("rotate", "000000000000"),
        ):
            self.assertEqual(self.run_keys(*arguments)[0], 2, arguments)
            self.assertFalse(self.path.exists(), arguments)
        self.path.write_text("{")
        code, _, err = self.run_keys("new", "--tenant", "a", "--role", "read")
        self.assertEqual((code, self.path.read_text()), (2, "{"))
        self.assertIn(str(self.path), err)

    def test_mode(self) -> None:
        """A file that its group may read stays so."""
        self.new()
        self.path.chmod(0o640)
        self.new()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o640)
