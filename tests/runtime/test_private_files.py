"""Files with secrets."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from openhqm.runtime.private_files import read_private


class ReadPrivateTests(SynchronousTestCase):
    """`read_private`"""

    def test_modes(self) -> None:
        """Owner and group may read; what others can read, or the group can change, is refused with the cure."""
        path = Path(self.mktemp())
        path.write_bytes(b"secret")
        for mode in (0o400, 0o600, 0o640, 0o440):
            path.chmod(mode)
            self.assertEqual(read_private(str(path), 6)[1], b"secret")
        for mode in (0o644, 0o604, 0o602, 0o601, 0o660, 0o620):
            path.chmod(mode)
            self.assertIn("chmod 640", str(self.assertRaises(ValueError, read_private, str(path), 6)))

    def test_no_file(self) -> None:
        """Something else than a file of so many bytes is refused."""
        path = Path(self.mktemp())
        self.assertIn("No such file", str(self.assertRaises(ValueError, read_private, str(path), 6)))
        self.assertRaises(ValueError, read_private, "/dev/null", 6)
        self.assertRaises(ValueError, read_private, "/", 6)
        path.write_bytes(b"secrets")
        path.chmod(0o600)
        self.assertIn("at most 6", str(self.assertRaises(ValueError, read_private, str(path), 6)))
