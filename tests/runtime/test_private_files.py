"""Files with secrets."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from openhqm.runtime.private_files import is_secret_volume, read_private


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


# As a pod of Kubernetes, a task of Docker Swarm and a container of Compose have them; and /tmp in memory.
MOUNTS = r"""1024 1023 0:61 / / rw,relatime master:1 - overlay overlay rw,lowerdir=/a
1031 1024 0:58 / /etc/openhqm/secrets ro,relatime - tmpfs tmpfs rw,size=131072k
1032 1024 0:59 / /run/secrets/key ro,relatime - tmpfs tmpfs rw
1033 1024 259:1 /var/lib/x /etc/hosts rw,relatime - ext4 /dev/nvme0n1p1 rw
1034 1024 0:60 / /tmp rw,nosuid - tmpfs tmpfs rw
1035 1024 259:2 / /etc/openhqm/secrets/disk ro - ext4 /dev/x ro
1036 1024 0:62 / /my\040secrets ro - ramfs ramfs rw
1037 1024 0:63 / /covered ro - tmpfs tmpfs rw
1038 1024 0:64 / /covered rw - ext4 /dev/y rw
1039 1024 259:1 /home/me/token /run/secrets/token ro,relatime - ext4 /dev/nvme0n1p1 rw
half a line
"""


class SecretVolumeTests(SynchronousTestCase):
    """`is_secret_volume`"""

    def test_found(self) -> None:
        """A read-only file system in memory is one, and a file mounted by itself; the mount on top decides."""
        for path, expected in (
            ("/etc/openhqm/secrets/..2026_11_27/keys.json", True),
            ("/run/secrets/key", True),
            ("/my secrets/key", True),
            ("/run/secrets/token", True),
            ("/run/secrets/token/x", False),
            ("/etc/openhqm/secrets/disk/key", False),
            ("/etc/openhqm/secretsx/key", False),
            ("/run/secrets/keys", False),
            ("/etc/hosts", False),
            ("/tmp/key", False),  # of all users of the machine
            ("/covered/key", False),
            ("/key", False),
        ):
            self.assertIs(is_secret_volume(path, MOUNTS), expected, path)
        self.assertFalse(is_secret_volume("/key", ""))
