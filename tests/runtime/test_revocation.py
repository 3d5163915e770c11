"""Lists of revoked client certificates."""

from __future__ import annotations

import time
from pathlib import Path

from cryptography import x509
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.runtime.revocation import LOOK_SECONDS, Revocations, read_lists
from tests.authorities import Authority


class RevocationsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.authority = Authority(self.directory)
        self.clock = Clock()

    def revocations(self, path: Path) -> Revocations:
        found = Revocations(str(path), self.clock.seconds, lambda: time.time() + self.clock.seconds())
        found.open()
        return found

    def about(self, path: Path) -> tuple[bytes, int]:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        return certificate.issuer.public_bytes(), certificate.serial_number

    def test_revoked(self) -> None:
        """A certificate in the list is refused, another one is not; a list that was replaced counts a second later."""
        good, bad = self.about(self.authority.issue("good")[0]), self.authority.issue("bad")[0]
        revocations = self.revocations(self.authority.revoke())
        self.assertFalse(revocations.refuses(*good) or revocations.refuses(*self.about(bad)))
        self.authority.revoke(bad)
        self.clock.advance(LOOK_SECONDS)
        self.assertTrue(revocations.refuses(*self.about(bad)))
        self.assertFalse(revocations.refuses(*good))

    def test_expired(self) -> None:
        """Beyond its time a list says nothing any more: all of its issuer are refused, until there is a new one."""
        good = self.about(self.authority.issue("good")[0])
        revocations = self.revocations(self.authority.revoke(seconds=60))
        self.assertFalse(revocations.refuses(*good))
        self.clock.advance(61)
        self.assertTrue(revocations.refuses(*good))
        self.authority.revoke(seconds=600)
        self.clock.advance(LOOK_SECONDS)
        self.assertFalse(revocations.refuses(*good))

    def test_other_issuer(self) -> None:
        """An issuer without a list is refused: it is not known what it has revoked."""
        other = Authority(self.directory, "other")
        revocations = self.revocations(self.authority.revoke())
        self.assertTrue(revocations.refuses(*self.about(other.issue("stranger")[0])))

    def test_several(self) -> None:
        """One file may have the lists of several issuers."""
        other = Authority(self.directory, "other")
        mine, theirs = self.authority.issue("mine")[0], other.issue("theirs")[0]
        text = self.authority.revoke(mine).read_bytes() + other.revoke(name="second").read_bytes()
        both = self.directory / "both.pem"
        both.write_bytes(text)
        revocations = self.revocations(both)
        self.assertTrue(revocations.refuses(*self.about(mine)))
        self.assertFalse(revocations.refuses(*self.about(theirs)))

    def test_has_become_wrong(self) -> None:
        """A file that has become wrong, or is gone, changes nothing before the lists that were read expire."""
        good, bad = self.about(self.authority.issue("good")[0]), self.authority.issue("bad")[0]
        path = self.authority.revoke(bad, seconds=600)
        revocations = self.revocations(path)
        path.write_text("nothing")
        for _ in range(2):
            self.clock.advance(LOOK_SECONDS)
            self.assertFalse(revocations.refuses(*good))
            self.assertTrue(revocations.refuses(*self.about(bad)))
            path.unlink(missing_ok=True)
        self.clock.advance(600)
        self.assertTrue(revocations.refuses(*good))

    def test_bad_files(self) -> None:
        """What is no list is refused by the name of its file."""
        good = self.authority.revoke().read_bytes()
        bad = b"", b"text", good[:100], good.replace(b"M", b"!"), self.authority.ca.read_bytes()
        for number, content in enumerate(bad):
            path = self.directory / f"bad{number}.pem"
            path.write_bytes(content)
            self.assertIn(str(path), str(self.assertRaises(ValueError, read_lists, str(path))))
        self.assertRaises(ValueError, read_lists, str(self.directory / "nowhere"))
